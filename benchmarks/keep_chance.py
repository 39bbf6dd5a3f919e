"""How likely a change is to be kept, by what it is worth in truth.

Unit: the standard deviation of one run, which is known here. The change is compared with a baseline as each policy
measures it before it compares anything: once for `greedy`, else twice.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import Candidate, Replicate, judge_candidate, standing
from mcp_server.research.task import Policy, Task
from mcp_server.research.verdict import judge

EFFECTS = tuple(step / 4 for step in range(-8, 17))
DRAWS = 10_000
SEED = 50_000

_BASELINES, _RUNS = 2, 5
_KNOWN = Noise(sum_of_squares=1e6, dof=10**6)
_TASK = Task("val_bpb", "minimize", 300, "train.py", "python train.py", "python", ("train.py",))


@dataclass(frozen=True)
class Curve:
    """For every one of EFFECTS: the share that is kept, and how many runs a verdict takes."""

    kept: tuple[float, ...]
    runs: tuple[float, ...]


def curve(policy: Policy) -> Curve:
    """The chances under a policy; the same draws of noise for every effect and policy."""
    draw = random.Random(SEED)
    noises = [[draw.gauss(0, 1) for _ in range(_BASELINES + _RUNS)] for _ in range(DRAWS)]
    kept, runs = [], []
    for effect in EFFECTS:
        ends = [verdict(policy, effect, noise) for noise in noises]
        kept.append(sum(end[0] for end in ends) / DRAWS)
        runs.append(sum(end[1] for end in ends) / DRAWS)
    return Curve(tuple(kept), tuple(runs))


def verdict(policy: Policy, effect: float, noises: Sequence[float]) -> tuple[bool, int]:
    """Whether a change is kept, and after how many runs, given the noise of the baselines and of the runs."""
    task = replace(_TASK, policy=policy)
    values = [noise - effect for noise in noises[_BASELINES:]]
    if policy == "greedy":
        return judge(task, values[0], noises[0]).decision == "keep", 1
    base = standing("e0", None, noises[:_BASELINES])
    runs: tuple[Replicate, ...] = ()
    while True:
        runs = (*runs, Replicate(values[len(runs)], base.name, base.mean, base.runs))
        decision = judge_candidate(task, Candidate("e1", runs), base, _KNOWN).decision
        if decision != "needs_confirmation":
            return decision == "keep", len(runs)
