"""What a night wants to know of its run: where it stands, what to tell the agent, and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_server.errors import NotReady, ResearchError, UnknownId
from mcp_server.interfaces.entrance import Entrance, boundary
from mcp_server.interfaces.mcp_prompts import opening
from mcp_server.lab.lab import Lab
from mcp_server.lab.results import ExperimentView, Summary
from mcp_server.lab.setup import today
from mcp_server.operations import OPERATIONS
from mcp_server.research.claims import Claim
from mcp_server.research.verdict import show

OPEN = ("queued", "training")


@dataclass(frozen=True)
class Standing:
    """Where a run stands; the default is a run that does not exist yet.

    Attributes:
        experiments, decided: how many are registered, and how many of them have their verdict.
        counts: experiments by status; the baseline, which is no change, has one of its own.
        told: what may be told of the best against the baseline, in words.
        training_seconds: what ended trainings took, summed over devices.
        training: the experiments that train now, with their devices.
        last: the latest verdicts, newest first.
        max_experiments, used_up: the run's own limit, and whether all of them are decided.
    """

    experiments: int = 0
    decided: int = 0
    training_seconds: float = 0.0
    training: tuple[str, ...] = ()
    last: Sequence[ExperimentView] = ()
    counts: tuple[tuple[str, int], ...] = ()
    metric: str = ""
    baseline: float | None = None
    best: ExperimentView | None = None
    told: str = ""
    noise: str = ""
    max_experiments: int | None = None
    used_up: bool = False
    target_reached: bool = False

    @property
    def grown(self) -> tuple[int, int, float]:
        """What changes whenever something is added to the record."""
        return self.experiments, self.decided, self.training_seconds

    def count(self, status: str) -> int:
        """How many experiments have a status."""
        return dict(self.counts).get(status, 0)


class Record:
    """Reads one run through a lab of its own, and takes no workspace."""

    def __init__(self, entrance: Entrance, tag: str) -> None:
        self._entrance = entrance
        self.tag = tag
        self._target: tuple[float, str] | None = None
        self._known = False

    @classmethod
    async def of(cls, entrance: Entrance, tag: str | None) -> "Record":
        """The record of the named run; without a name of the newest run, or else of one named after today."""
        if tag is None:
            runs = (await (await entrance.lab()).reading.list_runs()).runs
            tag = runs[0].tag if runs else today()
        return cls(entrance, tag)

    async def standing(self) -> Standing:
        """Where the run stands now; raises ResearchError if the record cannot be read."""
        with boundary("reading the record"):
            lab = await self._entrance.lab()
            try:
                if not self._known:
                    self._target = _target(await self._config(lab))
                    self._known = True
                return _standing(await lab.reading.summary(tag=self.tag), self._target)
            except UnknownId:
                return Standing()

    async def begin(self, setting: Mapping[str, Any]) -> list[str]:
        """Begin the run with these arguments of `setup_run`, or see that the run that exists has them.

        Returns what the user should know of it.

        Raises:
            ResearchError: the run cannot be begun so, or has other values.
        """
        with boundary("beginning the run"):
            runs = (await (await self._entrance.lab()).reading.list_runs()).runs
        known = any(run.tag == self.tag for run in runs)
        setup_run = next(operation for operation in OPERATIONS if operation.name == "setup_run")
        made = await self._entrance.call(setup_run, {"tag": self.tag, "resume": known, "preview": known, **setting})
        return list(made.adjustments)

    async def check_beginning(self) -> None:
        """Raise NotReady if `setup_run`, told nothing, would ask how to begin the run: at night nobody answers."""
        try:
            with boundary("previewing the run"):
                await (await self._entrance.lab()).setup.setup_run(tag=self.tag, preview=True)
        except ResearchError as error:
            raise NotReady(
                f"Run {self.tag!r} does not exist and cannot be begun unasked: {error.what}",
                f"Begin it with `autoresearch setup_run --tag {self.tag} ...`, or tell a language model with --goal",
            ) from None

    async def opening(self, goal: str) -> str:
        """What an agent that knows nothing is told: the text of the prompt `research`."""
        return await opening(self._entrance, self.tag, goal)

    async def next_action(self) -> str:
        """What `setup_run` tells an agent that lost its memory to do first."""
        with boundary("resuming the run"):
            lab = await self._entrance.lab()
            return (await lab.setup.setup_run(tag=self.tag, resume=True, preview=True)).next_action

    async def report(self) -> str:
        """The run as a Markdown report."""
        with boundary("writing the report"):
            lab = await self._entrance.lab()
            return (await lab.reading.export(tag=self.tag, format="markdown")).text or ""

    async def save_report(self) -> str:
        """Write the report beside the results file; returns its path."""
        with boundary("writing the summary"):
            lab = await self._entrance.lab()
            return (await lab.reporting.report(tag=self.tag, save=True)).path or ""

    async def end_trainings(self) -> list[str]:
        """End every training of the run, and take back those that wait; returns the experiments' ids."""
        with boundary("stopping the trainings"):
            lab = await self._entrance.lab()
            ended = []
            for status in OPEN:
                try:
                    listed = await lab.reading.history(tag=self.tag, status=status, limit=200)  # type: ignore[arg-type] # one of the statuses
                except UnknownId:  # the agent never began the run
                    return []
                for experiment in listed.experiments:
                    await lab.training.stop(experiment.experiment_id)
                    ended.append(experiment.experiment_id)
            return ended

    async def _config(self, lab: Lab) -> dict[str, Any]:
        return (await lab.setup.setup_run(tag=self.tag, resume=True, preview=True)).config


def _target(config: dict[str, Any]) -> tuple[float, str] | None:
    return None if config.get("target") is None else (config["target"], config["direction"])


def _standing(summary: Summary, target: tuple[float, str] | None) -> Standing:
    counts = {status: count for status, count in summary.counts.items() if status != "total"}
    decided = sum(counts.get(status, 0) for status in ("keep", "discard", "crash"))
    if summary.baseline is not None:
        counts |= {"baseline": 1, "keep": counts["keep"] - 1}
    most = summary.max_experiments
    value = summary.best.value if summary.best else None
    reached = False
    if target is not None and value is not None:
        wanted, direction = target
        reached = value <= wanted if direction == "minimize" else value >= wanted
    return Standing(
        experiments=summary.experiments,
        decided=decided,
        training_seconds=summary.training_minutes * 60,
        training=tuple(
            f"{device.experiment_id} on {device.key}"
            for device in summary.devices
            if device.status == "training" and str(device.experiment_id).rpartition("-")[0] == summary.tag
        ),
        last=summary.last_five,
        counts=tuple(counts.items()),
        metric=summary.metric,
        baseline=summary.baseline,
        best=summary.best,
        told=_told(summary),
        noise=summary.noise,
        max_experiments=most,
        used_up=most is not None and decided >= most,
        target_reached=reached,
    )


def _told(summary: Summary) -> str:
    if summary.claim:
        return Claim(**summary.claim).brief()
    gain = summary.improvement or 0.0
    return f"provisional: better by {show(gain)}" if gain > 0 else ""
