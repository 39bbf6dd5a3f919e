"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Options of every command"

RepoOption = Annotated[
    Path | None,
    typer.Option("--repo", help="Folder in the git repository; default: the working directory", rich_help_panel=PANEL),
]
DevicesOption = Annotated[
    str | None,
    typer.Option("--devices", help="auto, cuda:0,1, mps, or cpu:N for N simulated slots", rich_help_panel=PANEL),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the structured result instead of tables", rich_help_panel=PANEL)
]
