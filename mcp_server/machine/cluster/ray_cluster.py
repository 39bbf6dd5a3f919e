"""Ray, as far as it is used: the machines of a cluster, and an actor on each device that a driver has.

python -m mcp_server.machine.cluster.ray_cluster ADDRESS     lists the machines as JSON, for `autoresearch doctor`
"""

import asyncio
import contextlib
import importlib
import json
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mcp_server.errors import NotReady
from mcp_server.machine.cluster.seat import Seat, SeatSpec, answer

START_SECONDS = 120.0
ANSWER_SECONDS = 120.0
CLOSE_SECONDS = 10.0
CALLS_AT_ONCE = 4
KNOCK_SECONDS = 10.0


class Gone(Exception):  # noqa: N818 - it reads as a sentence
    """The actor, or the machine under it, is no more."""


class Unreachable(Exception):  # noqa: N818
    """There was no answer; the next call may get one."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's own, new each time the machine joins.
        name: the name given with `ray start --node-name`, else that of the host; no other node has it.
        gpus, cpus: what Ray may give away there.
    """

    id: str
    name: str
    gpus: int
    cpus: float


class RayCluster:
    """The connection of this process to a cluster."""

    def __init__(self, address: str) -> None:
        """Connect; raises NotReady where no cluster answers."""
        _knock(address)
        self._ray: Any = importlib.import_module("ray")  # whose types are stricter than what it takes
        try:
            self._ray.init(address=address, log_to_driver=False, configure_logging=False, namespace="autoresearch")
        except Exception as error:  # ray raises whatever its parts raise
            raise _nowhere(address, " ".join(str(error).split())[:300]) from None

    def nodes(self) -> list[Node]:
        """The machines that are up."""
        up = [each for each in self._ray.nodes() if each["Alive"]]
        names = {each["NodeID"]: _name(each) for each in up}
        times = Counter(names.values())
        return [
            Node(
                each["NodeID"],
                names[each["NodeID"]] + (f"-{each['NodeID'][:6]}" if times[names[each["NodeID"]]] > 1 else ""),
                int(each["Resources"].get("GPU", 0)),
                float(each["Resources"].get("CPU", 0)),
            )
            for each in sorted(up, key=lambda each: (_name(each), each["NodeID"]))
        ]

    def seat(self, node: Node, spec: SeatSpec, gpus: float, cpus: float) -> "RaySeat":
        """An actor on a machine, which comes up as soon as so many GPUs and CPUs are free there."""
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        actor = self._ray.remote(
            num_gpus=gpus,
            num_cpus=cpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=CALLS_AT_ONCE,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node.id, soft=False),
        )(_Actor)
        return RaySeat(self._ray, actor.remote(spec))

    def close(self) -> None:
        """Leave the cluster; it ends every actor that is left."""
        self._ray.shutdown()


class RaySeat:
    """A `Seat` on another machine."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    async def call(self, method: str, *arguments: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """Call a method of the seat.

        Raises:
            NotReady: it refused.
            Gone: it is no more.
            Unreachable: it did not answer, or not within so many seconds.
        """
        errors = self._ray.exceptions
        try:
            said, value = await asyncio.wait_for(_awaited(self._actor.call.remote(method, arguments)), seconds)
        except (errors.ActorUnavailableError, TimeoutError) as error:
            raise Unreachable(_first_line(error)) from None
        except (errors.RayError, ValueError) as error:
            raise Gone(_first_line(error)) from None
        if said == "refused":
            raise NotReady(*value)
        return value

    async def close(self) -> None:
        """End it, gently if it answers."""
        with contextlib.suppress(Gone, Unreachable, NotReady):
            await self.call("close", seconds=CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, and with it what it trains."""
        self._ray.kill(self._actor)


class _Actor:
    """What Ray runs."""

    def __init__(self, spec: SeatSpec) -> None:
        self._seat = Seat(spec)

    def call(self, method: str, arguments: Sequence[Any]) -> tuple[str, Any]:
        return answer(self._seat, method, arguments)


def _knock(address: str) -> None:
    """Raise NotReady where nobody answers at an address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise _nowhere(address, str(error)) from None


def _nowhere(address: str, why: str) -> NotReady:
    return NotReady(
        f"No Ray cluster can be joined at {address!r}: {why}",
        "Run `ray start --head` here, or `ray start --address=HOST:6379` to join one that there is",
    )


async def _awaited(reference: Any) -> Any:
    return await reference


def _name(node: dict[str, Any]) -> str:
    given = str(node.get("NodeName") or "")
    return given if given and given != node["NodeManagerAddress"] else str(node["NodeManagerHostname"])


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def main() -> None:
    """List the machines."""
    try:
        nodes = RayCluster(sys.argv[1]).nodes()
    except NotReady as error:
        sys.exit(json.dumps([error.what, error.todo]))
    sys.stdout.write(json.dumps([asdict(node) for node in nodes]))


if __name__ == "__main__":
    main()
