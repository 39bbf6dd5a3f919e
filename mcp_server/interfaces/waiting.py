"""Running what takes long from the command line, until it is done or Ctrl-C ends it."""

import asyncio
from typing import Any

import typer

INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""


def wait_for(work: Any, on_interrupt: str) -> Any:
    """Run a coroutine; Ctrl-C ends it, says so and leaves with the exit code of an interrupted program."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        typer.echo(on_interrupt, err=True)
        raise typer.Exit(INTERRUPTED) from None
