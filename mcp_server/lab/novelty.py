"""Whether a change is a new idea: not the seed alone, and not what was tried on the same base before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_server.errors import InvalidInput
from mcp_server.lab.bench import Bench
from mcp_server.lab.candidates import Candidate
from mcp_server.machine.git import Change, Repository
from mcp_server.research.experiment import FINISHED, Experiment, KnobValue, Run
from mcp_server.research.knobs import read_knobs
from mcp_server.research.marking import cited
from mcp_server.research.memory import Fingerprint, fingerprint
from mcp_server.research.seeds import only_seed_changed


@dataclass(frozen=True)
class Trace:
    """What is remembered of a change: by what it is found again, and all knobs of the script that it makes."""

    change: Fingerprint
    knobs: Mapping[str, KnobValue]


def trace(repository: Repository, run: Run, candidate: Candidate, changes: Sequence[Change]) -> Trace:
    """The trace of a candidate."""
    texts = {
        change.path: (
            repository.read_file(candidate.base_commit, change.path),
            repository.read_file(candidate.tree, change.path),
        )
        for change in changes
    }
    return Trace(fingerprint(texts), knob_values(repository, run, candidate.tree))


def knob_values(repository: Repository, run: Run, commit: str) -> Mapping[str, KnobValue]:
    """All knobs of the training script in a commit; none where it has no script that can be read."""
    source = repository.read_file(commit, run.task.train_script) if run.task.train_script else None
    try:
        return {name: knob.value for name, knob in read_knobs(source or "").items()}
    except InvalidInput:
        return {}


def check_seed(repository: Repository, candidate: Candidate, changes: Sequence[Change]) -> None:
    """Raise InvalidInput where a candidate is another draw of the noise and no idea."""
    pairs = [
        (repository.read_file(candidate.base_commit, change.path), repository.read_file(candidate.tree, change.path))
        for change in changes
    ]
    if pairs and all(old is not None and new is not None and only_seed_changed(old, new) for old, new in pairs):
        raise InvalidInput(
            "Nothing but the random seed is changed, which measures luck",
            "Change something that could be better on every seed; seeds are chosen by train",
        )


async def check_new(bench: Bench, run: Run, candidate: Candidate, found: Trace) -> None:
    """Raise InvalidInput where the same change was made on the same base before, by another request.

    An equal request that is open got in between, most likely a call whose caller went away: the store answers with its
    experiment.
    """
    for earlier in await bench.store.memory.identical(run.tag, found.change):
        ours = earlier.request == candidate.request and earlier.decided is None
        if earlier.base_commit == candidate.base_commit and not ours and not await _unmeasured(bench, earlier):
            refuse_again(earlier)


async def _unmeasured(bench: Bench, earlier: Experiment) -> bool:
    """Whether an experiment was given up because the machine failed its training, which says nothing about the idea."""
    last = await bench.store.trials.latest(earlier.id) if earlier.status == "crash" else None
    return last is not None and last.status == "lost"


def refuse_again(earlier: Experiment) -> None:
    """Raise InvalidInput: this experiment made the same change on the same base."""
    if earlier.unchanged:
        raise InvalidInput(
            f"Nothing but comments or formatting is changed against what {earlier.id} measures as it is",
            "Change something that the training can show",
        )
    raise InvalidInput(
        f"{earlier.id} made the very same change on the same base: {_became_of(earlier)}", _instead(earlier)
    )


def _became_of(earlier: Experiment) -> str:
    said = cited(earlier.reason, 300, "the record says") if earlier.status == "crash" else earlier.reason
    reason = f": {said}" if earlier.reason else ""
    return f"{earlier.status}{reason}".rstrip(".")


def _instead(earlier: Experiment) -> str:
    if earlier.status in FINISHED:
        return "Try something else: call suggest"
    return f"Go on with {earlier.id}, or try something else: call suggest"
