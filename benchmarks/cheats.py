"""Lets every cheat of the suite loose on a run of its own, and prints what became of it.

    python benchmarks/cheats.py                    all of them, behind walls and without
    python benchmarks/cheats.py --walls off ahead  those whose names hold a word, in one way

It fails where a cheat was kept, or where the honest improvement was not.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mcp_server.machine.sandbox import probe  # noqa: E402
from tests.cheats.cheats import CHEATS, Cheat  # noqa: E402
from tests.cheats.scene import HONEST, Scene  # noqa: E402

HONEST_ONE = Cheat("(an honest improvement)", HONEST, "Better by", "keep")


def try_all(folder: Path, walls: str, words: list[str]) -> bool:
    """Print a row for each cheat; whether all ended as they should."""
    scene = Scene(folder, walls)
    scene.fill()
    asyncio.run(scene.begin())
    print(f"\n{'behind walls' if scene.walls else 'without walls'}\n")
    print("| cheat | score it printed | ended as | because |\n|---|---|---|---|", flush=True)
    good = True
    for cheat in [HONEST_ONE, *(cheat for cheat in CHEATS if not words or any(word in cheat.name for word in words))]:
        scene.restore()
        ended = asyncio.run(scene.attempt(cheat.edits))
        good &= (ended.status == "keep") == (cheat is HONEST_ONE)
        reason = " ".join(ended.reason.split()).replace("|", "/")
        print(f"| {cheat.name} | {ended.claimed or '-'} | {ended.status} | {reason[:160]} |", flush=True)
    return good


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only cheats whose names hold one of these")
    parser.add_argument("--walls", choices=("require", "off", "both"), default="both")
    arguments = parser.parse_args()
    ways = ["require", "off"] if arguments.walls == "both" else [arguments.walls]
    if "require" in ways and (fault := probe()[1]):
        print(f"there are no walls here: {fault}")
        ways.remove("require")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ends = []
        for way in ways:
            Path(folder, way).mkdir()
            ends.append(try_all(Path(folder, way), way, arguments.words))
    sys.exit(0 if ends and all(ends) else 1)


if __name__ == "__main__":
    main()
