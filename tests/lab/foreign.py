"""Training repositories as others write them, that know nothing of this project."""

ARGPARSE = {
    ".gitignore": "data/\n.venv/\n*.pt\n",
    "requirements.txt": "numpy\n",
    "train.py": """\
import argparse
import csv
import os


def get_args():
    parser = argparse.ArgumentParser(description="Fit a line")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", default="checkpoints")
    return parser.parse_args()


def main():
    args = get_args()
    with open(os.path.join(args.data_dir, "points.csv")) as file:
        rows = [(float(x), float(y)) for x, y in csv.reader(file)]
    slope = 0.0
    for epoch in range(args.epochs):
        for x, y in rows:
            slope -= args.lr * 2 * x * (slope * x - y)
        loss = sum((slope * x - y) ** 2 for x, y in rows) / len(rows)
        print(f"Epoch {epoch + 1}/{args.epochs}  train_loss={loss:.4f}  val_loss={loss:.6f}")
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "best.pt"), "w") as file:
        file.write(str(slope))


if __name__ == "__main__":
    main()
""",
}
"""Options by argparse, data in an ignored folder, checkpoints written beside the script."""
POINTS = "".join(f"{x / 10},{0.3 * x / 10}\n" for x in range(40))

PACKAGE = {
    "pyproject.toml": '[project]\nname = "tinynet"\nversion = "0.1"\n',
    "src/tinynet/__init__.py": "",
    "src/tinynet/model.py": "GAIN = 0.5\n\n\ndef predict(x):\n    return GAIN * x\n",
    "src/tinynet/train.py": """\
import sys

from tinynet.model import predict

if __name__ == "__main__":
    assert "--fast" in sys.argv
    print("epoch,score")
    print({"epoch": 1, "score": 1 - abs(predict(1.0) - 0.8)})
""",
}
"""A package in src, run as a module."""

CONFIGURED = {
    ".gitignore": "outputs/\n",
    "projects/text/train.py": """\
import re
from pathlib import Path

config = dict(re.findall(r"^\\s*(\\w+): ([\\d.]+)$", Path("conf/config.yaml").read_text(), re.M))
Path("outputs").mkdir(exist_ok=True)
Path("outputs/log.txt").write_text("ran")
words = Path("data/words.txt").read_text().split()
perplexity = 100 * abs(float(config["lr"]) - 0.02) + len(words)
print("[2024-05-01 10:00:00,123][__main__][INFO] - done, val perplexity: %.3f" % perplexity)
""",
    "projects/text/conf/config.yaml": "defaults:\n  - _self_\noptim:\n  lr: 0.5\n  batch: 16\n",
    "projects/text/data/words.txt": "one two three\n",
}
"""A script in a subfolder that counts all paths from there, its settings in YAML."""

KERAS = {
    "fit.py": """\
import time

UNITS = 8
EPOCHS = 1000
BEST = 1 - 1 / UNITS
for epoch in range(EPOCHS):
    print(f"Epoch {epoch + 1}/{EPOCHS}")
    for step in range(1, 4):
        print(f"\\r{step}/3 [====>....] - ETA: 0s - loss: 0.9000 - accuracy: 0.5000" + "\\b" * 5, end="")
        time.sleep(0.01)
    print(f"\\r3/3 [======] - 1s 3ms/step - loss: 0.5 - accuracy: 0.9 - val_loss: 0.4 - val_accuracy: {BEST:.4f}")
""",
}
"""A log as Keras writes it, of a training that goes on for ever."""
