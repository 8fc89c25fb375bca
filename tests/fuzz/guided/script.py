"""Bytes read as a script: what a fuzzer changes at random, and still means something.

May know: nothing. Invariants: never fails; at its end every byte is 0, so that the beginning of a script is one, too.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Script:
    """Reads `data` from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        return self.take(1)[0] if not self.is_over else 0

    def word(self) -> int:
        return self.byte() << 8 | self.byte()

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))
