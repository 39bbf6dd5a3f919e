# The loop of an agent of n-autoresearch, with the commands of its published instructions. Only PORT is ours, and the
# values that the instructions leave open are filled in. Every answer is a line of answers.jsonl.
set -euo pipefail
note() { tee -a answers.jsonl; echo >> answers.jsonl; }
field() { tail -n 1 answers.jsonl | python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }

curl -X POST http://localhost:$PORT/api/experiment/setup -d '{"tag":"mar11"}' | note
git checkout -b autoresearch/mar11

# 1. Get search guidance
curl -X POST http://localhost:$PORT/api/search/suggest -d '{"tag":"mar11"}' | note

# 3. Git commit + Register
echo "DEPTH = 12" >> train.py
git add train.py && git commit -m "experiment: increase depth 8->12"
COMMIT=$(git rev-parse --short HEAD)
curl -X POST http://localhost:$PORT/api/experiment/register -d '{
  "tag": "mar11",
  "hypothesis": "Increasing depth from 8 to 12 should lower BPB due to more representational capacity",
  "description": "increase depth 8->12",
  "category": "architecture",
  "commit_sha": "'$COMMIT'",
  "diff_summary": "DEPTH=8 -> DEPTH=12",
  "parent_id": null
}' | note
FIRST=$(field experiment_id)

# Multi-GPU mode
curl -X POST http://localhost:$PORT/api/pool/register -d '{"gpu_id":"gpu-3","gpu_index":3,"gpu_name":"RTX 4090","vram_mb":24564}' | note
curl http://localhost:$PORT/api/pool/list | note
curl -X POST http://localhost:$PORT/api/pool/acquire -d '{"experiment_id":"'$FIRST'"}' | note
GPU=$(field gpu_id)
curl -X POST http://localhost:$PORT/api/pool/release -d '{"gpu_id":"'$GPU'"}' | note

# 6. Record completion
curl -X POST http://localhost:$PORT/api/experiment/complete -d '{
  "experiment_id": "'$FIRST'",
  "val_bpb": 0.997900,
  "peak_vram_mb": 45060.2,
  "training_seconds": 300.1,
  "total_tokens_m": 499.6,
  "mfu_percent": 39.80,
  "num_steps": 953,
  "num_params_m": 50.3,
  "depth": 8
}' | note

# A training that crashed, after which the agent goes back
echo "BATCH = 512" >> train.py
git add train.py && git commit -m "experiment: larger batch"
curl -X POST http://localhost:$PORT/api/experiment/register -d '{"tag":"mar11","hypothesis":"larger batch","description":"larger batch","category":"hyperparams","commit_sha":"'$(git rev-parse --short HEAD)'","diff_summary":"BATCH","parent_id":"'$FIRST'"}' | note
SECOND=$(field experiment_id)
curl -X POST http://localhost:$PORT/api/experiment/crash -d '{
  "experiment_id": "'$SECOND'",
  "error": "RuntimeError: CUDA out of memory..."
}' | note
git reset --hard HEAD~1

# Monitoring
curl -X POST http://localhost:$PORT/api/report/summary -d '{"tag":"mar11"}' | note
curl -X POST http://localhost:$PORT/api/report/tsv -d '{"tag":"mar11"}' | note
curl -X POST http://localhost:$PORT/api/report/diff -d '{"experiment_a":"'$FIRST'","experiment_b":"'$SECOND'"}' | note
curl -X POST http://localhost:$PORT/api/experiment/best -d '{"tag":"mar11"}' | note
curl -X POST http://localhost:$PORT/api/experiment/near-misses -d '{"tag":"mar11"}' | note
