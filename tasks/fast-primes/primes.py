"""Primes, as a list."""

from itertools import compress


def primes_below(n: int) -> list[int]:
    """All primes smaller than `n`, in order."""
    if n < 3:
        return []
    flags = bytearray([1]) * (n // 2)
    for number in range(3, int(n**0.5) + 1, 2):
        if flags[number // 2]:
            flags[number * number // 2 :: number] = bytes(len(range(number * number // 2, n // 2, number)))
    flags[0] = 0
    return [2, *compress(range(1, n, 2), flags)]
