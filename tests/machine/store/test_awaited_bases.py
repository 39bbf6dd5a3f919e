"""A store of before experiments said in their numbers that they wait for one more run of their base."""

import json
from pathlib import Path

import pytest

from mcp_server.machine.store import Store
from mcp_server.machine.store.schema import awaited_bases
from tests.machine.store.versions import store_before

pytestmark = pytest.mark.anyio

NUMBERS = {"d": -1.0, "s": 0.5, "z": -2.0, "n": 1, "n_b": 2, "sigma": 0.4, "dof": 3, "base": "e0", "incumbent": "e0"}
WAITS = "Worse by 1 +- 0.5 loss (z -2.00): no verdict before mar8-1 is run once more: others had 40% of the time."


@pytest.mark.parametrize(
    ("status", "reason", "waits"),
    [
        ("needs_confirmation", WAITS, True),
        ("queued", WAITS, True),  # if that comes to nothing, its verdict stands
        ("needs_confirmation", "Better by 1 +- 2 loss (z 0.50): promising, but z below 2 may well be noise.", False),
        ("discard", "Worse by 1 +- 0.5 loss (z -2.00): clearly worse.", False),
    ],
)
async def test_those_whose_reason_said_so_wait(tmp_path: Path, status: str, reason: str, waits: bool) -> None:
    path = tmp_path / "research.db"
    async with store_before(path, awaited_bases) as connection:
        for number, numbers in ((1, json.dumps(NUMBERS)), (2, None)):
            await connection.execute(
                "INSERT INTO experiments (id, tag, number, agent, commit_sha, base_commit, hypothesis, category,"
                " request, registered_at, status, description, source, diff_summary, lines_added, lines_removed,"
                " changes, reason, numbers) VALUES (?1, 'mar8', ?2, 'ada', 'c1', 'c0', 'h', 'other', ?1, 1, ?3, '', '',"
                " '', 0, 0, '{}', ?4, ?5)",
                [f"mar8-{number}", number, status, reason, numbers],
            )
    async with Store.open(path) as store:
        found = (await store.experiments.get("mar8-1")).numbers
        assert found is not None
        assert (found.awaits_base, found.z, found.n_b) == (waits, -2.0, 2)
        assert (await store.experiments.get("mar8-2")).numbers is None
