"""Behind walls: what a training sees, what it may write, and that it is ended as without them."""

import itertools
import json
import signal
import socket
import sys
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.errors import InvalidInput, NotReady
from mcp_server.machine import sandbox
from mcp_server.machine.hidden import parts_apart
from mcp_server.machine.sandbox import View, exit_code, find_sandbox, walled

TRY = """
import os, socket, sys
from pathlib import Path
def tried(what):
    try:
        return what()
    except OSError as error:
        return error.strerror
"""


def seen(yard: Any, expression: str) -> Any:
    """What an expression comes to in a training."""
    script = f"{TRY}\nimport json\nPath(os.environ['AUTORESEARCH_OUT'], 'seen').write_text(json.dumps({expression}))"
    end = yard.ending(f"{script}\nprint('loss: 1')")
    assert end.status == "finished", end.error
    return json.loads((yard.folders.out("mar8-7.1") / "seen").read_text())


def test_the_record_and_other_trials_are_out_of_sight(walled_yard: Any) -> None:
    state = walled_yard.folders.state
    walled_yard.queue()
    (state / "trials" / "mar8-6.1").mkdir(parents=True)
    assert seen(walled_yard, f"sorted(os.listdir({str(state)!r}))") == ["trials"]
    assert seen(walled_yard, f"sorted(os.listdir({str(state / 'trials')!r}))") == ["mar8-7.1"]
    own = f"sorted(os.listdir({str(state / 'trials' / 'mar8-7.1')!r}))"
    assert seen(walled_yard, own) == ["checkout", "out"]
    for name in ("research.db", "new", "trials/mar8-7.1/result.json"):
        write = f"tried(lambda: Path({str(state / name)!r}).write_text('x'))"
        assert seen(walled_yard, write) == "Read-only file system"


def test_only_its_own_folders_can_be_written(walled_yard: Any) -> None:
    yard = walled_yard
    (yard.settings.cache / "data" / "small").mkdir(parents=True)
    tokens = yard.settings.cache / "data" / "small" / "val.bin"
    tokens.write_text("tokens")
    for place in (yard.repo / "train.py", tokens, Path("/etc/hostname"), Path(json.__file__)):
        assert seen(yard, f"tried(lambda: Path({str(place)!r}).write_text('x'))") == "Read-only file system"
    for place in ("'made'", "'/tmp/made'", "os.environ['AUTORESEARCH_OUT'], 'made'"):
        assert seen(yard, f"tried(lambda: Path({place}).write_text('x'))") == 1
    assert tokens.read_text() == "tokens"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("walls", [True, False])
def test_no_training_finds_what_an_earlier_one_compiled(walled_yard: Any, kind: str, walls: bool) -> None:
    yard = walled_yard
    yard.devices = [replace(yard.devices[0], kind=kind)]
    yard.settings = replace(yard.settings, sandbox="require" if walls else "off")
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        compiled = f"Path(os.environ[{name!r}])"
        made = (
            f"({compiled}.mkdir(parents=True), ({compiled} / 'a.so').write_text('x'), len(list({compiled}.iterdir())))"
        )
        assert seen(yard, made)[-1] == 1
        assert seen(yard, made)[-1] == 1


def test_data_elsewhere_is_audited_out_of_sight_too(walled_yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = walled_yard.folder / "chosen"
    chosen.mkdir()
    for name in ("val.bin", "audit.bin"):
        (chosen / name).write_text("text")
    monkeypatch.setenv("AUTORESEARCH_DATA", str(chosen))
    place = walled_yard.repo / "data"
    place.symlink_to(chosen)  # whichever way it is named
    for name, text in (("val.bin", "text"), ("audit.bin", "Permission denied")):
        for folder in (chosen, place):
            assert seen(walled_yard, f"tried(lambda: Path({str(folder / name)!r}).read_text())") == text


def test_audit_data_and_downloads_are_out_of_sight(walled_yard: Any) -> None:
    cache = walled_yard.settings.cache
    for name in ("data/small/val.bin", "data/small/audit.bin", "downloads/web/shard"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("text")
    for name, text in (("val.bin", "text"), ("audit.bin", "Permission denied")):
        assert seen(walled_yard, f"tried(lambda: Path({str(cache / 'data/small' / name)!r}).read_text())") == text
    assert seen(walled_yard, f"os.listdir({str(cache / 'downloads')!r})") == []


def note(yard: Any, name: str, profile: str, *places: Path) -> Path:
    """Prepared data whose audit split was drawn from these places."""
    folder: Path = yard.settings.cache / "data" / name
    folder.mkdir(parents=True)
    (folder / "val.bin").write_text("val")
    (folder / "audit.bin").write_text("audit")
    manifest = {"profile": profile, "hidden": list(map(str, places))}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def looked(yard: Any, *places: Path) -> list[Any]:
    """What a training finds at each place: names in a folder, the text of a file, or why it finds nothing."""
    look = "tried(lambda: sorted(os.listdir(place)) if os.path.isdir(place) else Path(place).read_text())"
    return seen(yard, f"[{look} for place in {list(map(str, places))!r}]")  # type: ignore[no-any-return]


def test_the_corpus_that_audit_data_was_cut_from_is_out_of_sight(walled_yard: Any) -> None:
    # Not below the place of the test, which is in a /tmp that a training does not see at all.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        for file in ("corpus/deep/a.txt", "far/b.txt", "one.txt", "other.txt"):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(file)
        (place / "alias").symlink_to("corpus")
        note(walled_yard, "texts", "path", place / "alias", place / "far" / "b.txt")
        note(walled_yard, "one", "path", place / "one.txt")
        names = ("corpus", "alias", "corpus/deep/a.txt", "far/b.txt", "one.txt", "other.txt")
        gone, denied = "No such file or directory", "Permission denied"
        assert looked(walled_yard, *(place / name for name in names)) == [[], [], gone, denied, denied, "other.txt"]


def test_the_tests_of_every_python_are_out_of_sight_and_all_else_of_it_is_there(walled_yard: Any) -> None:
    apart = parts_apart(Path(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    own = [library / name for name in ("test", "idlelib") if (library / name).is_dir()]
    assert {path.resolve() for path in own} <= set(apart)
    if not own:
        pytest.skip("this Python has no tests")
    before = looked(walled_yard, *own)
    assert all(before), "nothing is hidden where no data was drawn from it"
    note(walled_yard, "lib", "stdlib", *own)
    assert looked(walled_yard, *apart) == [[] for _ in apart]
    assert looked(walled_yard, library / "os.py") == [(library / "os.py").read_text()]


def test_data_that_are_prepared_while_a_training_runs_stay_out_of_its_sight(walled_yard: Any) -> None:
    yard = walled_yard
    note(yard, "first", "path")
    data = yard.settings.cache / "data"
    trial = yard.queue(
        "import os, pathlib, time\n"
        "print('ready', flush=True)\n"
        f"while not pathlib.Path({str(yard.repo / 'go')!r}).exists(): time.sleep(0.01)\n"
        f"print(sorted(os.listdir({str(data)!r})), pathlib.Path({str(data / 'first' / 'val.bin')!r}).read_text())\n"
        "print('loss: 1')"
    )
    worker = yard.start()
    log = yard.folders.log(trial.id)
    yard.until(lambda: log.exists() and "ready" in log.read_text())
    note(yard, "second", "path")
    note(yard, ".building-third", "path")
    (yard.repo / "go").touch()
    assert worker.wait(30) == 0
    assert "['first'] val" in log.read_text()


def test_the_rule_of_the_innermost_folder_holds(tmp_path: Path) -> None:
    for name in ("temporary", "a/b/c/d"):
        (tmp_path / name).mkdir(parents=True)
    a, c = tmp_path / "a", tmp_path / "a/b/c"
    view = View(tmp_path / "temporary", readable=[a / "b", c / "d"], writable=[c], hidden=[a, c])
    words = walled("bwrap", view, tmp_path, ["true"])
    mounts = [(word, path) for word, path in itertools.pairwise(words) if path.startswith(str(a))]
    kinds = [word for word, path in mounts if word.startswith("--") and "remount" not in word]
    assert kinds == ["--tmpfs", "--ro-bind-try", "--tmpfs", "--bind", "--ro-bind-try"]
    assert str(c / "d") not in walled("bwrap", View(tmp_path / "temporary", hidden=[a, c / "d"]), tmp_path, ["true"])


def test_credentials_are_out_of_sight(walled_yard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    home = walled_yard.repo  # a training sees it, and nothing of this test's own folder
    monkeypatch.setenv("HOME", str(home))
    walled_yard.git("commit", "--quiet", "--allow-empty", "--message", "nothing")
    for name in (".aws/credentials", ".real/id", ".netrc", ".env.local", ".env/bin/python"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("mine")
    (home / ".ssh").symlink_to(".real")
    (home / ".git" / "info" / "exclude").write_text(".*\n")
    read = f"[tried(lambda: Path({str(home)!r}, name).read_text()) for name in {{}}]"
    gone, denied = "No such file or directory", "Permission denied"
    names = [".aws/credentials", ".ssh/id", ".real/id", ".netrc", ".env.local", ".env/bin/python"]
    assert seen(walled_yard, read.format(names)) == [gone, gone, gone, denied, denied, "mine"]
    task = walled_yard.task(inputs=(".env.local",))
    assert walled_yard.ending("print('loss:', len(open('.env.local').read()))", task).metrics == {"loss": 4}


def test_other_processes_and_the_network_are_out_of_reach(walled_yard: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"tried(lambda: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5).close())"
        assert seen(walled_yard, reach) == "Connection refused"
    pids = seen(walled_yard, "[int(name) for name in os.listdir('/proc') if name.isdigit()]")
    assert len(pids) <= 4
    assert seen(walled_yard, "[line for line in open('/proc/self/status') if line.startswith('CapEff')]")[0].split()[
        1
    ] == ("0" * 16)


def test_inputs_and_its_own_temporary_folder_are_there(walled_yard: Any) -> None:
    (walled_yard.repo / "data").mkdir()
    (walled_yard.repo / "data" / "tokens.bin").write_bytes(b"12")
    task = walled_yard.task(inputs=("data",))
    script = "import tempfile; tempfile.mkstemp(); print('loss:', len(open('data/tokens.bin').read()))"
    assert walled_yard.ending(script, task).metrics == {"loss": 2}
    end = walled_yard.ending("open('data/tokens.bin', 'a').write('x'); print('loss: 0')", task)
    assert "Read-only file system" in end.error


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ("raise SystemExit(4)", 4, "Exit code 4"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, "Killed by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "for want of memory"),
    ],
)
def test_exit_codes_are_those_of_the_training(walled_yard: Any, script: str, code: int, error: str) -> None:
    end = walled_yard.ending(script)
    assert (end.exit_code, error in end.error) == (code, True)


def test_a_command_that_is_not_there_is_named(walled_yard: Any) -> None:
    end = walled_yard.ending("", walled_yard.task(command="no-such-program --fast"))
    assert "cannot run 'no-such-program'" in end.error


STUBBORN = """
import os, signal, subprocess, sys, time
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("still", end=" ", flush=True)
time.sleep(600)
"""


def test_a_training_that_hangs_and_ignores_signals_is_ended_at_its_deadline(walled_yard: Any) -> None:
    end = walled_yard.ending(STUBBORN, walled_yard.task(budget=0.25, startup=0.5))
    assert (end.status, end.exit_code) == ("timed_out", -signal.SIGKILL)


def test_a_training_that_is_told_to_end_may_say_goodbye(walled_yard: Any) -> None:
    polite = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')))\n"
        "while True: time.sleep(0.01)\n"
    )
    assert walled_yard.ending(polite, walled_yard.task(budget=1, startup=1)).status == "timed_out"
    assert walled_yard.folders.log("mar8-7.1").read_text() == "bye\n"


def test_the_whole_tree_ends_with_its_worker(walled_yard: Any) -> None:
    trial = walled_yard.queue(STUBBORN)
    worker = walled_yard.start()
    log = walled_yard.folders.log(trial.id)
    walled_yard.until(lambda: log.exists() and log.read_text().count("still") == 2)
    assert walled_yard.lock().is_busy()
    worker.kill()
    worker.wait()
    walled_yard.until(lambda: not walled_yard.lock().is_busy())


def test_a_stopped_training_is_found_by_its_mark(walled_yard: Any) -> None:
    trial = walled_yard.queue(STUBBORN)
    worker = walled_yard.start()
    log = walled_yard.folders.log(trial.id)
    walled_yard.until(lambda: log.exists() and log.read_text().count("still") == 2)
    walled_yard.stored(lambda store: store.trials.stop(trial.id))
    assert worker.wait(30) == 0
    assert walled_yard.trials(trial)[-1].status == "stopped"
    assert not walled_yard.lock().is_busy()
    assert not (walled_yard.folders.trial(trial.id) / "tmp").exists()


def test_whether_there_are_walls_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_sandbox("off") is None
    with pytest.raises(InvalidInput, match="AUTORESEARCH_SANDBOX is 'on'"):
        find_sandbox("on")
    monkeypatch.setattr(sandbox, "probe", lambda: ("", "bubblewrap (bwrap) is not installed"))
    assert find_sandbox("auto") is None
    with pytest.raises(NotReady, match="there is no sandbox: bubblewrap"):
        find_sandbox("require")
    monkeypatch.setattr(sandbox, "probe", lambda: ("/usr/bin/bwrap", ""))
    assert find_sandbox("auto") == find_sandbox("require") == "/usr/bin/bwrap"


def test_device_files_of_a_gpu_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"nvidia*": [Path("/dev/nvidia0"), Path("/dev/nvidiactl")]}
    monkeypatch.setattr(Path, "glob", lambda self, pattern: nodes.get(pattern, []))
    words = " ".join(walled("bwrap", View(tmp_path), tmp_path, ["true"]))
    assert "--dev-bind /dev/nvidia0 /dev/nvidia0 --dev-bind /dev/nvidiactl /dev/nvidiactl" in words


@pytest.mark.parametrize(("code", "meant"), [(0, 0), (1, 1), (128, 128), (137, -9), (-9, -9), (None, None)])
def test_a_signal_comes_out_as_128_more(code: int | None, meant: int | None) -> None:
    assert exit_code(code) == meant
