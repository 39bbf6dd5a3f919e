"""Finding the data that git does not track, noticing that it changed, and telling that it is missing."""

import os
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput
from mcp_server.machine.git import Repository, check_out, expand_inputs, find_inputs, missing_hint, state_of


def fill(folder: Path, *paths: str, size: int = 10) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x" * size)


def test_data_is_found_and_the_rest_left_out(repository: Repository, folder: Path) -> None:
    fill(folder, "fineweb10B/shard 1.bin", "fineweb10B/shard 2.bin", "input.txt", "tiny.csv", "src/vocab.model")
    fill(folder, "pretrained/gpt2/config.json", "my_dataset/labels.txt", "corpus.txt", "ünï.npy")
    fill(folder, "big.json", size=60_000)
    fill(folder, ".venv/lib/x.bin", "venv/pyvenv.cfg", "models2/pyvenv.cfg", "models2/lib/a.npy", "__pycache__/a.bin")
    fill(
        folder, ".env", ".cache/x.bin", "credentials.json", "id_rsa", "server.pem", "api_key.txt", ".autoresearch/s.db"
    )
    (folder / "earlier.csv").write_text("commit,loss,status,description\na1b2c3d,1.0,keep,as it was\n")
    fill(folder, "results.tsv", "run.log", "notes.txt", "wandb/run.bin", "build/x.bin", "outputs/model.pt")
    fill(folder, "scratch/code.py", "scratch/old.py", size=500)
    fill(folder, "scratch/one.bin")
    (folder / "empty").mkdir()
    (folder / "mounted_data").symlink_to(folder / "fineweb10B")
    (folder / "dangling.bin").symlink_to("nowhere")
    data, others = find_inputs(repository)
    assert others == ["scratch"]
    found = {one.path: (one.files, one.bytes) for one in data}
    assert found == {
        "big.json": (1, 60_000),
        "corpus.txt": (1, 10),
        "data": (1, 1000),
        "fineweb10B": (2, 20),
        "input.txt": (1, 10),
        "mounted_data": (2, 20),
        "my_dataset": (1, 10),
        "pretrained": (1, 10),
        "src/vocab.model": (1, 10),
        "tiny.csv": (1, 10),
        "ünï.npy": (1, 10),
    }


def test_folders_of_data_have_many_names(repository: Repository, folder: Path) -> None:
    known = ["MNIST/raw/train-images-idx3-ubyte", "cifar-10-batches-py/data_batch_1", "extdata/u.txt", "ml-100k/u.data"]
    told = [
        "birds/1.jpg",
        "birds/2.JPEG",
        "penn/train.txt",
        "penn/valid.txt",
        "sounds/a.ogg",
        "vocab.json",
        "names.txt",
    ]
    fill(folder, *known, *told)
    fill(folder, "plots/loss.png", "samples/1.png", "thoughts/a.md")
    data, others = find_inputs(repository)
    assert {one.path for one in data} - {"data"} == {path.split("/")[0] for path in (*known, *told)}
    assert others == ["thoughts"]


def test_globs_expand_to_existing_paths(repository: Repository, folder: Path) -> None:
    fill(folder, "data/val/a.bin", "other/b.npy", "other/deep/c.npy")

    def expand(*patterns: str) -> list[str]:
        return [one.path for one in expand_inputs(repository, patterns)]

    assert expand("data") == expand("data/") == expand("./data", "data/tokens.bin") == expand("data/**") == ["data"]
    assert expand("other/**/*.npy", "data/*.bin") == ["data/tokens.bin", "other/b.npy", "other/deep/c.npy"]
    assert expand() == []
    for pattern in ("corpus", "../*", "/etc", ".git", "", "*.none", ".g*t"):
        with pytest.raises(InvalidInput):
            expand(pattern)


def test_changed_inputs_are_noticed(repository: Repository, folder: Path) -> None:
    fill(folder, "one.bin", "corpus/a.txt", "corpus/b.txt")
    names = ["one.bin", "corpus", "absent"]
    before = state_of(folder, names)
    assert before == state_of(folder, names)
    assert before["absent"] == "gone"
    (folder / "corpus" / "a.txt").read_bytes()
    assert before == state_of(folder, names)
    os.utime(folder / "one.bin", ns=(1, 1))
    (folder / "corpus" / "a.txt").rename(folder / "corpus" / "c.txt")
    after = state_of(folder, names)
    assert after["one.bin"] != before["one.bin"]
    assert after["corpus"] != before["corpus"]


@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/tokens.bin'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'CHECKOUT/data/tokens.bin'",
        "OSError: ./data/tokens.bin not found.",
        'RuntimeError: open file failed, errno 2 on fopen: No such file or directory, file path: "data/tokens.bin"',
        "FileNotFoundError: Unable to find 'CHECKOUT/src/../data'",
        "cat: data/tokens.bin: No such file or directory",
    ],
)
def test_a_missing_input_is_explained(
    repository: Repository, folder: Path, base: str, tmp_path: Path, line: str
) -> None:
    trial = tmp_path / "trial"
    check_out(repository, base, trial)
    log = f"step 1\nTraceback (most recent call last):\n{line.replace('CHECKOUT', str(trial))}\nbye\n"
    hint = missing_hint(folder, trial, log)
    assert hint is not None
    assert "exists in" in hint
    assert "setup_run(inputs=['data', ...])" in hint


def test_a_missing_module_is_explained(repository: Repository, folder: Path, base: str, tmp_path: Path) -> None:
    fill(folder, "helpers.py")
    check_out(repository, base, tmp_path / "trial")
    hint = missing_hint(folder, tmp_path / "trial", "ModuleNotFoundError: No module named 'helpers'")
    assert hint is not None
    assert "'helpers.py'" in hint
    assert "commit it" in hint


def test_a_path_that_counts_from_the_script_is_explained(
    repository: Repository, folder: Path, base: str, tmp_path: Path
) -> None:
    check_out(repository, base, tmp_path / "trial")
    log = "FileNotFoundError: [Errno 2] No such file or directory: '../data/tokens.bin'"
    hint = missing_hint(folder, tmp_path / "trial", log, "src/run.py")
    assert hint is not None
    assert "setup_run(folder='src'" in hint


@pytest.mark.parametrize(
    "log",
    [
        "",
        "loss: 1.0 data/tokens.bin",
        "FileNotFoundError: No such file or directory: 'data/other.bin'",
        "FileNotFoundError: No such file or directory: '/etc/passwd'",
        "FileNotFoundError: No such file or directory: '../project/data'",
        "KeyError: 'train.py' not found",
        f"not found: '{'x' * 400}/{'y' * 400}'",
        "ModuleNotFoundError: No module named 'torch'",
    ],
)
def test_other_failures_get_no_hint(repository: Repository, folder: Path, base: str, tmp_path: Path, log: str) -> None:
    check_out(repository, base, tmp_path / "trial")
    assert missing_hint(folder, tmp_path / "trial", log) is None
