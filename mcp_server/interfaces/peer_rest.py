"""The routes of the multi-GPU tracker n-autoresearch, so that its scripts and agents move here by changing a port.

Bodies are JSON whatever the content type says. Errors are `{"error": text}`: 404 for an unknown experiment, tag or GPU,
400 for whatever else is wrong with a request.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_server.errors import InvalidInput, NotReady, ResearchError, UnknownId, WrongState
from mcp_server.interfaces import peer_answers as answers
from mcp_server.interfaces import peer_bodies as bodies
from mcp_server.interfaces import peer_shapes as shapes
from mcp_server.interfaces.access import is_loopback
from mcp_server.interfaces.answers import plain
from mcp_server.interfaces.entrance import Entrance, InternalError, boundary
from mcp_server.lab.lab import Lab
from mcp_server.lab.lending import HERE, Described

STATUS_CODES: dict[type[ResearchError], int] = {UnknownId: 404, NotReady: 503, InternalError: 500}


async def _setup(lab: Lab, given: bodies.Tag) -> answers.Begun:
    """Begin a run that is external and greedy on val_bpb: its agents own git and trainings."""
    try:
        await lab.tracking.begin(given.tag)
    except WrongState:
        raise WrongState(f"Tag {given.tag!r} already exists", "Go on with it, or choose another tag") from None
    found = await lab.tracking.overview(given.tag)
    return {"tag": shapes.tag(found), "branch": found.run.branch}


async def _register(lab: Lab, given: bodies.Registration) -> answers.Registered:
    """Record a hypothesis and its commit before the training."""
    experiment = await lab.tracking.register(**given.model_dump())
    return {
        "experiment_id": experiment.id,
        "status": "registered",
        "commit_sha": experiment.commit,
        "commit_verified": experiment.commit_known,
        "category": experiment.category,
    }


async def _complete(lab: Lab, given: bodies.Results) -> answers.Completed:
    """Record the numbers of a training and judge it: kept if better than the best, or if there is none."""
    measured = given.model_dump(exclude={"experiment_id"})
    metrics = {ours: measured[theirs] for theirs, ours in shapes.NUMBERS.items()}
    experiment, verdict = await lab.tracking.complete(given.experiment_id, metrics)
    return {
        "experiment_id": experiment.id,
        "status": experiment.status,  # type: ignore[typeddict-item] # an external run knows these three
        "val_bpb": experiment.value,
        "improved": verdict.improved,
        "delta": verdict.delta or 0,
        "best_val_bpb": verdict.best_value,
        "action": "keep_commit" if verdict.improved else "git_reset",
        "reason": verdict.reason,
    }


async def _crash(lab: Lab, given: bodies.Failure) -> answers.Crashed:
    """Record that a training failed."""
    crashed = await lab.tracking.crash(given.experiment_id, given.error)
    return {
        "experiment_id": crashed.experiment_id,
        "status": "crash",
        "consecutive_crashes": crashed.consecutive_crashes,
        "should_abort": crashed.should_abort,
        "action": "git_reset",
    }


async def _history(lab: Lab, given: bodies.Question) -> answers.History:
    """List the last experiments of a run, in order of start."""
    if given.status not in ("", "running", *shapes.STATUSES):
        raise InvalidInput(f"status {given.status!r} is unknown", f"Use running, {', '.join(shapes.STATUSES)}")
    status: Any = given.status or None
    found = await lab.tracking.experiments(given.tag, status, given.limit)
    return {"experiments": [shapes.experiment(e) for e in found], "total": len(found)}


async def _best(lab: Lab, given: bodies.Tag) -> answers.Best:
    """Show the best experiment of a run."""
    best = await lab.tracking.best(given.tag)
    if best is None:
        raise InvalidInput("No results yet", f"Complete an experiment of {given.tag!r} first")
    return {"best": shapes.best(best), "experiment": shapes.experiment(best)}


async def _near_misses(lab: Lab, given: bodies.NearMissQuestion) -> answers.NearMisses:
    """List discarded experiments that lacked little when they were judged, the nearest first."""
    found, total = await lab.tracking.near_misses(given.tag, given.limit)
    return {"near_misses": [shapes.near_miss(e) for e in found], "total": total}


async def _strategy(lab: Lab, given: bodies.Tag) -> answers.Strategy:
    """Show the strategy of a run."""
    return shapes.strategy(*await lab.tracking.strategy(given.tag))


async def _set_strategy(lab: Lab, given: bodies.Choice) -> answers.Strategy:
    """Set the strategy by hand, until the next verdict."""
    chosen = lab.tracking.set_strategy(given.tag, given.mode, given.reason, given.explore_ratio, given.temperature)
    return shapes.strategy(*await chosen)


async def _adapt(lab: Lab, given: bodies.Tag) -> answers.Strategy:
    """Let the history choose the strategy again."""
    return shapes.strategy(*await lab.tracking.adapt(given.tag))


async def _suggest(lab: Lab, given: bodies.Tag) -> answers.Suggestion:
    """Say what to try next."""
    return shapes.suggestion(await lab.tracking.outlook(given.tag))


async def _enlist(lab: Lab, given: bodies.GpuRegistration) -> answers.Enlisted:
    """Register a device of an outside agent; local trainings never use it."""
    described = Described(given.host, given.gpu_id, given.gpu_index, given.gpu_name, given.vram_mb)
    return {"registered": True, "worker": shapes.worker(await lab.lending.enlist(described))}


async def _heartbeat(lab: Lab, given: bodies.Gpu) -> answers.Alive:
    """Say that a device lives: every 30 s; after 60 s of silence it is offline."""
    await lab.lending.heartbeat(given.gpu_id, given.host)
    return {"ok": True}


async def _list(lab: Lab, given: bodies.Body) -> answers.Pool:
    """List the registered devices."""
    return shapes.pool(await lab.lending.seats())


async def _acquire(lab: Lab, given: bodies.Acquisition) -> answers.Acquired:
    """Borrow an idle device for an experiment, for as long as a training may take."""
    member = await lab.lending.lend(given.experiment_id, given.host)
    if member is None:
        return {"acquired": False, "gpu_id": None, "reason": "no idle GPUs"}
    return {"acquired": True, "gpu_id": member.gpu_id, "gpu_index": member.gpu_index, "host": member.host}


async def _release(lab: Lab, given: bodies.Loan) -> answers.Released:
    """Give a device back."""
    await lab.lending.give_back(given.gpu_id, given.host, given.experiment_id)
    return {"released": True}


async def _deregister(lab: Lab, given: bodies.Gpu) -> answers.Discharged:
    """Take a device out of the pool."""
    await lab.lending.discharge(given.gpu_id, given.host)
    return {"deregistered": True}


async def _summary(lab: Lab, given: bodies.Tag) -> answers.Summary:
    """Show a run at a glance."""
    return shapes.summary(await lab.tracking.overview(given.tag), await lab.lending.seats())


async def _tsv(lab: Lab, given: bodies.Tag) -> answers.Table:
    """Give the table of results."""
    return shapes.tsv([e for e in await lab.tracking.experiments(given.tag) if e.status in shapes.STATUSES])


async def _diff(lab: Lab, given: bodies.Pair) -> answers.Difference:
    """Compare the numbers of two experiments."""
    a, b = await lab.tracking.experiment(given.experiment_a), await lab.tracking.experiment(given.experiment_b)
    return shapes.difference(a, b)


async def _tags(lab: Lab, given: bodies.Body) -> answers.Tags:
    """List all runs, newest first."""
    return {"tags": [shapes.tag(found) for found in await lab.tracking.runs()]}


async def _train(lab: Lab, given: bodies.Order) -> answers.Trained | answers.Untrained:
    """Train an experiment's commit on the server's own machine, and wait for the end of it."""
    await _check_local(lab, given)
    trial = await lab.tracking.train(given.gpu_id, given.experiment_id)
    device = await lab.tracking.device_label(trial)
    if trial.status == "finished":
        return {
            "status": "success",
            "experiment_id": given.experiment_id,
            "gpu_id": given.gpu_id,
            "device": device,
            **shapes.numbers(trial.metrics),
        }
    return {
        "status": "timeout" if trial.status == "timed_out" else "crash",
        "experiment_id": given.experiment_id,
        "gpu_id": given.gpu_id,
        "device": device,
        "error": f"{trial.error}\n{await lab.tracking.log_tail(trial)}".strip(),
    }


async def _health(lab: Lab, given: bodies.LocalGpu) -> answers.Health:
    """Read temperature, memory and utilisation of a device of the server's own machine."""
    await _check_local(lab, given)
    device, now = await lab.tracking.device(given.gpu_id)
    return {
        "gpu_id": given.gpu_id,
        "temperature_c": now.temperature_c,
        "memory_used_mb": now.memory_used_mb,
        "memory_total_mb": device.memory_total_mb,
        "utilization_percent": now.utilisation_percent,
    }


async def _check_local(lab: Lab, given: bodies.LocalGpu) -> None:
    """Raise WrongState for a device of another machine: the caller's own, or one whose name no device here has."""
    member = await lab.lending.find(given.gpu_id, given.host)
    if member is None or member.host == HERE:
        return
    if member.host == given.host or not await lab.tracking.has_device(given.gpu_id):
        raise WrongState(f"GPU {given.gpu_id!r} is in {member.host}, not in the server's machine", "Ask that machine")


Answer = Callable[[Lab, Any], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Trail:
    """A route of the tracker."""

    path: str
    method: str
    body: type[bodies.Body]
    answer: Answer
    shape: Any

    @property
    def description(self) -> str:
        """What it does, in a sentence."""
        return self.answer.__doc__ or ""


TRAILS = [
    Trail("experiment/setup", "POST", bodies.Tag, _setup, answers.Begun),
    Trail("experiment/register", "POST", bodies.Registration, _register, answers.Registered),
    Trail("experiment/complete", "POST", bodies.Results, _complete, answers.Completed),
    Trail("experiment/crash", "POST", bodies.Failure, _crash, answers.Crashed),
    Trail("experiment/history", "POST", bodies.Question, _history, answers.History),
    Trail("experiment/best", "POST", bodies.Tag, _best, answers.Best),
    Trail("experiment/near-misses", "POST", bodies.NearMissQuestion, _near_misses, answers.NearMisses),
    Trail("search/strategy", "POST", bodies.Tag, _strategy, answers.Strategy),
    Trail("search/set-strategy", "POST", bodies.Choice, _set_strategy, answers.Strategy),
    Trail("search/adapt", "POST", bodies.Tag, _adapt, answers.Strategy),
    Trail("search/suggest", "POST", bodies.Tag, _suggest, answers.Suggestion),
    Trail("pool/register", "POST", bodies.GpuRegistration, _enlist, answers.Enlisted),
    Trail("pool/heartbeat", "POST", bodies.Gpu, _heartbeat, answers.Alive),
    Trail("pool/list", "GET", bodies.Body, _list, answers.Pool),
    Trail("pool/acquire", "POST", bodies.Acquisition, _acquire, answers.Acquired),
    Trail("pool/release", "POST", bodies.Loan, _release, answers.Released),
    Trail("pool/deregister", "POST", bodies.Gpu, _deregister, answers.Discharged),
    Trail("report/summary", "POST", bodies.Tag, _summary, answers.Summary),
    Trail("report/tsv", "POST", bodies.Tag, _tsv, answers.Table),
    Trail("report/diff", "POST", bodies.Pair, _diff, answers.Difference),
    Trail("report/tags", "GET", bodies.Body, _tags, answers.Tags),
    Trail("gpu/{gpu_id}/train", "POST", bodies.Order, _train, answers.Trained | answers.Untrained),
    Trail("gpu/{gpu_id}/health", "GET", bodies.LocalGpu, _health, answers.Health),
]


def routes(entrance: Entrance) -> list[Route]:
    """Every route of the tracker."""
    return [_route(entrance, trail) for trail in TRAILS]


def _route(entrance: Entrance, trail: Trail) -> Route:
    async def respond(request: Request) -> Response:
        try:
            with boundary(trail.path):
                given = _read(trail.body, await request.body(), request)
                return JSONResponse(plain(await trail.answer(await entrance.lab(), given), "program"))
        except ResearchError as error:
            return JSONResponse({"error": str(error)}, status_code=STATUS_CODES.get(type(error), 400))

    return Route(f"/api/{trail.path}", respond, methods=[trail.method])


def _read(model: type[bodies.Body], body: bytes, request: Request) -> bodies.Body:
    """The request as its model; raises InvalidInput. A score of NaN is let through, and judged as a crash."""
    try:
        given = from_json(body) if body.strip() else {}
    except ValueError as error:
        raise InvalidInput(f"The request body is not JSON: {error}", "Send a JSON object") from None
    if not isinstance(given, dict):
        raise InvalidInput(f"The request body is a JSON {type(given).__name__}", "Send a JSON object")
    given |= request.path_params
    given["host"] = given.get("host") or _host(request)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise InvalidInput(f"{name} is missing", f"Give {name}") from None
        raise InvalidInput(
            f"{name} is {first['input']!r:.80}: {first['msg']}", f"Send {name} as it should be"
        ) from None


def _host(request: Request) -> str:
    """The machine that a request comes from."""
    address = request.client.host if request.client else HERE
    return HERE if is_loopback(address) else address
