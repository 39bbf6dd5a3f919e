"""The results file in the user's repository: a line for every verdict, as it comes."""

from pathlib import Path

from mcp_server.research.experiment import Experiment, Run
from mcp_server.research.report import results_line, to_tsv


def append_result(root: Path, run: Run, experiment: Experiment) -> None:
    """Append an experiment with its verdict to the run's results file, beginning it with the header."""
    path = root / run.task.results_file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if file.tell() == 0:
            file.writelines(to_tsv([], run.task))
        file.write(results_line(experiment, run.task) + "\n")
