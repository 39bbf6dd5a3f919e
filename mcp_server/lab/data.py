"""The data of the built-in task, as prepare.py leaves it in the cache; the layout stands at the head of prepare.py."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp_server.errors import NotReady
from mcp_server.settings import Settings

TODO = "Ask the user to run `python prepare.py` in the repository once (seconds without a GPU), then call again"


def prepared_data(settings: Settings) -> tuple[Path, Mapping[str, Any]]:
    """The folder that train.py would load, and its manifest; raises NotReady if it is not there or not whole."""
    root = settings.cache / "data"
    try:
        folder = root / (settings.data or str(json.loads((root / "current.json").read_text())["folder"]))
        manifest: Mapping[str, Any] = json.loads((folder / "manifest.json").read_text())
        sizes = {name: int(about["bytes"]) for name, about in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        raise NotReady(f"No data is prepared in {root}", TODO) from None
    cut = [name for name, size in sizes.items() if not (folder / name).is_file() or _size(folder / name) != size]
    if cut:
        raise NotReady(f"The data in {folder} is not whole: {', '.join(cut)} missing or cut", TODO)
    return folder, manifest


def check_format(folder: Path, manifest: Mapping[str, Any], harness: str) -> None:
    """Raise NotReady where data are of another format than the prepare.py of a commit reads; `harness` is its text."""
    reads = re.search(r"^FORMAT = (\d+)", harness, re.MULTILINE)
    if reads and manifest.get("format") != int(reads[1]):
        what = f"The data in {folder} are of format {manifest.get('format')}, and prepare.py here reads {reads[1]}"
        raise NotReady(what, TODO)


def _size(path: Path) -> int:
    return path.stat().st_size
