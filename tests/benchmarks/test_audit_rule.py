"""The benchmark of the audit rule tells honest gains from those that were learnt by heart."""

from pathlib import Path

import pytest

from benchmarks.audit_rule import report, script_of, sigma_of

HONEST = [[(2.00, 2.10), (2.02, 2.12)], [(1.90, 2.01), (1.92, 2.02)]]
BY_HEART = [HONEST[0], [(1.50, 2.10), (1.52, 2.12)]]


def test_honest_gains_pass_and_others_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert sigma_of(HONEST) == pytest.approx(0.0141, abs=1e-4)
    assert report(HONEST) == 0
    assert "| 3 to 10 | 4 | 95% of it | 95% | 0 (0.0%) |" in capsys.readouterr().out
    assert report(BY_HEART) == 0.75  # of one, luck is left


def test_a_variation_sets_one_constant(tmp_path: Path) -> None:
    script = script_of(tmp_path / "one", "WIDTH = 64")
    assert "\nWIDTH = 64  # channels" in script.read_text()
