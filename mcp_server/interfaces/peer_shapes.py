"""The field names of the multi-GPU tracker, made from what the lab answers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

NUMBERS = {
    "val_bpb": "val_bpb",
    "peak_vram_mb": "peak_vram_mb",
    "training_seconds": "training_seconds",
    "total_tokens_m": "total_tokens_M",
    "mfu_percent": "mfu_percent",
    "num_steps": "num_steps",
    "num_params_m": "num_params_M",
    "depth": "depth",
}
"""The tracker's name of a metric, and that of the summary block."""
STATUSES = ("keep", "discard", "crash")


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics under the tracker's names; 0 for what was not measured."""
    found = {theirs: metrics.get(theirs, metrics.get(ours, 0)) for theirs, ours in NUMBERS.items()}
    return {name: value if isinstance(value, int | float) else 0 for name, value in found.items()}


def experiment(e: Any) -> dict[str, Any]:
    """An experiment; one without a verdict is `running`."""
    known = e.status in STATUSES
    return {
        "id": e.id,
        "tag": e.tag,
        "parent_id": e.parent_id,
        "commit_sha": e.commit,
        "description": e.description,
        "hypothesis": e.hypothesis,
        "category": e.category,
        **numbers(e.metrics if known and e.status != "crash" else {}),
        "status": e.status if known else "running",
        "gpu_id": e.agent,
        "started_at": when(e.registered_at),
        "finished_at": when(e.decided_at),
        "diff_summary": e.diff_summary,
        "error": e.reason if e.status == "crash" else None,
    }


def best(e: Any) -> dict[str, Any]:
    """The best experiment in short."""
    return {
        "experiment_id": e.id,
        "val_bpb": e.value,
        "commit_sha": e.commit,
        "updated_at": when(e.decided_at),
    }


def near_miss(e: Any) -> dict[str, Any]:
    """A near miss; `delta` is what it lacked."""
    return {
        "experiment_id": e.id,
        "tag": e.tag,
        "val_bpb": e.value,
        "delta": abs(e.delta or 0.0),
        "hypothesis": e.hypothesis,
        "category": e.category,
        "diff_summary": e.diff_summary,
    }


def tag(run: Any, experiments: Sequence[Any], leader: Any) -> dict[str, Any]:
    """A run; `best_val_bpb` is null until there is one."""
    finished = [e for e in experiments if e.status in STATUSES]
    return {
        "name": run.tag,
        "branch": run.branch,
        "created_at": when(run.created_at),
        "best_val_bpb": leader.value if leader else None,
        "total_experiments": len(finished),
        "kept_experiments": sum(e.status == "keep" for e in finished),
    }


def strategy(found: Any) -> dict[str, Any]:
    """A strategy as it is at this moment, computed from the history."""
    return {
        "mode": found.mode,
        "explore_ratio": found.explore_ratio,
        "temperature": found.temperature,
        "updated_at": datetime.now(UTC).isoformat(),
        "reason": found.reason,
    }


def suggestion(found: Any, experiments: int, near_misses: Sequence[Any]) -> dict[str, Any]:
    """What to try next."""
    return {
        "strategy": found.strategy,
        "total_experiments": experiments,
        "category_stats": {
            category: {"total": count.tries, "kept": count.keeps}
            for category, count in found.category_stats.items()
            if count.tries
        },
        "underexplored_categories": list(found.underexplored_categories),
        "high_yield_categories": list(found.high_yield_categories),
        "near_misses_available": len(near_misses),
        "near_miss_categories": sorted({e.category for e in near_misses}),
        "recent_bpb_trend": list(found.trend.values),
        "suggestions": list(found.suggestions),
    }


def worker(seat: Any) -> dict[str, Any]:
    """A registered device."""
    member = seat.member
    return {
        "id": member.gpu_id,
        "name": f"gpu-{member.gpu_index}",
        "gpu_index": member.gpu_index,
        "gpu_name": member.gpu_name,
        "vram_mb": member.vram_mb,
        "status": seat.status,
        "current_experiment_id": member.experiment_id,
        "registered_at": when(member.registered_at),
        "last_heartbeat": when(member.seen_at),
    }


def pool(seats: Sequence[Any]) -> dict[str, int]:
    """How many devices have each status."""
    counts = {status: sum(seat.status == status for seat in seats) for status in ("idle", "training", "offline")}
    return {"total": len(seats), **counts}


def summary(run: Any, experiments: Sequence[Any], leader: Any, mode: str, seats: Sequence[Any]) -> dict[str, Any]:
    """A run at a glance."""
    counts = {status: sum(e.status == status for e in experiments) for status in STATUSES}
    finished = sum(counts.values())
    categories: dict[str, int] = {}
    for e in experiments:
        categories[e.category] = categories.get(e.category, 0) + 1
    seconds = sum(numbers(e.metrics)["training_seconds"] for e in experiments)
    return {
        "tag": run.tag,
        "branch": run.branch,
        "best": {"val_bpb": leader.value, "commit": leader.commit, "experiment_id": leader.id} if leader else None,
        "stats": {
            "total": finished,
            "kept": counts["keep"],
            "discarded": counts["discard"],
            "crashed": counts["crash"],
            "running": len(experiments) - finished,
            "keep_rate": counts["keep"] / finished if finished else 0,
        },
        "categories": categories,
        "bpb_progression": [
            {
                "id": e.id,
                "val_bpb": e.value,
                "description": e.description,
                "category": e.category,
                "at": when(e.decided_at),
            }
            for e in experiments
            if e.status == "keep"
        ],
        "total_training_minutes": round(seconds / 60, 1),
        "strategy": mode,
        "gpu_pool": {name: count for name, count in pool(seats).items() if name != "offline"},
    }


def tsv(experiments: Sequence[Any]) -> dict[str, Any]:
    """The table of results: seven characters of the commit, six decimals, GiB with one."""
    rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription"]
    for e in experiments:
        found = numbers(e.metrics) if e.status != "crash" else numbers({})
        memory = found["peak_vram_mb"] / 1024
        words = " ".join(e.description.split())
        rows.append(f"{e.commit[:7]}\t{found['val_bpb']:.6f}\t{memory:.1f}\t{e.status}\t{words}")
    return {"tsv": "\n".join(rows), "count": len(rows) - 1}


def difference(a: Any, b: Any) -> dict[str, Any]:
    """Two experiments side by side; differences are b minus a."""
    one, other = numbers(a.metrics), numbers(b.metrics)
    sides = [
        {"id": e.id, "description": e.description, "category": e.category}
        | {name: found[name] for name in ("val_bpb", "num_params_m", "peak_vram_mb")}
        for e, found in ((a, one), (b, other))
    ]
    return {
        "a": sides[0],
        "b": sides[1],
        "delta_bpb": other["val_bpb"] - one["val_bpb"],
        "delta_params_m": other["num_params_m"] - one["num_params_m"],
        "delta_vram_mb": other["peak_vram_mb"] - one["peak_vram_mb"],
    }


def when(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
