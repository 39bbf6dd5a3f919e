"""The dashboard: one self-contained page that polls the REST routes."""

import secrets
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

NONCE = "NONCE"
"""What stands in the page for the value by which a browser knows its own script and style."""


async def dashboard(request: Request) -> Response:
    """Answer the page; its policy lets it run nothing but its own script and talk to nobody but this server."""
    nonce = secrets.token_urlsafe(16)
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; " + (
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(_page().replace(NONCE, nonce), headers={"Content-Security-Policy": policy})


@cache
def _page() -> str:
    folder = files(__package__) / "page"
    page, style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
