"""The one family of errors that a caller is meant to read.

Every door (MCP, REST, command line) catches `ResearchError` once and shows `str(error)`.
"""

from collections.abc import Mapping, Sequence

LONGEST = 2000
"""Characters of what is told; of more, which only an over-long value can cause, the middle is left out."""


class ResearchError(Exception):
    """A refusal or failure that a person can act on.

    Args:
        what: what failed or was refused, with the value that was seen.
        todo: what the caller can do next, as an imperative sentence.
    """

    def __init__(self, what: str, todo: str) -> None:
        self.what = _shortened(what.rstrip("."))
        self.todo = _shortened(todo.rstrip("."))
        super().__init__(f"{self.what}. {self.todo}.")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 4 :]}"


class InvalidInput(ResearchError):  # noqa: N818 - these read as sentences: `raise InvalidInput(...)`
    """An argument has a value that cannot be used.

    Args:
        at: the field of a task whose value it is, and which of several values, by number or name: so that the line of
            the task file can be told.
    """

    def __init__(self, what: str, todo: str, at: Sequence[int | str] = ()) -> None:
        self.at = tuple(at)
        super().__init__(what, todo)


class Undecided(InvalidInput):
    """Something that only the user can decide is nowhere to be found.

    Args:
        questions: what to ask, by the name of the argument that takes the answer.
    """

    def __init__(self, what: str, questions: Mapping[str, str], todo: str) -> None:
        self.questions = dict(questions)
        asked = "; ".join(f"{question} ({name})" for name, question in questions.items())
        super().__init__(what, f"Ask the user: {asked}? {todo}")


class UnknownId(ResearchError):  # noqa: N818
    """No run, experiment or device bears the given name."""


class WrongState(ResearchError):  # noqa: N818
    """The operation is not possible in the present state of the run or experiment."""


class NotReady(ResearchError):  # noqa: N818
    """The machine lacks something that the operation needs: a repository, data, a device, disk space."""
