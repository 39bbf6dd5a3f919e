"""The tracker's decisions in the plainest words, to hold the real ones against. Nothing here is fast or persistent."""

from dataclasses import dataclass, field
from typing import Any

CATEGORIES = [
    *("architecture", "optimizer", "hyperparams", "activation", "attention", "embedding", "normalization"),
    *("regularization", "scheduling", "initialization", "simplification", "combination", "ablation", "other"),
]


@dataclass
class Entry:
    """An experiment."""

    category: str
    status: str = "running"
    value: float = 0.0
    near_miss: bool = False


@dataclass
class Tracker:
    """One run."""

    entries: list[Entry] = field(default_factory=list)
    best: float | None = None
    crashes: int = 0
    manual: dict[str, Any] | None = None

    def register(self, category: str) -> None:
        self.entries.append(Entry(category))

    def complete(self, index: int, value: float) -> dict[str, Any]:
        entry, best = self.entries[index], self.best
        improved = best is None or value < best
        delta = 0 if best is None else best - value
        entry.status, entry.value = "keep" if improved else "discard", value
        entry.near_miss = best is not None and 0 <= value - best < 0.002
        self.best = value if best is None or value < best else best
        self.crashes, self.manual = 0, None
        return {
            "status": entry.status,
            "val_bpb": value,
            "improved": improved,
            "delta": delta,
            "best_val_bpb": self.best,
            "action": "keep_commit" if improved else "git_reset",
        }

    def crash(self, index: int) -> dict[str, Any]:
        self.entries[index].status = "crash"
        self.crashes += 1
        self.manual = None
        return {
            "status": "crash",
            "consecutive_crashes": self.crashes,
            "should_abort": self.crashes >= 3,
            "action": "git_reset",
        }

    def set_strategy(self, mode: str, explore_ratio: float, temperature: float) -> None:
        self.manual = {"mode": mode, "explore_ratio": explore_ratio, "temperature": temperature}

    @property
    def finished(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.status != "running"]

    def strategy(self) -> dict[str, Any]:
        if self.manual:
            return self.manual
        mode, temperature = self._mode()
        ratio = 0.7 if not self.finished else 0.8 if mode == "explore" else 0.3
        return {"mode": mode, "explore_ratio": ratio, "temperature": temperature}

    def _mode(self) -> tuple[str, float]:
        if len(self.finished) < 5:
            return "explore", 1.0
        last = [entry.status for entry in self.finished[-10:]]
        if last.count("crash") / len(last) > 0.5:
            return "exploit", 0.3
        if "keep" not in last and len(self.finished) > 20:
            enough = sum(entry.near_miss for entry in self.finished) >= 2
            return ("combine", 0.5) if enough else ("ablation", 0.3)
        if last.count("keep") / len(last) > 0.3:
            return "exploit", 0.5
        return "explore", 0.8

    def suggest(self) -> dict[str, Any]:
        stats: dict[str, dict[str, int]] = {}
        for entry in self.finished:
            count = stats.setdefault(entry.category, {"total": 0, "kept": 0})
            count["total"] += 1
            count["kept"] += entry.status == "keep"
        near = [entry for entry in self.finished if entry.near_miss]
        return {
            "strategy": self.strategy()["mode"],
            "total_experiments": len(self.finished),
            "category_stats": stats,
            "underexplored_categories": [c for c in CATEGORIES[:11] if stats.get(c, {"total": 0})["total"] < 3],
            "high_yield_categories": [c for c in CATEGORIES if high(stats.get(c, {"total": 0, "kept": 0}))],
            "near_misses_available": len(near),
            "near_miss_categories": sorted({entry.category for entry in near}),
            "recent_bpb_trend": [entry.value for entry in self.entries if entry.status == "keep"][-5:],
        }

    def stats(self) -> dict[str, Any]:
        statuses = [entry.status for entry in self.entries]
        total = len(self.finished)
        return {
            "total": total,
            "kept": statuses.count("keep"),
            "discarded": statuses.count("discard"),
            "crashed": statuses.count("crash"),
            "running": statuses.count("running"),
            "keep_rate": statuses.count("keep") / total if total else 0,
        }


def high(count: dict[str, int]) -> bool:
    return count["total"] >= 3 and count["kept"] / count["total"] > 0.3
