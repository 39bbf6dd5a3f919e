"""Putting a change that is to be confirmed on top of the present best, since nothing is merged unmeasured."""

import time

from mcp_server.lab.bench import Bench
from mcp_server.lab.branch import Branch
from mcp_server.lab.candidates import Candidate, check_candidate, commit_candidate, conflict_text
from mcp_server.lab.novelty import trace
from mcp_server.machine.git import combine
from mcp_server.machine.store.verdicts import Moved
from mcp_server.research.experiment import Experiment, Run

MOST_MOVES = 3
"""So often a change is put on a new best for its confirmation; each costs a training, and others wait."""


async def on_best(bench: Bench, branch: Branch, run: Run, experiment: Experiment) -> Experiment:
    """Move an experiment that needs confirmation to the present best, if it was made from an older one.

    Returns it as it is then, for another server may have done the same. It is discarded, with the reason, where its
    change does not fit there, is in the best already, or was put on a new best `MOST_MOVES` times.
    """
    best = await bench.store.experiments.best(run.tag)
    base = await branch.kept_ancestor(experiment)
    if best is None or experiment.unchanged or (base is not None and base.id == best.id):
        return experiment
    if base is None and best.id == await bench.store.history.first_keep(run.tag):
        return experiment
    if await bench.store.experiments.moves(experiment.id) >= MOST_MOVES:
        reason = f"It was put on a new best {MOST_MOVES} times, and the best is another one again."
        return await bench.store.verdicts.drop(experiment.id, reason)
    tip = await branch.tip(run)
    old = (base.branch_commit or base.commit) if base else run.base_commit
    combined = await bench.run(combine, bench.repository, tip, [(old, experiment.commit)])
    if combined.tree is None:
        where = "; ".join(conflict_text(conflict) for conflict in combined.conflicts[:3])
        reason = f"It is to be confirmed on top of {best.id}, where it does not fit: {where}."
        return await bench.store.verdicts.drop(experiment.id, reason)
    if combined.tree == await bench.run(bench.repository.tree_of, tip):
        reason = f"The present best, {best.id}, has all of its change already."
        return await bench.store.verdicts.drop(experiment.id, reason)
    candidate = Candidate(combined.tree, tip, best.id, experiment.request, also=(experiment.commit,))
    moved = await bench.run(_commit, bench, run, candidate, experiment, best)
    done = await bench.store.verdicts.move(experiment, moved)
    present = await bench.store.experiments.get(experiment.id)
    if not done:  # another server did it, and its commit is the one to keep
        await bench.run(bench.repository.keep_ref, run.tag, experiment.id, present.commit)
    return present


def _commit(bench: Bench, run: Run, candidate: Candidate, experiment: Experiment, best: Experiment) -> Moved:
    repository = bench.repository
    changes = check_candidate(repository, run, candidate)
    message = f"{experiment.hypothesis}\n\nExperiment: {experiment.id}, on top of {best.id}\n"
    committed = commit_candidate(repository, run, candidate, changes, experiment.id, message, time.time())
    found = trace(repository, run, candidate, changes)
    return Moved(
        commit=committed.commit,
        base_commit=candidate.base_commit,
        parent_id=best.id,
        summary=committed.summary,
        added=committed.added,
        removed=committed.removed,
        changes=committed.changes,
        fingerprint=found.change,
        knobs=found.knobs,
    )
