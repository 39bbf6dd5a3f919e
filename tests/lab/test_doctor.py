"""The doctor, on machines that are fit and on some that are not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.lab import doctor
from mcp_server.lab.doctor import Check, check_machine
from mcp_server.lab.lab import Lab
from mcp_server.machine import sandbox
from mcp_server.machine.sandbox import probe
from mcp_server.settings import Settings
from tests.project import Project

pytestmark = pytest.mark.anyio


async def examined(settings: Settings) -> dict[str, Check]:
    """The checks by name."""
    return {check.name: check for check in await check_machine(settings)}


async def test_a_fit_machine(settings: Settings) -> None:
    checks = await examined(settings)
    assert {check.status for check in checks.values()} <= {"ok", "warn"}
    assert checks["git"].found[0].isdigit()
    assert checks["repository"].found.startswith(str(settings.repo))
    assert "WAL works" in checks["state folder"].found
    assert checks["devices"].found.startswith("cpu:0 ")
    assert "not needed" in checks["data"].found
    assert checks["state size"].found == "nothing stored yet"
    assert list((settings.repo).glob(".autoresearch*")) == []  # looking leaves nothing behind


async def test_no_repository_is_a_warning(tmp_path: Path) -> None:
    checks = await examined(Settings.load(tmp_path, "cpu:1"))
    assert (checks["repository"].status, "git init" in checks["repository"].remedy) == ("warn", True)


async def test_a_repository_without_commits_fails(tmp_path: Path, project: Project) -> None:
    project.git("init", "--quiet", str(tmp_path / "empty"))
    checks = await examined(Settings.load(tmp_path / "empty", "cpu:1"))
    assert (checks["repository"].status, "no commit yet" in checks["repository"].found) == ("fail", True)


async def test_devices_that_are_not_there(project: Project) -> None:
    checks = await examined(Settings.load(project.root, "cpu:0"))
    assert (checks["devices"].status, "auto" in checks["devices"].remedy) == ("fail", True)


async def test_a_network_file_system(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "file_system", lambda path: "nfs4")
    checks = await examined(settings)
    for name, variable in (("state folder", "AUTORESEARCH_STATE"), ("device locks", "AUTORESEARCH_LOCKS")):
        assert checks[name].status == "fail"
        assert "nfs4" in checks[name].found
        assert variable in checks[name].remedy


async def test_a_file_system_without_wal(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "journal_mode", lambda folder: "delete")
    assert (await examined(settings))["state folder"].status == "fail"


async def test_a_full_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e18)
    checks = await examined(settings)
    assert {checks["disk, state"].status, checks["disk, cache"].status} == {"fail"}


async def test_the_built_in_task_needs_data_and_torch(project: Project) -> None:
    project.commit("Harness", {"prepare.py": 'HARNESS = "autoresearch-mcp"\n'})
    python = project.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    settings = Settings.load(project.root, "cpu:1")
    checks = await examined(settings)
    assert (checks["data"].status, "prepare.py" in checks["data"].remedy) == ("fail", True)
    assert checks["torch"].status == "fail"
    assert checks["torch"].remedy.startswith(f"{python} -m pip install ")
    assert "'torch==" in checks["torch"].remedy

    folder = settings.cache / "data" / "tiny"
    folder.mkdir(parents=True)
    manifest = {"profile": "stdlib", "tokens": {"train": 1234}, "files": {"train.bin": {"bytes": 3}}}
    hidden = {"hidden": [str(settings.cache.parent / "tests-of-python")]}
    (folder / "manifest.json").write_text(json.dumps(manifest | hidden))
    (folder.parent / "current.json").write_text('{"folder": "tiny"}')
    assert "train.bin" in (await examined(settings))["data"].found
    (folder / "train.bin").write_bytes(b"abc")
    assert (await examined(settings))["data"].found == f"stdlib, 1,234 training tokens, in {folder}"
    unknown: dict[str, Any] = {}
    for known, why in (unknown, "older prepare.py"), ({"hidden": []}, "comes without its tests"):
        (folder / "manifest.json").write_text(json.dumps(manifest | known))
        data = (await examined(replace(settings, sandbox="auto")))["data"]
        told = data.status == "warn" and why in data.found and "python prepare.py" in data.remedy
        assert told == (not probe()[1])


async def test_variables_that_nothing_reads(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_TOKEN", "secret")
    checks = await examined(settings)
    assert "secret" not in checks["configuration"].found
    monkeypatch.setenv("AUTORESEARCH_DEVICS", "cpu:2")
    checks = await examined(settings)
    assert checks["configuration"].status == "warn"
    assert checks["configuration"].remedy == "Did you mean AUTORESEARCH_DEVICES?"


async def test_what_the_state_folder_holds(settings: Settings) -> None:
    (settings.repo / ".autoresearch" / "trials").mkdir(parents=True)
    (settings.repo / ".autoresearch" / "trials" / "log.txt").write_bytes(b"x" * 5000)
    assert (await examined(settings))["state size"].found.startswith("5 kB in 1 files (trials 5 kB")


async def test_the_record_and_its_backups(settings: Settings) -> None:
    assert (await examined(settings))["record"].found == "none yet"
    async with Lab.open(settings):
        found = (await examined(settings))["record"].found
    assert found.endswith("is sound; no backup yet: servers make one within a minute")
    found = (await examined(settings))["record"].found
    assert found.endswith("is sound; 1 backups, the newest of 0 min ago")

    store = settings.repo / ".autoresearch" / "research.db"
    with store.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * 4096)
    check = (await examined(settings))["record"]
    assert (check.status, "is damaged: " in check.found, "`cd " in check.remedy) == ("fail", True, True)
    store.write_bytes(b"no database at all")
    assert "file is not a database" in (await examined(settings))["record"].found
    store.unlink()
    assert "is gone, though there are backups" in (await examined(settings))["record"].found


@pytest.mark.parametrize(
    ("wanted", "fault", "status", "found"),
    [
        ("auto", "", "ok", "trainings and scorers run behind walls, by /usr/bin/bwrap"),
        ("auto", "bwrap fails here", "warn", "none: bwrap fails here"),
        ("off", "", "warn", "by AUTORESEARCH_SANDBOX=off"),
        ("require", "bwrap fails here", "fail", "there is no sandbox: bwrap fails here"),
        ("yes", "", "fail", "AUTORESEARCH_SANDBOX is 'yes'"),
    ],
)
async def test_it_says_whether_trainings_run_behind_walls(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, wanted: str, fault: str, status: str, found: str
) -> None:
    for module in (sandbox, doctor):
        monkeypatch.setattr(module, "probe", lambda: ("/usr/bin/bwrap", fault))
    check = (await examined(replace(settings, sandbox=wanted)))["sandbox"]
    assert (check.status, found in check.found) == (status, True), check
    assert bool(check.remedy) == (status != "ok")
