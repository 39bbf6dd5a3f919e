"""Write a candidate: one edit of SKILL.md a call, the next of a list that still changes something.

A stand-in for a language model: it knows some good edits and some bad ones, and not which are which. To use a model
instead, see docs/tasks.md.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

SKILL = Path("SKILL.md")

LISTING = """\
List the commits since the last tag:

   ```sh
   git log --oneline "$(git describe --tags --abbrev=0)"..HEAD
   ```
"""
EXAMPLE = """
## Example

```markdown
## 1.4.0

### Changed
- `load()` reads files of any size. Code that caught `MemoryError` can drop it.
```
"""
DONE = """
## Done when

- Every commit of the listing is in the notes or was left out for a reason.
- Each change that breaks something says what to do about it.
"""
MISSING = """
## If something is missing

Without any tag, list all commits. Without a CHANGELOG.md, make one. Where a commit says too little, read its diff.
"""
BOAST = """
## Why this skill

Great release notes are the hallmark of a great project. They may be the first thing that people read, and perhaps the
last. They should be as good as they can be, in every way that matters, as appropriate to the occasion and the audience.
"""


def describe(text: str) -> str:
    """Say what it does and when to use it."""
    said = (
        "Writes the release notes of a version from its commits. Use when a version is about to be tagged or published."
    )
    return re.sub(r"^description:.*$", f"description: {said}", text, flags=re.M)


def number(text: str) -> str:
    """Number the steps."""
    head, mark, rest = text.partition("## Steps\n")
    body, following, tail = rest.partition("\n## ")
    count = iter(range(1, 100))
    return head + mark + re.sub(r"^- ", lambda _: f"{next(count)}. ", body, flags=re.M) + following + tail


def command(text: str) -> str:
    """Put the command of the first step into a block."""
    return re.sub(r"you may want to look at the commits.*\n", lambda _: LISTING, text)


def verbs(text: str) -> str:
    """Begin each step with what to do."""
    for old, new in (
        (r"maybe group the commits somehow", "Group them: added, changed, fixed, removed."),
        (r"each change should be described in a sentence.*", "Describe each change in one sentence for its users."),
        (r"the file CHANGELOG\.md gets the text", "Write the text at the top of CHANGELOG.md."),
    ):
        text = re.sub(old, new, text)
    return text


def shorten(text: str) -> str:
    """Cut the introduction to what it says."""
    return re.sub(r"^This skill helps .*$", "Tell the users of a project what a new version changes.", text, flags=re.M)


def append(part: str, doc: str) -> Callable[[str], str]:
    """An edit that adds a section, if it is not there."""

    def edit(text: str) -> str:
        return text if part in text else text.rstrip("\n") + "\n" + part

    edit.__doc__ = doc
    return edit


IDEAS = (
    describe,
    append(BOAST, "Tell why release notes matter."),
    number,
    append(EXAMPLE, "Show an example of the result."),
    verbs,
    append(DONE, "Say when the work is done."),
    command,
    append(MISSING, "Say what to do where something is missing."),
    shorten,
)


def main() -> None:
    """Take the idea whose turn it is; of those that change nothing any more, the next."""
    text = SKILL.read_text(encoding="utf-8")
    turn = int(os.environ.get("AUTORESEARCH_ITERATION", "1")) - 1
    for idea in (IDEAS[(turn + offset) % len(IDEAS)] for offset in range(len(IDEAS))):
        if idea(text) != text:
            SKILL.write_text(idea(text), encoding="utf-8")
            print(f"hypothesis: {idea.__doc__}")
            return
    raise SystemExit("no idea is left")


if __name__ == "__main__":
    main()
