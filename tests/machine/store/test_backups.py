"""Copies of the store go on, and stay in their order, whatever the clock does."""

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from mcp_server.machine.store.backups import LEAST_AGE, back_up, backups, is_stale

DAY = 86400.0


class Clock:
    """Stands in for the time module's clock, and may be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        self._real, self._gmtime_of = time.time, time.gmtime
        monkeypatch.setattr(time, "time", lambda: self._real() + self.ahead)
        monkeypatch.setattr(time, "gmtime", self._gmtime)

    def _gmtime(self, seconds: float | None = None) -> time.struct_time:
        return self._gmtime_of(self._real() + self.ahead if seconds is None else seconds)

    def stamp(self, file: Path) -> None:
        """Give a file the time that the system would have given it."""
        os.utime(file, (self._real() + self.ahead,) * 2)


class Place:
    """A store that is written and copied at the time of a clock."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.store, self.clock, self.rows = folder / "research.db", clock, 0

    def write(self) -> None:
        with closing(sqlite3.connect(self.store)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS lines (number)")
            self.rows += 1
            connection.execute("INSERT INTO lines VALUES (?)", [self.rows])
        self.clock.stamp(self.store)

    def copy(self) -> bool:
        """Copy it if that is due; whether it was."""
        due = is_stale(self.store)
        if due:
            self.clock.stamp(back_up(self.store, threading.Event()))
        return due

    def newest(self) -> int:
        """How many rows the copy holds that would be restored."""
        with closing(sqlite3.connect(backups(self.store)[0])) as connection:
            return int(connection.execute("SELECT count(*) FROM lines").fetchone()[0])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, Clock(monkeypatch))


@pytest.mark.parametrize("jump", [-10 * DAY, -DAY, -2 * LEAST_AGE, DAY, 400 * DAY])
def test_copies_go_on_after_a_jump_and_the_newest_is_restored(place: Place, jump: float) -> None:
    place.write()
    assert place.copy()
    place.clock.ahead += jump
    place.write()
    assert place.copy()
    assert place.newest() == place.rows
    for _ in range(4):
        place.clock.ahead += 2 * LEAST_AGE
        place.write()
        assert place.copy()
        assert place.newest() == place.rows
    place.clock.ahead += 2 * LEAST_AGE
    assert not place.copy()  # nothing was written


def test_a_clock_that_runs_back_and_forth_stops_no_copy(place: Place) -> None:
    place.write()
    for jump in (DAY, -3 * DAY, 5 * DAY, -DAY, -DAY, 30 * DAY, -60 * DAY):
        place.clock.ahead += jump
        place.write()
        assert place.copy()
        assert place.newest() == place.rows
    names = [copy.name for copy in backups(place.store)]
    assert names == sorted(names, reverse=True)


def test_a_small_step_back_delays_a_copy_by_no_more_than_twice_its_age(place: Place) -> None:
    place.write()
    assert place.copy()
    place.clock.ahead -= LEAST_AGE / 2
    place.write()
    assert not place.copy()
    place.clock.ahead += 1.6 * LEAST_AGE
    place.write()
    assert place.copy()


def test_what_a_killed_process_was_copying_goes_though_it_bears_a_time_to_come(place: Place) -> None:
    place.write()
    assert place.copy()
    part = place.store.parent / "backups" / ".killed.part"
    part.touch()
    place.clock.stamp(part)
    place.clock.ahead -= DAY
    place.write()
    assert place.copy()
    assert not part.exists()
