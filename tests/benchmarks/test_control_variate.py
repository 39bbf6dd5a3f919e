"""The benchmark of the score that looking ahead cannot raise, on a few rows."""

import pytest
from torch import Tensor, nn

import prepare
from benchmarks.control_variate import CHEATS, Cheating, Outcome, Row, Scene, report
from tests.training.conftest import cache, data, runtime

__all__ = ["cache", "data", "runtime"]  # fixtures


class Pairs(nn.Module):
    """Bets on the token that it has just seen."""

    def forward(self, ids: Tensor) -> Tensor:
        return 3 * nn.functional.one_hot(ids, 256).float()


@pytest.fixture
def scene(data: prepare.Data, runtime: prepare.Runtime) -> Scene:
    return Scene(data, runtime)


def test_an_honest_models_score_is_that_of_whole_rows(scene: Scene) -> None:
    outcome = scene.outcome(Pairs())
    assert (outcome.largest, outcome.rejected) == (0.0, "")
    assert outcome.score == pytest.approx(outcome.whole, abs=1e-9)
    assert outcome.whole == pytest.approx(prepare.bits_per_byte(Pairs(), scene.data, scene.runtime), abs=1e-5)


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_keeps_what_it_gains(scene: Scene, name: str) -> None:
    """Of 64 rows of each text, each of 32 tokens: enough for all but rare ones."""
    honest = scene.outcome(Pairs())
    outcome = scene.outcome(Cheating(Pairs(), CHEATS[name]))
    gained, kept = honest.whole - outcome.whole, honest.whole - outcome.score
    assert bool(outcome.rejected) or kept < max(1e-4, gained / 4), outcome


def test_the_report_fails_for_what_is_not_as_it_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    fair, bought, caught = Outcome(2.0, 2.0, 0.0, ""), Outcome(1.5, 1.6, 0.1, ""), Outcome(1.5, 1.6, 9.0, "looks ahead")
    cases = [([fair], False), ([bought], True), ([caught], False), ([caught, bought], True), ([caught] * 3, False)]
    for outcomes, failed in cases:
        assert bool(report(iter([Row("it", outcomes, 2.0)]))) == failed
    assert bool(report(iter([Row("it", [Outcome(2.0, 2.0, 0.0, "looks ahead")], 2.0)])))
    assert "| it | +0.5000 | +0.4000 | 9 | looks ahead, 1 of 2 |" in capsys.readouterr().out
