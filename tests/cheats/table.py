"""All cheats: the kinds of the families, with three forms or more each, and the first form of each kind."""

from itertools import groupby

from tests.cheats.cheat import Cheat
from tests.cheats.families import (
    ahead,
    belongings,
    channels,
    choosing,
    effort,
    handed_in,
    heart,
    hidden,
    judge,
    later,
    score,
    server,
    state,
    trying,
)

FAMILIES = (
    score,
    ahead,
    state,
    heart,
    hidden,
    judge,
    effort,
    later,
    trying,
    channels,
    choosing,
    belongings,
    handed_in,
    server,
)
CHEATS = tuple(cheat for family in FAMILIES for cheat in family.CHEATS)
KINDS: dict[str, list[Cheat]] = {name: list(forms) for name, forms in groupby(CHEATS, lambda cheat: cheat.kind)}
FIRST_FORMS = [forms[0] for forms in KINDS.values()]
