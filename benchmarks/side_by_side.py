"""What runs side by side are worth where the machine drifts: how often a change is kept, with pairs and without.

    python benchmarks/side_by_side.py [--seeds 1000]

A baseline is run four times. Then the machine changes, by so many standard deviations of a run, and a change is run,
and run again as long as its verdict asks for that: with pairs, each time beside a run of the baseline. A change that
does nothing should not be kept, one that gains should. Verdicts are those of the server; unit: one standard deviation.
"""

import argparse
import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from mcp_server.research.case import Case, Record, noise_of, weigh
from mcp_server.research.comparison import spread
from mcp_server.research.decision import decide
from mcp_server.research.experiment import NO_CHANGE, Experiment, Run, Trial, fresh_seed
from mcp_server.research.pairing import Beside, beside, worthwhile
from mcp_server.research.task import Task

SECONDS = 300.0
BASELINES, LATER = 4, 30
"""Runs of the baseline at the beginning, and when the change is run, in trainings."""
DRIFTS, GAINS = (0.0, 2.0, 5.0, 10.0), (0.0, 2.0)
Way = Literal["means", "pairs", "seen"]
WAYS: tuple[Way, ...] = ("means", "pairs", "seen")
"""By the means of all runs; in pairs from the second run on; in pairs from the first on, as where a drift is known."""
TASK = Task("loss", "minimize", SECONDS, "train.py", "python train.py", "python", ("train.py",), policy="noise_aware")
RUN = Run("drift", "autoresearch/drift", "b", TASK, "cpu", {}, 0.0)
START = Experiment(
    "e1", "drift", 1, "ann", "b", "b", "", "other", "", 0.0, "keep", diff_summary=NO_CHANGE, value=0.0, runs=BASELINES
)
IDEA = Experiment(
    "e2", "drift", 2, "ann", "c", "b", "", "other", "", 0.0, "trained", parent_id="e1", diff_summary="LR 1 -> 2"
)


@dataclass
class Machine:
    """A machine whose scores move with the time, in trainings."""

    draw: random.Random
    drift: float
    moment: int = 0

    def __post_init__(self) -> None:
        self.later = self.draw.choice((-1, 1)) * self.drift

    def train(self, experiment: Experiment, attempt: int, seed: int, gain: float) -> Trial:
        """Run a code once."""
        began = self.moment * SECONDS
        machine = self.later if self.moment >= LATER else 0.0
        self.moment += 1
        again = experiment.status == "keep" and attempt > BASELINES
        return Trial(
            f"{experiment.id}.{attempt}", experiment.id, attempt, seed, "cpu", "finished", began, started_at=began,
            ended_at=began + SECONDS, metrics={"loss": machine - gain + self.draw.gauss(0, 1)},
            commit=experiment.commit, came_from="keep" if again else "registered",
            base_id="e1" if experiment is IDEA else None,
        )  # fmt: skip


def case_of(base: list[Trial], own: list[Trial], pairs: bool) -> Case:
    """What a verdict on the change rests on; without pairs nothing is known of when runs were made."""
    if not pairs:
        base, own = ([replace(trial, started_at=None, ended_at=None) for trial in runs] for runs in (base, own))
    best, subject = Record(START, tuple(base)), Record(IDEA, tuple(own))
    weighed = [weigh(RUN, record) for record in (best, subject)]
    several = tuple(trial for runs in (base, own) if len(runs) > 1 for trial in runs)
    squares, dof = sum(noise.sum_of_squares for noise in weighed[:1]), weighed[0].dof
    return Case(subject, best, {"e1": best}, "e1", squares, dof, best, several)


def kept(drift: float, gain: float, way: Way, seed: int) -> bool:
    """Whether a change is kept in the end."""
    pairs = way != "means"
    machine = Machine(random.Random(seed), drift)
    base = [machine.train(START, i + 1, fresh_seed(range(42, 42 + i)), 0.0) for i in range(BASELINES)]
    machine.moment = LATER
    first = 42
    if way == "seen":
        first = fresh_seed({trial.seed for trial in base})
        base.append(machine.train(START, len(base) + 1, first, 0.0))
    own = [machine.train(IDEA, 1, first, gain)]
    while (verdict := decide(RUN, case_of(base, own, pairs))).decision == "needs_confirmation":
        found = _beside(base, own, machine.moment * SECONDS) if pairs else Beside()
        if found.first is not None:
            base.append(machine.train(START, len(base) + 1, found.first, 0.0))
        chosen = found.seed if found.first is None else found.first
        own.append(machine.train(IDEA, len(own) + 1, chosen or fresh_seed({t.seed for t in own}), gain))
    return verdict.decision == "keep"


def _beside(base: list[Trial], own: list[Trial], now: float) -> Beside:
    case = case_of(base, own, pairs=True)
    noise = noise_of(RUN, case.squares, case.dof)
    why = worthwhile(RUN, noise, spread(RUN, case.repeats), "", [], base, now)
    return beside(TASK, own, base, now, own[-1].queued_at) if why else Beside()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    seeds = parser.parse_args().seeds
    print(f"{'machine moved by':>17}{'gain':>6}{'by means':>10}{'in pairs':>10}{'move seen before':>18}")
    for drift in DRIFTS:
        for gain in GAINS:
            means, pairs, seen = (sum(kept(drift, gain, way, n) for n in range(seeds)) / seeds for way in WAYS)
            print(f"{drift:>17g}{gain:>6g}{means:>10.0%}{pairs:>10.0%}{seen:>18.0%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
