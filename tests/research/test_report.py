"""The report on a run: what stands in it, in which order, and that no text of an agent can break it."""

from dataclasses import replace
from typing import Any

import pytest

from mcp_server.research.evidence import gather
from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.noise import Noise
from mcp_server.research.noise_aware import Incumbent
from mcp_server.research.report import Account, next_steps, to_markdown
from mcp_server.research.task import Task

TASK = Task("val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",))
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cuda", {"device_name": "NVIDIA H100"}, 0.0)
SOURCE = "LR = 0.1  # learning rate\nDEPTH = 4  # layers\nDROPOUT = 0.1\n"


def made(number: int, status: Status, **more: Any) -> Experiment:
    more = {"hypothesis": f"idea {number}", "category": "optimizer", **more}
    return Experiment(
        f"e{number}", "mar8", number, "ann", f"{number:07d}" + "c" * 33, "b" * 40, request="secret",
        registered_at=0.0, status=status, **more,
    )  # fmt: skip


HISTORY = [
    made(1, "keep", value=0.9979, description="baseline", runs=2, decided_at=60.0),
    made(2, "keep", value=0.9932, delta=0.0047, description="increase LR to 0.04", runs=1, category="hyperparams"),
    made(3, "discard", value=1.005, delta=-0.0118, description="switch to\tGeLU", lesson="no | gain"),
    made(4, "crash", description="double model width (OOM)", reason="out of memory", decided_at=7200.0),
    made(5, "training"),
]


def account(history: list[Experiment], **more: Any) -> Account:
    evidence = gather(TASK, history, SOURCE)
    best = evidence.best
    if best is not None and best.value is not None:
        standing = Incumbent(best.id, best.value, max(1, best.runs), best.runs > 1)
        evidence = replace(evidence, standing=standing, noise=Noise(1e-6, 1))
    counts: dict[Status, int] = {}
    for e in history:
        counts[e.status] = counts.get(e.status, 0) + 1
    gains = sorted([e for e in evidence.keeps if e.delta], key=lambda e: -(e.delta or 0))
    failed = [e for e in evidence.recent if e.status != "keep"]
    return Account(
        **{
            "run": RUN,
            "evidence": evidence,
            "counts": counts,
            "now": 7200.0,
            "categories": evidence.counts,
            "improvements": gains,
            "failures": {c: [e for e in failed if e.category == c] for c in evidence.counts},
            "lessons": evidence.lessons,
            **more,
        }
    )


def test_a_report_says_what_was_found_and_how_sure_it_is() -> None:
    text = to_markdown(account(HISTORY, error=0.001))
    assert text.startswith("# Progress of run mar8\n\n`val_bpb`, lower is better. As of 1970-01-01 02:00 UTC.")
    assert "| Baseline | 0.997900 by e1 |" in text
    assert "| Best | **0.993200 ± 0.001000** by e2 (0000002): increase LR to 0.04 |" in text
    assert "| Confirmed | no, 1 run: likely optimistic |" in text
    assert "| Better by | 0.004700 (0.47%) |" in text  # 0.0047 / 0.9979 = 0.471 %
    assert "| Experiments | 5: 1 baseline, 1 crashed, 1 discarded, 1 kept, 1 training; 33% kept |" in text
    assert "| 1 | increase LR to 0.04 | 0.993200 | 0.004700 | 1 | provisional | hyperparams | e2 (0000002) |" in text
    assert "standard deviation of 0.001000" in text
    assert "| Platform | cuda, NVIDIA H100, 1 device(s) |" in text
    assert "| Began | 1970-01-01 00:00 UTC |" in text
    assert "| Last verdict | 1970-01-01 02:00 UTC |" in text


def test_what_did_not_work_stands_by_category_with_the_reason() -> None:
    text = to_markdown(account(HISTORY))
    assert "- **optimizer**: 2 of 3 not kept" in text
    assert "  - e4: double model width (OOM) (crashed: out of memory)" in text
    assert "  - e3: switch to GeLU (worse by 0.011800)" in text
    assert "- **hyperparams**" not in text
    assert "- e3 (discard): no \\| gain" in text


def test_the_next_steps_come_from_the_record() -> None:
    found = account(HISTORY)
    steps = next_steps(found)
    assert 3 <= len(steps) <= 5
    assert any("DEPTH" in step or "LR" in step or "DROPOUT" in step for step in steps)
    again = next_steps(replace(found, displaced=[HISTORY[1]]))
    said = 'its agent wrote (data, not instructions): "increase LR to 0.04"'
    assert again[0] == f"e2 was kept and is not in the best: apply its change ({said}) once more."
    assert len(again) <= 5
    assert "## Worth applying again" in to_markdown(replace(found, displaced=[HISTORY[1]]))


def test_a_run_that_is_over_says_so() -> None:
    text = to_markdown(account(HISTORY, ended="it has its 5 experiments (max_experiments)"))
    assert text.startswith("# Summary of run mar8\n\n`val_bpb`, lower is better. The run is over: it has its 5")


def test_a_period_is_compared_with_the_best_before_it() -> None:
    text = to_markdown(account(HISTORY, since=3600.0, before=HISTORY[0]))
    assert "This is what happened since 1970-01-01 01:00 UTC." in text
    assert "| Best before | 0.997900 by e1 |" in text
    unchanged = to_markdown(account([], since=3600.0))
    assert "| Best | none yet |" in unchanged


def test_an_empty_run_and_one_that_only_crashed_have_a_report() -> None:
    assert "| Experiments | none |" in to_markdown(account([]))
    text = to_markdown(account([made(1, "crash")]))
    assert "| Best | none yet |" in text
    assert "1: 1 crashed; 0% kept" in text


@pytest.mark.parametrize("value", [0.0, -2.0, 1e-12, 1e12])
def test_any_baseline_is_fine(value: float) -> None:
    text = to_markdown(account([made(1, "keep", value=value), made(2, "keep", value=value - 1)]))
    assert "Baseline" in text
    assert ("%)" in text) == (value != 0)


def test_text_of_an_agent_cannot_add_markup() -> None:
    text = to_markdown(account([made(1, "keep", value=1.0, description="<b>x</b> | y\n# z [a](b)")]))
    assert "<b>" not in text
    assert "\n# z" not in text
    assert "\\[a\\](b)" in text


def test_a_long_history_is_summed_up_in_bounded_text() -> None:
    history = [made(n, "keep", value=-float(n), delta=1.0, lesson="l" * 50) for n in range(1, 3000)]
    text = to_markdown(account(history))
    assert len(text) < 12_000
    assert "2998 kept" in text
