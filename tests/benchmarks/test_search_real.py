"""The comparison of ways to search: fair from the start, and honest in its table."""

import asyncio
import math
from pathlib import Path

import pytest

from benchmarks.search_arms import ROOT, RandomKnobs, Study, Trainer, present_and_ladders
from benchmarks.search_real import changes, mean, measure, table
from mcp_server.research.knobs import write_knobs

SCRIPT = (ROOT / "train.py").read_text()
BETTER = write_knobs(SCRIPT, {"WIDTH": 48})


class Pretended(Trainer):
    """Says that a narrower model is better, and that a very wide one fails."""

    def train(self, script: str, seed: int) -> float | None:
        width = present_and_ladders(script)[0]["WIDTH"]
        assert isinstance(width, int)
        return None if width > 384 else 1.0 + width / 1000 + seed / 1e6


TRAINER = Pretended(Path(), Path(), 1.0)


@pytest.mark.parametrize("kind", [RandomKnobs, Study])
def test_an_arm_begins_with_the_unchanged_script_and_hands_over_the_best(kind: type[RandomKnobs | Study]) -> None:
    arm = kind(TRAINER, SCRIPT, 1)
    said = [asyncio.run(arm.step(seed)) for seed in range(12)]
    assert said[0].startswith(("unchanged: 1.0960", "0 knobs changed: 1.0960"))
    gain = measure(TRAINER, SCRIPT, {arm.name: asyncio.run(arm.best())}, [1, 2])[arm.name]
    assert min(gain) >= 0
    again = kind(TRAINER, SCRIPT, 1)
    assert [asyncio.run(again.step(seed)) for seed in range(12)] == said


def test_gains_are_those_over_the_unchanged_script(capsys: pytest.CaptureFixture[str]) -> None:
    wide = write_knobs(SCRIPT, {"WIDTH": 768})
    gains = measure(TRAINER, SCRIPT, {"suggest": BETTER, "random knobs": SCRIPT, "Optuna alone": wide}, [1, 2])
    assert gains == {"suggest": pytest.approx([0.048] * 2), "random knobs": [0.0] * 2, "Optuna alone": [0.0] * 2}
    assert (changes(SCRIPT, BETTER), changes(SCRIPT, SCRIPT)) == ("WIDTH 48", "nothing")
    assert table({"random knobs": [[0.01, 0.03]], "suggest": [[0.06, 0.06]]}) == {"random knobs": 0.02, "suggest": 0.06}
    assert "0.0200 +- 0.0100      3.00 times" in capsys.readouterr().out


def test_the_error_is_that_over_repetitions_where_there_are_some() -> None:
    assert mean([[0.01, 0.03]]) == pytest.approx((0.02, 0.01))
    assert mean([[0.01, 0.03], [0.03, 0.05]]) == pytest.approx((0.03, 0.01))
    assert math.isnan(mean([[0.02]])[1])
