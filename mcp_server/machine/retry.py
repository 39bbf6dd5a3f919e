"""After a training that ran out of memory: the same once more, as a child commit that needs less."""

from mcp_server.errors import InvalidInput, ResearchError
from mcp_server.machine.git import Repository, tree_with_files
from mcp_server.machine.store.retries import Smaller
from mcp_server.research.experiment import Ending, Experiment, Run, Trial
from mcp_server.research.guard import matches
from mcp_server.research.shrinking import files_of, shrink


def smaller(
    repository: Repository, run: Run, experiment: Experiment, trials: list[Trial], trial: Trial, ending: Ending
) -> tuple[Smaller | None, str]:
    """The commit to try once more, if there is to be one, and what to say of the retry; both are made once a trial.

    There is one retry an experiment, and none for one that has been measured before: its runs would differ.

    Args:
        trials: all of the experiment.
    """
    if not ending.out_of_memory or trial.came_from != "registered":
        return None, ""
    if any(other.status == "failed" and other.id != trial.id for other in trials):
        return None, "This was the second try, with half the batch of the first."
    try:
        texts = {path: repository.read_file(trial.commit, path) for path in files_of(run.task)}
        shrunk = shrink(run.task, {path: text for path, text in texts.items() if text is not None})
        for path in shrunk.texts:
            if not matches(run.task.editable, path) or matches(run.task.readonly, path):
                raise InvalidInput(f"{path}, where that is set, may not change in this run", "Make it editable")
    except InvalidInput as error:
        return None, f"It was not tried again with less: {error}"
    try:
        tree = tree_with_files(repository, trial.commit, shrunk.texts)
        message = f"Out of memory: {shrunk}\n\nExperiment: {experiment.id}, once more\n"
        commit = repository.commit_tree(tree, [trial.commit], message, ending.ended_at)
        repository.keep_ref(run.tag, experiment.id, commit)
    except ResearchError as error:
        return None, f"It could not be tried again with less: {error}"
    note = f"Out of memory in its first training, and tried again with {shrunk}."
    return Smaller(commit, note, str(shrunk), shrunk.changes), note
