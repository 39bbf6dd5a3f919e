"""Simulated research: what the verdicts and suggestions of this project find, where the truth is known.

    python benchmarks/decision_sim.py [--small] [--seeds N] [--processes 2]

Unit: 1e-3 of val_bpb. Ideas of six categories, of very different worth, are measured with noise; the project's own
functions say what is kept, what is run again and which category is tried next. Prints what each pair of rule and
guidance gained in truth, and exits 1 when a stated bound is missed.
"""

import argparse
import heapq
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from mcp_server.research.evidence import Count, gather
from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.noise import Noise, pool
from mcp_server.research.noise_aware import Candidate, Incumbent, Replicate, judge_baseline, judge_candidate, standing
from mcp_server.research.plateau import remeasure_due, reopened
from mcp_server.research.strategy import choose, ranking
from mcp_server.research.task import CATEGORIES, Category, Policy, Task
from mcp_server.research.thompson import arms, sampled
from mcp_server.research.verdict import Verdict, judge

BASELINE = 998.0
HIT_RATES = (0.35, 0.22, 0.14, 0.08, 0.05, 0.02)
SCOPE = CATEGORIES[: len(HIT_RATES)]
import os
PRIOR = float(os.environ.get('PRIOR','0.5'))
FIRST_SEED = 50_000

Guide = Literal["classic", "thompson"]
Kind = Literal["baseline", "proposal", "confirmation", "re-measure"]
ROWS: tuple[tuple[Policy, Guide], ...] = (
    ("greedy", "classic"),
    ("greedy", "thompson"),
    ("noise_aware", "thompson"),
    ("strict", "thompson"),
)


@dataclass(frozen=True)
class Cell:
    """One setting of the grid: noise of a run, cost that may be spent, asynchronous workers."""

    sigma: float
    budget: float
    workers: int


@dataclass
class Code:
    """Something that was kept: what it scores in truth, and its runs, the oldest first."""

    name: str
    truth: float
    values: list[float]
    baseline: bool = False
    remeasured: bool = False
    unconf: bool = False
    standing: Incumbent | None = None

    def incumbent(self) -> Incumbent:
        """How it stands as a base; computed anew after each run."""
        if os.environ.get("AVG") and self.standing is None and self.unconf:
            self.standing = standing(self.name, self.values, baseline=True, remeasured=self.remeasured)
        if self.standing is None:
            self.standing = standing(self.name, self.values, baseline=self.baseline, remeasured=self.remeasured)
        return self.standing


@dataclass
class Idea:
    """A proposal: its category, its effect in truth (positive is better), and its runs as (value, base)."""

    name: str
    number: int
    category: Category
    effect: float
    crashes: bool
    version: int
    base: Code
    runs: list[tuple[float, Code]] = field(default_factory=list)
    status: Status = "registered"
    near_miss: bool = False
    z: float = 0.0
    hyp: str = ''


@dataclass(frozen=True)
class Job:
    """A run under way."""

    kind: Kind
    idea: Idea | None
    code: Code
    cost: float


@dataclass
class Outcome:
    """What a simulated run came to."""

    gain: float = 0.0
    keeps: int = 0
    false_keeps: int = 0
    harm: float = 0.0
    overstatement: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)


class Landscape:
    """What there is to be found: seeded, and used up by finding."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        rates = list(HIT_RATES)
        self._random.shuffle(rates)
        self._rates = dict(zip(SCOPE, rates, strict=True))

    def propose(self, category: Category) -> tuple[float, bool]:
        """The effect of a new idea of a category, and whether it crashes."""
        draw = self._random
        if draw.random() < self._rates[category]:
            self._rates[category] *= 0.90
            effect = min(12.0, draw.lognormvariate(math.log(0.8), 1))
        elif draw.random() < 0.35:
            effect = draw.gauss(0, 0.1)
        else:
            effect = -min(50.0, draw.lognormvariate(0, 1))
        return effect, draw.random() < 0.05

    def lost(self, changes: int) -> bool:
        """Whether what an idea would bring is lost to so many changes of its base."""
        return any(self._random.random() < 0.15 for _ in range(changes))


class Simulation:
    """One research run under a policy and a guidance."""

    def __init__(self, policy: Policy, guide: Guide, cell: Cell, seed: int) -> None:
        self.task = Task(
            "val_bpb", "minimize", 300, "train.py", "python train.py", "python", ("train.py",),
            scope=SCOPE, policy=policy, near_miss_threshold=2.0,
        )  # fmt: skip
        self.run = Run("sim", "autoresearch/sim", "0" * 40, self.task, "cuda", {}, 0.0)
        self.policy, self.guide, self.cell = policy, guide, cell
        self.landscape = Landscape(seed)
        self.noise_draws = random.Random(7919 * seed + 13)
        self.draws = random.Random(104_729 * seed + 29)
        self.baseline = Code("e0", BASELINE, [], baseline=True)
        self.kept: list[Code] = []
        self.ideas: list[Idea] = []
        self.pending: list[Idea] = []
        self.open_baselines = 0
        self.remeasuring = False
        self.non_keeps = 0
        self.sets: list[list[float]] = [self.baseline.values]
        self.noise = Noise(prior=PRIOR)
        self.outcome = Outcome()

    def complete(self) -> Outcome:
        """Spend the budget and say what came of it."""
        spent, clock, launched = 0.0, 0.0, 0
        under_way: list[tuple[float, int, Job]] = []
        while True:
            while len(under_way) < self.cell.workers and spent < self.cell.budget and (job := self.next_job()):
                spent += job.cost
                launched += 1
                self.outcome.runs[job.kind] += 1
                lasts = job.cost * self.noise_draws.uniform(0.95, 1.05)
                heapq.heappush(under_way, (clock + lasts, launched, job))
            if not under_way:
                break
            clock, _, job = heapq.heappop(under_way)
            self.arrive(job)
        best = self.kept[-1]
        self.outcome.gain = BASELINE - best.truth
        self.outcome.overstatement = best.truth - best.incumbent().mean
        return self.outcome

    def next_job(self) -> Job | None:
        """What the next free worker does."""
        if not self.kept:
            wanted = 1 if self.policy == "greedy" else self.noise.baselines
            if len(self.baseline.values) + self.open_baselines >= wanted:
                return None
            self.open_baselines += 1
            return Job("baseline", None, self.baseline, 1.0)
        best = self.kept[-1]
        if not self.remeasuring and remeasure_due(self.task, best.incumbent(), self.non_keeps):
            self.remeasuring = True
            return Job("re-measure", None, best, 1.0)
        if self.pending:
            idea = max(self.pending, key=lambda each: each.z)
            self.pending.remove(idea)
            self.rebase(idea)
            return Job("confirmation", idea, best, 1.0)
        self.hyp = ""
        special = None
        category = self.category()
        if category == "combination":
            a, b = self.pair
            x = a.effect + b.effect
            f = .8 if a.category != b.category else .5
            effect, crashes = (x*f if x > 0 else x) + self.landscape._random.gauss(0,.2), self.landscape._random.random()<.05
            self.hyp = f"{a.name} and {b.name}"
        elif category == "ablation":
            effect, crashes = -self.abl.effect, self.landscape._random.random()<.05
            self.hyp = f"ablate {self.abl.name}"
        else:
            effect, crashes = self.landscape.propose(category)
        number = len(self.ideas) + 1
        idea = Idea(f"e{number}", number, category, effect, crashes, len(self.kept), best)
        idea.hyp = self.hyp
        self.ideas.append(idea)
        return Job("proposal", idea, best, 0.2 if crashes else 1.0)

    def rebase(self, idea: Idea) -> None:
        """Put an idea on the present best."""
        changes = len(self.kept) - idea.version
        if idea.effect > 0 and self.landscape.lost(changes):
            idea.effect = 0.0
        idea.version, idea.base = len(self.kept), self.kept[-1]

    def category(self) -> Category:
        """What kind of idea is tried next."""
        if self.guide == "thompson":
            finished = [i for i in reversed(self.ideas) if i.status in ("keep", "discard", "crash")]
            known = arms((i.category, i.status == "keep") for i in finished[:200])
            return sampled(SCOPE, known, {}, self.draws)[0].category
        evidence = gather(self.task, [self.experiment(idea) for idea in self.ideas])
        from mcp_server.research.strategy import near_miss_pairs, underexplored, high_yield
        st = choose(self.run, evidence); mode = st.mode
        V = os.environ.get("V", "A")
        d = self.draws
        under, high = underexplored(self.task, evidence), high_yield(evidence)
        if V in "XYZ":
            if mode in ("combine",):
                pairs = near_miss_pairs(self.task, evidence)
                if pairs:
                    by = {i.name:i for i in self.ideas}
                    self.pair = by[pairs[0].first], by[pairs[0].second]
                    return "combination"
                mode = "ablation" if V in "XZ" else "explore"
            if mode == "ablation" and V in "XZ":
                done = {i.hyp for i in self.ideas}
                ks = [i for i in self.ideas if i.status=="keep" and i.category in SCOPE and "ablate "+i.name not in done]
                if ks:
                    self.abl = ks[0] if V=="X" else min(ks, key=lambda i:i.z)
                    return "ablation"
                mode = "explore"
            if mode == "ablation": mode = "explore"
            return ranking(self.task, evidence, mode)[0].category
        if V == "U": return d.choice(SCOPE)
        if V == "A2":
            if mode in ("combine","ablation"): mode="explore"
            return ranking(self.task, evidence, mode)[0].category
        if V == "A3":
            return ranking(self.task, evidence, "explore" if d.random()<st.explore_ratio else "exploit")[0].category
        if V == "B":
            if d.random() < st.explore_ratio: return d.choice(under or SCOPE)
            return d.choice(high or SCOPE)
        if V == "C":
            if mode == "explore": return d.choice(under or SCOPE)
            if mode == "exploit": return d.choice(high or SCOPE)
            return d.choice(SCOPE)
        if V == "E":
            if mode == "exploit": return d.choice(high or SCOPE)
            return ranking(self.task, evidence, "explore")[0].category
        if V == "F":
            if under: return under[0]
            if mode == "exploit": return d.choice(high or SCOPE)
            return d.choice(SCOPE)
        return ranking(self.task, evidence, mode)[0].category

    def experiment(self, idea: Idea) -> Experiment:
        """An idea as the strategy sees it."""
        value = idea.runs[-1][0] if idea.runs else None
        return Experiment(
            idea.name, "sim", idea.number, "a", "", "", idea.hyp, idea.category, "", 0.0, idea.status,
            value=value, near_miss=idea.near_miss,
        )  # fmt: skip

    def arrive(self, job: Job) -> None:
        """Take in a finished run."""
        if job.idea is not None and job.idea.crashes:
            job.idea.status = "crash"
            return
        truth = job.code.truth - (job.idea.effect if job.idea else 0.0)
        value = truth + self.noise_draws.gauss(0, self.cell.sigma)
        if job.idea is not None:
            job.idea.runs.append((value, job.code))
            self.judge(job.idea, truth)
            return
        job.code.values.append(value)
        job.code.standing = None
        if job.kind == "baseline":
            self.open_baselines -= 1
            if self.baseline_done():
                self.kept.append(self.baseline)
        else:
            self.remeasuring, job.code.remeasured = False, True
            self.reopen(job.code)
        self.noise = self.estimate()

    def estimate(self) -> Noise:
        import os
        sets = [self.baseline.values]
        names = set()
        for c in self.kept[1:]:
            names.add(c.name)
            if os.environ.get("SCREEN") and c.remeasured and len(c.values) == 2:
                sets.append(c.values)
            else:
                sets.append(c.values[1:])
        for idea in self.ideas:
            if len(idea.runs) > 2 and idea.name not in names:
                own = [value for i, (value, code) in enumerate(idea.runs) if i == 0 or code is idea.base]
                sets.append(own[1:])
        return pool(sets, PRIOR)

    def baseline_done(self) -> bool:
        if self.policy == "greedy":
            return True
        return judge_baseline(self.task, "e0", self.baseline.values, self.noise, 1).decision == "keep"

    def verdict(self, idea: Idea) -> Verdict:
        best = self.kept[-1].incumbent()
        if self.policy == "greedy":
            return judge(self.task, idea.runs[-1][0], best.mean)
        return judge_candidate(self.task, self.candidate(idea), best, self.noise, seed=len(idea.runs))

    def candidate(self, idea: Idea) -> Candidate:
        runs = []
        for value, code in idea.runs:
            base = code.incumbent()
            runs.append(Replicate(value, base.name, base.mean, base.runs))
        return Candidate(idea.name, tuple(runs))

    def judge(self, idea: Idea, truth: float) -> None:
        """Act on the verdict."""
        verdict = self.verdict(idea)
        idea.near_miss = verdict.near_miss
        idea.z = verdict.numbers.z if verdict.numbers else 0.0
        own = [value for i, (value, code) in enumerate(idea.runs) if i == 0 or code is idea.base]
        self.noise = self.estimate() if len(idea.runs) > 2 else self.noise
        if verdict.decision == "needs_confirmation":
            idea.status = "needs_confirmation"
            self.pending.append(idea)
        elif verdict.decision == "keep":
            gain = self.kept[-1].truth - truth
            self.outcome.keeps += 1
            self.outcome.false_keeps += gain <= 0
            self.outcome.harm += max(0.0, -gain)
            idea.status, self.non_keeps = "keep", 0
            self.kept.append(Code(idea.name, truth, own, unconf=len(own)==1))
        else:
            idea.status = "discard"
            self.non_keeps += 1

    def reopen(self, code: Code) -> None:
        """Look again at what came close to a best that was just re-measured."""
        if code is not self.kept[-1]:
            return
        near = [i for i in self.ideas if i.status == "discard" and i.near_miss and i.base is code]
        names = reopened(self.task, [self.candidate(idea) for idea in near], code.incumbent(), self.noise)
        for idea in near:
            if idea.name in names:
                idea.status, idea.near_miss = "needs_confirmation", False
                self.pending.append(idea)


def one(job: tuple[Policy, Guide, Cell, int]) -> Outcome:
    policy, guide, cell, seed = job
    return Simulation(policy, guide, cell, seed).complete()

if __name__ == "__main__":
    n = int(sys.argv[1])
    with ProcessPoolExecutor(2) as ex:
        for policy, guide in eval(os.environ.get('R','ROWS')):
            t=time.time()
            outs = list(ex.map(one, [(policy, guide, Cell(1,100,1), FIRST_SEED+i) for i in range(n)], chunksize=25))
            g=[o.gain for o in outs]
            runs=Counter()
            for o in outs: runs.update(o.runs)
            print(policy, guide, f"{statistics.mean(g):.2f} +- {statistics.stdev(g)/n**.5:.2f}", "false", f"{sum(o.false_keeps for o in outs)/sum(o.keeps for o in outs):.3f}", f"harm {sum(o.harm for o in outs)/n:.2f} over {sum(o.overstatement for o in outs)/n:.2f} keeps {sum(o.keeps for o in outs)/n:.1f}", {k:v/n for k,v in runs.items()}, f"{time.time()-t:.0f}s")
