"""What a regular expression is made of, once it has been read.

    text ─ere─► nodes ─translate─► text for RE2

May know: bytes. Must not know any syntax.

Invariant: a node never changes; `Bytes.mask` has bit N set where byte N matches.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["ANY", "Alternatives", "Assertion", "Bytes", "Group", "Node", "Repeat", "Sequence", "mask_of"]

ANY: Final = (1 << 256) - 1
"""Every byte: a dot of POSIX matches line ends too."""

AssertionKind: TypeAlias = Literal["begin", "end", "word", "not_word", "word_begin", "word_end"]


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte out of a set."""

    mask: int


@dataclass(frozen=True, slots=True)
class Assertion:
    """A place, without a byte: the begin of the name, a word's, …"""

    kind: AssertionKind


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; none: the empty text."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One of these."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`low` to `high` times; None: without end."""

    item: "Node"
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """What a replacement may name by its number, from 1 on, in the order of the opening parentheses."""

    item: "Node"
    number: int


Node: TypeAlias = Bytes | Assertion | Sequence | Alternatives | Repeat | Group


def mask_of(characters: bytes) -> int:
    """Return the set of these bytes."""
    mask = 0
    for byte in characters:
        mask |= 1 << byte
    return mask
