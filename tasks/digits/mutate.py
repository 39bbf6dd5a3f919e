"""Write a candidate: set one constant of model.py to another value that makes sense."""

import os
import random
import re
from pathlib import Path

MODEL = Path("model.py")
VALUES = {
    "SCALING": ['"binary"', '"standard"', '"range"'],
    "CLASSIFIER": ['"neighbours"', '"svm"'],
    "NEIGHBOURS": ["1", "3", "5", "9", "15", "25"],
    "C": ["0.1", "1.0", "3.0", "10.0", "30.0"],
    "GAMMA": ["0.002", "0.01", "0.02", "0.05", "0.2"],
    "THRESHOLD": ["2.0", "4.0", "8.0"],
}
UNUSED = {"neighbours": ("C", "GAMMA"), "svm": ("NEIGHBOURS",)}


def main() -> None:
    """Draw a constant that has an effect, and a value that it does not have."""
    text = MODEL.read_text(encoding="utf-8")
    present = dict(re.findall(r"^([A-Z]+) = (\S+)", text, re.M))
    idle = set(UNUSED[present["CLASSIFIER"].strip('"')])
    if present["SCALING"] != '"binary"':
        idle.add("THRESHOLD")
    choices = [
        (name, value)
        for name, values in VALUES.items()
        for value in values
        if name not in idle and value != present[name]
    ]
    draw = random.Random(int(os.environ.get("AUTORESEARCH_SEED", "1")))
    name, value = draw.choice(choices)
    MODEL.write_text(re.sub(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.M), encoding="utf-8")
    print(f"hypothesis: {name} {present[name]} -> {value} classifies more digits correctly")
    print(f"category: {'architecture' if name == 'CLASSIFIER' else 'hyperparams'}")


if __name__ == "__main__":
    main()
