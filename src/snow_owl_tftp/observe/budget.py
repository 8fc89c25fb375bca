"""How many lines of one kind are written in a second and in a minute, whoever causes them; the others are counted.

May know the clock. Must not know what the lines say.

Invariant: every line that was asked for is granted or counted, and every count is told once.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["LineBudget"]

_SECONDS_WORTH_A_MINUTE: Final = 10
"""A burst is told in full; a flood that lasts must not fill the disk, 200 long lines in each second of a day."""


class LineBudget:
    """A number of lines for each second.

    Attributes:
        left_out: Lines that were not granted, and of which nobody was told yet.
    """

    def __init__(self, lines_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a whole second's worth.

        Args:
            lines_per_s: Granted in each second, and ten times as many in each minute.
            clock: Seconds, from any beginning.
        """
        self._clock = clock
        self._second = _Window(1, lines_per_s, clock())
        self._minute = _Window(60, lines_per_s * _SECONDS_WORTH_A_MINUTE, clock())
        self._settled_s = clock()
        self.left_out = 0

    def grants(self) -> bool:
        """Whether one more line may be written; if not it is counted."""
        if not (self._second.has_room(self._clock) and self._minute.has_room(self._clock)):
            self.left_out += 1
            return False
        self._second.granted += 1
        self._minute.granted += 1
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


class _Window:
    """A span of time and what was granted in it; the next one begins with the first line behind it."""

    __slots__ = ("_began_s", "_lines", "_seconds", "granted")

    def __init__(self, seconds: int, lines: int, now_s: float) -> None:
        self._seconds = seconds
        self._lines = lines
        self._began_s = now_s
        self.granted = 0

    def has_room(self, clock: Callable[[], float]) -> bool:
        if self.granted >= self._lines and clock() - self._began_s >= self._seconds:
            self._began_s = clock()
            self.granted = 0
        return self.granted < self._lines
