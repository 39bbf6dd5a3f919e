"""Write a candidate: set one line of archive.toml to another value."""

import os
import random
import re
import tomllib
from pathlib import Path

CONFIG = Path("archive.toml")
VALUES: dict[str, list[str | int | bool]] = {
    "codec": ["zlib", "bz2", "lzma"],
    "level": [1, 2, 3, 4, 6, 9],
    "block_bytes": [4096, 16384, 65536, 262144, 1048576],
    "checksum": ["crc32", "md5", "sha256", "sha512"],
    "strip_repeats": [False, True],
}


def written(value: str | int | bool) -> str:
    """A value as TOML has it."""
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def main() -> None:
    """Draw a setting and a value that it does not have."""
    text = CONFIG.read_text(encoding="utf-8")
    present = tomllib.loads(text)
    choices = [(name, value) for name, values in VALUES.items() for value in values if value != present[name]]
    name, value = random.Random(f"candidate {os.environ.get('AUTORESEARCH_ITERATION', '1')}").choice(choices)
    CONFIG.write_text(re.sub(rf"^{name} = \S+", f"{name} = {written(value)}", text, flags=re.M), encoding="utf-8")
    print(f"hypothesis: {name} {present[name]} -> {value} archives faster")
    print("category: hyperparams")


if __name__ == "__main__":
    main()
