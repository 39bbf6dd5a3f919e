"""A script whose score has noise, and an agent that repeats what it is told to."""

from mcp_server.lab.results import Completed
from tests.lab.researcher import Researcher

NOISY = """\
import os

LR = 0.1  # learning rate
DEPTH = 4  # layers
WIDTH = 64  # channels
SEED = int(os.environ["AUTORESEARCH_SEED"])
LUCK = {42: 0.01, 43: -0.01, 44: 0.01, 45: -0.01}

loss = 1 + abs(LR - 0.3) + 0.01 * DEPTH
print(f"val_loss: {loss + LUCK.get(SEED, 0):.6f}")
print(f"fingerprint: {os.environ['AUTORESEARCH_CACHE'][-3:]}")
"""
"""The unchanged script scores 1.24 on average; the four baselines see a standard deviation of 0.0115."""


SPACED = """\
import os

LR = 0.1  # learning rate
# one
# two
DEPTH = 4  # layers
# three
# four
GAIN = 0.0
# five
# six
WIDTH = 64  # channels
# seven
# eight
SEED = int(os.environ["AUTORESEARCH_SEED"])
LUCK = {42: 0, 43: 0, 44: 0.02, 45: -0.02}

loss = 1 + abs(LR - 0.3) + 0.01 * DEPTH - GAIN + 0.0002 * (WIDTH - 64)
print(f"val_loss: {loss + LUCK.get(SEED, 0):.6f}")
"""
"""Scores 1.24 as well; a standard deviation of 0.0163, none of it in the first two seeds. Any two constants can be
changed side by side."""


async def baseline(agent: Researcher) -> Completed:
    """Measure the unchanged script as often as the policy asks for."""
    verdict = await agent.baseline()
    while verdict.status == "needs_confirmation":
        verdict = await again(agent, verdict.experiment_id)
    return verdict


async def again(agent: Researcher, experiment_id: str, seed: int | None = None) -> Completed:
    """Train once more, and ask for the verdict."""
    trained = await agent.lab.training.train(experiment_id, wait_seconds=60, seed=seed)
    assert trained.status == "trained", trained
    return await agent.lab.verdicts.complete(experiment_id)


async def begun(agent: Researcher, **arguments: str) -> None:
    await agent.begin(policy=arguments.get("policy", "noise_aware"))
    assert (await baseline(agent)).status == "keep"
