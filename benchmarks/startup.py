"""How long until `initialize` is answered: this server beside a one-tool server of the bare SDK, over stdio.

    python benchmarks/startup.py [--rounds 15]

Both are started in turn, so that whatever else the machine does hits both alike. Exits 1 when the median of this
server is more than 1.3 times that of the bare one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

LIMIT = 1.3

BARE = """
from mcp.server import MCPServer

server = MCPServer("bare")

@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

server.run()
"""

SERVERS = {
    "bare SDK": [sys.executable, "-c", BARE],
    "autoresearch": [sys.executable, "-m", "mcp_server", "serve"],
}

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "startup", "version": "1"},
    },
}


def seconds_to_answer(command: list[str], folder: str) -> float:
    """Start a server and wait for its answer to `initialize`."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(INITIALIZE) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    took = time.perf_counter() - began
    errors = process.communicate()[1]
    if "result" not in json.loads(answer or "{}"):
        raise SystemExit(f"{' '.join(command[:4])} did not answer: {answer or errors}")
    return took


def main() -> int:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    took: dict[str, list[float]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, command in SERVERS.items():
                seconds = seconds_to_answer(command, folder)
                if turn:  # the first round warms the file cache
                    took[name].append(seconds)
    medians = {name: statistics.median(times) for name, times in took.items()}
    ratio = medians["autoresearch"] / medians["bare SDK"]
    for name, median in medians.items():
        print(f"{name:14} {median * 1000:6.0f} ms  (fastest {min(took[name]) * 1000:.0f} ms, {rounds} rounds)")
    print(f"{'ratio':14} {ratio:6.2f}     (limit {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
