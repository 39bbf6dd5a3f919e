"""Which clock a training goes by, as far as its source tells."""

import re

from mcp_server.errors import ResearchError
from mcp_server.machine.git import Repository
from mcp_server.machine.git.command import GitFailed
from mcp_server.research.effort import ClockRead
from mcp_server.research.task import Task

BUDGET = "AUTORESEARCH_TIME_BUDGET"
_CPU_CLOCK = re.compile(
    r"\b(?:process_time|thread_time|getrusage|RUSAGE_\w+|cpu_times|CLOCK_(?:PROCESS|THREAD)_CPUTIME)"
)


def clock_read(repository: Repository, commit: str, task: Task) -> ClockRead:
    """`cpu` where the script, or a file that reads the budget, asks for CPU time; else `wall` where one reads it."""
    try:
        listed = repository.main.git("grep", "-l", "-z", "-I", "-F", "-e", BUDGET, commit)
        readers = [name.partition(":")[2] for name in listed.split("\0") if name]
    except GitFailed:  # none does
        readers = []
    for path in dict.fromkeys([task.train_script, *readers]):
        try:
            text = repository.read_file(commit, path) if path else None
        except ResearchError:  # not text
            continue
        if text and _CPU_CLOCK.search(text):
            return "cpu"
    return "wall" if readers else ""
