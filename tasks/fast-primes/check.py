"""The gate: primes_below must be right at small and large numbers, by a definition that shares no code with it."""

import random

from primes import primes_below


def is_prime(number: int) -> bool:
    """Whether a number is prime, by trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def main() -> None:
    """Raise AssertionError at the first number for which the answer is wrong."""
    for n in [*range(-2, 130), 168, 169, 170, 961, 962, 1000, 2209, 2210, 5000]:
        expected = [number for number in range(max(n, 0)) if is_prime(number)]
        assert primes_below(n) == expected, f"primes_below({n}) is wrong"
    for n in random.sample(range(5000, 20000), 3):  # not to be learnt by heart
        expected = [number for number in range(n) if is_prime(number)]
        assert primes_below(n) == expected, f"primes_below({n}) is wrong"
    first, second = primes_below(50), primes_below(50)
    assert first is not second, "it returns one and the same list each time"
    print("primes_below is right")


if __name__ == "__main__":
    main()
