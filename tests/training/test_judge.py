"""The rules no training script can bend: the clock, warm-up that teaches nothing, batches, and the score."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prepare

# ---- The clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "threads", "readings", "elapsed", "progress"),
    [
        # (wall, CPU, waited) seconds at each look at the clock, the first of which starts it; the budget is 10 s
        ("cpu", 2, [(100, 7, 0), (103, 13, 0)], 3.0, 0.3),  # idle machine: (13 - 7) / 2
        (
            "cpu",
            2,
            [(100, 7, 1), (106, 11, 2)],
            2.0,
            0.25,
        ),  # threads wait for each other: 5 of the 20 s that it may take
        ("cpu", 2, [(100, 7, 1), (150, 11, 91)], 2.0, 0.25),  # and for others: 50 of 200 s
        ("cpu", 2, [(100, 7, 1), (120, 19, 21)], 6.0, 0.6),  # a busy machine trains as much as an idle one
        ("cpu", 1, [(0, 0, 0), (10, 10, 0)], 10.0, 1.0),
        ("cpu", 2, [(0, 0, 0), (20, 8, 0)], 4.0, 1.0),  # ended at twice the budget
        ("cpu", 2, [(0, 0, 0), (200, 8, 390)], 4.0, 1.0),  # and at 20 times, however busy the machine
        ("cuda", 2, [(100, 7, 0), (103, 99, 9)], 3.0, 0.3),  # on a GPU only wall time counts
        ("mps", 1, [(0, 0, 0), (11, 1, 5)], 11.0, 1.0),
    ],
)
def test_the_budget_clock(
    runtime: prepare.Runtime,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    threads: int,
    readings: list[tuple[float, float, float]],
    elapsed: float,
    progress: float,
) -> None:
    monkeypatch.setattr(prepare.Runtime, "synchronize", lambda self: None)
    now = iter(readings)
    seen: list[tuple[float, float, float]] = []
    monkeypatch.setattr(prepare, "waited_for_cores", lambda: seen[-1][2])
    runtime = replace(runtime, device=device, threads=threads)
    clock = prepare.BudgetClock(runtime, lambda: seen.append(next(now)) or seen[-1][0], lambda: seen[-1][1])  # type: ignore[func-returns-value]
    running = [clock.running() for _ in readings]
    assert running == [True, progress < 1]
    assert [clock.elapsed, clock.progress] == pytest.approx([elapsed, progress])


@pytest.mark.parametrize(
    ("baseline", "hand_in", "started", "waited", "budget"),
    [
        ({"limit": 16.0}, 2.0, 10.0, 0.0, 10.0),  # 5 s of each of two threads, and 1 s to hand in: no more than it may
        ({"limit": 16.0}, 2.0, 13.0, 0.0, 8.5),  # 6.5 s: what is beyond it is charged
        ({"limit": 16.0}, 5.0, 10.0, 0.0, 8.5),  # it takes longer to hand in
        ({"limit": 16.0}, 2.0, 40.0, 0.0, 0.01),  # nothing is left
        ({"limit": 16.0}, 2.0, 13.0, 9.0, 9.25),  # on a busy machine all takes longer, by an eighth
        ({}, math.nan, 40.0, 0.0, 10.0),  # nobody said a limit
        ({"limit": 16.0}, math.nan, 13.0, 0.0, 10.0),  # it was not warmed up: the server sees what it took
    ],
)
def test_a_start_beyond_the_limit_is_charged_to_the_budget(
    runtime: prepare.Runtime,
    monkeypatch: pytest.MonkeyPatch,
    baseline: dict[str, float],
    hand_in: float,
    started: float,
    waited: float,
    budget: float,
) -> None:
    monkeypatch.setattr(prepare, "waited_for_cores", lambda: waited)
    now = iter([started, started + 4.0])
    runtime = replace(runtime, threads=2, baseline=baseline, hand_in=hand_in)
    clock = prepare.BudgetClock(runtime, iter([0.0, 2.0]).__next__, now.__next__)
    assert clock.running()
    assert clock.budget == pytest.approx(budget)
    assert clock.running() == (budget > 2)
    assert clock.progress == pytest.approx(min(1.0, 2 / budget))


@pytest.mark.parametrize("text", ["soon", "-3", "nan", "inf", "0"])
def test_a_budget_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", text)
    with pytest.raises(prepare.HarnessError, match=f"AUTORESEARCH_TIME_BUDGET is '{text}': it must be a number"):
        prepare.setting("AUTORESEARCH_TIME_BUDGET", 300, 0.1)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_DEVICE", "abacus")
    with pytest.raises(prepare.HarnessError, match="AUTORESEARCH_DEVICE is 'abacus', which this machine has not"):
        prepare.start()


def test_starting_reads_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"DEVICE": "cpu", "SEED": "7", "TIME_BUDGET": "2.5", "THREADS": "1", "OUT": str(tmp_path)}
    settings["BASELINE"] = '{"limit": 4.125, "hand_in": 0.5, "modules": 21}'
    for name, value in settings.items():
        monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    threads = torch.get_num_threads()
    try:
        runtime, first = prepare.start(), torch.rand(3)
        prepare.start()
        assert torch.equal(torch.rand(3), first)  # seeded, whether or not the precision was probed in between
    finally:
        torch.set_num_threads(threads)
    assert (runtime.device, runtime.seed, runtime.budget, runtime.threads) == ("cpu", 7, 2.5, 1)
    assert (runtime.out, runtime.baseline["limit"]) == (tmp_path, 4.125)


# ---- Warm-up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [({}, math.nan), ({"modules": 8, "hand_in": 0.5}, 0.5), ({"modules": 2, "hand_in": 0.5}, 0.75)],
)
def test_warm_up_teaches_nothing_and_tells_what_handing_in_takes(
    data: prepare.Data,
    runtime: prepare.Runtime,
    baseline: dict[str, float],
    expected: float,
) -> None:
    runtime = replace(runtime, baseline=baseline)
    model = nn.Sequential(nn.Embedding(256, 8), nn.Dropout(0.5), nn.Linear(8, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    text = {row.tobytes() for row in data.train[:-1].reshape(-1, 32).astype(np.int64)}
    steps = 0

    def step(batches: Iterator[prepare.Batch]) -> None:
        nonlocal steps
        steps += 1
        inputs, targets = next(batches)
        assert not text & {row.numpy().tobytes() for row in inputs}  # nothing of the training text
        nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    prepare.warm_up(step, model, [optimizer], data, runtime, rows=4)
    assert steps == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not optimizer.state_dict()["state"]
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(weight.grad is None for weight in model.parameters())
    assert runtime.hand_in == pytest.approx(expected, nan_ok=True)


# ---- Batches ---------------------------------------------------------------------------------------------------------


def test_every_row_is_dealt_once_before_any_comes_again(data: prepare.Data, runtime: prepare.Runtime) -> None:
    counted = replace(data, train=np.arange(8 * 32 + 1, dtype=np.uint16))
    batches = prepare.batches(counted, 3, runtime)
    starts: list[int] = []
    for _ in range(8):
        inputs, targets = next(batches)
        assert inputs.shape == targets.shape == (3, 32)
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs - inputs[:, :1], torch.arange(32).expand(3, 32))  # contiguous
        starts += inputs[:, 0].tolist()
    passes = [starts[i : i + 8] for i in range(0, 24, 8)]
    assert all(sorted(row) == [32 * i for i in range(8)] for row in passes)
    assert passes[0] != passes[1]


def test_the_order_of_batches_follows_the_seed(data: prepare.Data, runtime: prepare.Runtime) -> None:
    def first(seed: int) -> Tensor:
        return next(prepare.batches(data, 4, replace(runtime, seed=seed)))[0]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_buffer_is_filled_again_only_after_its_copy_has_ended() -> None:
    """Copies to a GPU end late: here each ends only when its event is waited for."""
    underway: dict[int, tuple[Tensor, Tensor]] = {}
    buffers = [torch.zeros(2, 3, dtype=torch.long) for _ in range(2)]

    class Event:
        def __init__(self, turn: int) -> None:
            self.turn = turn

        def record(self) -> None:
            assert self.turn in underway

        def synchronize(self) -> None:
            buffer, sent = underway.pop(self.turn)
            sent.copy_(buffer)

    def copy_out(buffer: Tensor) -> Tensor:
        turn = next(i for i in range(2) if buffers[i] is buffer)
        assert turn not in underway, "filled while it was being copied"
        sent = torch.full_like(buffer, -1)
        underway[turn] = (buffer, sent)
        return sent

    events = [Event(0), Event(1)]
    sender = prepare.TwoBuffers(buffers, events, copy_out)
    batches = [torch.full((2, 3), i) for i in range(7)]
    received = [sender.send(batch) for batch in batches]
    assert len(underway) == 2  # the last two overlap
    for event in events:
        event.synchronize()
    assert all(torch.equal(got, batch) for got, batch in zip(received, batches, strict=True))


# ---- The score -------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """Logits by a function of the token ids."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids)


def uniform(ids: Tensor) -> Tensor:
    return torch.zeros(*ids.shape, 256)


def repeating(ids: Tensor) -> Tensor:
    """Bets on the token it has just seen."""
    return 3 * nn.functional.one_hot(ids, 256).float()


def test_bits_per_byte_of_a_model_that_knows_nothing(data: prepare.Data, runtime: prepare.Runtime) -> None:
    # Single bytes and equal odds: log2(256) = 8 bits for each byte; the marks of documents count for nothing.
    assert prepare.evaluate(Model(uniform), data, runtime) == pytest.approx(8.0)
    assert prepare.evaluate(Model(uniform), data, runtime, split="audit") == pytest.approx(8.0)


def test_bits_per_byte_is_the_sum_over_all_targets(data: prepare.Data, runtime: prepare.Runtime) -> None:
    tokens = np.fromfile(data.folder / "val.bin", dtype=np.uint16)
    # The target of a row's last place is the first token of the next row, and is not counted.
    places = [i for i in range(len(tokens) - 1) if i % data.seq_len != data.seq_len - 1]
    pairs = [(tokens[i], tokens[i + 1]) for i in places if tokens[i + 1] != prepare.BOS]
    hit, total = sum(a == b for a, b in pairs), math.exp(3) + 255
    bits = (len(pairs) * math.log(total) - 3 * hit) / math.log(2) / len(pairs)
    assert prepare.evaluate(Model(repeating), data, runtime) == pytest.approx(bits, rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [64, 96, 2048, 10_000])
def test_the_batch_size_does_not_change_what_is_evaluated(
    data: prepare.Data, runtime: prepare.Runtime, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    expected = prepare.bits_per_byte(Model(repeating), data, runtime)
    monkeypatch.setitem(prepare.EVAL_BATCH_TOKENS, "cpu", batch_tokens)
    assert prepare.bits_per_byte(Model(repeating), data, runtime) == pytest.approx(expected, rel=1e-6)


def next_token(ids: Tensor) -> Tensor:
    return repeating(ids.roll(-1, 1))


def later_mean(ids: Tensor) -> Tensor:
    """Leaks a little of the whole row into every place."""
    return repeating(ids) + ids.float().mean(1)[:, None, None] / 2


def next_row(ids: Tensor) -> Tensor:
    """The last target of a row is the first token of the next: peeks there."""
    logits = repeating(ids)
    logits[:-1, -1] = 9 * nn.functional.one_hot(ids[1:, 0], 256).float()
    return logits


@pytest.mark.parametrize("cheat", [next_token, later_mean, next_row])
def test_a_model_that_looks_ahead_is_refused(
    data: prepare.Data, runtime: prepare.Runtime, cheat: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(prepare.HarnessError, match="looks ahead"):
        prepare.evaluate(Model(cheat), data, runtime)


def test_looking_back_is_allowed(data: prepare.Data, runtime: prepare.Runtime) -> None:
    def history(ids: Tensor) -> Tensor:
        return nn.functional.one_hot(ids, 256).float().cumsum(1)

    for _ in range(5):  # the probe is random
        assert prepare.evaluate(Model(history), data, runtime) < 8


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(data: prepare.Data, runtime: prepare.Runtime, value: float) -> None:
    def broken(ids: Tensor) -> Tensor:
        logits = uniform(ids)
        logits[0, -1, 0] = value
        return logits

    with pytest.raises(prepare.HarnessError, match="not finite"):
        prepare.evaluate(Model(broken), data, runtime)


@pytest.mark.parametrize("shape", [(256,), (255,), ()])
def test_only_logits_of_the_right_shape_are_judged(
    data: prepare.Data, runtime: prepare.Runtime, shape: tuple[int, ...]
) -> None:
    def misshapen(ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape[: 2 if shape != (256,) else 1], *shape)

    with pytest.raises(prepare.HarnessError, match="not logits of shape"):
        prepare.evaluate(Model(misshapen), data, runtime)


def test_changed_validation_text_is_refused(data: prepare.Data, runtime: prepare.Runtime, tmp_path: Path) -> None:
    for file in data.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    easy = np.zeros_like(np.fromfile(tmp_path / "val.bin", dtype=np.uint16))
    (tmp_path / "val.bin").write_bytes(easy.tobytes())
    with pytest.raises(prepare.HarnessError, match=r"val\.bin was changed since it was prepared"):
        prepare.evaluate(Model(uniform), replace(data, folder=tmp_path), runtime)


# ---- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (prepare.HarnessError("no data"), "error: no data"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            "error: out of memory: CUDA out of memory. Tried",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: out of memory: DefaultCPUAllocator"),
        (MemoryError(), "error: out of memory"),
    ],
)
def test_expected_failures_end_in_one_line(error: Exception, line: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        prepare.run(fail)
    assert str(stopped.value.code).startswith(line)


def test_a_mistake_in_the_script_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        prepare.run(lambda: (_ for _ in ()).throw(RuntimeError("shapes do not match")).__next__())
