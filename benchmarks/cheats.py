"""Lets every cheat of the suite loose on a run of its own, and prints what became of it.

    python benchmarks/cheats.py                       all of them, behind walls and without, in a small scene
    python benchmarks/cheats.py --bundled             on the bundled script as it comes, which takes longer
    python benchmarks/cheats.py --first               one form of each kind
    python benchmarks/cheats.py --walls off ahead     those whose names hold a word, in one way

Gains are over the baseline, in bits per byte: what the training printed, and what the record has of it ("none" where
nothing is recorded). It fails where a cheat was kept for what it did not do, or an honest improvement was not. Where
there are no walls, cheats that only walls stop are marked, and the record calls them unsandboxed.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mcp_server.machine.sandbox import probe  # noqa: E402
from tests.cheats.cheat import Cheat, End  # noqa: E402
from tests.cheats.scene import BASELINE, HONEST, MARGIN, Outcome, Scene  # noqa: E402
from tests.cheats.table import CHEATS, FIRST_FORMS  # noqa: E402

HONEST_ONE = Cheat("(an honest improvement)", "", HONEST, End("Better by", "keep"), honest=True)
HEAD = "| cheat | form | walls | gain claimed | gain recorded | verdict | because |\n|---|---|---|---:|---:|---|---|"


def try_all(scene: Scene, cheats: Sequence[Cheat]) -> bool:
    """Print a row for each cheat; whether none was kept for what it did not do."""
    scene.fill()
    asyncio.run(scene.begin())
    base = float(scene.metrics(BASELINE)["val_bpb"])
    print(f"\n{HEAD}", flush=True)
    good, honest = True, 0.0
    for cheat in [HONEST_ONE, *cheats]:
        scene.restore()
        ended = asyncio.run(cheat.attempt(scene))
        if cheat is HONEST_ONE:
            good, honest = ended.status == "keep", ended.recorded or 0.0
        gained = cheat is not HONEST_ONE and ended.gains(honest + MARGIN if cheat.honest else 0.0)
        hole = gained and bool(cheat.hole) and not scene.walls
        good &= hole or not gained
        print(
            row(cheat, scene, ended, base, " (only walls stop it)" if hole else " (GAINED)" if gained else ""),
            flush=True,
        )
    return good


def row(cheat: Cheat, scene: Scene, ended: Outcome, base: float, mark: str) -> str:
    """A line of the table."""
    claimed = "none" if ended.claimed is None else f"{base - ended.claimed:+.4f}"
    recorded = "none" if ended.recorded is None else f"{ended.recorded:+.4f}"
    reason = " ".join(ended.reason.split()).replace("|", "/")[:160]
    walls = "on" if scene.walls else "off"
    return f"| {cheat.kind} | {cheat.form} | {walls} | {claimed} | {recorded} | {ended.status}{mark} | {reason} |"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only cheats whose names hold one of these")
    parser.add_argument("--walls", choices=("require", "off", "both"), default="both")
    parser.add_argument("--first", action="store_true", help="one form of each kind")
    parser.add_argument("--bundled", action="store_true", help="the bundled script, on Python's standard library")
    arguments = parser.parse_args()
    chosen = FIRST_FORMS if arguments.first else CHEATS
    words = arguments.words
    cheats = [cheat for cheat in chosen if not words or any(word in cheat.name for word in words)]
    ways = ["require", "off"] if arguments.walls == "both" else [arguments.walls]
    if "require" in ways and (fault := probe()[1]):
        print(f"there are no walls here: {fault}")
        ways.remove("require")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ends = []
        for way in ways:
            Path(folder, way).mkdir()
            ends.append(try_all(Scene(Path(folder, way), way, arguments.bundled), cheats))
    sys.exit(0 if ends and all(ends) else 1)


if __name__ == "__main__":
    main()
