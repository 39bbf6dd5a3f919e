"""An error as every route answers it."""

from typing import Any

from starlette.responses import JSONResponse

from mcp_server.errors import ResearchError


def refusal(status: int, what: str, todo: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what was refused and what to do about it."""
    return JSONResponse(described(ResearchError(what, todo)), status_code=status, headers=headers)


def described(error: ResearchError) -> dict[str, Any]:
    """The JSON of an error: one sentence for people, and its two halves."""
    return {"error": str(error), "what": error.what, "todo": error.todo}
