"""Where the token comes from, and when a server may be reached from elsewhere."""

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_server.errors import NotReady
from mcp_server.interfaces.access import Access, is_loopback, made_token, read_token
from mcp_server.interfaces.serve import announcement

TOKEN = "0123456789abcdef"


def test_where_the_token_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}-of-the-file\n")
    path.chmod(0o600)
    assert read_token({}) is None
    assert read_token({"AUTORESEARCH_TOKEN": ""}) is None
    assert read_token({"AUTORESEARCH_TOKEN": TOKEN}) == TOKEN
    both = {"AUTORESEARCH_TOKEN": TOKEN, "AUTORESEARCH_TOKEN_FILE": str(path)}
    assert read_token(both) == f"{TOKEN}-of-the-file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_token_that_others_can_read_is_none(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(mode)
    with pytest.raises(NotReady, match=rf"can be read by others \(mode {mode:o}\)\. Run: chmod 600 {path}"):
        read_token({"AUTORESEARCH_TOKEN_FILE": str(path)})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("short", "has 5 characters. Use at least 16"),
        ("a token of many words", "characters that no header carries"),
        ("schlüssel-schlüssel", "characters that no header carries"),
        ("0123456789abcdef\nfedcba9876543210", "characters that no header carries"),
    ],
)
def test_a_text_that_is_no_token(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(NotReady, match=says) as refusal:
        read_token({"AUTORESEARCH_TOKEN_FILE": str(path)})
    assert not text.strip() or text.strip() not in str(refusal.value)
    if text:
        with pytest.raises(NotReady):
            read_token({"AUTORESEARCH_TOKEN": text})


def test_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "binary").touch(0o600)
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    for name, says in (
        ("none", "cannot be read"),
        ("pipe", "is not a file"),
        (".", "is not a file"),
        ("binary", "read"),
    ):
        with pytest.raises(NotReady, match=says):
            read_token({"AUTORESEARCH_TOKEN_FILE": str(tmp_path / name)})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    assert Access.load(host, {}) == Access()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "gpu-box", "", "localhost.evil.example"])
def test_every_other_address_does(host: str) -> None:
    with pytest.raises(NotReady, match="and no token is set"):
        Access.load(host, {})
    assert Access.load(host, {"AUTORESEARCH_TOKEN": TOKEN}).exposed


def test_a_name_of_a_proxy_needs_one_too() -> None:
    environ = {"AUTORESEARCH_HOSTS": "Research.Example, other.example"}
    with pytest.raises(NotReady, match="AUTORESEARCH_HOSTS is set, and no token is set"):
        Access.load("127.0.0.1", environ)
    access = Access.load("127.0.0.1", {**environ, "AUTORESEARCH_TOKEN": TOKEN})
    assert access == Access(TOKEN, frozenset({"research.example", "other.example"}), exposed=False)


@pytest.mark.parametrize("name", ["localhost.", "127.1", "0177.0.0.1", "::ffff:10.0.0.1", "0.0.0.0", "", "127.0.0.1 "])
def test_names_that_only_look_like_this_machine(name: str) -> None:
    assert not is_loopback(name)


def untold() -> bool:
    """A system that does not tell whose a connection is."""
    return False


def test_where_owners_are_not_told_a_token_is_made(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    access = Access.load("127.0.0.1", environ, untold)
    path = tmp_path / "config/autoresearch/token"
    assert (access.made, access.exposed) == (path, False)
    assert re.fullmatch("[0-9a-f]{64}", access.token or "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["token"]
    assert Access.load("::1", environ, untold) == access, "the next start has the same"
    assert Access.load("127.0.0.1", {**environ, "AUTORESEARCH_TOKEN": TOKEN}, untold) == Access(TOKEN)
    path.chmod(0o644)
    with pytest.raises(NotReady, match=rf"token file {path} can be read by others"):
        Access.load("127.0.0.1", environ, untold)


def test_servers_that_start_together_have_one_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(made_token, [tmp_path / "a/token"] * 64))
    assert len(tokens) == 1
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["token"]


def test_a_token_that_another_left_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotReady, match="cannot be read"):
        made_token(tmp_path / "link")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReady, match="cannot be kept in"):
        made_token(tmp_path / "file/token")
    if os.geteuid() == 0:
        given = tmp_path / "given"
        given.write_text(TOKEN)
        given.chmod(0o600)
        os.chown(given, 65534, 65534)
        with pytest.raises(NotReady, match="belongs to user 65534"):
            made_token(given)


def test_a_token_that_was_made_is_told_and_no_other() -> None:
    made = announcement("http://127.0.0.1:8765", Access(TOKEN, made=Path("/home/me/.config/autoresearch/token")))
    assert f"http://127.0.0.1:8765/?token={TOKEN}, " in made
    assert "/home/me/.config/autoresearch/token" in made
    assert TOKEN not in announcement("http://127.0.0.1:8765", Access(TOKEN))
