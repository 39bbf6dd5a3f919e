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
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor", help="local (this machine; default) or ray (a Ray cluster)", rich_help_panel=PANEL, metavar="NAME"
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="HOST:PORT of the Ray cluster; default: the one this machine has joined",
        rich_help_panel=PANEL,
        metavar="ADDRESS",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the structured result instead of tables", rich_help_panel=PANEL)
]
