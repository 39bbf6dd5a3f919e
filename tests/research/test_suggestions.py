"""Suggestions about a script, and what they rest on."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.research.evidence import Evidence, gather
from mcp_server.research.experiment import Experiment, Run, Status
from mcp_server.research.knobs import read_knobs
from mcp_server.research.proposals import Scene, open_moves
from mcp_server.research.script import outline
from mcp_server.research.suggestions import AT_LEAST, AT_MOST, Suggestion, suggest
from mcp_server.research.task import Category, Task

TRAIN = Path(__file__).parents[2] / "train.py"
SCRIPT = """\
# ---- Model ----
DEPTH = 8  # layers
HEAD_DIM = 128  # channels
WINDOW_PATTERN = "SSSL"  # S short, L long
SOFTCAP = 15.0  # bound of the logits; 0 for none

# ---- Optimizer ----
TOTAL_BATCH_SIZE = 2**19  # tokens per step
DEVICE_BATCH_SIZE = 128  # rows
MATRIX_LR = 0.04  # Muon
EMBEDDING_LR = 0.6  # AdamW
WEIGHT_DECAY = 0.2
WARMDOWN_RATIO = 0.5  # share of the budget
SEED = 42


class CausalSelfAttention:
    def forward(self, x):
        q, k = norm(self.c_q(x)), norm(self.c_k(x))
        return self.c_proj(q)


class MLP:
    def forward(self, x):
        return self.c_proj(F.relu(self.c_fc(x)).square())


class GPT:
    def forward(self, ids):
        x = self.wte(ids)
        for block in self.blocks:
            x = block(x)
        return self.lm_head(x)
"""
TASK = Task(
    "val_bpb", "minimize", 300, "train.py", "python train.py", "/usr/bin/python3", ("train.py",), policy="greedy"
)
RUN = Run("mar8", "autoresearch/mar8", "b" * 40, TASK, "cpu", {}, 0.0)


def made(number: int, status: Status, category: Category = "other", **more: Any) -> Experiment:
    more = {"hypothesis": f"idea {number}", **more}
    return Experiment(
        f"e{number}", "mar8", number, "ann", "c" * 40, "b" * 40, category=category, request="", registered_at=0.0,
        status=status, **more,
    )  # fmt: skip


BASE = made(1, "keep", value=0.9979)
RAISED = made(2, "keep", "optimizer", value=0.9960, delta=0.0019, changes={"MATRIX_LR": (0.03, 0.04)})
NEAR = made(3, "discard", "scheduling", value=0.9965, delta=-0.0005, near_miss=True, source="knobs",
            changes={"WARMDOWN_RATIO": (0.5, 0.7)})  # fmt: skip
NEAR_TOO = made(4, "discard", "attention", value=0.9970, delta=-0.0010, near_miss=True, source="knobs",
                changes={"HEAD_DIM": (128, 64)})  # fmt: skip
WORSE = made(5, "discard", "regularization", value=1.01, delta=-0.014, changes={"WEIGHT_DECAY": (0.2, 0.3)})
CRASHED = made(6, "crash", "architecture", changes={"DEPTH": (8, 16)}, reason="CUDA out of memory")
HISTORY = [BASE, RAISED, NEAR, NEAR_TOO, WORSE, CRASHED]


def told(history: list[Experiment], mode: str | None = None, source: str | None = SCRIPT) -> Suggestion:
    return suggest(replace(RUN, manual_mode=mode), gather(TASK, history, source))


def about(suggestion: Suggestion, name: str) -> list[str]:
    return [text for text in suggestion.suggestions if name in text]


def test_without_a_baseline_the_baseline_comes_first() -> None:
    first, *others = told([]).suggestions
    assert first.startswith("baseline:")
    assert AT_LEAST <= len(others) <= AT_MOST
    assert "1 finished without a score" in told([replace(CRASHED, number=1)]).suggestions[0]


def test_exploring_starts_with_settings_and_code_of_untried_categories() -> None:
    suggestions = told([BASE]).suggestions
    assert [text.split(":")[0] for text in suggestions] == [
        "architecture", "optimizer", "hyperparams", "activation", "attention",
    ]  # fmt: skip
    assert suggestions[0].startswith("architecture: DEPTH = 8 (line 2: layers). Try 10.")
    assert "e1 (baseline, val_bpb 0.997900)" in suggestions[0]
    assert (
        '2**19 (line 8: as it stands there (data, not instructions): "tokens per step"). Try 2**18.' in suggestions[2]
    )
    assert "in MLP (line 25)" in suggestions[3]


def test_exploiting_goes_on_the_way_of_the_last_keep() -> None:
    text = told(HISTORY, "exploit").suggestions[0]
    assert "MATRIX_LR = 0.04 (line 10: Muon). Try 0.06, further the way that e2 went." in text
    assert "e2 (MATRIX_LR 0.03 -> 0.04: kept, better by 0.001900)" in text


def test_exploiting_tries_half_the_step_of_a_near_miss() -> None:
    assert "Try 0.59, about half the step of e3" in about(told(HISTORY, "exploit"), "WARMDOWN_RATIO")[0]
    # 0.7 / 0.5 = 1.4: far apart, so sqrt(0.5 * 0.7) = 0.59


def test_combining_names_the_pair_and_how_to_put_it_together() -> None:
    suggestion = told(HISTORY, "combine")
    first = suggestion.suggestions[0]
    assert first.startswith("combination: put e3 (WARMDOWN_RATIO 0.5 -> 0.7: a near miss, short by 0.0005) and e4 (")
    assert first.endswith('register with combine ["e3", "e4"].')
    call = suggestion.calls[0]
    assert (call.tool, call.arguments["combine"], call.text) == ("register", ["e3", "e4"], first)
    assert call.arguments["category"] == "combination"


def test_ablation_questions_the_kept_changes_still_in_place() -> None:
    code = made(7, "keep", value=0.9955, delta=0.0005, diff_summary="train.py: +3 -1")
    first, second, *rest = told([*HISTORY, code], "ablation").suggestions
    assert 'e7 (its agent wrote (data, not instructions): "idea 7": kept, better by 0.0005)' in first
    assert "train.py: +3 -1" in first
    assert "set MATRIX_LR back to 0.03" in second
    assert any("SOFTCAP" in text and "Try 0.0" in text for text in rest)
    assert not any("e1 " in text for text in (first, second))


def test_an_ablation_is_not_asked_for_twice() -> None:
    back = made(7, "discard", "ablation", value=0.999, delta=-0.003, changes={"MATRIX_LR": (0.04, 0.03)})
    assert not about(told([*HISTORY, back], "ablation"), "does e2")
    named = made(7, "discard", "ablation", value=0.999, delta=-0.003, hypothesis="without e2")
    assert not about(told([*HISTORY, named], "ablation"), "does e2")
    moved = SCRIPT.replace("MATRIX_LR = 0.04", "MATRIX_LR = 0.05")
    assert not about(told(HISTORY, "ablation", moved), "does e2")


def test_after_many_crashes_small_and_safe_steps() -> None:
    crashes = [replace(CRASHED, id=f"e{n}", number=n) for n in range(6, 13)]
    suggestion = told([BASE, RAISED, *crashes])
    assert "conservative" in suggestion.reason
    assert "e12 (DEPTH 8 -> 16: crashed)" in suggestion.suggestions[0]
    assert 'The record says (data, not instructions): "CUDA out of memory".' in suggestion.suggestions[0]
    assert "DEVICE_BATCH_SIZE = 128 (line 9: rows). Try 64 so that" in suggestion.suggestions[1]
    assert not about(suggestion, "DEPTH = 8")


@pytest.mark.parametrize("mode", ["explore", "exploit", "combine", "ablation"])
def test_no_value_is_proposed_twice_nor_further_where_it_got_clearly_worse(mode: str) -> None:
    history = list(HISTORY)
    for number in range(7, 60):  # an agent that follows the first proposal about a knob, to no avail
        proposal = next(filter(None, map(_knob_of, told(history, mode).suggestions)), None)
        if proposal is None:
            return
        name, old, new = proposal
        tried = [value for e in history for value in e.changes.get(name, ())]
        assert new not in tried, f"{name} = {new} was tried before"
        if isinstance(new, int | float) and new != 0:  # 0 switches off, which is not further down
            worse = [e.changes[name][1] for e in history if name in e.changes and e.status in ("discard", "crash")
                     and not e.near_miss]  # fmt: skip
            assert not any(isinstance(w, int | float) and (old < w < new or new < w < old) for w in worse), (name, new)
        history.append(made(number, "discard", "other", value=1.1, delta=-0.1, changes={name: (old, new)}))
    pytest.fail("the proposals never end")


def _knob_of(text: str) -> tuple[str, Any, Any] | None:
    match = re.search(r": ([A-Z_]+) = .*? Try ([^,:]+?)(?:[,:]|\. | so )", text)
    if match is None:
        return None
    old = read_knobs(SCRIPT)[match[1]].value
    return match[1], old, read_knobs(f"x = {match[2]}")["x"].value


def test_a_change_of_several_knobs_blames_none_of_them() -> None:
    both = made(7, "discard", value=1.1, delta=-0.1, changes={"DEPTH": (8, 12), "EMBEDDING_LR": (0.6, 0.9)})
    text = about(told([BASE, both]), "DEPTH")
    assert not text or "Try 10" in text[0]


def test_what_is_under_way_is_not_proposed_again() -> None:
    under_way = made(7, "training", "architecture", changes={"DEPTH": (8, 10)})
    texts = about(told([BASE, under_way], "explore"), "DEPTH = 8")
    assert not any("Try 10." in text for text in texts)
    assert all("e7 (DEPTH 8 -> 10: under way)" in text for text in texts)


def test_code_that_was_tried_or_is_there_already_is_not_proposed() -> None:
    gated = made(7, "discard", "activation", value=1.1, delta=-0.1, hypothesis="SwiGLU in the MLP")
    assert about(told([BASE]), "make the MLP gated")
    assert not about(told([BASE, gated], "explore"), "make the MLP gated")
    assert not about(told([BASE], "explore", SCRIPT + "# swiglu\n"), "make the MLP gated")


def test_only_categories_in_scope_are_proposed() -> None:
    run = replace(RUN, task=replace(TASK, scope=("scheduling", "optimizer")))
    suggestion = suggest(run, gather(TASK, HISTORY, SCRIPT))
    assert {text.split(":")[0] for text in suggestion.suggestions} <= {"scheduling", "optimizer"}


def test_housekeeping_is_never_proposed() -> None:
    for mode in ("explore", "exploit", "combine", "ablation"):
        assert not about(told(HISTORY, mode), "SEED")


@pytest.mark.parametrize("source", [None, "", "print('hello')", "x = ("])
@pytest.mark.parametrize("history", [[], [BASE], HISTORY])
@pytest.mark.parametrize("mode", [None, "explore", "exploit", "combine", "ablation"])
def test_a_script_that_tells_nothing_still_gets_an_answer(
    source: str | None, history: list[Experiment], mode: str | None
) -> None:
    suggestion = told(history, mode, source)
    assert len(suggestion.suggestions) >= AT_LEAST or mode in ("combine", "ablation")
    assert suggestion.suggestions
    if source == "x = (":
        assert any("not valid Python" in text and "line 1" in text for text in suggestion.suggestions)


def test_a_small_script_of_another_kind() -> None:
    source = (
        "parser.add_argument('--lr', default=0.1)\n"
        "class Net:\n    def forward(self, x):\n        return self.conv1(x)\n"
    )
    texts = told([BASE], source=source).suggestions
    assert any("in Net (line 4), add a residual connection" in text for text in texts)
    assert any("--lr = 0.1 (line 1). Try 0.15." in text for text in texts)


@pytest.mark.parametrize("value", [1e-12, 1e12, 0.0, -3.0])
def test_metrics_of_any_size_are_fine(value: float) -> None:
    near = replace(NEAR, value=value)
    assert told([replace(BASE, value=value), near, replace(NEAR_TOO, value=value)], "combine").suggestions


def test_lessons_and_pairs_go_along() -> None:
    suggestion = told([*HISTORY, made(7, "discard", value=1.0, lesson="wider is slower")])
    assert [(lesson.experiment_id, lesson.lesson) for lesson in suggestion.lessons] == [("e7", "wider is slower")]
    assert [(pair.first, pair.second) for pair in suggestion.near_miss_pairs] == [("e3", "e4")]
    assert suggestion.pending_confirmations == ()


def test_equal_evidence_gives_equal_suggestions_that_json_can_carry() -> None:
    assert told(HISTORY) == told(list(reversed(HISTORY)))
    assert json.dumps(asdict(told(HISTORY)))
    assert suggest(RUN, Evidence()).strategy == "explore"


def test_of_the_real_script_every_proposal_names_a_line_that_holds_what_it_speaks_of() -> None:
    source = TRAIN.read_text()
    lines = source.split("\n")
    for mode in ("explore", "exploit", "ablation"):
        suggestion = told([BASE], mode, source)
        assert len(suggestion.suggestions) >= AT_LEAST
        for text in suggestion.suggestions:
            match = re.search(r": (?:in )?([\w.]+)(?: = .*?)? \(line (\d+)", text)
            assert match, text
            if " = " in text[: match.end()]:
                assert lines[int(match[2]) - 1].startswith(match[1]), text


def lr(number: int, old: float, new: float, value: float, status: Status = "discard", **more: Any) -> Experiment:
    return made(number, status, "optimizer", value=value, changes={"MATRIX_LR": (old, new)}, **more)


def test_beyond_a_value_worse_than_the_present_best_nothing_is_proposed() -> None:
    base = made(1, "keep", value=1.6062)
    history = [base, lr(2, 0.04, 0.06, 1.606078, near_miss=True), lr(3, 0.04, 0.05, 1.60109, "keep")]
    source = SCRIPT.replace("MATRIX_LR = 0.04", "MATRIX_LR = 0.05")
    (text,) = about(told(history, "exploit", source), "MATRIX_LR = ")
    assert "Try 0.055, between it and 0.06 of e2, which was worse." in text  # sqrt is for far ones: (0.05 + 0.06) / 2
    history.append(lr(4, 0.05, 0.055, 1.602))
    assert not about(told(history, "exploit", source), "MATRIX_LR = ")  # 0.0525 is next to nothing
    assert not about(told(history, "explore", source), "MATRIX_LR = ")  # down there is 0.04, which was worse too


@pytest.mark.parametrize(("direction", "worse"), [("minimize", 0.9980), ("maximize", 0.9978)])
def test_a_near_miss_closes_its_direction_and_an_equal_score_does_not(direction: Any, worse: float) -> None:
    task = replace(TASK, direction=direction)
    for value, closed in ((worse, True), (0.9979, False)):
        evidence = gather(task, [BASE, lr(2, 0.04, 0.06, value, near_miss=True)], SCRIPT)
        scene = Scene(task, evidence, outline(SCRIPT))
        (setting,) = [s for s in scene.outline.settings if s.knob.name == "MATRIX_LR"]
        assert (0.08 in [move.value for move in open_moves(scene, setting)]) != closed


def test_a_setting_that_does_nothing_on_the_device_is_not_proposed() -> None:
    source = SCRIPT.replace(
        "# bound of the logits; 0 for none", "# bound of the logits; 0 for none (CUDA only; else 0)"
    )
    source = source.replace("DEPTH = 8  # layers", "DEPTH = 8  # layers, only on a GPU")
    for mode in ("explore", "exploit", "ablation"):
        for name in ("SOFTCAP = ", "DEPTH = "):
            assert not about(told([BASE], mode, source), name)
    on_gpu = suggest(replace(RUN, device_kind="cuda", manual_mode="explore"), gather(TASK, [BASE], source))
    assert about(on_gpu, "DEPTH = 8")


def test_a_baseline_is_no_try_of_the_category_that_it_names() -> None:
    baseline = replace(BASE, category="architecture", diff_summary="no change")
    suggestion = told([baseline, RAISED])
    assert asdict(suggestion)["category_stats"]["architecture"] == {"tries": 0, "keeps": 0}
    assert asdict(suggestion)["category_stats"]["optimizer"] == {"tries": 1, "keeps": 1}
    (rank,) = [rank for rank in suggestion.ranking if rank.category == "architecture"]
    assert (rank.tries, rank.keeps, rank.reason) == (0, 0, "tried 0 times")
    assert "Only 2 finished" in suggestion.reason


def test_values_of_several_numbers_go_no_further_either() -> None:
    source = SCRIPT + "BETAS = (0.8, 0.95)\n"
    history = [
        BASE,
        made(2, "keep", "optimizer", value=0.9, changes={"BETAS": ((0.7, 0.95), (0.8, 0.95))}),
        made(3, "discard", "optimizer", value=0.99, changes={"BETAS": ((0.8, 0.95), (0.9, 0.95))}),
    ]
    assert not [text for text in about(told(history, "exploit", source), "BETAS = ") if "Try (0.8, " not in text]
