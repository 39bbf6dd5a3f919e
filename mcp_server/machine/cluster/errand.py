"""One trial on a seat of the cluster, from sending its code to fetching what it left."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mcp_server.errors import NotReady, ResearchError
from mcp_server.machine import outcome, result
from mcp_server.machine.child import EndedBy
from mcp_server.machine.cluster.freight import Freight
from mcp_server.machine.cluster.mirror import Mirror
from mcp_server.machine.cluster.ray_cluster import Gone, RaySeat, Unreachable
from mcp_server.machine.cluster.seat import Glance
from mcp_server.machine.devices import Reading
from mcp_server.machine.git import missing_hint
from mcp_server.machine.holding import Look
from mcp_server.machine.recording import say
from mcp_server.machine.removing import discard
from mcp_server.machine.rig import Order
from mcp_server.research.experiment import Ending

LOOK_SECONDS = 0.5
"""For so long a seat waits for something new before it answers a look."""

GRACE = 30.0
"""Seconds for which a seat may be unreachable before its training counts as lost."""

MOST_LEFT = 2 * 1000**3
"""Bytes of what one training leaves that are fetched."""

NOT_FETCHED = "left-on-the-node.txt"


@dataclass(frozen=True)
class Errand:
    """Carries out a trial.

    Attributes:
        node: the name of the seat's machine.
        ask: why the training is to end, if it is.
        look: gives the run and the trial's case.
        note: told how the device is, now and then.
    """

    seat: RaySeat
    node: str
    freight: Freight
    ask: Callable[[], Awaitable[EndedBy | None]]
    look: Look
    note: Callable[[Reading], None]

    async def carry_out(self, order: Order) -> tuple[Ending, bool]:
        """Train what is ordered: how it ended, and whether the seat can be used for another.

        What cannot even be started has ended as `failed`, what was lost with its machine as `lost`.
        """
        try:
            mirror = _prepared(order.folder)
        except OSError as error:
            return _not_started(f"its folder {str(order.folder)!r} cannot be written: {error.strerror}"), True
        began = time.monotonic()
        try:
            ending = await self._train(order, mirror)
        except _Ended as ended:
            return _ended(ended.by, time.monotonic() - began), True
        except (Gone, Unreachable) as error:
            after = time.monotonic() - began
            return Ending(
                "lost", time.time(), error=f"Its node {self.node} was lost after {after:.0f} s: {error}"
            ), False
        except _Broken as error:
            return Ending("lost", time.time(), error=f"On the node {self.node}: {error}"), False
        except (ResearchError, OSError) as error:
            mirror.say(str(error))
            return _not_started(str(error)), True
        finally:
            mirror.close()
        return ending, True

    async def _train(self, order: Order, mirror: Mirror) -> Ending:
        parcels = await self.freight.parcels(order)
        await self.freight.send(
            self.seat, self.node, (order.trial.commit, order.base_commit), parcels, mirror.say, self._check
        )
        try:
            checkout = await self.seat.call("begin", order.task, order.trial, order.base_commit, parcels)
        except NotReady as error:
            raise _Broken(str(error)) from None
        glance = await self._follow(mirror)
        await self._fetch(glance, order.folder)
        assert glance.ending
        return self._hinted(glance.ending, order.folder / "log.txt", Path(checkout))

    async def _check(self) -> None:
        if by := await self.ask():
            raise _Ended(by)

    async def _follow(self, mirror: Mirror) -> Glance:
        """Copy the log as it grows, until the training has ended and all of it is here."""
        told: EndedBy | None = None
        again = 2
        while True:
            glance = await self._look(mirror)
            if glance.piece:
                mirror.add(glance.piece)
            elif glance.ending:
                if mirror.agrees(*glance.log) or not again:
                    return glance
                again -= 1  # the head of a log on a full disk ends early, and what follows it was rewritten
                mirror.restart()
                continue
            if (by := await self.ask()) and by != told:
                with contextlib.suppress(Unreachable):
                    await self.seat.call("end", by)
                    told = by

    async def _look(self, mirror: Mirror) -> Glance:
        """What is new; raises Unreachable only where there was no answer for a while."""
        heard = time.monotonic()
        while True:
            try:
                glance: Glance = await self.seat.call("look", mirror.offset, mirror.token, LOOK_SECONDS)
            except Unreachable:
                if time.monotonic() - heard > GRACE:
                    raise
                await asyncio.sleep(1)
                continue
            except NotReady as error:
                raise _Broken(str(error)) from None
            self.note(glance.reading)
            if glance.asks:
                await self._tell()
            return glance

    async def _tell(self) -> None:
        """Answer a training that asks for its case; one that did not hear it asks again."""
        run, case = await self.look()
        with contextlib.suppress(Unreachable):
            await self.seat.call("tell", run, case)

    async def _fetch(self, glance: Glance, folder: Path) -> None:
        """Fetch what the training left, as far as it is not too much."""
        total, missed = 0, []
        for path, size in glance.left:
            total += size
            if total > MOST_LEFT or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                missed.append(f"{path} ({size} bytes)")
                continue
            place = folder / path
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as file:
                    while data := await self.seat.call("part", path, file.tell()):
                        file.write(data)
            except (NotReady, OSError) as error:
                missed.append(f"{path} ({error})")
        if missed:
            with contextlib.suppress(OSError):
                (folder / NOT_FETCHED).write_text("\n".join(missed) + "\n", encoding="utf-8")
            say(f"{folder.name}: not fetched from {self.node}: {', '.join(missed[:5])}")

    def _hinted(self, ending: Ending, log: Path, checkout: Path) -> Ending:
        """The ending, with what to do where the training missed a file that only the user's repository has."""
        if not ending.exit_code or ending.status != "failed":
            return ending
        with contextlib.suppress(OSError):
            text = log.read_bytes()[-outcome.LOOKED_AT :].decode("utf-8", "replace")
            if hint := missing_hint(self.freight.repository.root, checkout, text):
                return replace(ending, error=f"{ending.error} {hint}")
        return ending


async def forgotten(seat: RaySeat) -> bool:
    """Have a seat delete what a trial left there; whether it can be used for another."""
    try:
        await seat.call("forget")
    except (ResearchError, Gone, Unreachable) as error:
        say(f"what a trial left stays on its node: {error}")
        return False
    return True


class _Ended(Exception):  # noqa: N818
    """Somebody wants the trial to end before it trains."""

    def __init__(self, by: EndedBy) -> None:
        super().__init__(by)
        self.by = by


class _Broken(Exception):  # noqa: N818
    """The seat cannot train."""


def _prepared(folder: Path) -> Mirror:
    """Make a trial's folder; what it holds is deleted."""
    discard(folder)
    (folder / "out").mkdir(parents=True)
    result.reserve(folder)
    return Mirror(folder / "log.txt")


def _not_started(why: str) -> Ending:
    return Ending("failed", time.time(), error=f"It could not be trained: {why}")


def _ended(by: EndedBy, seconds: float) -> Ending:
    if by == "stop":
        return Ending("stopped", time.time(), error=f"Stopped on request after {seconds:.0f} s.")
    return Ending("lost", time.time(), error=f"Its driver was told to end after {seconds:.0f} s.")
