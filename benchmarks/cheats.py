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
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mcp_server.machine.sandbox import probe  # noqa: E402
from tests.cheats.cheat import Cheat, End  # noqa: E402
from tests.cheats.scene import BASELINE, HONEST, MARGIN, Outcome, Scene  # noqa: E402
from tests.cheats.table import CHEATS, FIRST_FORMS  # noqa: E402

HONEST_ONE = Cheat("(an honest improvement)", "", HONEST, End("Better by", "keep"), honest=True)
HEAD = "| cheat | form | walls | gain claimed | gain recorded | verdict | because |\n|---|---|---|---:|---:|---|---|"


@dataclass(frozen=True)
class Tried:
    """A cheat with what became of it.

    Attributes:
        base: the score of the baseline.
        gained: it was kept, for more than it earned.
    """

    cheat: Cheat
    walls: bool
    base: float
    ended: Outcome
    gained: bool

    @property
    def open(self) -> bool:
        """Whether it is one that only walls stop, and there were none."""
        return bool(self.cheat.hole) and not self.walls

    @property
    def stopped(self) -> str:
        """How the row of one that was kept is marked."""
        return " (only walls stop it)" if self.open else " (GAINED)"

    @property
    def claimed(self) -> float | None:
        """The gain that it printed, if that is a number."""
        printed = self.ended.claimed
        return None if printed is None or not math.isfinite(printed) else self.base - printed

    @property
    def as_expected(self) -> bool:
        """Whether it ended as the table of cheats says, and a person is told so."""
        end = self.cheat.behind(self.walls)
        told = bool(re.search(end.told, self.ended.reason, re.DOTALL))
        return self.open or self.cheat.honest or (self.ended.status == end.status and told)

    def row(self) -> str:
        """A line of the table."""
        reason = " ".join(self.ended.reason.split()).replace("|", "/")[:400]
        mark = "" if self.as_expected else " (not as expected)"
        mark = self.stopped if self.gained else mark
        numbers = f"{shown(self.claimed)} | {shown(self.ended.recorded)}"
        walls = "on" if self.walls else "off"
        return f"| {self.cheat.kind} | {self.cheat.form} | {walls} | {numbers} | {self.ended.status}{mark} | {reason} |"


def shown(gain: float | None) -> str:
    """A gain in bits per byte."""
    return "none" if gain is None else f"{gain:+.4f}"


def try_all(scene: Scene, cheats: Sequence[Cheat]) -> list[Tried]:
    """Print a row for each cheat; what became of them, an honest improvement before all others."""
    scene.fill()
    asyncio.run(scene.begin())
    base = float(scene.metrics(BASELINE)["val_bpb"])
    print(f"\n{HEAD}", flush=True)
    found: list[Tried] = []
    for cheat in [HONEST_ONE, *cheats]:
        scene.restore()
        ended = asyncio.run(cheat.attempt(scene))
        earned = (found[0].ended.recorded or 0.0) + MARGIN if found and cheat.honest else 0.0
        found.append(Tried(cheat, scene.walls, base, ended, cheat is not HONEST_ONE and ended.gains(earned)))
        print(found[-1].row(), flush=True)
    return found


def summary(found: Sequence[Tried]) -> str:
    """A table of the kinds: the most that a form of each claimed, and how many were kept, with walls and without."""
    lines = ["| kind | forms | most gain claimed | kept behind walls | kept without |", "|---|---:|---:|---:|---:|"]
    kinds = dict.fromkeys(each.cheat.kind for each in found if each.cheat is not HONEST_ONE)
    for kind in kinds:
        forms = [each for each in found if each.cheat.kind == kind]
        claims = [each.claimed for each in forms if each.claimed is not None]
        kept = [
            f"{sum(each.gained for each in tried)} of {len(tried)}" if tried else "not tried"
            for tried in ([each for each in forms if each.walls == walls] for walls in (True, False))
        ]
        number = len({each.cheat.form for each in forms})
        lines.append(f"| {kind} | {number} | {shown(max(claims, default=None))} | {kept[0]} | {kept[1]} |")
    return "\n".join(lines)


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
    named = [[cheat for cheat in chosen if word in cheat.name] for word in words] or [list(chosen)]
    cheats = list({cheat.name: cheat for each in named for cheat in each}.values())  # in the order of the words
    ways = ["require", "off"] if arguments.walls == "both" else [arguments.walls]
    if "require" in ways and (fault := probe()[1]):
        print(f"there are no walls here: {fault}")
        ways.remove("require")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found: list[Tried] = []
        for way in ways:
            Path(folder, way).mkdir()
            found += try_all(Scene(Path(folder, way), way, arguments.bundled), cheats)
    print(f"\n{summary(found)}")
    kept = all(each.ended.status == "keep" for each in found if each.cheat is HONEST_ONE)
    sys.exit(0 if found and kept and not any(each.gained and not each.open for each in found) else 1)


if __name__ == "__main__":
    main()
