"""Who may call a server over HTTP: under which names it answers, from which pages, and with which token."""

import base64
import binascii
import hmac
import ipaddress
import re
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import NotReady

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
        token: what every request must carry, if anything.
        names: host names under which the server is reached, in lower case.
        exposed: whether it listens on an address that other machines reach, so that any address of it may be named.
    """

    token: str | None = None
    names: frozenset[str] = frozenset()
    exposed: bool = False

    @classmethod
    def load(cls, host: str, environ: Mapping[str, str]) -> "Access":
        """The access to a server that listens on `host`, by the environment.

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
        own = {socket.gethostname().lower(), socket.gethostname().partition(".")[0].lower(), host.lower()}
        return cls(token, names | own if exposed else names, exposed)

    def answers_to(self, place: Place | None) -> bool:
        """Whether a Host header that names `place` is meant for this server.

        A web site whose name was pointed at this machine (DNS rebinding) names itself there.
        """
        if place is None:
            return False
        return is_loopback(place.name) or place.name in self.names or (self.exposed and _is_address(place.name))

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header carries the token: as a bearer, or as the password a browser asked for."""
        if self.token is None:
            return True
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                credentials = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(credentials.encode(), self.token.encode())


def read_token(environ: Mapping[str, str]) -> str | None:
    """The bearer token from the file that AUTORESEARCH_TOKEN_FILE names, else from AUTORESEARCH_TOKEN; None without.

    Raises:
        NotReady: the file cannot be read, or others can read it, or what is there is no token.
    """
    if path := environ.get("AUTORESEARCH_TOKEN_FILE"):
        return _checked(_read_private(Path(path).expanduser()), f"The token in AUTORESEARCH_TOKEN_FILE {path}")
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


def _read_private(path: Path) -> str:
    """The text of a file that only its owner can read."""
    seen = f"AUTORESEARCH_TOKEN_FILE {path}"
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
