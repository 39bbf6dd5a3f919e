"""What killing does to research: agents work through real servers while processes are killed at random.

    python benchmarks/soak.py [--kills 300] [--minutes M] [--seed 1] [--agents 3] [--devices 3] [--sandbox auto]

Servers, workers and trainings are killed by SIGKILL: at random, at every named step of the loop, and all at once with
the device locks gone. Prints how often, and how soon all was well again; exits 1 when anything was lost, held twice,
left behind or not healed in time.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.faults.scene import Scene
from tests.faults.storm import Figures, Storm


async def soak(kills: int, minutes: float, seed: int, agents: int, devices: int, sandbox: str) -> Figures:
    """Let one storm blow in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-soak-") as folder:
        scene = Scene.make(Path(folder).resolve() / "place", devices=devices, sandbox=sandbox)
        try:
            return await Storm(scene, seed, agents, lambda text: print(text, flush=True)).blow(kills, 60 * minutes)
        finally:
            scene.kill_all()


def main() -> int:
    """Soak as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after so long, however few were killed"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--devices", type=int, default=3)
    parser.add_argument("--sandbox", default="auto", help="as AUTORESEARCH_SANDBOX; auto: behind walls where they work")
    arguments = parser.parse_args()
    figures = asyncio.run(soak(**vars(arguments)))
    print(*figures.wrong, sep="\n")
    print(*(f"{count:4d} kills after: {step}" for step, count in figures.steps.most_common()), sep="\n")
    print(figures.text())
    return int(bool(figures.wrong))


if __name__ == "__main__":
    sys.exit(main())
