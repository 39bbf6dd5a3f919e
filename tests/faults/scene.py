"""Where faults happen: a repository whose training notices that its device is used twice, and real servers."""

import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import psutil
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

from mcp_server.lab.lab import Lab
from mcp_server.machine.environment import MARK
from mcp_server.settings import Settings
from tests.interfaces.agents import use
from tests.project import Project

Answer = TypeVar("Answer")
TAG = "mar8"
GOAL: dict[str, Any] = {"metric": "loss", "direction": "minimize", "time_budget_seconds": 5.0, "policy": "greedy"}

LOUD = """\
import fcntl
import os
import sys
import time

RATE = 0.1
ORPHAN = 0  # seconds that something of this training tries to outlive it

device = os.path.basename(os.environ["AUTORESEARCH_DEVICE_KEY"])
# One file for all, with walls and without; to lock it needs no right to write it.
witness = open(os.path.join(os.environ["AUTORESEARCH_CACHE"], "measured", device + ".witness"))
try:
    fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(os.path.join(os.environ["AUTORESEARCH_OUT"], "used-twice"), "w").close()
    sys.exit(device + " is used twice")
if ORPHAN and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(ORPHAN)
    os._exit(0)
time.sleep(0.2)
print("loss:", 10 - RATE)
"""
"""A training of 0.2 seconds whose loss falls with the rate."""

GATED = """\
import os
import time

RATE = 0.1

shared = os.path.join(os.environ["AUTORESEARCH_CACHE"], "measured")
print("at work", flush=True)
while not os.path.exists(os.path.join(shared, "go")):
    time.sleep(0.02)
print("loss:", 10 - RATE)
"""
"""A training that ends when it is let go."""

CALL = re.compile(r"(train|complete)\('([^']+)'(?:, seed=(\d+))?\)")
"""What an answer says to call next."""


def until(condition: Callable[[], Answer], seconds: float = 30.0) -> Answer:
    """What `condition` answers as soon as that is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return answer


@dataclass(frozen=True)
class Scene:
    """A repository below a folder, with a state, locks and a cache of its own.

    Attributes:
        devices: so many simulated devices.
        sandbox: whether trainings run behind walls, see `Settings`.
    """

    folder: Path
    project: Project
    devices: int = 2
    sandbox: str = "auto"
    elsewhere: Path | None = None
    """The state folder, where it is not in the repository."""

    @classmethod
    def make(cls, folder: Path, script: str = LOUD, devices: int = 2, sandbox: str = "auto") -> "Scene":
        """A new one."""
        (folder / "cache" / "measured").mkdir(parents=True)
        for number in range(devices):
            (folder / "cache" / "measured" / f"cpu-{number}.lock.witness").touch()
        return cls(folder, Project.make(folder / "project", script), devices, sandbox)

    @property
    def state(self) -> Path:
        return self.elsewhere or self.project.root / ".autoresearch"

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    @property
    def keys(self) -> list[str]:
        """The keys of the devices."""
        return [f"cpu:{number}" for number in range(self.devices)]

    def alarms(self) -> list[Path]:
        """The files that trainings wrote which found their device in use."""
        return sorted((self.state / "trials").glob("*/out/used-twice"))

    def rewrite(self, script: str) -> None:
        """Commit another training script; before any run."""
        self.project.commit("Another script", {"train.py": script})

    def let_go(self) -> None:
        """Let the trainings that wait for it end."""
        (self.folder / "cache" / "measured" / "go").touch()

    def log(self, trial_id: str) -> str:
        """What a training has printed so far."""
        log = self.state / "trials" / trial_id / "log.txt"
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def variables(self) -> dict[str, str]:
        """What a server of this place finds in its environment."""
        return {
            "AUTORESEARCH_LOCKS": str(self.locks),
            "AUTORESEARCH_CACHE": str(self.folder / "cache"),
            "AUTORESEARCH_SANDBOX": self.sandbox,
            **({"AUTORESEARCH_STATE": str(self.elsewhere)} if self.elsewhere else {}),
        }

    @property
    def settings(self) -> Settings:
        """How a lab in this very process opens the place."""
        cache, devices = self.folder / "cache", f"cpu:{self.devices}"
        return Settings(self.project.root, self.elsewhere, cache, self.locks, devices, sandbox=self.sandbox)

    def server(self, *doom: str) -> StdioServerParameters:
        """How a client starts a server here; with a step and a grave, one that is doomed to die there."""
        program = [str(Path(__file__).with_name("doomed.py")), *doom] if doom else ["-m", "mcp_server"]
        words = [*program, "serve", "--devices", f"cpu:{self.devices}", "--repo", str(self.project.root)]
        return StdioServerParameters(command=sys.executable, args=words, env=self.variables)

    def servers(self) -> list[psutil.Process]:
        return [process for process in self._ours() if "serve" in process.info["cmdline"]]

    def workers(self) -> list[psutil.Process]:
        return [process for process in self._ours() if "--device" in process.info["cmdline"]]

    def trainings(self) -> list[psutil.Process]:
        """Everything that a training of this place started, wherever it hides."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK, "").startswith(str(self.locks.resolve())):
                    found.append(process)
        return found

    def _ours(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or ()
            if str(self.project.root) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                yield process

    def alive(self) -> list[psutil.Process]:
        """All that runs for this place."""
        return [*self.servers(), *self.workers(), *self.trainings()]

    def kill_all(self) -> int:
        """Kill it all at once, as a power cut does; how many processes there were."""
        killed = self.alive()
        for process in killed:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        until(lambda: not self.alive())
        return len(killed)


@asynccontextmanager
async def begun(scene: Scene) -> AsyncIterator[Lab]:
    """A lab with a run, before its baseline."""
    async with Lab.open(scene.settings) as lab:
        await lab.setup.setup_run(tag=TAG, **GOAL)
        yield lab


async def register(lab: Lab, hypothesis: str = "the baseline", **source: Any) -> str:
    """Register an experiment; its id."""
    return (await lab.registering.register(tag=TAG, hypothesis=hypothesis, category="other", **source)).experiment_id


async def try_out(lab: Lab, hypothesis: str = "the baseline", **source: Any) -> str:
    """Register an experiment, train it and have it judged; the verdict."""
    experiment_id = await register(lab, hypothesis, **source)
    await go_on(lab, f"Call train({experiment_id!r})")
    return (await lab.verdicts.complete(experiment_id)).status


async def attended(server: StdioServerParameters, session: Callable[[Client], Awaitable[None]]) -> bool:
    """Connect a client to a new server for a session; False where the server died before the session ended."""
    died = False
    try:
        async with Client(server) as client:
            await session(client)
    except* (MCPError, OSError, anyio.ClosedResourceError, anyio.BrokenResourceError) as lost:
        if any(isinstance(each, MCPError) and "closed" not in str(each) for each in leaves(lost)):
            raise
        died = True
    return not died


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group of groups."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each


async def finish(client: Client, todo: str) -> str:
    """Do what answers say to do next, until there is something else than training and judging to do."""
    while found := CALL.search(todo):
        tool, experiment_id, seed = found.groups()
        given = {"seed": int(seed)} if seed else {}
        todo = (await use(client, tool, experiment_id=experiment_id, **given))["next_action"]
    return todo


async def go_on(lab: Lab, todo: str) -> str:
    """The same with a lab in this very process."""
    while found := CALL.search(todo):
        tool, experiment_id, seed = found.groups()
        if tool == "train":
            todo = (await lab.training.train(experiment_id, seed=int(seed) if seed else None)).next_action
        else:
            todo = (await lab.verdicts.complete(experiment_id)).next_action
    return todo
