r"""Nodes to the text of an expression for RE2, in which POSIX' rules hold as far as RE2 can keep them.

    nodes ──translate──► b"\\A(?:…)", and which of RE2's groups is which of ours

May know: RE2's syntax. Must not call it.

Invariants:
- Only bytes by their number, sets, groups, counts and four assertions leave here: nothing depends on RE2's options
  for a dot, for case or for lines.
- Of two alternatives that lead to the longest match, both RE2 and glibc prefer the first (POSIX asks for the longer
  one, and glibc does not do it). Where a count is around something that may be empty, they may part it differently.
- Groups that nobody asks for are left out, since to find groups costs more than to find a match.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.brackets import CLASSES
from snow_owl_tftp.policy.rewrite.nodes import (
    ANY,
    Alternatives,
    Assertion,
    Bytes,
    Group,
    Node,
    Repeat,
    Sequence,
)

__all__ = ["translate"]

_ASSERTIONS: Final = {"begin": rb"\A", "end": rb"\z", "word": rb"\b", "not_word": rb"\B"}
_WORD: Final = CLASSES[b"alnum"] | 1 << ord("_")


def translate(node: Node, wanted: Collection[int]) -> tuple[bytes, tuple[int, ...]]:
    r"""Write an expression for RE2 in Latin-1, which is one byte a character.

    Args:
        node: The expression.
        wanted: Numbers of the groups that will be asked for.

    Returns:
        The text; and for each of its groups the number of ours.

    Raises:
        ConfigError: RE2 has no word for a "\<" or "\>" in this place.
    """
    order: list[int] = []
    return _write(node, frozenset(wanted), order), tuple(order)


def _write(node: Node, wanted: frozenset[int], order: list[int]) -> bytes:
    match node:
        case Bytes(mask):
            return _write_set(mask)
        case Assertion(kind):
            if kind not in _ASSERTIONS:
                raise _no_edge()
            return _ASSERTIONS[kind]
        case Sequence(items):
            return b"".join(_write(item, wanted, order) for item in _without_edges(items))
        case Alternatives(items):
            return b"(?:" + b"|".join(_write(item, wanted, order) for item in items) + b")"
        case Repeat(item, low, high):
            return b"(?:" + _write(item, wanted, order) + b")" + _count(low, high)
        case Group(item, number):
            if number not in wanted:
                return b"(?:" + _write(item, wanted, order) + b")"
            order.append(number)
            return b"(" + _write(item, wanted, order) + b")"


def _count(low: int, high: int | None) -> bytes:
    if high is None and low < 2:
        return b"+" if low else b"*"
    if (low, high) == (0, 1):
        return b"?"
    return b"{%d,}" % low if high is None else b"{%d,%d}" % (low, high)


@lru_cache(maxsize=1024)  # 10 µs each, and most are the same few letters
def _write_set(mask: int) -> bytes:
    ranges = []
    start = None
    for byte in range(257):
        if mask >> byte & 1:
            start = byte if start is None else start
        elif start is not None:
            ranges.append((start, byte - 1))
            start = None
    if not ranges:
        return rb"[^\x00-\xff]"
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return rb"\x%02x" % ranges[0][0]
    return b"[" + b"".join(rb"\x%02x-\x%02x" % ends for ends in ranges) + b"]"


def _without_edges(items: tuple[Node, ...]) -> list[Node]:
    r"""Write "\<" and "\>" as "\b", where what stands beside them says which edge of a word it is."""
    told = list(items)
    for at, item in enumerate(items):
        if item == Assertion("word_begin"):
            if not _is_word(items[at + 1 : at + 2]):
                raise _no_edge()
            told[at] = Assertion("word")
        elif item == Assertion("word_end"):
            if at == 0 or not _is_word(items[at - 1 : at]):
                raise _no_edge()
            told[at] = Assertion("word")
    return told


def _is_word(beside: tuple[Node, ...]) -> bool:
    """Whether there is something, and it is a character of a word at both of its ends."""
    if not beside:
        return False
    match beside[0]:
        case Bytes(mask):
            return mask & (ANY & ~_WORD) == 0
        case Repeat(item, low, _):
            return low > 0 and _is_word((item,))
        case Group(item):
            return _is_word((item,))
        case Alternatives(items):
            return all(_is_word((item,)) for item in items)
        case Sequence(items):
            return _is_word(items[:1]) and _is_word(items[-1:])
    return False


def _no_edge() -> ConfigError:
    return ConfigError(r'"\<" and "\>" are known beside a letter, digit or "_" only, as in "\<boot\>"; write "\b"')
