"""The results file under the hands of several servers."""

import asyncio

import pytest

from mcp_server.lab.lab import Lab
from mcp_server.machine.git import locked
from mcp_server.research.tables import to_tsv
from mcp_server.settings import Settings
from tests.lab.researcher import researching
from tests.project import Project

pytestmark = pytest.mark.anyio


async def test_two_servers_list_every_verdict_once(settings: Settings, project: Project) -> None:
    async with researching(settings) as agent, Lab.open(settings) as other:
        bench = agent.lab.training._bench
        ids = [await agent.propose(f"deeper {depth}", knobs={"DEPTH": depth}) for depth in (8, 9)]
        for experiment_id in ids:
            await agent.lab.training.train(experiment_id, wait_seconds=60)
        with locked(bench.folders.state / "results.lock", 10):  # as a third server has it
            tasks = []
            for lab, experiment_id in zip((agent.lab, other), ids, strict=True):
                tasks.append(asyncio.create_task(lab.verdicts.complete(experiment_id)))
                while (await bench.store.experiments.get(experiment_id)).decided is None:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.02)
            listed = await bench.store.runs.listed("mar8")
            batch = await bench.store.history.decided_after("mar8", listed, 10)
            assert [each.id for each in batch] == ids
            with (project.root / "results.tsv").open("a") as file:
                file.writelines(list(to_tsv(batch, (await bench.store.runs.get("mar8")).task))[1:])
            await bench.store.runs.set_listed("mar8", listed + 2)
        await asyncio.gather(*tasks)
        lines = (project.root / "results.tsv").read_text().splitlines()
        assert [line.split("\t")[-1] for line in lines[1:]] == ["the baseline", "deeper 8", "deeper 9"]
