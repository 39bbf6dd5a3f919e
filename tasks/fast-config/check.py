"""The gate: the archive gives the log back, is small enough, and damage is noticed."""

from pathlib import Path

from archiver import Config, pack, sample_log, unpack

LARGEST = 0.3  # of the log


def main() -> None:
    """Raise AssertionError where the configuration cannot be used."""
    config, log = Config.read(Path("archive.toml")), sample_log(0.3, seed=7)
    archive = pack(config, log)
    assert unpack(config, archive) == log, "the log does not come back"
    assert len(archive) <= LARGEST * len(log), f"the archive has {len(archive) / len(log):.1%} of the log's size"
    damaged = bytearray(archive)
    damaged[-1] ^= 1
    try:
        unpack(config, bytes(damaged))
    except ValueError:
        print("the archive is sound")
    else:
        raise AssertionError("damage is not noticed")


if __name__ == "__main__":
    main()
