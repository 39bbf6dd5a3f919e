"""A process of ours that is killed right after a named step, once; the product itself knows nothing of it.

    python tests/faults/doomed.py STEP GRAVE serve --repo PATH ...      a server
    python tests/faults/doomed.py STEP GRAVE worker --repo PATH ...     a worker; such a server starts no other

GRAVE is a file that the death leaves, so that whoever comes next lives.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STORE, GIT = "mcp_server.machine.store", "mcp_server.machine.git"
SETTING_UP = {
    "the branch is made": f"{GIT}.repository:Repository.create_branch",
    "the run is recorded": f"{STORE}.runs:Runs.add",
    "the workspace is made": f"{GIT}.workspace:Workspace.open_or_create",
    "the agent is known": f"{STORE}.runs:Runs.add_agent",
}
REGISTERING = {
    "the snapshot is taken": f"{GIT}.workspace:Workspace.snapshot",
    "the number is taken": f"{STORE}.runs:Runs.take_number",
    "the commit is made": f"{GIT}.repository:Repository.commit_tree",
    "the commit has its ref": f"{GIT}.repository:Repository.keep_ref",
    "the experiment is recorded": f"{STORE}.experiments:Experiments.add",
    "the workspace adopts it": f"{GIT}.workspace:Workspace.adopt",
}
QUEUEING = {
    "the trial is queued": f"{STORE}.trials:Trials.enqueue",
    "the worker is started": "mcp_server.machine.local_executor:start_worker",
}
TRAINING = {
    "the device is taken": "mcp_server.machine.locks:DeviceLock.take",
    "the trial is claimed": f"{STORE}.trials:Trials.claim",
    "the commit is checked out": "mcp_server.machine.training:check_out",
    "the training has ended": "mcp_server.machine.child:run",
    "the result is on the disk": "mcp_server.machine.result:write",
    "the checkout is gone": "mcp_server.machine.recording:remove",
    "the result is recorded": f"{STORE}.trials:Trials.finish",
    "the device is free": "mcp_server.machine.locks:DeviceLock.release",
}
"""Steps of the worker."""
JUDGING = {
    "the verdict is recorded": f"{STORE}.verdicts:Verdicts.decide",
    "the branch's commit is recorded": f"{STORE}.experiments:Experiments.project",
    "the branch is moved": f"{GIT}.repository:Repository.move_branch",
    "the result is listed": "mcp_server.lab.ledger:_append",
    "the listing is recorded": f"{STORE}.runs:Runs.set_listed",
}
DISCARDING = {"the workspace is moved": f"{GIT}.workspace:Workspace.move_to"}
STEPS = SETTING_UP | REGISTERING | QUEUEING | TRAINING | JUDGING | DISCARDING
"""What has just happened, by the function that does it where it is looked up."""


def die_after(step: str, grave: Path) -> None:
    """Wrap the function of a step so that this process is killed the first time that it returns."""

    def die() -> None:
        try:
            grave.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    module, _, path = STEPS[step].partition(":")
    owner: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for each in owners:
        owner = getattr(owner, each)
    plain = inspect.getattr_static(owner, name)
    bound = isinstance(plain, classmethod)
    wrapped = _followed(plain.__func__ if bound else plain, die)
    setattr(owner, name, classmethod(wrapped) if bound else wrapped)


def _followed(function: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    """A function that calls another, and then acts."""

    @functools.wraps(function)
    def after(*args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        act()
        return answer

    @functools.wraps(function)
    async def after_awaiting(*args: Any, **kwargs: Any) -> Any:
        answer = await function(*args, **kwargs)
        act()
        return answer

    return after_awaiting if inspect.iscoroutinefunction(function) else after


def hand_on(step: str, grave: Path) -> None:
    """Let the workers that this server starts be doomed to the same step."""
    from mcp_server.machine import worker
    from mcp_server.machine.environment import launched

    def doomed(*words: str) -> list[str]:
        how, program, _, module, *rest = words
        assert module == "mcp_server.machine.worker"
        return launched(how, program, __file__, step, str(grave), "worker", *rest)

    vars(worker)["launched"] = doomed


def main() -> None:
    """Do what the module says with the arguments of the command line."""
    step, grave, what = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if what == "worker":
        from mcp_server.machine.worker import main as work

        die_after(step, grave)
        sys.argv[1:] = sys.argv[4:]
        work()
    else:
        from mcp_server.interfaces.cli import main as enter

        if step in TRAINING:
            hand_on(step, grave)
        else:
            die_after(step, grave)
        sys.argv[1:] = sys.argv[3:]
        enter()


if __name__ == "__main__":
    main()
