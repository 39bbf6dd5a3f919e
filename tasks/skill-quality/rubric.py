"""Score a skill between 0 and 100: how much of what makes one usable by an agent is there.

    python rubric.py SKILL.md

Each criterion is worth its points, in part where it is met in part. Failed ones are named, so that a mutator (or an
agent) knows what to work on.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

VAGUE = re.compile(r"\b(maybe|probably|somehow|perhaps|as appropriate|if needed|etc|or so|may want to|might)\b", re.I)
VERBS = {"list", "read", "group", "write", "run", "check", "put", "describe", "name", "ask", "open", "show", "leave"}
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)
MOST_WORDS = 350
LONGEST_SENTENCE = 24  # words


def front(text: str) -> dict[str, str]:
    """The fields of the front matter."""
    found = re.match(r"---\n(.*?)\n---\n", text, re.S)
    return dict(re.findall(r"^(\w+):\s*(.+)$", found[1], re.M)) if found else {}


def section(text: str, *names: str) -> str:
    """What stands below the first heading with one of these names."""
    text = FENCE.sub(lambda block: block[0].replace("\n#", "\n #"), text)  # headings in a block are none of the skill's
    for name in names:
        if found := re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.M | re.S | re.I):
            return found[1].strip()
    return ""


def steps(text: str) -> list[str]:
    """The items of the section on steps."""
    return re.findall(r"^(?:\d+\.|[-*])\s+(.+)$", section(text, "Steps"), re.M)


def sentences(text: str) -> list[str]:
    """The sentences of the prose, without front matter, headings and code."""
    prose = re.sub(r"\A---.*?^---$", "", text, flags=re.M | re.S)
    prose = re.sub(r"^#.*$|`[^`]*`", "", FENCE.sub("", prose), flags=re.M)
    return [each for each in re.split(r"[.!?:]\s|\n\s*(?:[-*]|\d+\.)\s|\n\n", prose) if each.split()]


def share(good: int, of: int) -> float:
    """How much of something is good, from 0 to 1."""
    return good / of if of else 0.0


def says_when(text: str) -> float:
    """The description says what the skill does and when to use it, in 60 to 300 characters."""
    said = front(text).get("description", "")
    return 0.5 * (60 <= len(said) <= 300) + 0.5 * bool(
        re.search(r"\buse (it |this )?(when|before|after)\b", said, re.I)
    )


def has_name(text: str) -> float:
    """The front matter has a name of small letters and hyphens."""
    return float(bool(re.fullmatch(r"[a-z][a-z0-9-]{1,63}", front(text).get("name", ""))))


def numbered(text: str) -> float:
    """The steps are numbered, and there are 3 to 10 of them."""
    body = section(text, "Steps")
    return share(len(re.findall(r"^\d+\.\s", body, re.M)), len(steps(text))) * (3 <= len(steps(text)) <= 10)


def imperative(text: str) -> float:
    """Each step begins with a verb that says what to do."""
    verbs = {
        "list",
        "read",
        "group",
        "write",
        "run",
        "check",
        "put",
        "describe",
        "name",
        "ask",
        "open",
        "show",
        "leave",
    }
    return share(sum(step.split()[0].strip("*`").lower() in verbs for step in steps(text)), len(steps(text)))


def commands_fenced(text: str) -> float:
    """Commands stand in fenced blocks with their language, none in running text."""
    loose = re.findall(r"\bgit (?:log|describe|tag|diff)\b", re.sub(r"`[^`\n]*`", "", FENCE.sub("", text)))
    return float(bool(re.search(r"^ *```(?:sh|bash)$", text, re.M)) and not loose)


def example(text: str) -> float:
    """There is an example of the result."""
    return float(bool(FENCE.search(section(text, "Example", "Examples"))))


def done_when(text: str) -> float:
    """It says how to tell that the work is done, in at least two items that can be checked."""
    return min(1.0, len(re.findall(r"^- ", section(text, "Done when", "Checklist"), re.M)) / 2)


def failures(text: str) -> float:
    """It says what to do where something is missing or goes wrong."""
    return float(len(section(text, "If something is missing", "When it fails").split()) >= 8)


def plain(text: str) -> float:
    """No vague words."""
    return max(0.0, 1 - len(VAGUE.findall(text)) / 4)


def short_sentences(text: str) -> float:
    """Sentences are short."""
    return max(0.0, 1 - sum(len(each.split()) > LONGEST_SENTENCE for each in sentences(text)) / 4)


def brief(text: str) -> float:
    """The whole is brief: an agent reads it each time."""
    return max(0.0, min(1.0, 2 - len(text.split()) / MOST_WORDS))


CRITERIA: dict[Callable[[str], float], int] = {
    has_name: 5,
    says_when: 15,
    numbered: 10,
    imperative: 10,
    commands_fenced: 10,
    example: 15,
    done_when: 10,
    failures: 10,
    plain: 5,
    short_sentences: 5,
    brief: 5,
}


def main(path: str) -> None:
    """Print what each criterion gives, and the score."""
    text = Path(path).read_text(encoding="utf-8")
    points = {criterion: criterion(text) for criterion in CRITERIA}
    for criterion, worth in CRITERIA.items():
        print(f"{criterion.__name__:<16} {worth * points[criterion]:5.1f} of {worth:<3} {criterion.__doc__}")
    print(f"words: {len(text.split())}")
    print(f"failed_criteria: {sum(value < 1 for value in points.values())}")
    print(f"quality: {sum(worth * points[criterion] for criterion, worth in CRITERIA.items()):.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
