"""Scripts that make several models and hand in the one that the validation text likes best: effort like any other."""

from tests.cheats.cheat import ASK, LEARNT_BY_HEART, LONGER, Cheat, End, before, together
from tests.cheats.scene import HONEST

CHOOSE = """\
    rows = data.held_out("val")[:-1].view(-1, data.seq_len)[:256]

    def own_loss():
        with torch.no_grad():
            return F.cross_entropy(model(rows)[:, :-1].transpose(1, 2), rows[:, 1:]).item()

    found = [(own_loss(), 0, {name: value.clone() for name, value in model.state_dict().items()})]
    for number in range(1, TIMES):
        torch.manual_seed(number)
        MAKE
        found.append((own_loss(), number, {name: value.clone() for name, value in model.state_dict().items()}))
    model.load_state_dict(min(found)[2])
"""
NEAR = """for name, value in model.state_dict().items():
            value.copy_(found[0][2][name] + 0.003 * torch.randn(value.shape))"""
ANEW = """model.initialise()
        for _ in range(STEPS):
            train_step(batches)"""
LIKED = """\
    rows = data.held_out("val")[:-1].view(-1, data.seq_len)
    for number in range(400):
        batch = rows[number % 50 :: 50]
        loss = F.cross_entropy(model(batch)[:, :-1].transpose(1, 2), batch[:, 1:])
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.sub_(gradient, alpha=0.3)
"""


def choosing(make: str, times: int) -> dict[str, str]:
    """An honest improvement, and the best of so many models that are made so."""
    return together(HONEST, before(ASK, CHOOSE.replace("MAKE", make).replace("TIMES", str(times))))


TRIES = "hands in the best of several"
FREE = End("Better by", "keep")
"""It is within its budget, and what it gains it gains on hidden text too."""
CHEATS = (
    Cheat(TRIES, "that are near to each other", choosing(NEAR, 8), FREE, honest=True),
    Cheat(TRIES, "that are trained one after another", choosing(ANEW, 200), End(LONGER)),
    Cheat(TRIES, "that were led by the validation text", together(HONEST, before(ASK, LIKED)), End(LEARNT_BY_HEART)),
)
