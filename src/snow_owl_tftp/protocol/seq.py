"""Block numbers: the 16 bits on the wire against the unbounded block_index.

Only this module turns one into the other. `block` is what stands in DATA and ACK (RFC 1350 section 5); `block_index`
counts 1, 2, 3 … without end, and 0 is the OACK or the ACK 0 that stands before the data. RFC 1350 does not say what
follows block 65535: nearly everybody goes on with 0, some old servers with 1.

Pure functions over plain numbers; the engine's `_engine/protocol/seq.pxd` is the same in native code.
"""

from enum import IntEnum
from typing import Final

__all__ = ["MAX_WINDOWSIZE_TO_1_BLOCKS", "Rollover", "ahead_of", "block_of", "index_from"]

_NUMBERS: Final = 65536

MAX_WINDOWSIZE_TO_1_BLOCKS: Final = 65534
"""With rollover to 1 there are 65535 numbers, and one must be left for the block before the window."""


class Rollover(IntEnum):
    """What follows block 65535 on the wire."""

    TO_0 = 0
    TO_1 = 1


def block_of(block_index: int, rollover: Rollover = Rollover.TO_0) -> int:
    """Returns the number that stands on the wire for `block_index` (>= 0)."""
    if rollover is Rollover.TO_1 and block_index >= _NUMBERS:
        return (block_index - 1) % (_NUMBERS - 1) + 1
    return block_index % _NUMBERS


def index_from(reference: int, block: int, rollover: Rollover = Rollover.TO_0) -> int:
    """Returns the first block_index at or after `reference` (>= 0) whose number is `block`.

    With rollover to 1 no block behind the first lap has number 0: it is placed beyond every window.
    """
    return reference + _steps(block, reference, rollover)


def ahead_of(expected: int, block: int, rollover: Rollover = Rollover.TO_0) -> int:
    """Returns how far `block` stands after the block_index `expected` (>= 1); 65535: it is the one before."""
    steps = _steps(block, expected, rollover)
    return _NUMBERS - 1 if rollover is Rollover.TO_1 and steps == _NUMBERS - 2 else steps


def _steps(block: int, block_index: int, rollover: Rollover) -> int:
    """From block_index on to the next one with number `block`."""
    if rollover is Rollover.TO_0 or block_index == 0:
        return (block - block_of(block_index)) % _NUMBERS
    if block == 0:
        return _NUMBERS  # only the ACK before the data has it: no window reaches so far
    return (block - block_of(block_index, rollover)) % (_NUMBERS - 1)
