"""Write a candidate: one rewriting of primes.py a call. Some are faster, some slower, and one is fast and wrong."""

import os
from pathlib import Path

HEAD = '''"""Primes, as a list."""


def primes_below(n: int) -> list[int]:
    """All primes smaller than `n`, in order."""
'''
BODIES = {
    "Stop dividing at the square root": """\
    found: list[int] = []
    for number in range(2, n):
        for prime in found:
            if prime * prime > number:
                found.append(number)
                break
            if number % prime == 0:
                break
        else:
            found.append(number)
    return found
""",
    "Let Fermat's little theorem decide, for two bases": """\
    return [number for number in range(2, n) if all(pow(base, number, number) == base % number for base in (2, 3))]
""",
    "Divide by odd numbers alone": """\
    found = [2] if n > 2 else []
    for number in range(3, n, 2):
        for prime in found:
            if number % prime == 0:
                break
        else:
            found.append(number)
    return found
""",
    "Cross out multiples in a list of flags": """\
    flags = [True] * max(n, 0)
    flags[:2] = [False] * len(flags[:2])
    for number in range(2, int(max(n, 0) ** 0.5) + 1):
        if flags[number]:
            for multiple in range(number * number, n, number):
                flags[multiple] = False
    return [number for number, prime in enumerate(flags) if prime]
""",
    "Test each number by all smaller ones in one expression": """\
    return [number for number in range(2, n) if all(number % other for other in range(2, int(number**0.5) + 1))]
""",
    "Cross out multiples by slices of a bytearray": """\
    flags = bytearray([1]) * max(n, 0)
    flags[:2] = bytes(len(flags[:2]))
    for number in range(2, int(max(n, 0) ** 0.5) + 1):
        if flags[number]:
            flags[number * number :: number] = bytes(len(range(number * number, n, number)))
    return [number for number, prime in enumerate(flags) if prime]
""",
    "Keep flags for odd numbers alone, and pick with compress": """\
    if n < 3:
        return []
    flags = bytearray([1]) * (n // 2)
    for number in range(3, int(n**0.5) + 1, 2):
        if flags[number // 2]:
            flags[number * number // 2 :: number] = bytes(len(range(number * number // 2, n // 2, number)))
    flags[0] = 0
    return [2, *compress(range(1, n, 2), flags)]
""",
}


def main() -> None:
    """Write the body whose turn it is."""
    turn = int(os.environ.get("AUTORESEARCH_ITERATION", "1")) - 1
    idea = list(BODIES)[turn % len(BODIES)]
    text = HEAD + BODIES[idea]
    if "compress(" in text:
        text = text.replace('list."""\n', 'list."""\n\nfrom itertools import compress\n', 1)
    Path("primes.py").write_text(text, encoding="utf-8")
    print(f"hypothesis: {idea}")


if __name__ == "__main__":
    main()
