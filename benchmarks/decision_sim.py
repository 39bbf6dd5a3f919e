"""What the verdicts and suggestions of this project find where the truth is known, beside the classic rule.

    python benchmarks/decision_sim.py [--small | --pairs] [--processes 2] [--json FILE] [--plots FOLDER]

Prints, for each rule and guidance, the true gain (1e-3 of val_bpb, with its standard error), the share of keeps that
gained nothing, what those lost in all, by how much the reported best is too good, and the runs by purpose. Exits 1
when a stated bound is missed by more than a standard error. `--small` is for a check on every change: the stated
setting, the default policy where the noise is large, fewer seeds, and bounds widened by three standard errors.
`--pairs` prints instead what runs side by side cost on a steady machine, and bring on one that changes now and then.
`--json` writes all that was found to a file, and `--plots` draws it; what lies in such a file is drawn by
`python benchmarks/decision_plots.py FILE FOLDER`.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.keep_chance import EFFECTS, curve
from benchmarks.simulated_research import Cell, Outcome, Row, Simulation
from mcp_server.research.task import Policy

FIRST_SEED = 50_000
SEEDS, SEEDS_ELSEWHERE, SEEDS_SMALL = 1000, 200, 150

GREEDY_CLASSIC: Row = ("greedy", "classic")
GREEDY: Row = ("greedy", "thompson")
NOISE_AWARE: Row = ("noise_aware", "thompson")
STRICT: Row = ("strict", "thompson")
ROWS = (GREEDY_CLASSIC, GREEDY, NOISE_AWARE, STRICT)

STATED, NOISY = Cell(1.0, 100, 1), Cell(5.0, 100, 1)
"""The settings of which bounds are stated: a quiet metric, and one whose noise is far above the gains."""
GRID = tuple(Cell(*values) for values in product((0.0, 0.5, 1.0, 2.0), (100, 300), (1, 8)))
GAINS: Mapping[Cell, float] = {STATED: 9.3, NOISY: 1.3}
"""At least so much is gained by the default policy."""
HARMS: Mapping[Cell, float] = {STATED: 0.25, NOISY: 0.75}
"""At most so much is lost by keeps that gain nothing: half of what was lost by keeping one run from z = 1 on."""
OVERSTATED, FALSE_CLAIMS = 0.3, 0.08
"""At most so much overstatement in sigmas, and share of false claims."""
SLACK, SLACK_SMALL = 1.0, 3.0
"""Standard errors by which a mean may lie beyond its bound."""
POLICIES: tuple[Policy, ...] = ("greedy", "noise_aware", "strict")
PURPOSES = ("baseline", "proposal", "confirmation", "re-measure", "pair")
SEEDS_PAIRS = 400
STEADY_OR_NOT = ((1.0, 0.0), (5.0, 0.0), (1.0, 4.0))
"""Noise of one run, and what the machine adds."""
PAIRED = tuple(Cell(sigma, 100, 1, drift, pairs) for sigma, drift in STEADY_OR_NOT for pairs in (True, False))


@dataclass(frozen=True)
class Result:
    """A row of the table: means over seeds, each with its standard error."""

    gain: tuple[float, float]
    false_keeps: tuple[float, float]
    harm: tuple[float, float]
    overstatement: tuple[float, float]
    keeps: float
    runs: Mapping[str, float]
    claims: float = 0.0
    false_claims: tuple[float, float] = (0.0, 0.0)
    displaced: float = 0.0


def simulate(job: tuple[Row, Cell, int]) -> Outcome:
    """One research run, for a pool of processes."""
    return Simulation(*job).complete()


def summarise(outcomes: Sequence[Outcome]) -> Result:
    """The means of many research runs."""
    n = len(outcomes)
    runs = sum((outcome.runs for outcome in outcomes), Counter[str]())
    return Result(
        gain=_mean([outcome.gain for outcome in outcomes]),
        false_keeps=_share([(outcome.false_keeps, outcome.keeps) for outcome in outcomes]),
        harm=_mean([outcome.harm for outcome in outcomes]),
        overstatement=_mean([outcome.overstatement for outcome in outcomes]),
        keeps=sum(outcome.keeps for outcome in outcomes) / n,
        runs={purpose: runs[purpose] / n for purpose in PURPOSES},
        claims=sum(outcome.claims for outcome in outcomes) / n,
        false_claims=_share([(outcome.false_claims, outcome.claims) for outcome in outcomes]),
        displaced=sum(outcome.displaced for outcome in outcomes) / n,
    )


def missed(cell: Cell, rows: Mapping[Row, Result], slack: float) -> Iterator[str]:
    """The bounds stated of a setting that do not hold, each widened by `slack` standard errors."""
    aware = rows[NOISE_AWARE]
    if cell == STATED:
        for row, stated in ((GREEDY_CLASSIC, 7.3), (GREEDY, 9.7)):
            gain, error = rows[row].gain
            if abs(gain - stated) > 0.6 + slack * error:
                yield f"{' + '.join(row)} gains {gain:.2f}, stated {stated} +- 0.6"
        share, error = aware.false_keeps
        if share > 0.28 + slack * error:
            yield f"noise_aware: {share:.3f} of the keeps gain nothing, stated at most 0.28"
        share, error = rows[GREEDY].false_keeps
        if share < 0.31 - slack * error:
            yield f"greedy: {share:.3f} of the keeps gain nothing, stated at least 0.31"
    yield from aware_missed(cell, aware, slack)


def aware_missed(cell: Cell, aware: Result, slack: float) -> Iterator[str]:
    """The bounds on what the default policy gains, loses and tells that do not hold, widened like the others."""
    at = f"at sigma {cell.sigma:g}, stated at"
    gain, error = aware.gain
    if gain < GAINS[cell] - slack * error:
        yield f"noise_aware gains {gain:.2f} {at} least {GAINS[cell]}"
    harm, error = aware.harm
    if harm > HARMS[cell] + slack * error:
        yield f"harm: {harm:.2f} {at} most {HARMS[cell]}"
    overstated, error = aware.overstatement
    if overstated > OVERSTATED * cell.sigma + slack * error:
        yield f"overstatement: {overstated:.2f} {at} most {OVERSTATED} sigma"
    share, error = aware.false_claims
    if share > FALSE_CLAIMS + slack * error:
        yield f"claims: {share:.3f} are false {at} most {FALSE_CLAIMS}"


def table(cell: Cell, rows: Mapping[Row, Result], seeds: int) -> Iterator[str]:
    """The rows of a setting as text."""
    machine = f", machine moves by {cell.drift:g}" if cell.drift else ""
    machine += "" if cell.pairs else ", without pairs"
    yield f"\nsigma {cell.sigma:g}, budget {cell.budget:g}, {cell.workers} workers, {seeds} seeds{machine}"
    yield (
        f"{'rule + guidance':22}{'true gain':>15}{'false keeps':>13}{'harm':>7}{'overstated':>12}{'keeps':>7}"
        f"{'claims':>8}{'false':>7}{'taken back':>12}"
        f"  runs: {', '.join(PURPOSES)}"
    )
    for row, result in rows.items():
        gain = f"{result.gain[0]:.2f} +- {result.gain[1]:.2f}"
        runs = ", ".join(f"{result.runs[purpose]:.1f}" for purpose in PURPOSES)
        yield (
            f"{' + '.join(row):22}{gain:>15}{result.false_keeps[0]:>13.3f}{result.harm[0]:>7.2f}"
            f"{result.overstatement[0]:>12.2f}{result.keeps:>7.1f}{result.claims:>8.2f}{result.false_claims[0]:>7.3f}"
            f"{result.displaced:>12.2f}  {runs}"
        )


START = (0.0, 0.0, 0.0)
"""Where a night stands before there is a best: cost, true gain and reported gain."""


def night(outcomes: Sequence[Outcome], budget: float) -> dict[str, list[float]]:
    """How the median research run stands when so much is spent: its true gain, and by how much the report is too good.

    It begins with the cost of two baselines; a run that needs more of them has gained nothing until then.
    """
    unfolding: dict[str, list[float]] = {"spent": [], "gain": [], "overstatement": []}
    for spent in range(2, int(budget) + 1):
        last = [[START, *(step for step in outcome.steps if step[0] <= spent)][-1] for outcome in outcomes]
        unfolding["spent"].append(spent)
        unfolding["gain"].append(statistics.median(gain for _, gain, _ in last))
        unfolding["overstatement"].append(statistics.median(reported - gain for _, gain, reported in last))
    return unfolding


def measure(executor: Executor, cell: Cell, seeds: int, rows: Sequence[Row] = ROWS) -> dict[Row, list[Outcome]]:
    """Run every row of a setting, each over the same seeds."""
    jobs = [(row, cell, seed) for row in rows for seed in range(FIRST_SEED, FIRST_SEED + seeds)]
    outcomes = list(executor.map(simulate, jobs, chunksize=10))
    return {row: outcomes[i * seeds : (i + 1) * seeds] for i, row in enumerate(rows)}


def compare_pairs(processes: int) -> int:
    """Print the default policy with runs side by side and without."""
    with ProcessPoolExecutor(processes) as executor:
        for cell in PAIRED:
            outcomes = measure(executor, cell, SEEDS_PAIRS, (NOISE_AWARE,))
            rows = {row: summarise(found) for row, found in outcomes.items()}
            print("\n".join(table(cell, rows, SEEDS_PAIRS)), flush=True)
    return 0


def main() -> int:
    """Print the tables, then the bounds that were missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the stated bounds alone, with few seeds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw what was found")
    parser.add_argument("--pairs", action="store_true", help="what runs side by side cost and bring, alone")
    given = parser.parse_args()
    if given.pairs:
        return compare_pairs(given.processes)
    began = time.perf_counter()
    problems: list[str] = []
    record: dict[str, Any] = {"cells": [], "nights": []}
    with ProcessPoolExecutor(given.processes) as executor:
        for cell in (STATED, NOISY) if given.small else (STATED, NOISY, *(each for each in GRID if each != STATED)):
            seeds = SEEDS_SMALL if given.small else SEEDS if cell in (STATED, NOISY) else SEEDS_ELSEWHERE
            outcomes = measure(executor, cell, seeds, (NOISE_AWARE,) if given.small and cell == NOISY else ROWS)
            rows = {row: summarise(found) for row, found in outcomes.items()}
            print("\n".join(table(cell, rows, seeds)), flush=True)
            found = [{"row": row, **asdict(result)} for row, result in rows.items()]
            record["cells"].append({**asdict(cell), "seeds": seeds, "rows": found})
            if cell in (STATED, NOISY):
                problems += missed(cell, rows, slack=SLACK_SMALL if given.small else SLACK)
            if cell == STATED:
                record["nights"] = [{"row": row, **night(outcomes[row], cell.budget)} for row in ROWS]
        if given.json or given.plots:
            curves = zip(POLICIES, executor.map(curve, POLICIES), strict=True)
            record["chances"] = [{"policy": policy, "effect": EFFECTS, **asdict(found)} for policy, found in curves]
    print(f"\n{time.perf_counter() - began:.0f} s on {given.processes} processes")
    write(record, given.json, given.plots)
    for problem in problems:
        print(f"missed: {problem}")
    return int(bool(problems))


def write(record: Mapping[str, Any], path: Path | None, plots: Path | None) -> None:
    """Save what was found, and draw it."""
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")
    if plots is not None:
        from benchmarks.decision_plots import draw

        draw(record, plots)


def _share(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The sum of the parts over the sum of the wholes, and its standard error."""
    whole = sum(count for _, count in counts)
    share = sum(part for part, _ in counts) / max(1, whole)
    # The error of a ratio of sums is that of the mean of (numerator - ratio * denominator) over the mean denominator.
    rest = [part - share * count for part, count in counts]
    return share, _mean(rest)[1] * len(counts) / max(1, whole)


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


if __name__ == "__main__":
    sys.exit(main())
