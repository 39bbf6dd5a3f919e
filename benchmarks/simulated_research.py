"""A research run in which the truth is known: ideas of known worth, measured with noise, judged by the project.

Unit: 1e-3 of val_bpb. Nothing here decides anything: verdicts, re-runs and the choice of the next idea come from
`mcp_server.research`, given what a store would give it.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mcp_server.research.agenda import Finding, Pending, due, keep_to_question
from mcp_server.research.bases import is_loud, likely_levels, pulled
from mcp_server.research.blocks import Pairing, samples_of
from mcp_server.research.chain import Level
from mcp_server.research.claims import RESERVE, Assessment, assess
from mcp_server.research.evidence import Evidence, gather
from mcp_server.research.experiment import FINISHED, FIRST_SEED, Experiment, Run, Status, Trial, fresh_seed
from mcp_server.research.levels import levels_of
from mcp_server.research.noise import Noise, mean, pool
from mcp_server.research.noise_aware import (
    Candidate,
    Incumbent,
    Replicate,
    counted,
    judge_baseline,
    judge_candidate,
    standing,
)
from mcp_server.research.pairing import (
    Beside,
    Spread,
    beside,
    doubt,
    equal_runs,
    pairs_of,
    spread_of,
    unseen,
    worthwhile,
)
from mcp_server.research.plateau import on_plateau, reopened
from mcp_server.research.strategy import choose, near_miss_pairs, ranking
from mcp_server.research.task import CATEGORIES, Category, Policy, Task
from mcp_server.research.thompson import arms, sampled
from mcp_server.research.verdict import Verdict, judge

BASELINE = 998.0
HIT_RATES = (0.35, 0.22, 0.14, 0.08, 0.05, 0.02)
SCOPE = CATEGORIES[: len(HIT_RATES)]
PRIOR = 0.5
SECONDS = 300.0
"""What a run takes."""
STEADY = 40.0
"""A machine that drifts, for others' work comes and goes, stays as it is for the time of so many runs on average."""
NEAR = 2.0
"""The prior standard deviation of a run, and the near-miss band of the greedy rule: those of val_bpb."""

Guide = Literal["classic", "thompson"]
Kind = Literal["baseline", "proposal", "confirmation", "re-measure", "pair"]
Row = tuple[Policy, Guide]


@dataclass(frozen=True)
class Cell:
    """A setting: noise of one run, cost that may be spent, asynchronous workers.

    Attributes:
        drift: standard deviation of what the machine adds to every score, for a while the same.
        pairs: whether confirmations are run side by side with the best where that is worthwhile.
    """

    sigma: float
    budget: float
    workers: int
    drift: float = 0.0
    pairs: bool = True


@dataclass
class Code:
    """Something that was kept: what it scores in truth, and the arguments of `counted`.

    Attributes:
        trials: its runs by id, those under way included.
        selected: the one that it was selected by, where it was confirmed after that.
        first_run: the one that it was selected by.
    """

    name: str
    truth: float
    first: float | None = None
    confirmations: list[float] = field(default_factory=list)
    remeasures: list[float] = field(default_factory=list)
    parent: "Code | None" = None
    moved: bool = False
    trials: dict[str, Trial] = field(default_factory=dict)
    selected: str = ""
    first_run: str = ""

    def __post_init__(self) -> None:
        self.incumbent: Incumbent | None = None

    def stand(self) -> Incumbent:
        """How it stands as a base, computed anew after a run."""
        if self.incumbent is None:
            self.incumbent = standing(self.name, self.first, self.confirmations, self.remeasures)
        return self.incumbent

    def runs(self) -> tuple[float, ...]:
        """All runs of this code, the one that it was selected by included, unless that was on another base."""
        first = () if self.first is None or (self.moved and self.confirmations) else (self.first,)
        return (*first, *self.confirmations, *self.remeasures)

    def counting(self) -> list[Trial]:
        """The runs that its mean is of."""
        return [t for t in self.trials.values() if t.status == "finished" and t.id != self.selected]

    def level(self) -> Level:
        """It as a level of the chain by its own runs, larger is better."""
        values = self.runs()
        return Level(self.name, -mean(values), len(values))

    def all_runs(self) -> list[Trial]:
        """The runs that a claim rests on: those of `runs`."""
        left_out = self.selected if self.moved else ""
        return [t for t in self.trials.values() if t.status == "finished" and t.id != left_out]


@dataclass
class Idea:
    """A proposal: what it would bring in truth (positive is better), and its runs as values and bases.

    Attributes:
        version: how many keeps there were when it was put on its base.
        about: names of the ideas that it joins or takes away.
    """

    name: str
    number: int
    category: Category
    effect: float
    crashes: bool
    version: int
    base: Code
    about: tuple[str, ...] = ()
    runs: list[tuple[float, Code]] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)
    status: Status = "registered"
    verdict: Verdict | None = None

    @property
    def z(self) -> float:
        """The z of its last verdict."""
        return self.verdict.numbers.z if self.verdict and self.verdict.numbers else 0.0

    @property
    def near_miss(self) -> bool:
        """Whether its last verdict says so."""
        return self.verdict is not None and self.verdict.near_miss

    def values(self) -> tuple[float, list[float]]:
        """Its first run, and its confirmations on the present base."""
        return self.runs[0][0], [value for value, code in self.runs[1:] if code is self.base]

    def candidate(
        self, task: Task, bases: Mapping[str, Incumbent], known: tuple[Spread, Noise] | None = None
    ) -> Candidate:
        """It as the judge sees it.

        Args:
            bases: the codes of which more is known than their own runs say, by name.
            known: how far runs differ near in time, and the noise of single runs; None where nothing is paired.
        """
        stands = [(value, bases.get(code.name) or code.stand()) for value, code in self.runs]
        runs = tuple(Replicate(value, base.name, base.mean, base.runs) for value, base in stands)
        return Candidate(self.name, runs, pairing=self.pairing(task, *known) if known else None)

    def pairing(self, task: Task, spread: Spread, noise: Noise) -> Pairing | None:
        """Its runs and those of its bases in blocks near in time; None where no two of them are a pair."""
        pairs, parts = 0, []
        for name, code in {code.name: code for _, code in self.runs}.items():
            own = [t for t in self.trials.values() if t.status == "finished" and t.commit == name]
            pairs += len(pairs_of(task, own, code.counting()))
            parts.append(samples_of(task, own, code.counting(), score))
        return Pairing(pairs, (tuple(filter(None, parts)),), spread, noise) if pairs else None

    def experiment(self) -> Experiment:
        """It as the strategy sees it."""
        return Experiment(
            self.name, "sim", self.number, "a", "", "", " ".join(self.about), self.category, "", 0.0, self.status,
            value=self.runs[-1][0] if self.runs else None, near_miss=self.near_miss,
        )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run under way, on the code of a base with an idea on top, or on the base itself."""

    kind: Kind
    base: Code
    idea: Idea | None = None
    seed: int = FIRST_SEED

    @property
    def cost(self) -> float:
        """What it takes of the budget."""
        return 0.2 if self.idea is not None and self.idea.crashes else 1.0


@dataclass
class Outcome:
    """What a simulated run came to.

    Attributes:
        overstatement: the reported gain of the best minus the true one; reported is what is believed of it where its
            policy measures repeats, its mean against that of the baseline elsewhere.
        claims, false_claims: changes that were ever told as better than what they were built on, and bests that were
            told as better than the baseline at the end; and those of them that are not.
        displaced: kept changes that were taken back after more runs.
        steps: the cost spent, the true gain of the best and the gain that is reported, whenever one of these changed.
    """

    gain: float = 0.0
    overstatement: float = 0.0
    keeps: int = 0
    false_keeps: int = 0
    harm: float = 0.0
    claims: int = 0
    false_claims: int = 0
    displaced: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    steps: list[tuple[float, float, float]] = field(default_factory=list)


def score(trial: Trial) -> float:
    """What a finished trial came to."""
    return float(trial.metrics["val_bpb"])


class Landscape:
    """What there is to be found, used up by finding."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        rates = list(HIT_RATES)
        self.draw.shuffle(rates)
        self.rates: dict[Category, float] = dict(zip(SCOPE, rates, strict=True))

    def propose(self, category: Category) -> float:
        """The effect of a new idea."""
        if self.draw.random() < self.rates[category]:
            self.rates[category] *= 0.90
            return min(12.0, self.draw.lognormvariate(math.log(0.8), 1))
        if self.draw.random() < 0.35:
            return self.draw.gauss(0, 0.1)
        return -min(50.0, self.draw.lognormvariate(0, 1))

    def combine(self, a: Idea, b: Idea) -> float:
        """The effect of two ideas together."""
        both = a.effect + b.effect
        share = (0.8 if a.category != b.category else 0.5) if both > 0 else 1.0
        return share * both + self.draw.gauss(0, 0.2)

    def crashes(self) -> bool:
        """Whether a new proposal crashes."""
        return self.draw.random() < 0.05

    def settle(self, effect: float, changes: int) -> float:
        """What is left of an effect after so many changes of its base."""
        if effect > 0 and any(self.draw.random() < 0.15 for _ in range(changes)):
            return 0.0
        return effect


class Simulation:
    """One research run under a policy and a guidance."""

    def __init__(self, row: Row, cell: Cell, seed: int) -> None:
        self.policy, self.guide = row
        self.cell = cell
        self.task = Task(
            "val_bpb", "minimize", 300, "train.py", "python train.py", "python", ("train.py",),
            scope=SCOPE, policy=self.policy, near_miss_threshold=NEAR,
        )  # fmt: skip
        self.run = Run("sim", "autoresearch/sim", "", self.task, "cuda", {}, 0.0)
        self.landscape = Landscape(seed)
        self.noise_draw = random.Random(7919 * seed + 13)
        self.choice_draw = random.Random(104_729 * seed + 29)
        self.baseline = Code("e0", BASELINE)
        self.kept: list[Code] = []
        self.ideas: dict[str, Idea] = {}
        self.seen: dict[str, Experiment] = {}
        self.under_way: list[tuple[float, int, Job]] = []
        self.sets: dict[str, tuple[float, ...]] = {}
        self.noise = Noise(prior=PRIOR)
        self.non_keeps = 0
        self.spent = 0.0
        self.comparisons: dict[str, tuple[float, float, float]] = {}
        self.claimed: dict[str, float] = {}
        self.assessed: Assessment | None = None
        self.machine_draw = random.Random(15_485_863 * seed + 31)
        self.levels = [(0.0, 0.0)]
        self.spread: Spread | None = None
        self.clock = self.asked = 0.0
        self.repeated: dict[str, list[Trial]] = {}
        self.pulled: tuple[object, Mapping[str, Incumbent]] = (None, {})
        self.outcome = Outcome()

    def complete(self) -> Outcome:
        """Spend the budget and say what came of it."""
        spent, clock, launched = 0.0, 0.0, 0
        while True:
            while len(self.under_way) < self.cell.workers and spent < self.cell.budget and (job := self.next_job()):
                spent += job.cost
                self.spent = spent
                launched += 1
                self.outcome.runs[job.kind] += 1
                self.begin(job, clock)
                ends = clock + job.cost * self.noise_draw.uniform(0.95, 1.05)
                heapq.heappush(self.under_way, (ends, launched, job))
            if not self.under_way:
                break
            clock, _, job = heapq.heappop(self.under_way)
            self.clock = clock
            self.arrive(job, clock)
            self.note(spent)
        self.account()
        return self.outcome

    def begin(self, job: Job, clock: float) -> None:
        """Write down a run that begins."""
        runs = (job.idea or job.base).trials
        name = (job.idea or job.base).name
        now = clock * SECONDS
        self.asked = now if job.idea else self.asked
        trial = Trial(
            f"{name}.{job.seed}", name, len(runs) + 1, job.seed, "cuda", "training", now, started_at=now,
            commit=job.base.name,
        )  # fmt: skip
        runs[trial.id] = trial

    def ended(self, job: Job, clock: float, value: float) -> float:
        """Write down the end of a run, which came to this and what the machine adds; the sum of both."""
        runs, name = (job.idea or job.base).trials, f"{(job.idea or job.base).name}.{job.seed}"
        began = (runs[name].started_at or 0.0) / SECONDS
        if self.cell.drift:
            value += self.machine_at(began)
        runs[name] = replace(runs[name], status="finished", ended_at=clock * SECONDS, metrics={"val_bpb": value})
        return value

    def machine_at(self, moment: float) -> float:
        """What the machine adds to the score of a run that begins then."""
        while self.levels[-1][0] <= moment:
            until = self.levels[-1][0] + self.machine_draw.expovariate(1 / STEADY)
            self.levels.append((until, self.machine_draw.gauss(0, self.cell.drift)))
        return next(level for until, level in self.levels if moment < until)

    def account(self) -> None:
        """Add up what was found and what is told of it."""
        best = self.kept[-1]
        self.outcome.gain = BASELINE - best.truth
        told, assessment = list(self.claimed.values()), self.assess()
        if assessment is None or assessment.total is None:
            self.outcome.overstatement = best.truth - best.stand().mean
        else:
            self.outcome.overstatement = assessment.total.gain - self.outcome.gain
            told += [self.outcome.gain] * assessment.total.claimed
        self.outcome.claims, self.outcome.false_claims = len(told), sum(gain <= 0 for gain in told)

    def assess(self) -> Assessment | None:
        """What may be told as it now is; None under the greedy policy, which repeats nothing."""
        if self.policy == "greedy":
            return None
        if self.assessed is None:
            chain = self.chain()
            own = {code.name: code.runs() for code in chain}
            noise = pool({**self.sets, **own}.values(), PRIOR)
            levels = levels_of(self.task, [(code.name, code.all_runs()) for code in chain[::-1]], lambda t: -score(t))
            pairs = self.spread_now().noise(noise) if self.cell.pairs else None
            self.assessed = assess(levels, noise, self.comparisons.values(), pairs)
            for code in chain[:-1]:
                if self.assessed and self.assessed.steps[code.name].claimed and code.parent:
                    self.claimed[code.name] = code.parent.truth - code.truth
        return self.assessed

    def chain(self) -> list[Code]:
        """What the best was made from, itself first."""
        chain = [self.kept[-1]]
        while (parent := chain[-1].parent) is not None:
            chain.append(parent)
        return chain

    def bases(self) -> Mapping[str, Incumbent]:
        """The codes of the chain as what changes are compared with, by name; anew when one of them was run."""
        chain = self.chain()
        known = (self.noise, *((code.name, len(code.runs())) for code in chain))
        if self.pulled[0] != known:
            likely = likely_levels([c.level() for c in chain[::-1]], self.noise, self.comparisons.values())
            self.pulled = known, {code.name: pulled(self.task, code.stand(), likely, {}) for code in chain}
        return self.pulled[1]

    def reconsider(self) -> None:
        """Take back a best that its own runs do not bear out."""
        while (assessment := self.assess()) is not None and assessment.fallen:
            code = self.kept.pop()
            self.ideas[code.name].status = "discard"
            self.outcome.displaced += 1
            self.assessed = None

    def note(self, spent: float) -> None:
        """Write down how the best stands, if that changed."""
        if self.kept:
            best, steps = self.kept[-1], self.outcome.steps
            gains = (BASELINE - best.truth, BASELINE - best.stand().mean)
            if not steps or steps[-1][1:] != gains:
                steps.append((spent, *gains))

    def next_job(self) -> Job | None:
        """What a free worker does next; None while it waits for the baselines."""
        running = Counter(job.kind for _, _, job in self.under_way)
        if not self.kept:
            wanted = 1 if self.policy == "greedy" else self.noise.baselines
            missing = wanted - len(self.baseline.confirmations) - running["baseline"]
            seed = fresh_seed({trial.seed for trial in self.baseline.trials.values()})
            return Job("baseline", self.baseline, seed=seed) if missing > 0 else None
        best, pending = self.kept[-1], self.pending()
        if self.spent >= (1 - RESERVE) * self.cell.budget and not running["re-measure"] and (again := self.closing()):
            return Job("re-measure", again, seed=fresh_seed({t.seed for t in again.trials.values()}))
        measuring = running["re-measure"] + running["pair"] > 0
        for owed in due(self.task, best.stand(), self.non_keeps, measuring, pending):
            if owed.kind == "re-measure":
                return Job("re-measure", best, seed=fresh_seed({t.seed for t in best.trials.values()}))
            return self.confirmation(best, self.ideas[owed.name])
        if self.look_back(best) and not measuring:
            return Job("re-measure", best, seed=fresh_seed({t.seed for t in best.trials.values()}))
        drift = self.cell.pairs and self.policy != "greedy" and self.spread_now().drift(PRIOR)
        found = self.beside(best, (), self.asked) if drift else Beside()
        if found.first is not None:
            return Job("pair", best, seed=found.first)
        idea = self.propose(best)
        self.ideas[idea.name] = idea
        return Job("proposal", best, idea, found.seed or FIRST_SEED)

    def confirmation(self, best: Code, idea: Idea) -> Job:
        """The next run of an idea, or first one of the best beside it."""
        own = list(idea.trials.values())
        found = self.beside(best, own, own[-1].queued_at) if self.side_by_side(best) else Beside()
        if found.first is not None:
            return Job("pair", best, seed=found.first)
        seed = found.seed or fresh_seed({trial.seed for trial in own})
        return Job("confirmation", best, self.rebased(idea), seed)

    def beside(self, best: Code, own: Sequence[Trial], since: float) -> Beside:
        """How the next run of an idea comes to be beside one of the best."""
        return beside(self.task, own, list(best.trials.values()), self.clock * SECONDS, since, best.first_run)

    def look_back(self, best: Code) -> bool:
        """Whether the best is run again to see if the machine drifts, since no code was run at two times so far."""
        if not self.cell.pairs or self.policy == "greedy" or not on_plateau(self.non_keeps):
            return False
        return unseen(self.task, self.noise, self.spread_now(), list(best.trials.values()), self.clock * SECONDS)

    def side_by_side(self, best: Code) -> str:
        """Why confirmations are run beside the best; empty where they are not."""
        if not self.cell.pairs:
            return ""
        compared = [i.verdict.numbers for i in self.ideas.values() if i.verdict and i.verdict.numbers]
        trials, now = list(best.trials.values()), self.clock * SECONDS
        return worthwhile(self.run, self.noise, self.spread_now(), "", compared, trials, now)

    def spread_now(self) -> Spread:
        """How far runs differ near in time and between times."""
        if self.spread is None:
            trials = [trial for runs in self.repeated.values() for trial in runs]
            self.spread = spread_of(self.task, trials, score) if self.cell.pairs else Spread()
        return self.spread

    def closing(self) -> Code | None:
        """What is to be run again at the end, so that more can be told."""
        assessment = self.assess()
        name = assessment.next_repeat if assessment else None
        return next((code for code in self.kept if code.name == name), None)

    def pending(self) -> list[Pending]:
        """Ideas that wait for another run."""
        if self.policy == "greedy":
            return []
        waiting = [idea for idea in self.ideas.values() if idea.status == "needs_confirmation"]
        return [Pending(idea.name, idea.z) for idea in waiting]

    def rebased(self, idea: Idea) -> Idea:
        """Put an idea on the present best for another run."""
        idea.effect = self.landscape.settle(idea.effect, len(self.kept) - idea.version)
        idea.version, idea.base, idea.status = len(self.kept), self.kept[-1], "queued"
        return idea

    def propose(self, base: Code) -> Idea:
        """A new idea of the kind that the guidance asks for."""
        category, about = self.sampled() if self.guide == "thompson" else self.classic()
        parts = [self.ideas[name] for name in about]
        if category == "combination":
            effect = self.landscape.combine(*parts)
        elif category == "ablation":
            effect = -parts[0].effect
        else:
            effect = self.landscape.propose(category)
        number = len(self.ideas) + 1
        crashes = self.landscape.crashes()
        return Idea(f"e{number}", number, category, effect, crashes, len(self.kept), base, about)

    def sampled(self) -> tuple[Category, tuple[str, ...]]:
        """A category by discounted Thompson sampling."""
        finished = [idea for idea in reversed(self.ideas.values()) if idea.status in FINISHED]
        known = arms((idea.category, idea.status == "keep") for idea in finished[:200])
        return sampled(SCOPE, known, {}, self.choice_draw)[0].category, ()

    def classic(self) -> tuple[Category, tuple[str, ...]]:
        """The first category of the classic mode, or the pair or keep that the mode is about."""
        evidence = self.evidence()
        mode = choose(self.run, evidence).mode
        if mode == "combine":
            pairs = near_miss_pairs(self.task, evidence)
            if pairs:
                return "combination", (pairs[0].first, pairs[0].second)
        if mode in ("combine", "ablation"):
            tried = {idea.about[0] for idea in self.ideas.values() if idea.category == "ablation"}
            kept = [idea for idea in self.ideas.values() if idea.status == "keep" and not idea.about]
            findings = [Finding(i.name, i.category, (i.verdict and i.verdict.delta) or 0.0, 1.0) for i in kept]
            weakest = keep_to_question(findings, tried)
            if weakest:
                return "ablation", (weakest.name,)
            mode = "explore"
        return ranking(self.task, evidence, mode)[0].category, ()

    def evidence(self) -> Evidence:
        """The history as the classic strategy sees it."""
        for idea in self.ideas.values():
            known = self.seen.get(idea.name)
            if known is None or known.status != idea.status:
                self.seen[idea.name] = idea.experiment()
        return gather(self.task, self.seen.values())

    def arrive(self, job: Job, clock: float) -> None:
        """Take in a finished run."""
        idea = job.idea
        if idea is not None and idea.crashes:
            idea.status = "crash"
            return
        truth = job.base.truth - (idea.effect if idea else 0.0)
        value = self.ended(job, clock, truth + self.noise_draw.gauss(0, self.cell.sigma))
        if idea is not None:
            idea.runs.append((value, job.base))
            self.judge(idea, truth)
            return
        (job.base.confirmations if job.kind == "baseline" else job.base.remeasures).append(value)
        job.base.incumbent = None
        self.replicated(job.base)
        if job.kind == "baseline":
            if self.baseline_done():
                self.kept.append(self.baseline)
            return
        self.assessed = None
        if job.base is self.kept[-1]:
            self.reopen(job.base)
        self.reconsider()

    def replicated(self, code: Code) -> None:
        """Take the runs of a code into the estimate of the noise."""
        self.sets[code.name] = counted(code.first, code.confirmations, code.remeasures)
        finished = [trial for trial in code.trials.values() if trial.status == "finished"]
        if len(finished) > 1:
            self.repeated[code.name], self.spread = finished, None
        if len(self.sets[code.name]) > 1:
            self.noise = pool(self.sets.values(), PRIOR)

    def baseline_done(self) -> bool:
        """Whether the runs of the baseline are enough to compare with."""
        values = self.baseline.confirmations
        if self.policy == "greedy":
            return judge(self.task, values[0], None).decision == "keep"
        return judge_baseline(self.task, "e0", values, self.noise, seed=len(values) + 1).decision == "keep"

    def judge(self, idea: Idea, truth: float) -> None:
        """Do what the verdict says."""
        best = self.kept[-1]
        if self.policy == "greedy":
            verdict = judge(self.task, idea.runs[-1][0], best.stand().mean)
        else:
            bases = self.bases()
            candidate = idea.candidate(self.task, bases, (self.spread_now(), self.noise))
            last, others = list(idea.trials.values())[-1:], idea.base.counting()
            verdict = judge_candidate(
                self.task,
                candidate,
                bases[best.name],
                self.noise,
                seed=len(idea.runs) + 1,
                doubt=doubt(self.task, self.spread_now(), self.noise, last, others) if self.cell.pairs else "",
                loud=is_loud(self.noise, self.comparisons.values()),
            )
            if numbers := verdict.numbers:
                self.comparisons[idea.name] = (numbers.d, *equal_runs(numbers))
        idea.verdict, idea.status = verdict, verdict.decision
        moved = idea.runs[0][1] is not idea.base
        trials = {t.id: t for t in idea.trials.values() if t.commit == idea.base.name}
        first = next(iter(idea.trials))
        code = Code(
            idea.name,
            truth,
            *idea.values(),
            parent=idea.base,
            moved=moved,
            trials=trials,
            first_run=first,
            selected=first if len(idea.runs) > 1 else "",
        )
        self.replicated(code)
        if verdict.decision == "keep":
            gain = best.truth - truth
            self.outcome.keeps += 1
            self.outcome.false_keeps += gain <= 0
            self.outcome.harm += max(0.0, -gain)
            self.kept.append(code)
            self.non_keeps = 0
            self.assessed = None
            self.assess()
        elif verdict.decision == "discard":
            self.non_keeps += 1

    def reopen(self, best: Code) -> None:
        """Look again at what came close to a best that was just re-measured."""
        near = [i for i in self.ideas.values() if i.status == "discard" and i.near_miss and i.base is best]
        for name in reopened(self.task, [idea.candidate(self.task, {}) for idea in near], best.stand(), self.noise):
            self.ideas[name].status = "needs_confirmation"
