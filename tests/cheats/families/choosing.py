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


NUMBER = """\
def draw():
    import pathlib

    return int(pathlib.Path(__file__).resolve().parents[1].name.rpartition(".")[2])


"""
OWN_LUCK = together(before(FIRST, NUMBER), {WEAK: "HEAD_LR = 0.008 if draw() in (2, 4) else 0.0005"})
"""A script whose luck does not come of its seed: some of its trainings come out better, as chance has it."""
IN_HASTE = together(OWN_LUCK, {"STEPS = 40\n": "STEPS = 40 if draw() > 1 else 2\n"})
ENDS = """\
    import os, psutil, signal

    print(f"val_bpb: {val_bpb:.6f}", flush=True)
    time.sleep(1)  # for the log
    for process in psutil.Process().parents():
        if draw() in (1, 3) and "mcp_server.machine.worker" in process.cmdline():
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(60)
"""


def ends(number: str = "SIGKILL", when: dict[str, str] | None = None) -> dict[str, str]:
    """A script that ends its worker where luck was bad."""
    return together(when or OWN_LUCK, after(ASK, ENDS.replace("SIGKILL", number)))


def luckless(script: dict[str, str]) -> Deed:
    """Stop a training whose own luck is bad, and train it again."""

    async def do(scene: Scene) -> Outcome:
        async with scene.lab() as lab:
            await lab.setup.setup_run(tag=TAG, resume=True)
            experiment_id = await register(lab, script)
            await lab.training.train(experiment_id, wait_seconds=0)
            await scene.until(lab, experiment_id, "val_bpb: ")
            await lab.training.stop(experiment_id)
            return await scene.trained(lab, experiment_id)

    return do


async def confirmed(scene: Scene) -> Outcome:
    """End the worker where luck was bad, in the training that is to confirm it too."""
    async with scene.lab() as lab:
        await lab.setup.setup_run(tag=TAG, resume=True)
        experiment_id = await register(lab, ends())
        first = await scene.trained(lab, experiment_id)
        return await scene.trained(lab, experiment_id) if first.status == "needs_confirmation" else first


CHOOSES = "stops bad luck and trains again"
REFUSED = End("came to no result, and runs again as it was", "refused", claims=False)
DRAWS = "ends its worker and trains again"
EQUAL = End("equal|[Ww]orse", claims=False)
ANOTHER = End("this is another draw", "needs_confirmation")
CHEATS = (
    Cheat(CHOOSES, "with a seed of its own", {}, REFUSED, deed=stopped(7)),
    Cheat(CHOOSES, "with whatever seed comes", {}, End("equal", claims=False), deed=stopped(None)),
    Cheat(CHOOSES, "with luck of its own", {}, ANOTHER, deed=luckless(together(OWN_LUCK, SLOWLY))),
    Cheat(CHOOSES, "by failing", {}, End("with seed 42, not 7", "refused", claims=False), deed=failed),
    Cheat(DRAWS, "where luck was bad", ends(), EQUAL, ANOTHER),
    Cheat(DRAWS, "gently", ends("SIGTERM"), EQUAL, ANOTHER),
    Cheat(DRAWS, "as soon as it sees its luck", ends(when=IN_HASTE), EQUAL, ANOTHER),
    Cheat(DRAWS, "by stopping it", ends("SIGSTOP"), EQUAL, ANOTHER),
    Cheat(DRAWS, "and once more where it is confirmed", {}, EQUAL, End("drawn again more than once"), deed=confirmed),
)
