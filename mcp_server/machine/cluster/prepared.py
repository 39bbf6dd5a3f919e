"""Where prepare.py left the data of the built-in task."""

import json
from pathlib import Path

from mcp_server.errors import NotReady
from mcp_server.settings import Settings


def prepared_folder(settings: Settings) -> Path:
    """The folder that train.py would load here; raises NotReady if there is none."""
    root = settings.cache / "data"
    try:
        folder = root / (settings.data or str(json.loads((root / "current.json").read_text())["folder"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise NotReady(f"No data is prepared in {root}", "Run `python prepare.py` in the repository once") from None
    return folder
