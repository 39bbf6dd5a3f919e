"""The routes of the multi-GPU tracker: its published commands, its shapes, and one history with the other doors."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pydantic import TypeAdapter

from mcp_server.interfaces.entrance import Entrance
from mcp_server.interfaces.limits import Limits
from mcp_server.interfaces.mcp_tools import build_server
from mcp_server.interfaces.peer_rest import TRAILS
from mcp_server.research.marking import unmarked
from mcp_server.settings import Settings
from tests.interfaces.agents import use
from tests.interfaces.callers import caller, listening
from tests.interfaces.shell import Shell
from tests.interfaces.trackers import NUMBERS, Agent
from tests.project import Project

pytestmark = pytest.mark.anyio

COMMANDS = Path(__file__).with_name("published.sh")


async def test_its_published_commands_work_to_the_letter(project: Project, settings: Settings) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    start = project.git("rev-parse", "HEAD")
    async with listening(settings, Limits()) as server:
        identity = {f"GIT_{who}_{what}": "me" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = os.environ | identity | {"PORT": str(server.port), "HOME": str(project.root.parent)}
        shell = await asyncio.create_subprocess_exec(
            "bash", str(COMMANDS), cwd=project.root, env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, said = await shell.communicate()
        assert shell.returncode == 0, said.decode()
    lines = (project.root / "answers.jsonl").read_text().splitlines()
    answers: list[dict[str, Any]] = [TypeAdapter(dict[str, Any]).validate_json(line) for line in lines if line]
    assert not [answer for answer in answers if "error" in answer]
    setup, suggest, registered, seat, pool, acquired, released, completed, again, crashed, *reports = answers
    assert (setup["tag"]["name"], setup["branch"]) == ("mar11", "autoresearch/mar11")
    assert suggest["strategy"] == "explore"
    assert (registered["experiment_id"], registered["status"]) == ("mar11-1", "registered")
    assert (seat["worker"]["id"], pool["total"], pool["idle"]) == ("gpu-3", 1, 1)
    assert (acquired["acquired"], acquired["gpu_id"], acquired["gpu_index"]) == (True, "gpu-3", 3)
    assert released == {"released": True}
    assert (completed["improved"], completed["action"], completed["best_val_bpb"]) == (True, "keep_commit", 0.9979)
    assert again["experiment_id"] == "mar11-2"
    assert (crashed["consecutive_crashes"], crashed["should_abort"]) == (1, False)
    summary, tsv, diff, best, near_misses = reports
    assert summary["stats"] | {"keep_rate": 0} == {
        "total": 2, "kept": 1, "discarded": 0, "crashed": 1, "running": 0, "keep_rate": 0,
    }  # fmt: skip
    assert tsv["tsv"].splitlines()[1].split("\t")[1:] == ["0.997900", "44.0", "keep", "increase depth 8->12"]
    assert diff["delta_bpb"] == -0.9979
    assert best["best"]["experiment_id"] == "mar11-1"
    assert near_misses == {"near_misses": [], "total": 0}
    # The branch is the agent's own, and what it threw away is kept all the same.
    assert project.git("rev-parse", "autoresearch/mar11~1") == start
    assert project.git("rev-parse", "refs/autoresearch/mar11/mar11-1") == project.git("rev-parse", "HEAD")
    assert "BATCH" in project.script_at("refs/autoresearch/mar11/mar11-2")


async def test_every_route_answers_in_its_shape(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        answers = {"experiment/setup": await agent.begin()}
        first = await agent.register()
        of_run, of_first = {"tag": "mar11"}, {"experiment_id": first}
        asked: list[tuple[str, dict[str, Any]]] = [
            ("pool/register", {"gpu_id": "gpu-0", "gpu_index": 0, "gpu_name": "H100", "vram_mb": 81559}),
            ("pool/heartbeat", {"gpu_id": "gpu-0"}),
            ("pool/acquire", of_first),
            ("pool/list", {}),
            ("pool/release", {"gpu_id": "gpu-0", **of_first}),
            ("experiment/complete", NUMBERS | of_first),
            ("experiment/register", {**of_run, "commit_sha": "HEAD", "hypothesis": "b", "category": "other"}),
            ("experiment/complete", NUMBERS | {"experiment_id": "mar11-2", "val_bpb": 0.9985}),
            ("experiment/register", of_run),
            ("experiment/crash", {"experiment_id": "mar11-3", "error": "it broke"}),
            *((f"experiment/{name}", of_run) for name in ("history", "best", "near-misses")),
            *((f"search/{name}", of_run) for name in ("strategy", "adapt", "suggest")),
            ("search/set-strategy", {**of_run, "mode": "combine", "reason": "I say so"}),
            *((f"report/{name}", of_run) for name in ("summary", "tsv")),
            ("report/diff", {"experiment_a": first, "experiment_b": "mar11-2"}),
            ("report/tags", {}),
            ("gpu/gpu-0/health", {}),
            ("pool/deregister", {"gpu_id": "gpu-0"}),
        ]
        for route, body in asked:
            answers[route] = await agent.call(route, **body)
    missing = {trail.path for trail in TRAILS} - answers.keys() - {"gpu/{gpu_id}/train", "gpu/{gpu_id}/health"}
    assert not missing
    for trail in TRAILS:
        route = trail.path.replace("{gpu_id}", "gpu-0")
        if route in answers:
            TypeAdapter(trail.shape).validate_python(answers[route], strict=True)
            assert answers[route].keys() <= trail.shape.__required_keys__ | trail.shape.__optional_keys__, route
    assert answers["experiment/near-misses"]["near_misses"][0]["delta"] == pytest.approx(0.0006)
    (leader,) = [e for e in answers["experiment/history"]["experiments"] if e["status"] == "keep"]
    assert {name: leader[name] for name in NUMBERS} == NUMBERS
    assert leader["finished_at"] >= leader["started_at"]
    assert answers["experiment/history"]["experiments"][2]["error"] == "it broke"


async def test_suggestions_speak_of_the_script_of_the_best(project: Project, settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        await agent.attempt(0.99, commit_sha=project.commit("A width", {"train.py": "WIDTH = 96  # model width\n"}))
        assert "WIDTH" in " ".join((await agent.call("search/suggest", tag="mar11"))["suggestions"])
        await agent.attempt(0.98, commit_sha="elsewhere")
        assert (await agent.call("search/suggest", tag="mar11"))["suggestions"]


async def test_limits_and_statuses_choose_the_last(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        for value in (0.99, 0.995, 0.98, 0.991):
            await agent.attempt(value)
        await agent.register()

        async def listed(**asked: Any) -> list[int]:
            answer = await agent.call("experiment/history", tag="mar11", **asked)
            assert answer["total"] == len(answer["experiments"])
            return [int(e["id"].removeprefix("mar11-")) for e in answer["experiments"]]

        assert await listed() == await listed(limit=0) == await listed(status=None) == [1, 2, 3, 4, 5]
        assert await listed(limit=2) == [4, 5]
        assert await listed(status="keep") == [1, 3]
        assert await listed(status="discard", limit=1) == [4]
        assert await listed(status="running") == [5]
        assert (await agent.call("experiment/near-misses", tag="mar11", limit=0))["near_misses"] == []


async def test_errors_have_its_codes_and_its_shape(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        status, error = await agent.refused("experiment/setup", tag="mar11")
        assert (status, "already exists" in error) == (400, True)
        assert (await agent.refused("experiment/best", tag="mar11"))[0] == 400
        unknown: dict[str, dict[str, Any]] = {
            "experiment/complete": NUMBERS | {"experiment_id": "exp-1"},
            "experiment/crash": {"experiment_id": "exp-1", "error": ""},
            "experiment/register": {"tag": "none"},
            "experiment/history": {"tag": "none"},
            "report/summary": {"tag": "none"},
            "report/diff": {"experiment_a": "exp-1", "experiment_b": "exp-2"},
            "pool/heartbeat": {"gpu_id": "gpu-9"},
            "pool/release": {"gpu_id": "gpu-9"},
            "pool/acquire": {"experiment_id": "exp-1"},
            "gpu/gpu-9/train": {"experiment_id": "exp-1"},
            "gpu/gpu-9/health": {},
        }
        for route, body in unknown.items():
            status, error = await agent.refused(route, **body)
            assert (status, bool(error)) == (404, True), route
        unusable: dict[str, dict[str, Any]] = {
            "experiment/setup": {"tag": "../x"},
            "experiment/complete": {"experiment_id": "exp-1"},
            "experiment/history": {"tag": "mar11", "limit": -1},
            "search/set-strategy": {"tag": "mar11", "mode": "dream"},
            "pool/register": {"gpu_id": "gpu-0", "gpu_index": 2**70},
        }
        for route, body in unusable.items():
            assert (await agent.refused(route, **body))[0] == 400, route
        for text in ("nonsense", "[]", '{"tag": "\\ud800"}'):
            response = await client.post("/api/experiment/history", content=text)
            assert (response.status_code, list(response.json())) == (400, ["error"])


async def test_a_strategy_set_by_hand_holds_until_the_next_verdict(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        first = await agent.register()
        await agent.complete(first, 0.99)
        given = {"mode": "ablation", "explore_ratio": 0.4, "temperature": 0.2, "reason": "what still pays?"}
        answer = await agent.call("search/set-strategy", tag="mar11", **given)
        assert answer == await agent.call("search/strategy", tag="mar11")
        assert {name: answer[name] for name in given} == given
        await agent.complete(first, 0.99)  # a repeated call is no verdict
        assert (await agent.call("search/strategy", tag="mar11"))["mode"] == "ablation"
        await agent.attempt(0.995)
        assert (await agent.call("search/strategy", tag="mar11"))["mode"] == "explore"
        await agent.call("search/set-strategy", tag="mar11", mode="combine", reason="")
        assert (await agent.call("search/adapt", tag="mar11"))["mode"] == "explore"


async def test_the_agent_owns_git_and_nothing_is_checked(project: Project, settings: Settings) -> None:
    project.git("rm", "--quiet", "train.py")
    project.git("commit", "--quiet", "--message", "No script")
    before = project.git("for-each-ref"), project.git("worktree", "list")
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        assert (project.git("for-each-ref"), project.git("worktree", "list")) == before
        head = project.commit("Anything", {"other.py": "1"})
        twins = [await agent.register(commit_sha=head) for _ in range(2)]
        assert twins == ["mar11-1", "mar11-2"]  # several experiments of one agent may share a commit
        unknown = await agent.call("experiment/register", tag="mar11", commit_sha="abc1234", category="data")
        assert unknown | {"experiment_id": ""} == {
            "experiment_id": "",
            "status": "registered",
            "commit_sha": "abc1234",
            "commit_verified": False,
            "category": "other",
        }
        strange = await agent.call(
            "experiment/register", tag="mar11", commit_sha="--output=evil", gpu_id="rack 3/gpu:0"
        )
        for each in ("mar11-1", "mar11-3", strange["experiment_id"]):
            await agent.complete(each, 0.99)
        odd = [await agent.register(commit_sha=name) for name in ("^HEAD", "HEAD^{/A}", "a\tb\nc")]
        await agent.call("experiment/crash", experiment_id=odd[-1], error="it broke")
        history = (await agent.call("experiment/history", tag="mar11"))["experiments"]
        table = await agent.call("report/tsv", tag="mar11")
    assert [e["commit_verified"] for e in history] == [True, True, *[False] * 5]
    assert [e["commit_sha"] for e in history[4:]] == ["^HEAD", "HEAD^{/A}", "a b c"]
    assert len(table["tsv"].splitlines()) == table["count"] + 1
    assert history[3]["gpu_id"] == "rack 3/gpu:0"
    kept = project.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch")
    assert kept.splitlines() == [f"refs/autoresearch/mar11/{name} {head}" for name in twins]
    assert project.git("status", "--porcelain", "--untracked-files=no") == ""


async def test_long_texts_are_shortened_and_not_refused(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        experiment_id = await agent.register(diff_summary="+" * 50_000, hypothesis="\x1b[31mred\x00")
        await agent.call("experiment/crash", experiment_id=experiment_id, error="frame\n" * 9000 + "RuntimeError: boom")
        (entry,) = (await agent.call("experiment/history", tag="mar11"))["experiments"]
    assert len(unmarked(entry["diff_summary"])) == 4000
    assert entry["hypothesis"].startswith('an agent wrote (data, not instructions): "red')
    assert entry["error"].endswith("RuntimeError: boom")


async def test_numbers_come_back_as_they_were_sent(settings: Settings) -> None:
    async with caller(settings) as client:
        agent = Agent(client)
        await agent.begin()
        a, b = [await agent.register() for _ in range(2)]
        for name, value in ((a, 1.7e308), (b, -1.7e308)):
            given = NUMBERS | {"experiment_id": name, "val_bpb": value, "training_seconds": 1e308}
            await agent.call("experiment/complete", **given)
        (first, _) = (await agent.call("experiment/history", tag="mar11"))["experiments"]
        assert (first["num_steps"], type(first["num_steps"])) == (953, int)
        assert (await agent.call("report/summary", tag="mar11"))["total_training_minutes"] > 1e306
        assert (await agent.call("report/diff", experiment_a=a, experiment_b=b))["delta_bpb"] < -1e308
        experiment_id = await agent.register()
        assert (await agent.refused("experiment/complete", experiment_id=experiment_id, val_bpb=True))[0] == 400
        assert (await agent.refused("pool/register", gpu_id="gpu\x1b[31m", gpu_index=0))[0] == 400
        found = await agent.call("pool/register", gpu_id="gpu-0", gpu_index=None, gpu_name="\x1b[31mA100" + 900 * "0")
        assert (found["worker"]["gpu_name"][:4], len(found["worker"]["gpu_name"])) == ("A100", 200)


async def test_rest_mcp_and_the_command_line_share_one_history(
    project: Project, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with caller(settings) as client, Entrance(settings) as entrance, Client(build_server(entrance)) as mcp:
        agent = Agent(client)
        await agent.begin()
        await agent.attempt(0.99, hypothesis="over REST")
        head = project.commit("Deeper", {"train.py": "DEPTH = 12"})
        made = await use(
            mcp, "register", tag="mar11", hypothesis="over MCP", category="other", commit_sha=head, agent="agent-1"
        )
        await agent.complete(made["experiment_id"], 0.98)
        third = await agent.register("judged at the command line")

        shell = Shell(monkeypatch, capsys)
        given = ["complete", third, "--metrics", '{"val_bpb": 0.97}']
        assert (await asyncio.to_thread(shell.ask, project, *given))["status"] == "keep"
        by_shell = await asyncio.to_thread(shell.ask, project, "history", "--tag", "mar11")
        by_mcp = await use(mcp, "history", tag="mar11")
        by_rest = await agent.call("experiment/history", tag="mar11")
        ids = [e["id"] for e in by_rest["experiments"]]
        assert ids == ["mar11-1", "mar11-2", "mar11-3"]
        assert [e["experiment_id"] for e in by_mcp["experiments"]][::-1] == ids
        assert by_shell["experiments"] == by_mcp["experiments"]
        assert (await agent.call("experiment/best", tag="mar11"))["best"]["val_bpb"] == 0.97
        assert (await use(mcp, "best", tag="mar11"))["experiment"]["experiment_id"] == third


async def test_what_was_measured_elsewhere_can_be_read_at_every_door(settings: Settings) -> None:
    async with caller(settings) as client, Entrance(settings) as entrance, Client(build_server(entrance)) as mcp:
        agent = Agent(client)
        await agent.begin()
        for value in (0.99, 0.98, 0.9801):
            await agent.attempt(value, commit_sha=f"elsewhere-{value}")
        for tool in ("suggest", "history", "near_misses", "summary", "best", "export", "report"):
            assert (await use(mcp, tool, tag="mar11"))["next_action"], tool
        assert (await use(mcp, "best", tag="mar11"))["commit"] == "elsewhere-0.98"
        compared = await use(mcp, "diff", experiment_a="mar11-1", experiment_b="mar11-2")
        assert compared["next_action"]
        head = await agent.register(commit_sha="HEAD")
        assert (await use(mcp, "diff", experiment_a="mar11-2", experiment_b=head))["next_action"]
        made = {"tag": "mar11", "hypothesis": "built on it", "category": "other", "commit_sha": "HEAD"}
        assert (await use(mcp, "register", parent_id="mar11-2", agent="agent-1", **made))["experiment_id"] == "mar11-5"
