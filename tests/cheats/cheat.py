"""What a cheat is: a way to be kept for what was not done, with how it ends and what a person is told of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.cheats.scene import Edits, Outcome, Scene

Deed = Callable[[Scene], Awaitable[Outcome]]
"""What an agent does where one edit of the script is not all of it; the last experiment's outcome."""

IMPORTS = "import json\n"
FIRST = "import prepare  # first: torch reads the environment that it sets\n"
INIT = "        self.initialise()\n"
LOGITS = "        logits: Tensor = self.head(norm(x)).float()\n"
BATCHES = "    batches = prepare.batches(data, recipe.rows, runtime)\n"
CLOCK = "    clock = prepare.BudgetClock(runtime)\n"
ASK = "    val_bpb = prepare.evaluate(forward, data, runtime)\n"
LAST = "    prepare.run(main)\n"
"""Lines of the script, from first to last, that cheats add to."""

DIFFERS = r"rejected .*the training printed val_bpb \S+, and the model that it handed in scores"
AHEAD = "looks ahead|keeps state, or sees other rows"
LEARNT_BY_HEART = r"on hidden text by \S+ (± \S+ )?only|on the audit data, which no training sees, by .* only"
LONGER = r"rejected .*more effort: .*its budget is \d s"
ONLY_WALLED = "rejected .*imported only behind walls"
READ_ONLY = "Read-only file system"
NOT_THERE = "No such file or directory|unable to open database file"
"""What a person is told."""


@dataclass(frozen=True)
class End:
    """How a cheat ends.

    Attributes:
        told: what the reason of its verdict says, as a regular expression.
        status: what it ends as.
        claims: whether it gets as far as printing a better score than the baseline's.
    """

    told: str
    status: str = "discard"
    claims: bool = True


def stopped(told: str) -> End:
    """The end of a cheat that walls stop before it prints a score."""
    return End(told, "crash", claims=False)


@dataclass(frozen=True)
class Cheat:
    """One form of a kind of cheat.

    Attributes:
        kind: what it does.
        form: how it does that.
        edits: what it changes of the baseline's script, where that is all.
        walled: how it ends behind walls.
        open: how it ends without; by default the same.
        deed: what an agent does in place of editing.
        honest: it has an honest improvement beside it, for which, and for no more, it may be kept.
        harms: the data of all are changed where there are no walls, and the user must prepare them again.
        hole: why it is not defended without walls; empty where it is.
    """

    kind: str
    form: str
    edits: Edits
    walled: End
    open: End | None = None
    deed: Deed | None = None
    honest: bool = False
    harms: bool = False
    hole: str = ""

    @property
    def name(self) -> str:
        """Kind and form."""
        return f"{self.kind}: {self.form}"

    def behind(self, walls: bool) -> End:
        """How it ends with walls or without."""
        return self.walled if walls or self.open is None else self.open

    async def attempt(self, scene: Scene) -> Outcome:
        """What becomes of it."""
        return await (self.deed(scene) if self.deed else scene.attempt(self.edits))


def before(line: str, code: str) -> dict[str, str]:
    """An edit that puts code before a line."""
    return {line: code + line}


def after(line: str, code: str) -> dict[str, str]:
    """An edit that puts code behind a line."""
    return {line: line + code}


def together(*edits: Mapping[str, str]) -> dict[str, str]:
    """Edits of different lines, or of one line, in which case each adds to what the earlier ones made of it."""
    made: dict[str, str] = {}
    for edit in edits:
        for line, new in edit.items():
            made[line] = made.get(line, line).replace(line, new)
    return made
