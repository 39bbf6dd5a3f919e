"""A cluster of three machines with simulated GPUs: who trains what, and what happens when machines leave and join."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcp_server.machine.cluster import roster
from mcp_server.machine.cluster.executor import RayExecutor
from mcp_server.machine.locks import DeviceLock
from tests.machine.conftest import ClusterYard, until
from tests.machine.ray_nodes import Nodes
from tests.project import Project

pytest.importorskip("ray", reason="pip install 'autoresearch-mcp[cluster]'")

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"
MEET = """
import os, time
from pathlib import Path
place = Path({folder!r})
note = place / (os.environ["AUTORESEARCH_SEED"] + "-" + os.environ["CUDA_VISIBLE_DEVICES"] + ".{name}")
note.write_text(str(os.getpid()))
while not (place / "go").exists():
    time.sleep(0.01)
print("loss:", len(Path("data/numbers").read_text()))
"""


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Two machines with two H100 each, and one with an A100."""
    nodes = Nodes(tmp_path_factory.mktemp("trio"))
    nodes.add("ann", gpus=f"ann-0={H100},ann-1={H100}")
    nodes.add("bob", gpus=f"bob-0={H100},bob-1={H100}")
    nodes.add("cid", gpus=f"cid-0={A100}")
    yield nodes
    nodes.close()


def test_a_killed_machine_loses_no_experiment_and_one_that_joins_takes_its_share(trio: Nodes, tmp_path: Path) -> None:
    yard = ClusterYard(tmp_path, trio, "auto")
    (yard.repo / "data").mkdir()
    (yard.repo / "data" / "numbers").write_text("1234567")
    task = yard.task(budget=60, inputs=("data",))

    def queue(name: str, gpu: str) -> Any:
        return yard.queue(MEET.format(folder=str(tmp_path), name=name), task=task, gpu=gpu)

    def training(where: str) -> dict[str, int]:
        return {path.suffix: int(path.read_text() or 0) for path in tmp_path.glob(f"*-GPU-{where}-*")}

    try:
        others = queue("other", A100)
        ours = [queue(f"n{number}", H100) for number in range(5)]
        occupy(trio, "cid", "GPU-cid-0")
        driver = yard.start()
        yard.until(lambda: len(training("ann")) == len(training("bob")) == 2, 60)
        before = stamps(trio, "ann")
        doomed = training("bob")
        trio.kill("bob")
        yard.until(lambda: not any(map(yard.alive, doomed.values())))
        yard.until(lambda: roster.read(yard.folders.cluster) is not None)
        told = roster.read(yard.folders.cluster)
        assert told
        assert not [seen for seen in told.devices if seen.device.node == "cid"]
        occupy(trio, "cid")
        trio.add("dan", gpus=f"dan-0={H100}")
        yard.until(lambda: training("dan") and training("cid"), 60)
        (tmp_path / "go").touch()
        assert driver.wait(60) == 0
    finally:
        yard.close()
    ended = [yard.trials(trial) for trial in ours]
    assert [trials[-1].error for trials in ended] == [""] * 5
    assert [trials[-1].status for trials in ended] == ["finished"] * 5
    lost = [trials[0] for trials in ended if len(trials) > 1]
    assert [trial.status for trial in lost] == ["lost"] * 2
    assert all("node bob was lost" in trial.error for trial in lost)
    assert {str(trials[-1].device).split("/")[1] for trials in ended} <= {"ann", "dan"}
    assert {trials[-1].metrics["loss"] for trials in ended} == {7}
    assert yard.trials(others)[-1].device == "ray/cid/GPU-cid-0"
    assert before
    assert before == stamps(trio, "ann"), "the data was sent to one machine twice"
    told = roster.read(yard.folders.cluster)
    assert told
    assert [seen.device.label for seen in told.devices] == ["ann/cuda:0", "ann/cuda:1", "cid/cuda:0", "dan/cuda:0"]
    assert {seen.device.type for seen in told.devices} == {f"cuda {H100}", f"cuda {A100}"}


def occupy(nodes: Nodes, name: str, gpu: str = "") -> None:
    """Have the process of the tests compute on a GPU of a machine, or no more."""
    for file in nodes.cache(name).parent.glob("GPU-*"):
        file.unlink()
    if gpu:
        (nodes.cache(name).parent / gpu).write_text(str(os.getpid()))


def stamps(nodes: Nodes, name: str) -> dict[str, int]:
    """The files that stand for the data that a machine received, each with a number that a new file changes."""
    return {path.name: path.stat().st_mtime_ns for path in (nodes.cache(name) / "inputs").glob("*.stamp")}


class Talk:
    """A client's side of the protocol, for which every line on stdout must be a message."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        assert server.stdin
        assert server.stdout
        self._to, self._of = server.stdin, server.stdout
        self._number = 0

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        line = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters}
        print(json.dumps(line), file=self._to, flush=True)
        while line := self._of.readline():  # type: ignore[assignment]
            said: dict[str, Any] = json.loads(str(line))
            assert said["jsonrpc"] == "2.0"
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])
        raise AssertionError("the server ended")

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer = self.ask("tools/call", name=name, arguments=arguments)
        assert not answer.get("isError"), answer
        return dict(answer["structuredContent"])

    def end(self) -> str:
        """What is said after the end of the input."""
        self._to.close()
        return self._of.read()


def test_a_server_over_stdio_trains_in_the_cluster_and_says_nothing_but_its_protocol(
    trio: Nodes, project: Project
) -> None:
    words = [sys.executable, "-m", "mcp_server", "serve", "--executor", "ray", "--ray-address", trio.address]
    words += ["--repo", str(project.root)]
    driver = DeviceLock(project.root / ".autoresearch" / "cluster", "driver")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            talk = Talk(server)
            about = {"name": "test", "version": "1"}
            talk.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=about)
            goal = {"metric": "val_loss", "direction": "minimize", "time_budget_seconds": 5, "policy": "greedy"}
            made = talk.call("setup_run", tag="mar8", **goal)
            baseline = talk.call("register", tag="mar8", hypothesis="baseline", category="other")["experiment_id"]
            trained = talk.call("train", experiment_id=baseline, wait_seconds=100)
            verdict = talk.call("complete", experiment_id=baseline)
            devices = talk.call("devices")["devices"]
            assert talk.end() == ""
            assert server.wait(30) == 0
        finally:
            server.kill()
            if holder := driver.holder():  # the server's end was not the driver's
                os.kill(holder.pid, signal.SIGTERM)
    until(lambda: not driver.is_held(), 60)
    model = made["platform"]["device_name"]  # that of the first machine, of those that were up in time
    assert model == made["devices"][0]["name"]
    assert (trained["status"], verdict["status"]) == ("trained", "keep")
    assert model in [device["name"] for device in devices if device["key"] == trained["device"]]
    assert {device["name"] for device in devices} <= {H100, A100}


def test_the_doctor_lists_the_machines(trio: Nodes, project: Project) -> None:
    words = [sys.executable, "-m", "mcp_server", "doctor", "--json", "--repo", str(project.root)]
    words += ["--executor", "ray", "--ray-address"]
    for address, status in ((trio.address, "ok"), ("127.0.0.1:1", "fail")):
        done = subprocess.run([*words, address], capture_output=True, text=True, timeout=120, check=False)
        (devices,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "devices"]
        assert devices["status"] == status
        assert ("ann: 2 GPUs, 1 CPUs" if status == "ok" else "No Ray cluster can be joined") in devices["found"]
    assert not (project.root / ".autoresearch").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--executor", "slurm"), "executor 'slurm' is unknown. Choose from local, ray."),
        (("--executor", "ray", "--ray-address", "ray://head:10001"), "`ray start --address=HOST:6379 --num-gpus=0`"),
        (("--executor", "ray", "--devices", "cuda:0,1"), "devices is 'cuda:0,1', and the executor is ray"),
        (("--executor", "ray", "--ray-address", "127.0.0.1:1"), "No Ray cluster can be joined at '127.0.0.1:1'"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(project: Project, words: tuple[str, ...], told: str) -> None:
    command = [sys.executable, "-m", "mcp_server", "setup_run", "--metric", "val_loss", "--direction", "minimize"]
    command += ["--time-budget-seconds", "5", "--repo", str(project.root), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_cluster_that_is_not_installed_is_told_with_the_remedy(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from mcp_server.errors import NotReady
    from mcp_server.settings import Settings

    with pytest.raises(NotReady, match=r"pip install 'autoresearch-mcp\[cluster\]'"):
        RayExecutor(Settings.load(project.root, executor="ray"), project.root)
