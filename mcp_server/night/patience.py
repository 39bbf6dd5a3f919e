"""How long to wait for an agent: before it is started again, and before it is taken to hang."""

from collections.abc import Callable

AT_ONCE = 60.0
"""Seconds: an agent that ends sooner, and has added nothing to the record, failed at once."""
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
"""Seconds. It stays short enough that an hour without network costs minutes more."""


class Backoff:
    """Counts failures in a row, and says how long to wait after each.

    Attributes:
        failures: starts in a row that failed at once.
    """

    def __init__(self) -> None:
        self.failures = 0

    def after(self, fruitful: bool, seconds: float) -> float:
        """Seconds to wait before the next start, after one that lasted `seconds`; `fruitful` if it added anything."""
        if fruitful or seconds >= AT_ONCE:
            self.failures = 0
            return 0.0
        self.failures += 1
        doublings = min(self.failures - 1, 20)  # a float holds no more than a thousand of them
        return float(min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE))


class Pulse:
    """Notices for how long nothing has changed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._signs: object = None
        self._felt = clock()

    def feel(self, signs: object, alive: bool = False) -> float:
        """Seconds since the signs of life were last different, or `alive`."""
        if alive or signs != self._signs:
            self._signs = signs
            self._felt = self._clock()
        return self._clock() - self._felt
