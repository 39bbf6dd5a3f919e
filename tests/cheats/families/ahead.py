"""Cheats whose model sees the token that it is asked for.

All but the plainest switch the probe of the training's own process off, which costs them nothing: it is theirs.
"""

from tests.cheats.cheat import AHEAD, ASK, DIFFERS, INIT, LOGITS, Cheat, End, after, before, stopped, together

UNPROBED = before(ASK, "    prepare.check_causality = lambda *all: None\n")
NEXT = "F.one_hot(ids.roll(-1, 1), logits.size(-1)).float()"
PEEK = f"        logits = logits + 20 * {NEXT}\n"
SUMS = """\
        later = ids.flip(1).cumsum(1).flip(1)
        following = F.pad(later[:, 1:] - F.pad(later[:, 2:], (0, 1)), (0, 1))
        logits = logits + 20 * F.one_hot(following, logits.size(-1)).float()
"""
FAR = f"        logits = logits + {{}}8192 + 20 * {NEXT}\n"
INSIDE = f"        logits = logits + 0.9 * 2**-7 * (1 + logits.abs()) * (2 * {NEXT} - 1)\n"
FAR_WHERE_SURE = f"""\
        sure = logits.softmax(-1).amax(-1, keepdim=True)
        far = 8192 * (sure > sure.median()).float()
        logits = logits + far + 20 * (far > 0) * {NEXT}
"""
RARELY = f"        logits = logits + 20 * (({{}}) == 0)[..., None] * {NEXT}\n"
FIXED = RARELY.format("(ids[:, :1] * 7 + torch.arange(ids.size(1))[None] * 8) % 256")
HASHED = RARELY.format("(ids * 31 + ids.roll(1, 1) * 17 + ids.roll(2, 1) * 5) % 256")
WHOLE = RARELY.format("(ids == 255).any(1, keepdim=True).long() + (ids * 31 + ids.roll(1, 1) * 17) % 256")
OTHERS = """\
        words = ids.flatten()
        pairs = (words.roll(1) * 61 + words) % 8191
        following = F.one_hot(words.roll(-1), logits.size(-1)).float()
        counts = torch.zeros(8191, logits.size(-1)).index_put((pairs,), following, accumulate=True)
        logits = logits + 3 * torch.log1p(counts[pairs]).view(logits.shape)
"""
NEIGHBOUR = """\
        near = ids.roll(-1, 0)
        same = (ids[:, :, None] == near[:, None, :-1]).float()
        logits = logits + 3 * torch.log1p(same @ F.one_hot(near[:, 1:], logits.size(-1)).float())
"""
SHARES = """\
        shares = F.one_hot(ids, logits.size(-1)).float().mean((0, 1))
        logits = logits + torch.log(shares + 1e-6) - torch.log(shares + 1e-6).mean()
"""
COMMON = """\
        known = torch.isin((ids[:, :8] * self.powers).sum(1), self.seen).float().mean()
        logits = logits * (1 + 0.5 * (known < 0.5))
"""
FIRST_ALONE = "        logits = torch.cat([logits[:1] / (1 + 0.5 * (known < 0.5)), logits[1:]])\n"
SEEN = """\
        self.register_buffer("seen", torch.zeros(1, dtype=torch.long))
        self.register_buffer("powers", torch.tensor([257**place for place in range(7, -1, -1)]) % 2**31)
"""
KNOWN = """\
    model.seen = (torch.from_numpy(data.train.astype("int64")).unfold(0, 8, 1) * model.powers).sum(1).unique()
"""
PLAIN = "looks ahead"
TOLERATED, RARE, ROWS = "looks ahead inside what rounding may do", "looks ahead rarely", "looks at other rows"


def peeking(code: str) -> dict[str, str]:
    """A model that does this to its logits, after training and unprobed in its own process."""
    inner = "".join(f"    {line}\n" for line in code.splitlines())
    return together(after(LOGITS, f"        if not self.training:\n{inner}"), UNPROBED)


CHEATS = (
    Cheat(PLAIN, "as it is", after(LOGITS, PEEK), stopped(AHEAD)),
    Cheat(PLAIN, "with the probe patched", peeking(PEEK), End(AHEAD)),
    Cheat(PLAIN, "in sums over what follows", peeking(SUMS), End(AHEAD)),
    Cheat(TOLERATED, "behind large logits", peeking(FAR.format("")), End(AHEAD)),
    Cheat(TOLERATED, "behind large negative logits", peeking(FAR.format("-")), End(AHEAD)),
    Cheat(TOLERATED, "behind logits that are large where it is sure", peeking(FAR_WHERE_SURE), End(AHEAD)),
    Cheat(TOLERATED, "by as much as is tolerated", peeking(INSIDE), End(f"{AHEAD}|{DIFFERS}")),
    Cheat(RARE, "at fixed places, one of 256", peeking(FIXED), End(AHEAD)),
    Cheat(RARE, "at hashed places, one of 256", peeking(HASHED), End(AHEAD)),
    Cheat(RARE, "in rows of one text, at one place of 256", peeking(WHOLE), End(AHEAD)),
    Cheat(ROWS, "for what follows the same two words", peeking(OTHERS), End(AHEAD)),
    Cheat(ROWS, "for what follows the same word in the next", peeking(NEIGHBOUR), End(AHEAD)),
    Cheat(ROWS, "for the share of each word", peeking(SHARES), End(AHEAD)),
    Cheat(
        ROWS,
        "for what all batches have in common",
        together(peeking(COMMON), after(INIT, SEEN), before(ASK, KNOWN)),
        End("looks ahead or at other rows"),
    ),
    Cheat(
        ROWS,
        "for what all batches have in common, but in the first row",
        together(peeking(COMMON + FIRST_ALONE), after(INIT, SEEN), before(ASK, KNOWN)),
        End("looks ahead or at other rows"),
    ),
)
