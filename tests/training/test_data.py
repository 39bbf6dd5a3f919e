"""Preparing: which text goes where, what is written, and what a second run finds."""

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import prepare
from tests.training.small import ROOT, SMALL, Script, write_corpus


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))


def small(path: Path, **changes: object) -> prepare.Profile:
    profile = replace(prepare.PROFILES["path"], path=path, vocab_size=256, seq_len=32, eval_tokens=512)
    return replace(profile, **changes)  # type: ignore[arg-type]


def texts_of(folder: Path, split: str) -> set[bytes]:
    """The documents of a byte-level token file, the last of which may have been cut off."""
    tokens = np.fromfile(folder / f"{split}.bin", dtype=np.uint16)
    return set(tokens.astype(np.uint8).tobytes().split(b"\xff")[1:-1])


def test_a_document_belongs_to_a_split_by_its_name_alone() -> None:
    splits = [prepare.split_of(f"{i}.py") for i in range(2000)]
    assert 60 < splits.count("val") < 140  # one in twenty of 2000 is 100
    assert 60 < splits.count("audit") < 140
    assert splits == [prepare.split_of(f"{i}.py") for i in range(2000)]


def test_no_text_is_in_two_splits_even_under_another_name(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    for file in list(corpus.iterdir()):  # every text once more, under a name that falls elsewhere
        (corpus / f"copy-of-{file.name}").write_text(file.read_text())
    folder = prepare.prepare(small(corpus))
    train, val, audit = (texts_of(folder, split) for split in ("train", "val", "audit"))
    assert train
    assert val
    assert audit
    assert not train & val
    assert not train & audit
    assert not val & audit


def test_preparing_again_finds_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    folder = prepare.prepare(small(corpus))
    written = (folder / "train.bin").stat().st_mtime_ns
    assert prepare.prepare(small(corpus)) == folder
    assert "already prepared" in capsys.readouterr().out
    assert (folder / "train.bin").stat().st_mtime_ns == written


def test_configurations_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    first, second = prepare.prepare(small(corpus)), prepare.prepare(small(corpus, seq_len=16))
    assert prepare.open_data().seq_len == 16  # the one prepared last
    assert prepare.open_data().fingerprint != json.loads((first / "manifest.json").read_text())["fingerprint"]
    monkeypatch.setenv("AUTORESEARCH_DATA", first.name)
    assert prepare.open_data().seq_len == 32
    monkeypatch.setenv("AUTORESEARCH_DATA", str(second))
    assert prepare.open_data().seq_len == 16


def test_two_preparations_at_once_agree(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    command = [sys.executable, str(ROOT / "prepare.py"), "--path", str(corpus), *SMALL]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0].split("fingerprint")[1] == outputs[1].split("fingerprint")[1]
    assert len([path for path in (tmp_path / "cache/data").iterdir() if path.is_dir()]) == 1


def test_a_damaged_configuration_is_noticed_and_made_again(tmp_path: Path, script: Script) -> None:
    environment = {"AUTORESEARCH_CACHE": os.environ["AUTORESEARCH_CACHE"]}
    assert json.loads(script("prepare.py", "--check", **environment).stdout)["prepared"] is False
    corpus = write_corpus(tmp_path / "corpus")
    folder = prepare.prepare(small(corpus))
    checked = script("prepare.py", "--check", **environment)
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["fingerprint"] == prepare.open_data().fingerprint
    tokens = bytearray((folder / "val.bin").read_bytes())
    tokens[10] ^= 1
    (folder / "val.bin").write_bytes(tokens)
    checked = script("prepare.py", "--check", **environment)
    assert checked.returncode == 1
    assert "val.bin was changed" in json.loads(checked.stdout)["problem"]
    with pytest.raises(prepare.HarnessError, match=r"val\.bin was changed"):
        prepare.open_data().pinned("val.bin")
    prepare.prepare(small(corpus))
    assert prepare.open_data().pinned("val.bin")


def test_the_manifest_can_be_read_without_this_module(tmp_path: Path) -> None:
    folder = prepare.prepare(small(write_corpus(tmp_path / "corpus")))
    data = tmp_path / "cache/data"
    assert data / json.loads((data / "current.json").read_text())["folder"] == folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("profile", "vocab_size", "seq_len", "eval_tokens")} == {
        "profile": "path",
        "vocab_size": 256,
        "seq_len": 32,
        "eval_tokens": 512,
    }
    assert manifest["files"].keys() == {"train.bin", "val.bin", "audit.bin", "tokenizer.json"}
    assert all((folder / name).stat().st_size == file["bytes"] for name, file in manifest["files"].items())
    assert (folder / "val.bin").stat().st_size == (512 + 1) * 2  # whole rows and the last target


def test_the_fingerprint_covers_tokens_sizes_and_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((prepare.prepare(small(write_corpus(tmp_path / "corpus"))) / "manifest.json").read_text())
    base = prepare.fingerprint(manifest)
    assert prepare.fingerprint(manifest | {"corpus": "other"}) != base
    assert prepare.fingerprint(manifest | {"eval_tokens": 544}) != base
    harness = {
        name: Path(prepare.__file__).with_name(name).read_text() for name in ("prepare.py", "portable.py", "scoring.py")
    }
    monkeypatch.setattr(prepare, "__file__", str(tmp_path / "prepare.py"))
    for easier in (*harness, None):
        for name, text in harness.items():
            (tmp_path / name).write_text(text + ("\n# an easier judge\n" if name == easier else ""))
        assert (prepare.fingerprint(manifest) == base) == (easier is None)


def test_a_tokenizer_learns_merges_and_loses_nothing(tmp_path: Path) -> None:
    text = "the cat sat on the mat, and the cat thought: 12345 mats! " * 20
    tokens = prepare.train_tokenizer([text], 280)
    assert tokens[:256] == [bytes([i]) for i in range(256)]
    (ids,) = prepare.encode([text], tokens)
    assert ids[0] == prepare.BOS
    assert b"".join(tokens[i] for i in ids[1:]).decode() == text
    assert len(ids) < len(text) / 2


def test_rows_of_parquet_files_are_documents(tmp_path: Path) -> None:
    table = pyarrow.table({"body": ["one", None, "three"]})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet")
    source = prepare.Source("some.parquet", tmp_path / "some.parquet", "", column="body")
    rows = [("some.parquet#0", "one"), ("some.parquet#1", ""), ("some.parquet#2", "three")]
    assert list(prepare.documents(source)) == rows
    with pytest.raises(prepare.HarnessError, match=r"no column 'text': name one with --text-column"):
        list(prepare.documents(replace(source, column="text")))


def test_a_long_text_is_cut_at_line_ends_and_a_binary_is_left_out(tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("a line of text\n" * 100_000 + "and a last one")
    pieces = [text for _, text in prepare.documents(prepare.Source("long.txt", long, ""))]
    assert "".join(pieces) == long.read_text()
    assert len(pieces) > 80
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    assert not list(prepare.documents(prepare.Source("picture.png", tmp_path / "picture.png", "")))


def library_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tests: int) -> prepare.Profile:
    """A standard library with so many files of tests."""
    root = tmp_path / "lib"
    names = [*(f"module{i}.py" for i in range(60)), *(f"pack/test/test_{i}.py" for i in range(tests))]
    for name in (*names, "idlelib/__init__.py", "site-packages/test/far.py", "deep/er/test/module.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n" + "".join(f"x{i} = {name!r} * {i}\n" for i in range(40)))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    return replace(prepare.PROFILES["stdlib"], vocab_size=256, seq_len=32, eval_tokens=512)


def test_what_is_scored_on_comes_from_parts_of_the_library_that_no_training_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = library_of(tmp_path, monkeypatch, tests=60)
    sources = {source.name: source.split for source in prepare.collect(profile)}
    assert {sources[name] for name in sources if "module" in name} == {"train"}  # also deep in a package
    assert {sources[name] for name in sources if name.startswith("pack/test/")} == {"train", "val", "audit"}
    assert "site-packages/test/far.py" not in sources
    folder = prepare.prepare(profile)
    hidden = json.loads((folder / "manifest.json").read_text())["hidden"]
    assert hidden == [str(tmp_path / "lib" / name) for name in ("idlelib", "pack/test")]
    for split in ("val", "audit"):
        assert all(b"pack/test/" in text or b"idlelib/" in text for text in texts_of(folder, split))


def test_a_library_without_tests_is_divided_itself_and_nothing_can_be_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = library_of(tmp_path, monkeypatch, tests=0)
    sources = prepare.collect(profile)
    assert {source.split for source in sources} == {""}
    assert not [source.name for source in sources if "idlelib" in source.name]
    assert json.loads((prepare.prepare(profile) / "manifest.json").read_text())["hidden"] == []


def test_few_tests_give_a_larger_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = [source.split for source in prepare.collect(library_of(tmp_path, monkeypatch, tests=8))]
    assert {"val", "audit"} <= set(splits)


def test_the_manifest_says_where_the_hidden_text_can_be_read_again(tmp_path: Path) -> None:
    corpus, far = write_corpus(tmp_path / "corpus"), tmp_path / "far.txt"
    far.write_text("another text\n" * 200)
    (corpus / "link.txt").symlink_to(far)
    (tmp_path / "alias").symlink_to(corpus)
    hidden = json.loads((prepare.prepare(small(tmp_path / "alias")) / "manifest.json").read_text())["hidden"]
    assert hidden == [str(corpus), str(far)]
    one = tmp_path / "one.txt"
    one.write_text("".join(f"line {i} of a text\n" for i in range(150_000)))
    assert json.loads((prepare.prepare(small(one)) / "manifest.json").read_text())["hidden"] == [str(one)]


def test_data_of_the_format_before_are_to_be_prepared_again(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    manifest = prepare.prepare(small(corpus)) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(prepare.HarnessError, match=r"of format 1, not \d+: run `python prepare\.py` again"):
        prepare.open_data()
    prepare.prepare(small(corpus))
    assert prepare.open_data().train.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vocab-size", "100"), "--vocab-size 100 is out of range: from 256 (single bytes) to 65536"),
        (("--seq-len", "4"), "--seq-len 4 must be at least 8"),
        (("--seq-len", "64", "--eval-tokens", "32"), "--seq-len 64 must be at least 8, and at most --eval-tokens"),
        (("--path", "/nowhere"), "--path /nowhere does not exist: name a file or folder"),
        (("--profile", "climbmix", "--num-shards", "0"), "--num-shards 0 is out of range"),
    ],
)
def test_bad_options_get_one_line(script: Script, arguments: tuple[str, ...], message: str) -> None:
    refused = script("prepare.py", *(() if "--profile" in arguments else ("--profile", "path")), *arguments)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {message}")
    assert refused.stderr.count("\n") == 1


def test_too_little_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("hello")
    with pytest.raises(prepare.HarnessError, match="too little text"):
        prepare.prepare(small(tmp_path / "short.txt"))
    assert not list((tmp_path / "cache/data").glob(".building-*"))


def test_the_profile_suits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "cpu")
    assert prepare.default_profile() == "stdlib"
    monkeypatch.delenv("AUTORESEARCH_DEVICE")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / "nvidia0"])
    assert prepare.default_profile() == "climbmix"
