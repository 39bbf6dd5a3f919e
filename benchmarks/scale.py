"""How a server, its queue and its devices bear many agents: a real server over HTTP, real workers, simulated devices.

    python benchmarks/scale.py [--devices 8] [--agents 16] [--experiments 400] [--seconds 0.2 2] [--executor local]
    python benchmarks/scale.py --devices 8 --agents 16 --experiments 160 --seconds 5 --limit 0.02
    python benchmarks/scale.py --executor local ray      side by side; ray on a cluster of one machine, started for it

Each agent keeps so many experiments queued that no device waits for an agent; a training sleeps. Prints a table: the
share of device time in which a trial waited and none had the device, how evenly the agents were served, verdicts per
second, with trainings and without, the growth of the store, and the memory of the server. Exits 1 when the idle share
is above --limit.
"""

import argparse
import asyncio
import itertools
import math
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scale_usage import Trial, Usage, used

SCRIPT = """\
import time

began = time.time()
DURATION = 0.0
NUMBER = 0
time.sleep(DURATION)
print(f"loss: {1 + (NUMBER * 7919 % 1000) / 1000}")
print(f"script_seconds: {time.time() - began:.6f}")
"""
MEGABYTE = 1024 * 1024
TRIES = 5
"""How often a call is tried over a connection that breaks."""


@dataclass(frozen=True)
class Plan:
    """What to simulate.

    Attributes:
        seconds: the shortest and the longest training.
        executor: which executor the server uses; `options` are further words of its command line.
    """

    devices: int
    agents: int
    experiments: int
    seconds: tuple[float, float]
    executor: str = "local"
    options: tuple[str, ...] = ()
    seed: int = 1

    @property
    def ahead(self) -> int:
        """Experiments that an agent keeps in flight: together twice as many as there are devices, and two at least."""
        return max(2, math.ceil(2 * self.devices / self.agents))


@dataclass
class Figures:
    """What came of a plan; sizes in bytes.

    Attributes:
        plain_verdicts_per_second: of experiments that are only registered and judged.
        plain_verdict_seconds: CPU seconds of the server, and of git, for one of these.
    """

    plan: Plan
    usage: Usage
    verdicts_per_second: float
    plain_verdicts_per_second: float
    plain_verdict_seconds: float
    store_per_experiment: float
    files_per_experiment: float
    memory: list[int] = field(default_factory=list)

    def row(self) -> list[str]:
        """The figures as a row of the table."""
        usage, (low, high) = self.usage, self.plan.seconds
        return [
            self.plan.executor,
            str(self.plan.devices),
            str(self.plan.agents),
            str(self.plan.experiments),
            f"{low:g}" if low == high else f"{low:g} to {high:g}",
            f"{usage.idle:.2%}",
            f"{usage.unused:.2%}",
            f"{usage.script:.1%}",
            f"{usage.fairness:.3f}",
            f"{usage.longest_wait:.1f}",
            f"{self.verdicts_per_second:.1f}",
            f"{self.plain_verdicts_per_second:.0f}",
            f"{1000 * self.plain_verdict_seconds:.0f}",
            f"{self.store_per_experiment / 1024:.1f} + {self.files_per_experiment / 1024:.1f}",
            f"{self.memory[0] / MEGABYTE:.0f} to {max(self.memory) / MEGABYTE:.0f}",
        ]


COLUMNS = (
    *("executor", "devices", "agents", "experiments", "seconds each", "idle", "unused", "in the script", "fairness"),
    *(
        "longest wait / mean",
        "verdicts/s",
        "verdicts/s alone",
        "CPU ms each",
        "KiB an experiment: store + files",
        "server MiB",
    ),
)


RAY = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(sys.argv[1]), "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextmanager
def ray_machine(cpus: int) -> Iterator[str]:
    """A Ray cluster of one machine with so many CPUs, as it believes: its address. Every device is a CPU of it."""
    words = [sys.executable, "-c", RAY, str(cpus)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, text=True, **pipes) as cluster:  # type: ignore[call-overload]
        yield next(line.strip() for line in cluster.stdout if line[:1].isdigit())
        cluster.communicate()


class Place:
    """A repository with a server of its own, in a temporary folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.repo = folder / "repo"
        self.plan = plan
        self.state = folder / "state"
        self.environment = os.environ | {
            "AUTORESEARCH_STATE": str(self.state),
            "AUTORESEARCH_CACHE": str(folder / "cache"),
            "AUTORESEARCH_LOCKS": str(folder / "locks"),
        }
        self.repo.mkdir()
        (self.repo / "train.py").write_text(SCRIPT)
        self._git("init", "--quiet")
        self._git("add", ".")
        self._git(
            "-c", "user.name=scale", "-c", "user.email=scale@localhost", "commit", "--quiet", "--message", "Start"
        )

    def _git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.repo, check=True, capture_output=True)

    @contextmanager
    def serving(self) -> Iterator[tuple[str, psutil.Process]]:
        """A server on a free port: its address and process."""
        words = [sys.executable, "-m", "mcp_server", "serve", "--http", "--port", "0", "--repo", str(self.repo)]
        words += ["--devices", f"cpu:{self.plan.devices}"]
        with ExitStack() as stack:
            if self.plan.executor == "ray":
                words += ["--executor", "ray", "--ray-address", stack.enter_context(ray_machine(self.plan.devices))]
            yield stack.enter_context(self._server([*words, *self.plan.options]))

    @contextmanager
    def _server(self, words: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
        said = self.repo.with_name("server.log")
        with said.open("w") as log, subprocess.Popen(words, env=self.environment, stderr=log) as server:
            try:
                while not (found := re.search(r"dashboard (\S+)/,", said.read_text())):
                    if server.poll() is not None:
                        raise RuntimeError(f"the server does not start: {said.read_text()}")
                    time.sleep(0.05)
                yield found[1], psutil.Process(server.pid)
            finally:
                server.terminate()

    def database(self) -> Path:
        """The file of the store."""
        return next(self.state.rglob("research.db"))

    def trials(self, tag: str) -> list[Trial]:
        """All trials of a run that ended well."""
        query = """
            SELECT device, agent, queued_at, started_at, ended_at,
                COALESCE(json_extract(trials.metrics, '$.script_seconds'), 0)
            FROM trials JOIN experiments ON experiments.id = experiment_id
            WHERE tag = ? AND trials.status = 'finished' ORDER BY started_at
        """
        connection = sqlite3.connect(self.database())
        try:
            return [Trial(*row) for row in connection.execute(query, [tag])]
        finally:
            connection.close()

    def sizes(self) -> tuple[int, int]:
        """The sizes of the store, and of all other files that research leaves."""
        connection = sqlite3.connect(self.database())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        files = [*self.state.rglob("*"), *(self.repo / ".git").rglob("*")]
        sizes = {path: path.stat().st_size for path in files if path.is_file() and not path.is_symlink()}
        store = sum(size for path, size in sizes.items() if path.name.startswith("research.db"))
        return store, sum(sizes.values()) - store


class Caller:
    """Calls the server's routes, again where it says that it is busy."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def call(self, route: str, **body: Any) -> dict[str, Any]:
        """The answer of a route; every call may be repeated, and is where the connection breaks."""
        for tries in itertools.count(1):
            try:
                response = await self._client.post(f"/api/{route}", json=body)
            except httpx2.TransportError:
                if tries == TRIES:
                    raise
                await asyncio.sleep(1)
                continue
            if response.status_code not in (429, 503):
                break
            await asyncio.sleep(float(response.headers.get("retry-after", 1)) * random.uniform(0.5, 1))
        if response.status_code != 200:
            raise RuntimeError(f"{route}: {response.text}")
        answer: dict[str, Any] = response.json()
        return answer


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    """A caller of the server at an address."""
    limits = httpx2.Limits(max_connections=None, keepalive_expiry=2)  # the server closes after 5 s
    async with httpx2.AsyncClient(base_url=address, timeout=600, limits=limits) as client:
        yield Caller(client)


class Crowd:
    """Agents at work on one run."""

    def __init__(self, caller: Caller, plan: Plan) -> None:
        self._caller, self._plan = caller, plan
        self._numbers = iter(range(1, plan.experiments + 1))
        self._random = random.Random(plan.seed)

    async def work(self) -> float:
        """Do all experiments; the seconds that it took."""
        goal = {"metric": "loss", "direction": "minimize", "time_budget_seconds": 60, "policy": "greedy"}
        await self._caller.call("setup_run", tag="scale", agent="agent-1", **goal)
        for number in range(2, self._plan.agents + 1):
            await self._caller.call("setup_run", tag="scale", resume=True, agent=f"agent-{number}")
        baseline = {"tag": "scale", "hypothesis": "the baseline", "category": "other", "agent": "agent-1"}
        await self._finish(str((await self._caller.call("register", **baseline))["experiment_id"]))
        started = time.monotonic()
        await asyncio.gather(*(self._agent(f"agent-{number + 1}") for number in range(self._plan.agents)))
        return time.monotonic() - started

    async def _agent(self, name: str) -> None:
        """An agent that always has its next experiments queued while the present one trains."""
        flying: list[str] = []
        for number in self._numbers:
            duration = round(self._random.uniform(*self._plan.seconds), 3)
            knobs = {"DURATION": duration, "NUMBER": number}
            body = {"tag": "scale", "hypothesis": f"number {number}", "category": "other", "agent": name}
            made = await self._caller.call("register", **body, description=f"{number}", knobs=knobs)
            flying.append(str(made["experiment_id"]))
            await self._caller.call("train", experiment_id=flying[-1], wait_seconds=0)
            if len(flying) >= self._plan.ahead:
                await self._finish(flying.pop(0))
        for each in flying:
            await self._finish(each)

    async def _finish(self, experiment_id: str) -> None:
        while True:
            status = (await self._caller.call("train", experiment_id=experiment_id, wait_seconds=30))["status"]
            if status not in ("queued", "training"):
                break
        await self._caller.call("complete", experiment_id=experiment_id)


async def judge_alone(caller: Caller, experiments: int, agents: int) -> float:
    """Verdicts per second where nothing is trained: experiments of the tracker's routes, registered and completed."""
    await caller.call("experiment/setup", tag="alone")
    numbers = iter(range(experiments))

    async def agent(name: str) -> None:
        for number in numbers:
            body = {
                "tag": "alone",
                "commit_sha": f"not here {number}",
                "gpu_id": name,
                "hypothesis": f"number {number}",
            }
            made = await caller.call("experiment/register", **body)
            value = 1 + (number * 7919 % 1000) / 1000
            await caller.call("experiment/complete", experiment_id=made["experiment_id"], val_bpb=value)

    started = time.monotonic()
    await asyncio.gather(*(agent(f"gpu-{number}") for number in range(agents)))
    return experiments / (time.monotonic() - started)


async def measure(plan: Plan, alone: int) -> Figures:
    """Carry a plan out. `alone` is the number of verdicts without training."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-scale-") as folder:
        place = Place(Path(folder), plan)
        with place.serving() as (address, server):
            memory: list[int] = []
            sampling = asyncio.create_task(_sample(server, memory))
            async with calling(address) as caller:
                await caller.call("list_runs")
                before = place.sizes()
                seconds = await Crowd(caller, plan).work()
                after = place.sizes()
                used_before = sum(server.cpu_times()[:4])
                rate = await judge_alone(caller, alone, plan.agents)
                each = (sum(server.cpu_times()[:4]) - used_before) / alone
            sampling.cancel()
        trials = place.trials("scale")[1:]  # the baseline ran alone
        store, files = ((new - old) / plan.experiments for new, old in zip(after, before, strict=True))
        return Figures(plan, used(trials), plan.experiments / seconds, rate, each, store, files, memory)


async def _sample(server: psutil.Process, memory: list[int]) -> None:
    while True:
        memory.append(server.memory_info().rss)
        await asyncio.sleep(0.5)


def main() -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[8])
    parser.add_argument("--agents", type=int, nargs="+", default=[16])
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.2, 2.0], help="shortest and longest training")
    parser.add_argument("--executor", nargs="+", default=["local"], help="local, ray, or both side by side")
    parser.add_argument("--option", action="append", default=[], help="a further word for a server that is not local")
    parser.add_argument("--alone", type=int, default=1000, help="verdicts to give without training")
    parser.add_argument("--limit", type=float, default=1.0, help="the largest idle share that is good enough")
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    worst = 0.0
    for executor in arguments.executor:
        options = () if executor == "local" else tuple(arguments.option)
        for devices in arguments.devices:
            for agents in arguments.agents:
                span = (arguments.seconds[0], arguments.seconds[-1])
                plan = Plan(devices, agents, arguments.experiments, span, executor, options)
                figures = asyncio.run(measure(plan, arguments.alone))
                print(f"| {' | '.join(figures.row())} |", flush=True)
                worst = max(worst, figures.usage.idle)
    return int(worst > arguments.limit)


if __name__ == "__main__":
    sys.exit(main())
