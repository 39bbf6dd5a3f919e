"""What a run does for itself when nothing gets better: it measures its best again and looks back at what came close."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mcp_server.research.experiment import Numbers
from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import Candidate, Incumbent, compare, rule_of
from mcp_server.research.task import Task

PLATEAU = 8
"""So many completed experiments since the last keep, none of them a crash, are a plateau."""
ENOUGH_RUNS = 2
REOPEN_FROM = 0.3
REOPENED_AT_MOST = 2


def on_plateau(non_keeps: int) -> bool:
    """Whether a run is stuck, given how many experiments were discarded since the last keep; crashes do not count."""
    return non_keeps >= PLATEAU


def remeasure_due(task: Task, incumbent: Incumbent | None, non_keeps: int) -> bool:
    """Whether the present best is to be run again: on a plateau, if its mean rests on one run."""
    if incumbent is None or task.policy == "greedy" or not on_plateau(non_keeps):
        return False
    return incumbent.runs < ENOUGH_RUNS


def reopened(task: Task, near_misses: Iterable[Candidate], incumbent: Incumbent, noise: Noise) -> tuple[str, ...]:
    """The ids that `reconsidered` finds."""
    return tuple(reconsidered(task, near_misses, incumbent, noise))


def reconsidered(
    task: Task, near_misses: Iterable[Candidate], incumbent: Incumbent, noise: Noise
) -> Mapping[str, Numbers]:
    """The near misses to be confirmed after all, now that the incumbent was measured again; the best first.

    Args:
        near_misses: the discards that are near misses made from this incumbent, with their finite runs. What these
            say of the base's mean is replaced by what is known now.
        incumbent: the present best, just re-measured.

    Returns:
        the ids, each with the numbers by which it counts now.
    """
    rule_of(task.policy)
    if noise.sigma is None:
        return {}
    found = [
        (compare(task, afresh, incumbent, noise), afresh.name)
        for afresh in (_against(near, incumbent) for near in near_misses)
        if afresh.base == incumbent.name
    ]
    found.sort(key=lambda pair: -pair[0].z)
    return {name: numbers for numbers, name in found[:REOPENED_AT_MOST] if numbers.z >= REOPEN_FROM}


def _against(candidate: Candidate, incumbent: Incumbent) -> Candidate:
    runs = (
        replace(run, base_mean=incumbent.mean, base_runs=incumbent.runs) if run.base == incumbent.name else run
        for run in candidate.runs
    )
    return replace(candidate, runs=tuple(runs))
