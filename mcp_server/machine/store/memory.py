"""Memory: what every experiment changed, found again by what it is."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiosqlite

from mcp_server.machine.store.connection import Database, Row
from mcp_server.machine.store.rows import dump, experiment_of, tuples
from mcp_server.research.experiment import Experiment, KnobValue
from mcp_server.research.lines import Point
from mcp_server.research.memory import Fingerprint, likeness

NEWEST_OF_KEY = 100
"""So many experiments are looked at for each key of a change: the newest."""
LOOKED_AT = 200
ALIKE = 0.25
"""Less likeness than this is none."""


@dataclass(frozen=True)
class Similar:
    """An earlier experiment whose change is like another, and how much, from 0 to 1."""

    experiment: Experiment
    likeness: float


class Memory:
    """Queries by what was changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def change_of(self, tag: str, number: int) -> Fingerprint:
        """What is remembered of an experiment's change; an empty one where nothing is."""
        row = await self._database.one(
            "SELECT digest, sketch FROM fingerprints WHERE tag = ? AND number = ?", [tag, number]
        )
        keys = await self._database.all("SELECT key FROM likenesses WHERE tag = ? AND number = ?", [tag, number])
        if row is None:
            return Fingerprint("", (), ())
        return Fingerprint(row["digest"], tuple(key["key"] for key in keys), tuple(json.loads(row["sketch"])))

    async def identical(
        self, tag: str, change: Fingerprint, limit: int = 5, besides: int | None = None
    ) -> list[Experiment]:
        """Experiments of a run that made the same change, on whatever base, newest first.

        Args:
            besides: the number of an experiment to leave out.
        """
        rows = await self._database.all(
            """
            SELECT * FROM experiments WHERE tag = ?1 AND number IN (
                SELECT number FROM fingerprints WHERE tag = ?1 AND digest = ?2 AND number IS NOT ?3
                ORDER BY number DESC LIMIT ?4
            ) ORDER BY number DESC
            """,
            [tag, change.digest, besides, limit],
        )
        return [experiment_of(row) for row in rows]

    async def similar(self, tag: str, change: Fingerprint, limit: int = 5, besides: int | None = None) -> list[Similar]:
        """Experiments of a run whose changes are like this one, the likest first, of equals the newest.

        Args:
            besides: the number of an experiment to leave out.
        """
        rows = await self._candidates(tag, change, besides)
        likest = {row["number"]: likeness(change.sketch, json.loads(row["sketch"])) for row in rows}
        numbers = sorted(likest, key=lambda number: (-likest[number], -number))
        chosen = [number for number in numbers if likest[number] >= ALIKE][:limit]
        marks = ", ".join("?" * len(chosen))
        found = await self._database.all(
            f"SELECT * FROM experiments WHERE tag = ? AND number IN ({marks})",  # noqa: S608 - question marks
            [tag, *chosen],
        )
        experiments = {row["number"]: experiment_of(row) for row in found}
        return [Similar(experiments[number], likest[number]) for number in chosen]

    async def _candidates(self, tag: str, change: Fingerprint, besides: int | None) -> Sequence[Row]:
        """The sketches of experiments that share a key, those first that share most."""
        if not change.keys:
            return []
        newest = "SELECT number FROM likenesses WHERE tag = ? AND key = ? ORDER BY number DESC LIMIT ?"
        shared = " UNION ALL ".join([f"SELECT * FROM ({newest})"] * len(change.keys))  # noqa: S608 - constants
        return await self._database.all(
            f"""
            SELECT number, sketch FROM ({shared}) JOIN fingerprints USING (number)
            WHERE tag = ? AND number IS NOT ? GROUP BY number ORDER BY count(*) DESC, number DESC LIMIT ?
            """,  # noqa: S608 - question marks
            [*(word for key in change.keys for word in (tag, key, NEWEST_OF_KEY)), tag, besides, LOOKED_AT],
        )

    async def points(self, tag: str, metric: str, device_type: str, limit: int = 500) -> list[Point]:
        """The knobs and the outcome of the latest trials of a run that ended by themselves, oldest first.

        A trial that ended without a finite value of the metric counts as failed.
        """
        rows = await self._database.all(
            """
            SELECT knobs, trials.metrics, trials.status
            FROM fingerprints JOIN experiments USING (tag, number) JOIN trials ON experiment_id = experiments.id
            WHERE tag = ? AND device_type = ? AND trials.commit_sha = experiments.commit_sha
              AND trials.status IN ('finished', 'failed', 'timed_out')
            ORDER BY number DESC, attempt DESC LIMIT ?
            """,
            [tag, device_type, limit],
        )
        return [_point(row, metric) for row in reversed(rows)]

    async def reported(self, tag: str, limit: int = 500) -> list[Point]:
        """The knobs and the outcome of the experiments of an imported table whose commits are known, oldest first.

        The values are those of the earlier session, moved so that where it stood at its end has value 0.
        """
        rows = await self._database.all(
            """
            SELECT knobs, value, status FROM fingerprints JOIN experiments USING (tag, number)
            WHERE tag = ? AND decided <= 0 AND knobs <> '{}' ORDER BY decided DESC LIMIT ?
            """,
            [tag, limit],
        )
        end = next((row["value"] for row in rows if row["status"] == "keep" and row["value"] is not None), None)
        if end is None:
            return []
        points = []
        for row in reversed(rows):
            knobs = {name: tuples(knob) for name, knob in json.loads(row["knobs"]).items()}
            value = None if row["value"] is None else row["value"] - end
            points.append(Point(knobs, value, failed=value is None))
        return points


async def remember(
    connection: aiosqlite.Connection, tag: str, number: int, change: Fingerprint, knobs: Mapping[str, KnobValue]
) -> None:
    """Remember what an experiment changed and the values of all its knobs, in place of what was remembered of it."""
    await connection.execute(
        "INSERT OR REPLACE INTO fingerprints (tag, number, digest, sketch, knobs) VALUES (?, ?, ?, ?, ?)",
        [tag, number, change.digest, json.dumps(change.sketch), dump(knobs)],
    )
    await connection.execute("DELETE FROM likenesses WHERE tag = ? AND number = ?", [tag, number])
    await connection.executemany(
        "INSERT OR IGNORE INTO likenesses (tag, number, key) VALUES (?, ?, ?)",
        [[tag, number, key] for key in change.keys],
    )


def _point(row: Row, metric: str) -> Point:
    value = json.loads(row["metrics"]).get(metric)
    scored = row["status"] == "finished" and isinstance(value, int | float) and math.isfinite(value)
    knobs = {name: tuples(knob) for name, knob in json.loads(row["knobs"]).items()}
    return Point(knobs, value if scored else None, failed=not scored)
