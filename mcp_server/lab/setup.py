"""Setting a run up, or taking it up again."""

from typing import Annotated, Literal

from annotated_types import Gt

from mcp_server.lab.results import SetUp
from mcp_server.research.experiment import Category


class Setup:
    """Makes runs and workspaces."""

    async def setup_run(
        self,
        *,
        tag: Annotated[str | None, "Name of the run; default: today, e.g. mar8"] = None,
        metric: Annotated[str | None, "Key that the script prints, e.g. val_bpb"] = None,
        direction: Annotated[Literal["minimize", "maximize"] | None, "Which way the metric gets better"] = None,
        time_budget_seconds: Annotated[float | None, "Training seconds of one experiment", Gt(0)] = None,
        train_script: Annotated[str | None, "The script to edit and run, e.g. train.py"] = None,
        command: Annotated[str | None, "Command that trains; default: python <train_script>; no shell"] = None,
        editable: Annotated[list[str] | None, "Globs an experiment may change; default: the script"] = None,
        readonly: Annotated[list[str] | None, "Globs never to change, whatever editable says"] = None,
        inputs: Annotated[list[str] | None, "Globs of untracked data to link; default: found by themselves"] = None,
        scope: Annotated[list[Category] | None, "Categories to research; default: all"] = None,
        policy: Annotated[Literal["greedy", "noise_aware", "strict"] | None, "How keeps are decided"] = None,
        near_miss_threshold: Annotated[float | None, "Losses below this are near misses"] = None,
        max_experiments: Annotated[int | None, "Stop after so many experiments"] = None,
        target: Annotated[float | None, "Stop when the metric reaches this"] = None,
        results_file: Annotated[str | None, "Table of results in the repository; default results.tsv"] = None,
        task: Annotated[str | None, "Name or path of a task"] = None,
        base_ref: Annotated[str | None, "Commit to start from; default HEAD"] = None,
        agent: Annotated[str | None, "Your name, one workspace each; default: a free one"] = None,
        resume: Annotated[bool, "Continue an existing run"] = False,
        preview: Annotated[bool, "Only return the config"] = False,
        external: Annotated[bool, "You run git and training yourself and report numbers"] = False,
    ) -> SetUp:
        """Begin a run of experiments, or continue one with resume=true. Call this first.

        Makes the branch and a workspace folder to edit in. Next: register a baseline without any change, train, complete.
        """
        raise NotImplementedError
