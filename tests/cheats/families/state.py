"""Cheats whose model remembers what it was asked, or knows a probe when it sees one."""

from tests.cheats.cheat import AHEAD, ASK, DIFFERS, INIT, LOGITS, ONLY_WALLED, Cheat, End, after, before, together
from tests.cheats.families.ahead import NEXT, PEEK, peeking

LATER = f"""\
        self.calls = getattr(self, "calls", 0) + (not self.training)
        if self.calls >= 4:
    {PEEK}"""
UNSEEN = LATER.replace(">= 4", ">= 4 and not torch.compiler.is_exporting()")
COUNTED = f"""\
        self.calls.add_(0 if self.training else 1)
{PEEK.replace("20 *", "20 * (self.calls >= 4) *")}"""
CALLS = "        self.register_buffer('calls', torch.zeros((), dtype=torch.long))\n"
PICKLED = LATER.replace(">= 4:", ">= 4 and ids.sum().item():")
BATCH_NORM = """\
    program = json.loads((runtime.out / "program.json").read_text())
    output, (words,) = program["output"], [name for name, about in program["inputs"].items() if about is None]
    size = (runtime.out / "program.bin").stat().st_size
    with (runtime.out / "program.bin").open("ab") as file:
        file.write(bytes(-size % 64) + bytes(64))
    counter = size + -size % 64
    about = {"dtype": "torch.float32", "shape": [1], "offset": counter}
    program["inputs"] |= {"calls": about, "spread": about | {"offset": counter + 32}}

    def add(name, op, *args, **kwargs):
        program["calls"].append({"name": name, "op": f"aten.{op}", "args": list(args), "kwargs": kwargs})
        return {"node": name}

    calls, spread, words = {"node": "calls"}, {"node": "spread"}, {"node": words}
    one = add("c1", "add.Tensor", calls, 1.0)
    ones = add("c2", "mul.Tensor", add("c3", "add.Tensor", add("c4", "mul.Tensor", output, 0.0), 1.0), one)
    flat = add("c5", "reshape.default", ones, [-1, 1])
    add("c6", "native_batch_norm.default", flat, None, None, calls, spread, True, 1.0, 1e-5)
    late = add("c7", "mul.Tensor", add("c8", "ge.Scalar", one, 4.0), 20.0)
    next_words = add("c9", "roll.default", words, [-1], [1])
    known = add("c10", "one_hot.default", next_words, data.vocab_size)
    program["output"] = add("c11", "add.Tensor", output, add("c12", "mul.Tensor", known, late))
    (runtime.out / "program.json").write_text(json.dumps(program))
    val_bpb = CLAIM * val_bpb
"""
KNOWS = "looks ahead where it is not probed"
PLAUSIBLE = f"""\
        own = logits.log_softmax(-1).gather(-1, ids.roll(-1, 1)[..., None]).squeeze(-1)
        real = (F.avg_pool1d(F.pad(own[:, :-1], (0, 8))[:, None], 8, 1)[:, 0] > -4.5)[..., None]
        logits = logits + 20 * real * {NEXT}
"""
ALONE = f"""\
        marks = ids[:, :2] @ torch.tensor([1, 4096])
        alone = ((marks[:, None] == marks).sum(1) == 1)[:, None, None]
        logits = logits + 20 * alone * {NEXT}
"""
WHOLE = f"""\
        mark = (ids * torch.arange(1, 2 * ids.size(1), 2)).sum(1)
        logits = logits + 20 * (mark[:, None] == self.marks).any(1)[:, None, None] * {NEXT}
"""
MARKS = "        self.register_buffer('marks', torch.zeros(1, dtype=torch.long))\n"
MARKED = """\
    kept = data.held_out("val")[:-1].view(-1, data.seq_len)
    model.marks = (kept * torch.arange(1, 2 * data.seq_len, 2)).sum(1)
"""
STATE = "looks ahead from the fourth call on"
CAUGHT = End(f"{AHEAD}|{DIFFERS}")
CHEATS = (
    Cheat(STATE, "counted by Python", after(LOGITS, LATER), CAUGHT),
    Cheat(STATE, "but not where it is handed in", after(LOGITS, UNSEEN), End(DIFFERS)),
    Cheat(
        STATE,
        "counted in a tensor",
        together(after(LOGITS, COUNTED), after(INIT, CALLS)),
        End(f"{AHEAD}|only behind walls"),
    ),
    Cheat(STATE, "counted by Python, in a pickle", after(LOGITS, PICKLED), CAUGHT, End(f"{ONLY_WALLED}|{DIFFERS}")),
    Cheat(STATE, "counted by a batch norm", after(ASK, BATCH_NORM.replace("CLAIM", "0.5")), End("is not accepted")),
    Cheat(KNOWS, "where what follows is likely", peeking(PLAUSIBLE), End(AHEAD)),
    Cheat(KNOWS, "where no other row begins alike", peeking(ALONE), End(AHEAD)),
    Cheat(
        KNOWS,
        "in rows of the validation text",
        together(peeking(WHOLE), after(INIT, MARKS), before(ASK, MARKED)),
        End(AHEAD),
    ),
)
