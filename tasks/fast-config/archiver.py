"""A small archiver of logs: blocks of lines, each compressed by itself and followed by its checksum."""

import bz2
import hashlib
import lzma
import struct
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path

CODECS = ("zlib", "bz2", "lzma")
LONGEST_SHARED = 200
CHECKSUMS = ("crc32", "md5", "sha256", "sha512")


@dataclass(frozen=True)
class Config:
    """What archive.toml says; raises ValueError where it says what cannot be."""

    codec: str
    level: int
    block_bytes: int
    checksum: str
    strip_repeats: bool

    def __post_init__(self) -> None:
        if self.codec not in CODECS or self.checksum not in CHECKSUMS:
            raise ValueError(f"codec {self.codec!r} or checksum {self.checksum!r} is unknown")
        if not (0 if self.codec == "lzma" else 1) <= self.level <= 9:
            raise ValueError(f"level {self.level} is none of {self.codec}")
        if not 256 <= self.block_bytes <= 1 << 24:
            raise ValueError(f"block_bytes {self.block_bytes} is not between 256 and 16777216")

    @classmethod
    def read(cls, path: Path) -> "Config":
        """The configuration in a file."""
        return cls(**tomllib.loads(path.read_text(encoding="utf-8")))


def compressed(config: Config, block: bytes) -> bytes:
    """A block by the codec."""
    if config.codec == "zlib":
        return zlib.compress(block, config.level)
    if config.codec == "bz2":
        return bz2.compress(block, config.level)
    return lzma.compress(block, preset=config.level)


def expanded(config: Config, block: bytes) -> bytes:
    """What was compressed."""
    return {"zlib": zlib, "bz2": bz2, "lzma": lzma}[config.codec].decompress(block)  # type: ignore[attr-defined]


def checksum(config: Config, block: bytes) -> bytes:
    """What a damaged block is known by."""
    if config.checksum == "crc32":
        return struct.pack("<I", zlib.crc32(block))
    return hashlib.new(config.checksum, block).digest()


def stripped(lines: bytes) -> bytes:
    """Each line as a byte that counts what it shares with the line before, and the rest."""
    before, out = b"", []
    for line in lines.split(b"\n"):
        pairs = enumerate(zip(line[:LONGEST_SHARED], before, strict=False))
        shared = next(
            (place for place, (one, other) in pairs if one != other), min(len(line), len(before), LONGEST_SHARED)
        )
        out.append(bytes([32 + shared]) + line[shared:])  # no count is a newline
        before = line
    return b"\n".join(out)


def unstripped(text: bytes) -> bytes:
    """What `stripped` was given."""
    before, lines = b"", []
    for line in text.split(b"\n"):
        before = before[: line[0] - 32] + line[1:]
        lines.append(before)
    return b"\n".join(lines)


def pack(config: Config, log: bytes) -> bytes:
    """The archive of a log."""
    out = bytearray()
    for start in range(0, len(log), config.block_bytes):
        block = log[start : start + config.block_bytes]
        packed = compressed(config, stripped(block) if config.strip_repeats else block)
        out += struct.pack("<I", len(packed)) + packed + checksum(config, block)
    return bytes(out)


def unpack(config: Config, archive: bytes) -> bytes:
    """The log of an archive; raises ValueError where a block is damaged."""
    out, place = bytearray(), 0
    size = len(checksum(config, b""))
    while place < len(archive):
        (length,) = struct.unpack_from("<I", archive, place)
        packed, place = archive[place + 4 : place + 4 + length], place + 4 + length
        block = expanded(config, packed)
        block = unstripped(block) if config.strip_repeats else block
        if checksum(config, block) != archive[place : place + size]:
            raise ValueError("a block is damaged")
        out, place = out + block, place + size
    return bytes(out)


def sample_log(megabytes: float, seed: int) -> bytes:
    """A web server's log, as if written by one."""
    import random

    draw, lines, size, moment = random.Random(seed), [], 0, 1_700_000_000.0
    paths = [f"/api/v{1 + i % 3}/{name}/{i}" for i, name in enumerate(["users", "orders", "items", "search"] * 30)]
    while size < megabytes * 1e6:
        moment += draw.expovariate(50)
        status = draw.choices([200, 304, 404, 500], [90, 6, 3, 1])[0]
        line = f"{moment:.3f} 10.0.{draw.randrange(8)}.{draw.randrange(256)} GET {draw.choice(paths)} {status}"
        line += f" {draw.randrange(200, 9000)} {draw.expovariate(20):.4f}"
        lines.append(line.encode())
        size += len(line) + 1
    return b"\n".join(lines)
