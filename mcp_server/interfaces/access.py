"""Who may call a server over HTTP: under which names it answers, from which pages, and with which token or as whom.

Without a token a caller must be of the user who started the server, which the kernel tells (`socket_owner`). Where it
does not tell, a token is made at the first start.
"""

import base64
import binascii
import hmac
import ipaddress
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import NotReady
from mcp_server.interfaces.socket_owner import owners_are_told

SHORTEST_TOKEN = 16
"""Characters; `openssl rand -hex 32` makes 64."""

_PLACE = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(rf"https?://({_PLACE.pattern})", re.IGNORECASE)
_TOKEN = re.compile(r"[!-~]+")
_GENERATE = "openssl rand -hex 32"


@dataclass(frozen=True)
class Place:
    """A host and port as a header names them, in lower case and without brackets."""

    name: str
    port: str | None

    @classmethod
    def of_host(cls, header: str) -> "Place | None":
        """The place that a Host header names, or None where it names none."""
        found = _PLACE.fullmatch(header)
        return cls(found["name"].strip("[]").lower(), found["port"]) if found else None

    @classmethod
    def of_origin(cls, header: str) -> "Place | None":
        """The place of the page that an Origin header names, or None, as for `null`."""
        found = _ORIGIN.fullmatch(header)
        return cls.of_host(found[1]) if found else None

    def same(self, other: "Place") -> bool:
        """Whether both are one server; the names of this machine count as one."""
        both_local = is_loopback(self.name) and is_loopback(other.name)
        return self.port == other.port and (both_local or self.name == other.name)


@dataclass(frozen=True)
class Access:
    """What a request must say to be let in.

    Attributes:
        token: what every request must carry; None where callers are known by their user instead.
        names: host names under which the server is reached, in lower case.
        exposed: whether it listens on an address that other machines reach, so that any address of it may be named.
        made: where the token was made by the server itself, the file that holds it.
    """

    token: str | None = None
    names: frozenset[str] = frozenset()
    exposed: bool = False
    made: Path | None = None

    @classmethod
    def load(cls, host: str, environ: Mapping[str, str], owners: Callable[[], bool] = owners_are_told) -> "Access":
        """The access to a server that listens on `host`, by the environment.

        Args:
            owners: tells whether this system says whose a connection is.

        Raises:
            NotReady: it can be reached from elsewhere and has no token, or the token cannot be used.
        """
        token = read_token(environ)
        names = frozenset(environ.get("AUTORESEARCH_HOSTS", "").replace(",", " ").lower().split())
        exposed = not is_loopback(host)
        if token is None and (exposed or names):
            seen = f"{host} can be reached from other machines" if exposed else "AUTORESEARCH_HOSTS is set"
            raise NotReady(
                f"{seen}, and no token is set",
                f"Write one into a file ({_GENERATE}), chmod 600, and set AUTORESEARCH_TOKEN_FILE to its path"
                + (", or serve on 127.0.0.1" if exposed else ""),
            )
        if token is None and not owners():
            path = token_file(environ)
            return cls(made_token(path), names, exposed, path)
        own = {socket.gethostname().lower(), socket.gethostname().partition(".")[0].lower(), host.lower()}
        return cls(token, names | own if exposed else names, exposed)

    def answers_to(self, place: Place | None) -> bool:
        """Whether a Host header that names `place` is meant for this server.

        A web site whose name was pointed at this machine (DNS rebinding) names itself there.
        """
        if place is None:
            return False
        return is_loopback(place.name) or place.name in self.names or (self.exposed and _is_address(place.name))

    def admits(self, authorization: str, own_user: bool) -> bool:
        """Whether a caller may come in.

        Args:
            authorization: the Authorization header, with the token as a bearer, or as the password a browser asked for.
            own_user: whether the caller is known to be of the user who started the server; that counts only where
                there is no token.
        """
        if self.token is None:
            return own_user
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                credentials = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(credentials.encode(), self.token.encode())

    def opens(self, token: str) -> bool:
        """Whether the token in the address of the dashboard opens it. A token that the user chose stands in none."""
        return self.made is not None and hmac.compare_digest(token.encode(), (self.token or "").encode())


def token_file(environ: Mapping[str, str]) -> Path:
    """Where the token that a server makes for itself is kept, for all repositories of the user."""
    folder = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return (Path(folder).expanduser() / "autoresearch" / "token").absolute()


def made_token(path: Path) -> str:
    """The token in a file, which is made if there is none: 64 random letters and digits that its owner alone can read.

    Raises:
        NotReady: it cannot be written or read, or others can read it.
    """
    if not os.path.lexists(path):
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            try:
                os.link(draft, path)  # never over the token of a server that was started in the same moment
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise NotReady(
                f"The token of this server cannot be kept in {path}: {error.strerror}",
                "Set AUTORESEARCH_TOKEN_FILE to a file of your own with a token in it, mode 600",
            ) from None
    token = _checked(_read_private(path, "The token file"), f"The token in {path}")
    if (owner := path.stat().st_uid) != os.geteuid():
        raise NotReady(f"The token file {path} belongs to user {owner}", "Delete it, and start the server again")
    return token


def read_token(environ: Mapping[str, str]) -> str | None:
    """The bearer token from the file that AUTORESEARCH_TOKEN_FILE names, else from AUTORESEARCH_TOKEN; None without.

    Raises:
        NotReady: the file cannot be read, or others can read it, or what is there is no token.
    """
    if path := environ.get("AUTORESEARCH_TOKEN_FILE"):
        private = _read_private(Path(path).expanduser(), "AUTORESEARCH_TOKEN_FILE")
        return _checked(private, f"The token in AUTORESEARCH_TOKEN_FILE {path}")
    token = environ.get("AUTORESEARCH_TOKEN")
    return _checked(token, "AUTORESEARCH_TOKEN") if token else None


def is_loopback(name: str) -> bool:
    """Whether a host name or address leads to this machine alone."""
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read_private(path: Path, name: str) -> str:
    """The text of a file that only this user can read."""
    seen = f"{name} {path}"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise NotReady(f"{seen} is not a file", "Name a readable text file")
        if mode & 0o077:
            raise NotReady(f"{seen} can be read by others (mode {mode & 0o777:o})", f"Run: chmod 600 {path}")
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotReady(f"{seen} cannot be read: {error}", "Name a readable text file") from None


def _checked(token: str, where: str) -> str:
    """The token, if it is long enough and can stand in a header; it is never shown."""
    if len(token) < SHORTEST_TOKEN:
        said = f"has {len(token)} characters" if token else "is empty"
        raise NotReady(f"{where} {said}", f"Use at least {SHORTEST_TOKEN}, e.g. those of {_GENERATE}")
    if not _TOKEN.fullmatch(token):
        raise NotReady(
            f"{where} has spaces or characters that no header carries", f"Use letters and digits: {_GENERATE}"
        )
    return token
