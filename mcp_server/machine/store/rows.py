"""Between rows of the store and the dataclasses of the research room."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from mcp_server.machine.store.connection import Row
from mcp_server.research.experiment import Experiment, Numbers, Run, Trial
from mcp_server.research.task import Task


def dump(value: Mapping[str, Any] | Task) -> str:
    """JSON text of a mapping or task, with non-finite numbers as text so that every reader accepts it."""
    plain = asdict(value) if isinstance(value, Task) else {key: _finite(item) for key, item in value.items()}
    return json.dumps(plain, allow_nan=False)


def _finite(item: Any) -> Any:
    return str(item) if isinstance(item, float) and not math.isfinite(item) else item


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def run_of(row: Row) -> Run:
    """The run in a row of `runs`."""
    task = {key: tuples(value) for key, value in json.loads(row["task"]).items()}
    known = {field.name for field in fields(Task)}
    return Run(
        tag=row["tag"],
        branch=row["branch"],
        base_commit=row["base_commit"],
        task=Task(**{key: value for key, value in task.items() if key in known}),
        device_kind=row["device_kind"],
        platform=json.loads(row["platform"]),
        created_at=row["created_at"],
        manual_mode=row["manual_mode"],
        manual_reason=row["manual_reason"],
        manual_ratio=row["manual_ratio"],
        manual_temperature=row["manual_temperature"],
        manual_at=row["manual_at"],
    )


def experiment_of(row: Row) -> Experiment:
    """The experiment in a row of `experiments`."""
    values = dict(row)
    values["commit"] = values.pop("commit_sha")
    values["changes"] = {name: tuples(pair) for name, pair in json.loads(values["changes"]).items()}
    values["metrics"] = json.loads(values["metrics"])
    values["near_miss"], values["sandboxed"] = bool(values["near_miss"]), bool(values["sandboxed"])
    values["numbers"] = Numbers(**json.loads(values["numbers"])) if values["numbers"] else None
    return Experiment(**values)


def columns_of(experiment: Experiment) -> dict[str, Any]:
    """The row of an experiment: what `experiment_of` reads."""
    values = {each.name: getattr(experiment, each.name) for each in fields(experiment)}
    values["commit_sha"] = values.pop("commit")
    values["changes"], values["metrics"] = dump(experiment.changes), dump(experiment.metrics)
    values["numbers"] = dump(asdict(experiment.numbers)) if experiment.numbers else None
    return values


def trial_of(row: Row) -> Trial:
    """The trial in a row of `trials`."""
    values = dict(row)
    values["commit"] = values.pop("commit_sha")
    values["metrics"] = json.loads(values["metrics"])
    for name in ("stop_requested", "sandboxed", "starved"):
        values[name] = bool(values[name])
    return Trial(**values)
