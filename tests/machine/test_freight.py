"""What travels between a driver and its machines, tried without any machine: data, and the log of a training."""

import os
import shutil
from pathlib import Path

import pytest

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine.cluster import parcels
from mcp_server.machine.cluster.mirror import Mirror, piece_of, whole
from mcp_server.machine.cluster.parcels import Packer, Parcel, Shelf, chunks
from mcp_server.machine.cluster.ray_cluster import Node
from mcp_server.machine.cluster.seating import chairs_of
from mcp_server.machine.logfile import HEAD, BoundedLog


def send(top: Path, parcel: Parcel, shelf: Shelf) -> None:
    shelf.clear(parcel)
    for part in chunks(top, parcel):
        shelf.receive(parcel, *part)
    shelf.settle(parcel)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with data: a file of some parts, an empty one, one behind a link, one in a folder behind a link."""
    folder = tmp_path / "repo" / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "shard").write_bytes(os.urandom(300))
    (folder / "empty").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far").write_text("far")
    (folder / "link").symlink_to(tmp_path / "elsewhere" / "far")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder)
    return folder


def test_data_arrives_whole_and_is_found_by_its_fingerprint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcels, "CHUNK", 100)
    packer, shelf = Packer(tmp_path / "notes.json"), Shelf(tmp_path / "cache")
    parcel = packer.pack("inputs", data, "data")
    assert shelf.find(parcel) is None
    send(data, parcel, shelf)
    there = shelf.find(parcel)
    assert there is not None
    names = sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file())
    assert names == ["deep/shard", "empty", "link", "linked/far"]
    assert (there / "deep" / "shard").read_bytes() == (data / "deep" / "shard").read_bytes()
    shutil.copytree(data, tmp_path / "other" / "data", symlinks=False, ignore=shutil.ignore_patterns("again"))
    same = Packer(tmp_path / "other.json").pack("inputs", tmp_path / "other" / "data", "data")
    assert same.fingerprint == parcel.fingerprint
    (there / "empty").write_text("not any more")
    assert shelf.find(parcel) is None


def test_data_is_read_again_only_where_it_changed(data: Path, tmp_path: Path) -> None:
    first = Packer(tmp_path / "notes.json").pack("inputs", data, "data")
    (data / "deep" / "shard").chmod(0)
    try:
        assert Packer(tmp_path / "notes.json").pack("inputs", data, "data") == first
    finally:
        (data / "deep" / "shard").chmod(0o600)
    (data / "deep" / "shard").write_text("new")
    assert Packer(tmp_path / "notes.json").pack("inputs", data, "data").fingerprint != first.fingerprint


def test_what_changed_on_the_way_is_refused(data: Path, tmp_path: Path) -> None:
    parcel = Packer(tmp_path / "notes.json").pack("inputs", data, "data")
    (data / "link").resolve().write_text("FAR")
    with pytest.raises(NotReady, match="link of 'data' arrived damaged"):
        send(data, parcel, Shelf(tmp_path / "cache"))


def test_data_prepared_on_the_machine_itself_is_not_sent(tmp_path: Path) -> None:
    ours, cache = tmp_path / "cache" / "data" / "stdlib", tmp_path / "node"
    ours.mkdir(parents=True)
    (ours / "manifest.json").write_text("{}")
    (ours / "train.bin").write_bytes(bytes(10))
    parcel, shelf = Packer(tmp_path / "notes.json").pack("data", ours, "stdlib"), Shelf(cache)
    assert shelf.find(parcel) is None
    shutil.copytree(ours, cache / "data" / "stdlib")
    assert shelf.find(parcel) == cache / "data" / "stdlib"
    (cache / "data" / "stdlib" / "manifest.json").write_text("{ }")
    assert shelf.find(parcel) is None
    send(ours, parcel, shelf)
    there = shelf.find(parcel)
    assert there is not None
    assert sorted(path.name for path in there.iterdir()) == ["manifest.json", "train.bin"]


def test_a_log_is_followed_while_it_grows_and_past_its_limit(tmp_path: Path) -> None:
    source, target = tmp_path / "log.txt", tmp_path / "copy.txt"
    log, mirror = BoundedLog(source), Mirror(target)
    mirror.say("sending data: 0.10 of 2.00 GB")
    assert target.read_text().startswith("sending")
    looks = 0

    def follow() -> None:
        nonlocal looks
        while piece := piece_of(source, mirror.offset, mirror.token):
            mirror.add(piece)
            looks += 1

    follow()
    for text in ("step 1\n", "step 2\n", "x" * (HEAD - 100) + "\n", "more\n" * 100_000, "loss: 1\n"):
        log.write(text.encode())
        log.flush()
        follow()
        assert target.read_bytes() == source.read_bytes()
        assert mirror.agrees(*whole(source))
    assert looks < 15
    log.close()
    mirror.close()


GPUS, CPUS = Node("1", "ann", 2, 8.0), Node("2", "bob", 0, 4.0)


@pytest.mark.parametrize(
    ("spec", "nodes", "chairs"),
    [
        ("auto", [GPUS, CPUS], ["ann cuda 0", "ann cuda 1"]),
        ("auto", [CPUS], ["bob cpu:1 0"]),
        ("auto", [Node("3", "head", 0, 0)], []),
        ("cuda", [CPUS], []),
        ("cpu:2", [GPUS, CPUS], ["ann cpu:2 0", "ann cpu:2 1", "bob cpu:2 0", "bob cpu:2 1"]),
    ],
)
def test_which_devices_of_a_cluster_are_used(spec: str, nodes: list[Node], chairs: list[str]) -> None:
    assert [f"{chair.node.name} {chair.devices} {chair.slot}" for chair in chairs_of(spec, nodes)] == chairs


@pytest.mark.parametrize("spec", ["cuda:0", "mps", "cpu:0", "cpu:65", ""])
def test_devices_that_name_no_device_of_a_cluster_are_refused(spec: str) -> None:
    with pytest.raises(InvalidInput, match="Use auto or cuda"):
        list(chairs_of(spec, []))
