"""The field names of the multi-GPU tracker, made from what the lab answers."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mcp_server.interfaces import peer_answers as answers
from mcp_server.research.marking import Words
from mcp_server.research.tables import harmless

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


def numbers(metrics: Mapping[str, Any]) -> answers.Numbers:
    """Metrics under the tracker's names; 0 for what was not measured."""

    def number(theirs: str) -> float:
        value = metrics.get(theirs, metrics.get(NUMBERS[theirs], 0))
        return value if isinstance(value, int | float) else 0

    return {
        "val_bpb": number("val_bpb"),
        "peak_vram_mb": number("peak_vram_mb"),
        "training_seconds": number("training_seconds"),
        "total_tokens_m": number("total_tokens_m"),
        "mfu_percent": number("mfu_percent"),
        "num_steps": number("num_steps"),
        "num_params_m": number("num_params_m"),
        "depth": number("depth"),
    }


def experiment(e: Any) -> answers.Experiment:
    """An experiment."""
    known = e.status in STATUSES
    return {
        "id": e.id,
        "tag": e.tag,
        "parent_id": e.parent_id,
        "commit_sha": e.commit,
        "commit_verified": e.commit_known,
        "description": Words(e.description),
        "hypothesis": Words(e.hypothesis),
        "category": e.category,
        **numbers(e.metrics if known and e.status != "crash" else {}),
        "status": e.status if known else "running",
        "gpu_id": e.agent,
        "started_at": when(e.registered_at),
        "finished_at": None if e.decided_at is None else when(e.decided_at),
        "diff_summary": Words(e.diff_summary),
        "error": e.reason if e.status == "crash" else None,
    }


def best(e: Any) -> answers.BestInShort:
    """The best experiment in short."""
    return {
        "experiment_id": e.id,
        "val_bpb": e.value,
        "commit_sha": e.commit,
        "updated_at": None if e.decided_at is None else when(e.decided_at),
    }


def near_miss(e: Any) -> answers.NearMiss:
    """A near miss."""
    return {
        "experiment_id": e.id,
        "tag": e.tag,
        "val_bpb": e.value,
        "delta": abs(e.delta or 0.0),
        "hypothesis": Words(e.hypothesis),
        "category": e.category,
        "diff_summary": Words(e.diff_summary),
    }


def tag(found: Any) -> answers.Tag:
    """A run."""
    return {
        "name": found.run.tag,
        "branch": found.run.branch,
        "created_at": when(found.run.created_at),
        "best_val_bpb": found.best.value if found.best else None,
        "total_experiments": found.tally.finished,
        "kept_experiments": found.tally.statuses.get("keep", 0),
    }


def strategy(found: Any, since: float) -> answers.Strategy:
    """A strategy, and since when it holds."""
    return {
        "mode": found.mode,
        "explore_ratio": found.explore_ratio,
        "temperature": found.temperature,
        "updated_at": when(since),
        "reason": found.reason,
    }


def suggestion(found: Any) -> answers.Suggestion:
    """What to try next."""
    return {
        "strategy": found.mode,
        "total_experiments": found.tally.finished,
        "category_stats": {
            category: {"total": count.tries, "kept": count.keeps} for category, count in found.tally.counts.items()
        },
        "underexplored_categories": list(found.underexplored),
        "high_yield_categories": list(found.high_yield),
        "near_misses_available": found.near_misses,
        "near_miss_categories": list(found.near_miss_categories),
        "recent_bpb_trend": list(found.trend),
        "suggestions": list(found.suggestions),
    }


def worker(seat: Any) -> answers.Worker:
    """A registered device."""
    member = seat.member
    return {
        "id": member.gpu_id,
        "name": f"gpu-{member.gpu_index}",
        "host": member.host,
        "gpu_index": member.gpu_index,
        "gpu_name": member.gpu_name,
        "vram_mb": member.vram_mb,
        "status": seat.status,
        "current_experiment_id": member.experiment_id,
        "registered_at": when(member.registered_at),
        "last_heartbeat": when(member.seen_at),
    }


def pool(seats: Sequence[Any]) -> answers.Pool:
    """All registered devices."""
    return {
        "workers": [worker(seat) for seat in seats],
        "total": len(seats),
        "idle": _number(seats, "idle"),
        "training": _number(seats, "training"),
        "offline": _number(seats, "offline"),
    }


def summary(found: Any, seats: Sequence[Any]) -> answers.Summary:
    """A run at a glance."""
    counts, finished, leader = found.tally.statuses, found.tally.finished, found.best
    kept = counts.get("keep", 0)
    return {
        "tag": found.run.tag,
        "branch": found.run.branch,
        "best": {"val_bpb": leader.value, "commit": leader.commit, "experiment_id": leader.id} if leader else None,
        "stats": {
            "total": finished,
            "kept": kept,
            "discarded": counts.get("discard", 0),
            "crashed": counts.get("crash", 0),
            "running": sum(counts.values()) - finished,
            "keep_rate": kept / finished if finished else 0,
        },
        "categories": dict(found.tally.categories),
        "bpb_progression": [_step(keep) for keep in found.keeps],
        "total_training_minutes": round(found.training_seconds / 60, 1),
        "strategy": found.mode,
        "gpu_pool": {"total": len(seats), "idle": _number(seats, "idle"), "training": _number(seats, "training")},
    }


def tsv(experiments: Sequence[Any]) -> answers.Table:
    """The table of results."""
    rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription"]
    for e in experiments:
        found = numbers(e.metrics if e.status != "crash" else {})
        memory = found["peak_vram_mb"] / 1024
        words = harmless(" ".join(e.description.split()))
        rows.append(f"{harmless(e.commit[:7])}\t{found['val_bpb']:.6f}\t{memory:.1f}\t{e.status}\t{words}")
    return {"tsv": "\n".join(rows), "count": len(rows) - 1}


def difference(a: Any, b: Any) -> answers.Difference:
    """Two experiments side by side."""
    one, other = _side(a), _side(b)
    return {
        "a": one,
        "b": other,
        "delta_bpb": _less(other["val_bpb"], one["val_bpb"]),
        "delta_params_m": _less(other["num_params_m"], one["num_params_m"]),
        "delta_vram_mb": _less(other["peak_vram_mb"], one["peak_vram_mb"]),
    }


def when(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _less(a: float, b: float) -> float:
    """a - b, as far as a number of JSON can tell."""
    return max(-sys.float_info.max, min(sys.float_info.max, a - b))


def _side(e: Any) -> answers.Side:
    found = numbers(e.metrics if e.status in STATUSES and e.status != "crash" else {})
    return {
        "id": e.id,
        "description": Words(e.description),
        "category": e.category,
        "val_bpb": found["val_bpb"],
        "num_params_m": found["num_params_m"],
        "peak_vram_mb": found["peak_vram_mb"],
    }


def _step(e: Any) -> answers.Step:
    at = None if e.decided_at is None else when(e.decided_at)
    return {"id": e.id, "val_bpb": e.value, "description": Words(e.description), "category": e.category, "at": at}


def _number(seats: Sequence[Any], status: str) -> int:
    return sum(seat.status == status for seat in seats)
