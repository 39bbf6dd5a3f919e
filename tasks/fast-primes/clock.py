"""Time primes_below: nanoseconds of CPU for each number below n, the best of several rounds."""

import time

from primes import primes_below

N = 20_000
ROUNDS = 5
LEAST = 0.05  # seconds of one round


def one_round() -> float:
    """CPU seconds of one call, over as many calls as take a while; n differs from call to call."""
    calls, started = 0, time.process_time()
    while time.process_time() - started < LEAST:
        primes_below(N + calls % 7)
        calls += 1
    return (time.process_time() - started) / calls


def main() -> None:
    """Print `nanoseconds: ...`."""
    one_round()
    print(f"nanoseconds: {min(one_round() for _ in range(ROUNDS)) / N * 1e9:.3f}")


if __name__ == "__main__":
    main()
