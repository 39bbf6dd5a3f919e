"""The known faults of the original tracker, none of which is to be found here."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import psutil
import pytest

from mcp_server.interfaces.access import Access
from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.http import build_app
from mcp_server.interfaces.limits import Limits
from mcp_server.lab import lending
from mcp_server.lab.lab import Lab
from mcp_server.machine.folders import Folders
from mcp_server.machine.store import Store
from mcp_server.research.experiment import Run
from mcp_server.research.task import Task
from mcp_server.settings import Settings
from tests.interfaces.callers import caller, own
from tests.interfaces.trackers import NUMBERS, Agent
from tests.project import Project

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def hosts(settings: Settings, *addresses: str) -> AsyncIterator[list[Agent]]:
    """Agents that call one server, each from a machine of its own."""
    async with Entrance(settings, trusted=False, shared=True) as entrance:
        app = own(build_app(entrance, Access(), Limits()))
        agents = []
        for address in addresses:
            transport = httpx2.ASGITransport(app, client=(address, 4711))
            agents.append(Agent(httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765")))
        try:
            yield agents
        finally:
            for agent in agents:
                await agent.client.aclose()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr(lending, "time", self)

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
async def test_a_first_result_of_nan_is_a_crash_and_no_best(settings: Settings, text: str) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        first = await agent.register()
        body = f'{{"experiment_id": "{first}", "val_bpb": {text}, "peak_vram_mb": 1}}'
        for _ in range(2):  # the second call changes nothing and is not refused
            response = await client.post("/api/experiment/complete", content=body)
            assert response.status_code == 200, response.text
            answer = response.json()
            assert (answer["status"], answer["improved"], answer["action"]) == ("crash", False, "git_reset")
            assert (answer["val_bpb"], answer["best_val_bpb"]) == (None, None)
        assert (await agent.attempt(1.5))["improved"]
        assert (await agent.call("experiment/best", tag="mar11"))["best"]["val_bpb"] == 1.5
        summary = await agent.call("report/summary", tag="mar11")
        assert (summary["stats"]["crashed"], summary["stats"]["kept"]) == (1, 1)


async def test_completing_twice_counts_once(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        first = await agent.register()
        answers = [await agent.complete(first, 0.99) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        status, error = await agent.refused("experiment/complete", **NUMBERS, experiment_id=first)
        assert (status, "was completed with val_bpb" in error) == (400, True)
        assert (await agent.refused("experiment/crash", experiment_id=first, error="late"))[0] == 400
        second = await agent.register()
        crashes = [await agent.call("experiment/crash", experiment_id=second, error="boom") for _ in range(2)]
        assert [crash["consecutive_crashes"] for crash in crashes] == [1, 1]
        assert (await agent.refused("experiment/complete", **NUMBERS, experiment_id=second))[0] == 400
        (tag,) = (await agent.call("report/tags"))["tags"]
        assert (tag["total_experiments"], tag["kept_experiments"], tag["best_val_bpb"]) == (2, 1, 0.99)


async def test_many_completing_at_once_have_one_best(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        names = [await agent.register() for _ in range(40)]  # more than there are threads
        async with asyncio.timeout(60):
            answers = await asyncio.gather(
                *(agent.complete(name, 0.98 + number * 0.001) for number, name in enumerate(names))
            )
        best = (await agent.call("experiment/best", tag="mar11"))["best"]
        assert best["val_bpb"] == min(answer["val_bpb"] for answer in answers) == 0.98
        kept = (await agent.call("experiment/history", tag="mar11", status="keep"))["total"]
        assert kept == sum(answer["improved"] for answer in answers)


async def test_the_loan_of_a_dead_agent_ends_by_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        dead, waiting = await agent.register(), await agent.register()
        await agent.enlist()
        got = await agent.call("pool/acquire", experiment_id=dead)
        assert got == {"acquired": True, "gpu_id": "gpu-0", "gpu_index": 0, "host": "localhost"}
        assert await agent.call("pool/acquire", experiment_id=dead) == got  # asking again is harmless
        refused = {"acquired": False, "gpu_id": None, "reason": "no idle GPUs"}
        assert await agent.call("pool/acquire", experiment_id=waiting) == refused
        clock.now += 2 * 300 + 120 - 1
        await agent.call("pool/heartbeat", gpu_id="gpu-0")
        assert await agent.call("pool/acquire", experiment_id=waiting) == refused
        clock.now += 2
        pool = await agent.call("pool/list")
        assert (pool["idle"], pool["workers"][0]["current_experiment_id"]) == (1, None)
        assert (await agent.call("pool/acquire", experiment_id=waiting))["gpu_id"] == "gpu-0"
        # The dead agent was only slow, and now gives back what is another's by now.
        status, error = await agent.refused("pool/release", gpu_id="gpu-0", experiment_id=dead)
        assert (status, waiting in error) == (400, True)
        assert (await agent.call("pool/list"))["training"] == 1
        for _ in range(2):
            assert await agent.call("pool/release", gpu_id="gpu-0", experiment_id=waiting) == {"released": True}


async def test_a_silent_device_is_offline_and_comes_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        first, second = await agent.register(), await agent.register()
        await agent.enlist()
        for _ in range(4):
            clock.now += 30
            await agent.call("pool/heartbeat", gpu_id="gpu-0")
        clock.now += 60
        assert (await agent.call("pool/list"))["idle"] == 1
        clock.now += 1
        pool = await agent.call("pool/list")
        assert (pool["offline"], pool["idle"], pool["workers"][0]["status"]) == (1, 0, "offline")
        assert not (await agent.call("pool/acquire", experiment_id=first))["acquired"]
        await agent.call("pool/heartbeat", gpu_id="gpu-0")
        assert (await agent.call("pool/acquire", experiment_id=first))["acquired"]
        clock.now += 61
        assert (await agent.call("pool/list"))["offline"] == 1
        worker = await agent.enlist()  # its machine was started again, and the training goes on or not: it is lent
        assert (worker["status"], worker["current_experiment_id"]) == ("training", first)
        assert not (await agent.call("pool/acquire", experiment_id=second))["acquired"]


async def test_two_hosts_with_the_same_gpu_index_are_two_devices(settings: Settings) -> None:
    async with hosts(settings, "10.0.0.7", "10.0.0.8", "127.0.0.1") as (one, other, here):
        await here.begin()
        workers = [await agent.enlist("gpu-0", 0) for agent in (one, other)]
        assert [worker["id"] for worker in workers] == ["gpu-0", "gpu-0@10.0.0.8"]
        assert [worker["id"] for worker in (await here.call("pool/list"))["workers"]] == ["gpu-0", "gpu-0@10.0.0.8"]
        first, second, third = [await here.register() for _ in range(3)]
        # An agent trains where it is, so it gets a device of its own machine and no other.
        got = await other.call("pool/acquire", experiment_id=first)
        assert (got["gpu_id"], got["gpu_index"], got["host"]) == ("gpu-0@10.0.0.8", 0, "10.0.0.8")
        assert not (await other.call("pool/acquire", experiment_id=second))["acquired"]
        assert (await one.call("pool/acquire", experiment_id=second))["gpu_id"] == "gpu-0"
        # Each host goes on calling its own device as it always did.
        await other.call("pool/release", gpu_id="gpu-0")
        states = {worker["id"]: worker["status"] for worker in (await here.call("pool/list"))["workers"]}
        assert states == {"gpu-0": "training", "gpu-0@10.0.0.8": "idle"}
        # One that has no devices itself may direct any.
        assert (await here.call("pool/acquire", experiment_id=third))["gpu_id"] == "gpu-0@10.0.0.8"
        assert (await here.call("gpu/gpu-0/health"))["gpu_id"] == "gpu-0"  # its own, which has the same name
        assert (await here.refused("gpu/gpu-0@10.0.0.8/health"))[0] == 400
        await one.call("pool/deregister", gpu_id="gpu-0")
        assert [worker["id"] for worker in (await here.call("pool/list"))["workers"]] == ["gpu-0@10.0.0.8"]


async def test_no_host_ends_what_is_anothers(settings: Settings) -> None:
    async with hosts(settings, "10.0.0.7", "10.0.0.8", "10.0.0.9", "127.0.0.1") as (one, other, borrower, here):
        await here.begin()
        experiment = await here.register()
        for agent in (one, other):
            await agent.enlist("gpu-0", 0)
        assert (await one.call("pool/acquire", experiment_id=experiment))["gpu_id"] == "gpu-0"
        for _ in range(2):  # the second time, its own is gone already
            await other.call("pool/deregister", gpu_id="gpu-0")
        assert (await other.refused("pool/heartbeat", gpu_id="gpu-0"))[0] == 404
        assert (await other.refused("pool/release", gpu_id="gpu-0"))[0] == 404
        assert (await here.call("pool/list"))["training"] == 1
        await one.call("pool/release", gpu_id="gpu-0")
        # Who borrowed it may give it back, and so may who knows whose loan it is.
        assert (await borrower.call("pool/acquire", experiment_id=experiment))["gpu_id"] == "gpu-0"
        await borrower.call("pool/release", gpu_id="gpu-0")
        await borrower.call("pool/acquire", experiment_id=experiment)
        await other.call("pool/release", gpu_id="gpu-0", experiment_id=experiment)
        assert (await here.call("pool/list"))["idle"] == 1


async def test_a_lost_lend_is_never_given_twice(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        for index in range(4):
            await agent.enlist(f"gpu-{index}", index)
        names = [await agent.register() for _ in range(12)]
        got = await asyncio.gather(*(agent.call("pool/acquire", experiment_id=name) for name in names))
        assert sorted(each["gpu_id"] for each in got if each["acquired"]) == ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]


async def test_history_is_in_order_of_start_whatever_ended_first(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        names = [await agent.register() for _ in range(6)]
        for place in (5, 2, 0, 4, 1, 3):
            await agent.complete(names[place], 1.0 + place / 100)
        history = (await agent.call("experiment/history", tag="mar11"))["experiments"]
        assert [e["id"] for e in history] == names
        assert [e["started_at"] for e in history] == sorted(e["started_at"] for e in history)
        assert (await agent.call("experiment/history", tag="mar11", limit=2))["experiments"] == history[-2:]
        summary = await agent.call("report/summary", tag="mar11")
        assert [step["id"] for step in summary["bpb_progression"]] == [names[0], names[2], names[5]]
        suggestion = await agent.call("search/suggest", tag="mar11")
        assert suggestion["recent_bpb_trend"] == [1.0, 1.02, 1.05]
        assert "flat or worsening" in suggestion["suggestions"][-1]
        rows = (await agent.call("report/tsv", tag="mar11"))["tsv"].splitlines()[1:]
        assert [row.split("\t")[1] for row in rows] == [f"{1 + place / 100:.6f}" for place in range(6)]


async def test_near_misses_are_those_of_the_run(settings: Settings) -> None:
    async with caller(settings) as client:
        one, other = Agent(client, "one"), Agent(client, "other")
        for agent in (one, other):
            await agent.begin()
            await agent.attempt(0.99)
        await one.attempt(0.9915)
        await one.attempt(0.9905)
        near = await one.call("experiment/near-misses", tag="one")
        assert [miss["experiment_id"] for miss in near["near_misses"]] == ["one-3", "one-2"]
        assert (await other.call("experiment/near-misses", tag="other"))["total"] == 0
        assert (await other.call("search/suggest", tag="other"))["near_misses_available"] == 0


async def test_the_code_of_a_discard_survives_its_reset(project: Project, settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        await agent.attempt(0.99)
        lost = project.commit("A promising idea", {"train.py": "IDEA = 1"})
        discarded = await agent.register(commit_sha=project.git("rev-parse", "--short", "HEAD"))
        assert (await agent.complete(discarded, 0.995))["action"] == "git_reset"
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "--quiet", "--prune=now")
    assert project.git("show", f"{lost}:train.py") == "IDEA = 1"
    assert project.git("rev-parse", f"refs/autoresearch/mar11/{discarded}") == lost


HANGS = """\
import os, subprocess, sys, time
child = "import time; print('child on the GPU', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


async def quick_run(settings: Settings, commit: str) -> None:
    """An external run whose trainings may take two seconds."""
    task = Task(
        "val_bpb", "minimize", 0.5, "train.py", "python train.py", sys.executable, ("train.py",),
        policy="greedy", external=True, startup_seconds=1,
    )  # fmt: skip
    async with Lab.open(settings):
        folders = Folders.of(settings, settings.repo)
        async with Store.open(folders.store) as store:
            await store.runs.add(Run("mar11", "autoresearch/mar11", commit, task, "cpu", {}, time.time()))


def on_device(settings: Settings) -> list[int]:
    """The processes that belong to a training on the device."""
    mark = str(settings.locks.resolve() / "cpu-0.lock")
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("AUTORESEARCH_DEVICE_KEY") == mark and process.pid != os.getpid():
                found.append(process.pid)
    return found


async def test_a_timeout_leaves_no_child_on_the_gpu(project: Project, settings: Settings) -> None:
    commit = project.commit("It hangs", {"train.py": HANGS})
    await quick_run(settings, commit)
    async with caller(settings) as client:
        agent = Agent(client)
        experiment_id = await agent.register()
        ended = await agent.call("gpu/gpu-0/train", experiment_id=experiment_id)
        assert (ended["status"], ended["device"]) == ("timeout", "cpu:0")
        assert "child on the GPU" in ended["error"]
        assert on_device(settings) == []
        answer = await agent.call("experiment/crash", experiment_id=experiment_id, error=ended["error"])
        assert (answer["consecutive_crashes"], answer["should_abort"]) == (1, False)


async def test_a_traceback_is_in_its_own_order(project: Project, settings: Settings) -> None:
    script = "def inner():\n    raise RuntimeError('CUDA out of luck')\n\ninner()\n"
    commit = project.commit("It raises", {"train.py": script})
    await quick_run(settings, commit)
    async with caller(settings) as client:
        agent = Agent(client)
        experiment_id = await agent.register()
        ended = await agent.call("gpu/cpu:0/train", experiment_id=experiment_id)
        assert ended["status"] == "crash"
        traceback = ended["error"][ended["error"].index("Traceback") :]
        words = ["Traceback (most recent call last)", "in <module>", "in inner", "RuntimeError: CUDA out of luck"]
        places = [traceback.index(word) for word in words]
        assert places == sorted(places)
        assert await agent.call("gpu/cpu:0/train", experiment_id=experiment_id) == ended  # it is not run again
        (entry,) = (await agent.call("experiment/history", tag="mar11"))["experiments"]
        assert (entry["status"], "RuntimeError: CUDA out of luck" in entry["error"]) == ("crash", True)


async def test_a_training_on_this_machine_gives_its_numbers(project: Project, settings: Settings) -> None:
    lines = "".join(f"print('{name}: {value}')\n" for name, value in {"val_bpb": 0.9, "num_params_M": 50.3}.items())
    await quick_run(settings, project.commit("It trains", {"train.py": lines}))
    async with caller(settings) as client:
        agent = Agent(client)
        first = await agent.register()
        ended = await agent.call("gpu/gpu-0/train", experiment_id=first)
        assert (ended["status"], ended["val_bpb"], ended["num_params_m"], ended["depth"]) == ("success", 0.9, 50.3, 0)
        assert (await agent.complete(first, 0.9))["improved"]
        elsewhere = await agent.register(commit_sha="abc1234")
        status, error = await agent.refused("gpu/gpu-0/train", experiment_id=elsewhere)
        assert (status, "abc1234" in error) == (400, True)


async def test_a_registered_device_serves_no_local_trial(project: Project, settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        await agent.enlist("cpu:0")
        await agent.enlist("gpu-9", 9)
        devices = (await client.get("/api/devices")).json()["devices"]
        assert [device["key"] for device in devices] == ["cpu:0"]
        assert (await agent.refused("gpu/gpu-9/train", experiment_id=await agent.register()))[0] == 404
