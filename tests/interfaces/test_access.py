"""Where the token comes from, and when a server may be reached from elsewhere."""

import os
from pathlib import Path

import pytest

from mcp_server.errors import NotReady
from mcp_server.interfaces.access import Access, is_loopback, read_token

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
