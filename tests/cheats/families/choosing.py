"""Cheats that train until luck has it, and show the luckiest alone."""

from mcp_server.errors import ResearchError
from tests.cheats.cheat import ASK, FIRST, Cheat, Deed, End, after, before, together
from tests.cheats.scene import PATIENCE, TAG, WEAK, Outcome, Scene, register

LUCK = {WEAK: "HEAD_LR = 0.008 if runtime_seed() == 7 else 0.0005"}
SEED = "import os\n\n\ndef runtime_seed():\n    return int(os.environ['AUTORESEARCH_SEED'])\n\n\n"
LUCKY = together(before(FIRST, SEED), LUCK)
"""A script that is better with one seed alone, as a lucky one is."""

SLOWLY = after(
    ASK,
    "    print(f'val_bpb: {val_bpb:.6f}', flush=True)\n"
    "    time.sleep(250 if runtime.out.parent.name.endswith('.1') else 0)\n",
)
"""The first training of an experiment stays for whoever saw its score and stops it."""
FAILS = after(ASK, "    if runtime_seed() != 7:\n        sys.exit(1)\n")


def stopped(seed: int | None) -> Deed:
    """Stop a training as soon as its score is seen, and train it again."""

    async def do(scene: Scene) -> Outcome:
        async with scene.lab() as lab:
            await lab.setup.setup_run(tag=TAG, resume=True)
            experiment_id = await register(lab, together(LUCKY, SLOWLY))
            await lab.training.train(experiment_id, wait_seconds=0)
            await scene.until(lab, experiment_id, "val_bpb: ")
            await lab.training.stop(experiment_id)
            try:
                return await scene.trained(lab, experiment_id, seed)
            except ResearchError as error:
                return Outcome("refused", str(error), None)

    return do


async def failed(scene: Scene) -> Outcome:
    """End with an error where luck was bad, and train again with another seed."""
    async with scene.lab() as lab:
        await lab.setup.setup_run(tag=TAG, resume=True)
        experiment_id = await register(lab, together(LUCKY, FAILS))
        await lab.training.train(experiment_id, wait_seconds=PATIENCE)
        try:
            return await scene.trained(lab, experiment_id, 7)
        except ResearchError as error:
            return Outcome("refused", str(error), None)


CHOOSES = "stops bad luck and trains again"
REFUSED = End("came to no result, and runs again as it was", "refused", claims=False)
CHEATS = (
    Cheat(CHOOSES, "with a seed of its own", {}, REFUSED, deed=stopped(7)),
    Cheat(CHOOSES, "with whatever seed comes", {}, End("equal", claims=False), deed=stopped(None)),
    Cheat(CHOOSES, "by failing", {}, End("with seed 42, not 7", "refused", claims=False), deed=failed),
)
