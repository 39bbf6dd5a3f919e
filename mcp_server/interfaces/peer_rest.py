"""The routes of the multi-GPU tracker n-autoresearch, so that its scripts and agents move here by changing a port.

Bodies are JSON whatever the content type says. Errors are `{"error": text}`: 404 for an unknown experiment, tag or GPU,
400 for everything else.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_server.errors import InvalidInput, ResearchError, UnknownId, WrongState
from mcp_server.interfaces import peer_shapes as shapes
from mcp_server.interfaces.answers import plain
from mcp_server.interfaces.entrance import Entrance, boundary
from mcp_server.lab.tracking import Tracking

Text = Annotated[str, BeforeValidator(lambda given: "" if given is None else given)]
Given = TypeVar("Given", bound=BaseModel)
NEAR_MISSES = 20


class Body(BaseModel):
    """A request; fields that the tracker does not know are left alone, as it does itself."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)


class Tag(Body):
    """A run."""

    tag: str = Field(min_length=1)


class Registration(Tag):
    """An experiment that is about to be trained."""

    commit_sha: Text = "HEAD"
    parent_id: str | None = None
    description: Text = ""
    hypothesis: Text = ""
    category: str = "other"
    diff_summary: Text = ""
    gpu_id: str = "gpu-0"


class Results(Body):
    """The numbers of a training."""

    experiment_id: str
    val_bpb: float
    peak_vram_mb: float = 0
    training_seconds: float = 0
    total_tokens_m: float = 0
    mfu_percent: float = 0
    num_steps: float = 0
    num_params_m: float = 0
    depth: float = 0


class Failure(Body):
    """A training that failed."""

    experiment_id: str
    error: Text = ""


class Question(Tag):
    """Which experiments to list; the last ones."""

    status: str | None = None
    limit: int | None = Field(default=None, ge=1)


class Choice(Tag):
    """A strategy set by hand."""

    mode: str
    reason: Text = ""
    explore_ratio: float | None = Field(default=None, ge=0, le=1)
    temperature: float | None = Field(default=None, ge=0)


class Gpu(Body):
    """A device."""

    gpu_id: str = Field(min_length=1, max_length=200)


class GpuRegistration(Gpu):
    """A device with what it is."""

    gpu_index: int = 0
    gpu_name: Text = ""
    vram_mb: float = 0


class Acquisition(Body):
    """An experiment that wants a device."""

    experiment_id: str


class Loan(Gpu):
    """A device and the experiment that has it."""

    experiment_id: str


class Pair(Body):
    """Two experiments."""

    experiment_a: str
    experiment_b: str


def routes(entrance: Entrance) -> list[Route]:
    """Every route of the tracker."""
    return [_route(entrance, path, method, model, answer) for path, method, model, answer in _TABLE]


async def _setup(lab: Tracking, given: Tag) -> dict[str, Any]:
    try:
        run = await lab.begin(given.tag)
    except WrongState:
        raise WrongState(f"Tag {given.tag!r} already exists", "Go on with it, or choose another tag") from None
    return {"tag": shapes.tag(run, [], None), "branch": run.branch}


async def _register(lab: Tracking, given: Registration) -> dict[str, Any]:
    experiment = await lab.register(
        given.tag,
        commit_sha=given.commit_sha,
        parent_id=given.parent_id,
        category=given.category,
        hypothesis=given.hypothesis,
        description=given.description,
        diff_summary=given.diff_summary,
        agent=given.gpu_id,
    )
    return {"experiment_id": experiment.id, "status": "registered"}


async def _complete(lab: Tracking, given: Results) -> dict[str, Any]:
    measured = given.model_dump(exclude={"experiment_id"})
    metrics = {ours: measured[theirs] for theirs, ours in shapes.NUMBERS.items()}
    experiment, verdict = await lab.complete(given.experiment_id, metrics)
    return {
        "experiment_id": experiment.id,
        "status": verdict.status,
        "val_bpb": experiment.value,
        "improved": verdict.improved,
        "delta": verdict.delta or 0,
        "best_val_bpb": verdict.best_value,
        "action": verdict.action,
    }


async def _crash(lab: Tracking, given: Failure) -> dict[str, Any]:
    crashed = await lab.crash(given.experiment_id, given.error)
    return {
        "experiment_id": crashed.experiment_id,
        "status": "crash",
        "consecutive_crashes": crashed.consecutive_crashes,
        "should_abort": crashed.should_abort,
        "action": "git_reset",
    }


async def _history(lab: Tracking, given: Question) -> dict[str, Any]:
    if given.status not in (None, "running", *shapes.STATUSES):
        raise InvalidInput(f"status {given.status!r} is unknown", f"Use running, {', '.join(shapes.STATUSES)}")
    found = await lab.experiments(given.tag, given.status, given.limit)  # type: ignore[arg-type] # checked above
    return {"experiments": [shapes.experiment(e) for e in found], "total": len(found)}


async def _best(lab: Tracking, given: Tag) -> dict[str, Any]:
    best = await lab.best(given.tag)
    if best is None:
        raise InvalidInput("No results yet", f"Complete an experiment of {given.tag!r} first")
    return {"best": shapes.best(best), "experiment": shapes.experiment(best)}


async def _near_misses(lab: Tracking, given: Question) -> dict[str, Any]:
    found, total = await lab.near_misses(given.tag, given.limit or NEAR_MISSES)
    return {"near_misses": [shapes.near_miss(e) for e in found], "total": total}


async def _strategy(lab: Tracking, given: Tag) -> dict[str, Any]:
    return shapes.strategy(await lab.strategy(given.tag))


async def _set_strategy(lab: Tracking, given: Choice) -> dict[str, Any]:
    chosen = await lab.set_strategy(given.tag, given.mode, given.reason, given.explore_ratio, given.temperature)
    return shapes.strategy(chosen) | {"reason": given.reason}


async def _adapt(lab: Tracking, given: Tag) -> dict[str, Any]:
    return shapes.strategy(await lab.adapt(given.tag))


async def _suggest(lab: Tracking, given: Tag) -> dict[str, Any]:
    finished = [e for e in await lab.experiments(given.tag, None, None) if e.status in shapes.STATUSES]
    near = [e for e in finished if e.near_miss]
    return shapes.suggestion(await lab.suggest(given.tag), len(finished), near)


async def _enlist(lab: Tracking, given: GpuRegistration) -> dict[str, Any]:
    seat = await lab.enlist(given.gpu_id, given.gpu_index, given.gpu_name, given.vram_mb)
    return {"registered": True, "worker": shapes.worker(seat)}


async def _heartbeat(lab: Tracking, given: Gpu) -> dict[str, Any]:
    await lab.heartbeat(given.gpu_id)
    return {"ok": True}


async def _list(lab: Tracking, given: Body) -> dict[str, Any]:
    seats = await lab.seats()
    return {"workers": [shapes.worker(seat) for seat in seats], **shapes.pool(seats)}


async def _acquire(lab: Tracking, given: Acquisition) -> dict[str, Any]:
    member = await lab.lend(given.experiment_id)
    if member is None:
        return {"acquired": False, "gpu_id": None, "reason": "no idle GPUs"}
    return {"acquired": True, "gpu_id": member.gpu_id, "gpu_index": member.gpu_index}


async def _release(lab: Tracking, given: Loan) -> dict[str, Any]:
    await lab.give_back(given.gpu_id, given.experiment_id)
    return {"released": True}


async def _deregister(lab: Tracking, given: Gpu) -> dict[str, Any]:
    await lab.discharge(given.gpu_id)
    return {"deregistered": True}


async def _summary(lab: Tracking, given: Tag) -> dict[str, Any]:
    run, experiments = await lab.run(given.tag), await lab.experiments(given.tag, None, None)
    mode = (await lab.strategy(given.tag)).mode
    return shapes.summary(run, experiments, await lab.best(given.tag), mode, await lab.seats())


async def _tsv(lab: Tracking, given: Tag) -> dict[str, Any]:
    return shapes.tsv([e for e in await lab.experiments(given.tag, None, None) if e.status in shapes.STATUSES])


async def _diff(lab: Tracking, given: Pair) -> dict[str, Any]:
    return shapes.difference(await lab.experiment(given.experiment_a), await lab.experiment(given.experiment_b))


async def _tags(lab: Tracking, given: Body) -> dict[str, Any]:
    return {
        "tags": [
            shapes.tag(run, await lab.experiments(run.tag, None, None), await lab.best(run.tag))
            for run in await lab.runs()
        ]
    }


async def _train(lab: Tracking, given: Loan) -> dict[str, Any]:
    trial = await lab.train(given.gpu_id, given.experiment_id)
    status = {"finished": "success", "timed_out": "timeout"}.get(trial.status, "crash")
    found = shapes.numbers(trial.metrics) if status == "success" else {"error": trial.error}
    return {"status": status, "experiment_id": given.experiment_id, "gpu_id": given.gpu_id, **found}


async def _health(lab: Tracking, given: Gpu) -> dict[str, Any]:
    device, now = await lab.device(given.gpu_id)
    return {
        "gpu_id": given.gpu_id,
        "temperature_c": now.temperature_c,
        "memory_used_mb": now.memory_used_mb,
        "memory_total_mb": device.memory_total_mb,
        "utilization_percent": now.utilisation_percent,
    }


Answer = Callable[[Tracking, Any], Awaitable[dict[str, Any]]]
_TABLE: list[tuple[str, str, type[Body], Answer]] = [
    ("experiment/setup", "POST", Tag, _setup),
    ("experiment/register", "POST", Registration, _register),
    ("experiment/complete", "POST", Results, _complete),
    ("experiment/crash", "POST", Failure, _crash),
    ("experiment/history", "POST", Question, _history),
    ("experiment/best", "POST", Tag, _best),
    ("experiment/near-misses", "POST", Question, _near_misses),
    ("search/strategy", "POST", Tag, _strategy),
    ("search/set-strategy", "POST", Choice, _set_strategy),
    ("search/adapt", "POST", Tag, _adapt),
    ("search/suggest", "POST", Tag, _suggest),
    ("pool/register", "POST", GpuRegistration, _enlist),
    ("pool/heartbeat", "POST", Gpu, _heartbeat),
    ("pool/list", "GET", Body, _list),
    ("pool/acquire", "POST", Acquisition, _acquire),
    ("pool/release", "POST", Loan, _release),
    ("pool/deregister", "POST", Gpu, _deregister),
    ("report/summary", "POST", Tag, _summary),
    ("report/tsv", "POST", Tag, _tsv),
    ("report/diff", "POST", Pair, _diff),
    ("report/tags", "GET", Body, _tags),
    ("gpu/{gpu_id}/train", "POST", Loan, _train),
    ("gpu/{gpu_id}/health", "GET", Gpu, _health),
]


def _route(entrance: Entrance, path: str, method: str, model: type[Given], answer: Answer) -> Route:
    async def respond(request: Request) -> Response:
        try:
            with boundary(path):
                given = _read(model, await request.body(), dict(request.path_params))
                return JSONResponse(plain(await answer((await entrance.lab()).tracking, given)))
        except ResearchError as error:
            return JSONResponse({"error": str(error)}, status_code=404 if isinstance(error, UnknownId) else 400)

    return Route(f"/api/{path}", respond, methods=[method])


def _read(model: type[Given], body: bytes, path: dict[str, Any]) -> Given:
    """The request as its model; raises InvalidInput. A score of NaN is let through, and judged as a crash."""
    try:
        given = from_json(body) if body.strip() else {}
        if not isinstance(given, dict):
            raise InvalidInput(f"The request body is a JSON {type(given).__name__}", "Send a JSON object")
        return model.model_validate(given | path)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{name} is {first['input']!r:.80}: {first['msg']}", f"Send {name} as it should be"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"The request body is not JSON: {error}", "Send a JSON object") from None
