"""Block numbers: the 16 bits on the wire against the unbounded block_index.

Only this module turns one into the other. `block` is what stands in DATA and ACK (RFC 1350 section 5); `block_index`
counts 1, 2, 3 … without end, and 0 is the OACK or the ACK 0 that stands before the data. RFC 1350 does not say what
follows block 65535: nearly everybody goes on with 0, some old servers with 1.

Pure functions over plain numbers; the engine's `_engine/seq.pxd` is the same in native code.
"""

from enum import IntEnum
from typing import Final

__all__ = ["Rollover", "block_of", "distance", "index_from"]

_NUMBERS: Final = 65536


class Rollover(IntEnum):
    """What follows block 65535 on the wire."""

    TO_0 = 0
    TO_1 = 1


def block_of(block_index: int, rollover: Rollover = Rollover.TO_0) -> int:
    """Returns the number that stands on the wire for `block_index` (>= 0)."""
    if rollover is Rollover.TO_1 and block_index >= _NUMBERS:
        return (block_index - 1) % (_NUMBERS - 1) + 1
    return block_index % _NUMBERS


def index_from(reference: int, block: int) -> int:
    """Returns the first block_index at or after `reference` (>= 0) whose number is `block`, with rollover to 0."""
    return reference + distance(block, block_of(reference))


def distance(block: int, reference: int) -> int:
    """Returns how far `block` stands after `reference` on the circle of 65536 numbers."""
    return (block - reference) % _NUMBERS
