"""Primes, as a list."""


def primes_below(n: int) -> list[int]:
    """All primes smaller than `n`, in order."""
    found: list[int] = []
    for number in range(2, n):
        for prime in found:
            if number % prime == 0:
                break
        else:
            found.append(number)
    return found
