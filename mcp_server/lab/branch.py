"""The branch of a run: a projection of the keeps in the store, repaired by any later call."""

from collections.abc import Sequence

from mcp_server.lab.bench import Bench
from mcp_server.research.experiment import Experiment, Run

DEEPEST = 10_000
DISPLACED_SHOWN = 50

_LOST = (
    "Branch {branch} was at {lost}, which the record does not know (restored from a backup?), and is back at the best, "
    "{target}; {lost} stays under refs/autoresearch/{tag}/{lost}: register it again with commit_sha to keep it."
)


class Branch:
    """Moves a run's branch to where its keeps say that it should be."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    async def tip(self, run: Run) -> str:
        """The commit of the best: the latest keep's, at which the branch should be, or the base commit before any."""
        if run.task.external:
            best = await self._bench.store.experiments.best(run.tag)
            return best.commit if best and best.commit_known else run.base_commit
        last = await self._bench.store.experiments.last_projected(run.tag)
        return last.branch_commit if last and last.branch_commit else run.base_commit

    async def settle(self, run: Run) -> list[str]:
        """Bring the branch up to date with the keeps; returns what the user should know if it was not possible."""
        if run.task.external:
            return []
        for keep in await self._bench.store.experiments.unprojected_keeps(run.tag):
            await self._bench.store.experiments.project(keep.id, await self._commit_for(run, keep))
        repository = self._bench.repository
        target = await self.tip(run)
        present = await self._bench.run(repository.branch_tip, run.branch)
        if present == target:
            return []
        if present is None:
            await self._bench.run(repository.create_branch, run.branch, target)
            return [f"Branch {run.branch} was gone and is made again at {target[:12]}."]
        lost = ""
        if not await self._is_ours(run, present) and not (lost := await self._lost(run, present)):
            return [
                f"Branch {run.branch} was moved to {present[:12]} by someone else and stays there; best: {target[:12]}."
            ]
        if place := await self._bench.run(repository.checked_out, run.branch):
            return [f"Branch {run.branch} is checked out in {place} and stays at {present[:12]}; best: {target[:12]}."]
        if await self._bench.run(repository.move_branch, run.branch, present, target):
            return [_LOST.format(lost=lost, branch=run.branch, tag=run.tag, target=target[:12])] if lost else []
        return [f"Branch {run.branch} was moved by someone else just now and is left alone; the best is {target[:12]}."]

    async def displaced(self, run: Run, keep: Experiment) -> Sequence[Experiment]:
        """The keeps that a keep was not built on, though they came before it: worth re-applying."""
        base = await self.kept_ancestor(keep)
        later = await self._bench.store.history.keeps(
            run.tag, DISPLACED_SHOWN, after=base.decided if base and base.decided else 0
        )
        return [other for other in later if (other.decided or 0) < (keep.decided or 0)]

    async def lineage(self, run: Run, since: int | None = None) -> list[Experiment]:
        """The keeps that the present best was made from, itself included, the oldest first.

        Args:
            since: the number of a verdict, to leave out what was kept before it.
        """
        found: list[Experiment] = []
        keep = await self._bench.store.experiments.best(run.tag)
        while keep is not None and (keep.decided or 0) >= (since or 0):
            found.append(keep)
            keep = await self.kept_ancestor(keep)
        return found[::-1]

    async def _commit_for(self, run: Run, keep: Experiment) -> str:
        """The keep's own commit, or one with its tree and both parents where it was built on a stale base."""
        previous = await self.tip(run)
        if previous == run.base_commit or not await self.displaced(run, keep):
            return keep.commit
        assert keep.decided_at is not None
        return await self._bench.run(self._bench.repository.adopt, previous, keep.commit, keep.decided_at)

    async def kept_ancestor(self, experiment: Experiment) -> Experiment | None:
        """The nearest experiment before this one, by parents, that was kept."""
        parent = experiment.parent_id
        for _ in range(DEEPEST):
            if parent is None:
                return None
            ancestor = await self._bench.store.experiments.get(parent)
            if ancestor.status == "keep" and not ancestor.imported:
                return ancestor
            parent = ancestor.parent_id
        return None

    async def _is_ours(self, run: Run, commit: str) -> bool:
        """Whether a commit is one that the branch was at before: the base, a keep, or what passed for one."""
        if commit == run.base_commit:
            return True
        found = await self._bench.store.experiments.of_commit(run.tag, commit)
        return found is not None and (found.status == "keep" or found.branch_commit is not None)

    async def _lost(self, run: Run, commit: str) -> str:
        """The id of the experiment that a commit is and the record does not know, as after a restore; else empty."""
        if await self._bench.store.experiments.of_commit(run.tag, commit):
            return ""
        return await self._bench.run(self._bench.repository.experiment_at, run.tag, commit)
