"""Train the model on four fifths of the digits, and print its accuracy on the rest. Read-only: it is what scores."""

import os
import time

from model import make_model
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main() -> None:
    """Print `accuracy: ...`; the seed decides on the split."""
    images, digits = load_digits(return_X_y=True)
    seed = int(os.environ.get("SEED", "42"))
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        images, digits, test_size=0.2, stratify=digits, random_state=seed
    )
    started = time.perf_counter()
    model = make_model().fit(seen, seen_digits)
    print(f"fit_seconds: {time.perf_counter() - started:.3f}")
    print(f"accuracy: {model.score(unseen, unseen_digits):.6f}")


if __name__ == "__main__":
    main()
