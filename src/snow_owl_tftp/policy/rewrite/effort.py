"""What it takes to match an expression, told by what it is made of.

    nodes ──work_of──► what a match takes, by the bytes that are searched: some microseconds, nearly always the same,
                       but up to a millisecond where groups of an expression such as "^(.{1,200})-(.*)$" are asked for
          ──is_short_row──► whether it is so simple that any search is sure to end soon

May know: nodes. Must not know who matches them.

Invariant: a unit is about half a microsecond (tests/policy/test_rewrite_effort.py holds what a name may take).
"""

from collections.abc import Callable
from typing import Final

from snow_owl_tftp.policy.rewrite.nodes import Alternatives, Assertion, Bytes, Group, Node, Repeat, Sequence

__all__ = ["is_large", "is_short_row", "work_of", "work_of_triggers"]

_PER_KIB: Final = 8
"""For each place: 4 to 5 ns a byte."""
_PER_NEW_STATE: Final = 600
_PER_PLACE: Final = 12
"""Of a byte that leads RE2 to a new state, in 1/1024 of a unit: 0.3 µs, and 6 ns for each place in it."""
_LARGE: Final = 64
"""Places: from 100 on names take 0.1 ms and more where it may begin anywhere."""
_SHORT: Final = 16
"""Bytes in a row: what a search may compare at each byte of a name."""


def work_of(node: Node, groups: int) -> Callable[[int], int]:
    """Return what a match takes.

    Args:
        node: The expression.
        groups: How many of its groups are asked for.

    Returns:
        Returns it, in half a microsecond, for a number of bytes: of the match, and those before it that were searched.
    """
    is_row = is_short_row(node)
    once = (3 + groups) if is_row else (8 + 2 * groups)
    # To find groups RE2 follows every place of the expression at which a byte may be.
    each = _PER_KIB * (max(1, _places_of(node)) if groups and not is_row else 1)
    return lambda searched: once + searched * each // 1024


def work_of_triggers(node: Node) -> Callable[[int, int], int]:
    """Return what a search takes at most that bytes of the name make slow (see `triggers`).

    Returns:
        Returns it, in half a microsecond, for a number of these bytes in a name of so many.
    """
    places = _places_of(node)
    each = _PER_NEW_STATE + places * _PER_PLACE
    # Each of them leads to new states for as long as the expression is under way from it.
    return lambda triggers, length: min(length, triggers * places) * each // 1024


def _places_of(node: Node) -> int:
    match node:
        case Bytes():
            return 1
        case Sequence(items) | Alternatives(items):
            return sum(map(_places_of, items))
        case Repeat(item, low, high):
            return _places_of(item) * max(1, low, high or 0)
        case Group(item):
            return _places_of(item)
        case Assertion():
            return 0


def is_large(node: Node) -> bool:
    """Tell whether its states are too large for many of them to be kept, or for it to stand among others."""
    return _places_of(node) > _LARGE


def is_short_row(node: Node) -> bool:
    """Tell whether an expression is a few bytes one after the other, with nothing that may be longer or shorter."""
    return _is_row(node) and 0 < _places_of(node) <= _SHORT


def _is_row(node: Node) -> bool:
    match node:
        case Bytes():
            return True
        case Sequence(items):
            return all(map(_is_row, items))
        case Group(item):
            return _is_row(item)
    return False
