"""How many lines of one kind are written in a second, whoever causes them; the others are counted.

May know the clock. Must not know what the lines say.

Invariant: every line that was asked for is granted or counted, and every count is told once.
"""

import time
from collections.abc import Callable

__all__ = ["LineBudget"]


class LineBudget:
    """A number of lines for each second.

    Attributes:
        left_out: Lines that were not granted, and of which nobody was told yet.
    """

    def __init__(self, lines_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a whole second's worth.

        Args:
            lines_per_s: Granted in each second.
            clock: Seconds, from any beginning.
        """
        self._lines_per_s = lines_per_s
        self._clock = clock
        self._began_s = self._settled_s = clock()
        self._granted = 0
        self.left_out = 0

    def grants(self) -> bool:
        """Whether one more line may be written; if not it is counted."""
        if self._granted >= self._lines_per_s and self._clock() - self._began_s >= 1:
            self._began_s = self._clock()
            self._granted = 0
        if self._granted >= self._lines_per_s:
            self.left_out += 1
            return False
        self._granted += 1
        return True

    def settle(self, *, at_once: bool = False) -> int:
        """Return how many were left out, for whoever tells it, not more than once a second; 0: nothing to tell.

        Args:
            at_once: However soon: nobody will ask again.
        """
        if not self.left_out or (self._clock() - self._settled_s < 1 and not at_once):
            return 0
        self._settled_s = self._clock()
        count, self.left_out = self.left_out, 0
        return count
