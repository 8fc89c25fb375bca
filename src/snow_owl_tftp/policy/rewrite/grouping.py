"""Which expressions RE2 may look for in one pass without being slow for any name.

    nodes ──groups_of──► lists of indices, each for one set

RE2 makes a state for each combination of how far each expression of a set has come, and keeps it. Texts make few.
An expression that takes any byte for as long as it likes, and then wants something (`.*x.*y`), is at all its places at
once; 200 of these in one set make a new state at nearly every byte of a name made for that, and take 2.7 ms for a name
of 500 bytes, where 50 sets of four take 0.4 ms (benchmarks/rewriting.py).

May know: nodes. Must not know RE2.

Invariant: every expression is in one group, whatever is guessed about it here; only the time depends on that.
"""

from collections.abc import Sequence as Items
from typing import Final

from snow_owl_tftp.policy.rewrite.nodes import Alternatives, Assertion, Bytes, Group, Node, Repeat, Sequence

__all__ = ["groups_of"]

_MAX_WILD: Final = 4
_WIDE_BYTES: Final = 16
"""A set of more bytes than that, repeated, takes nearly anything; [0-9] and [0-9a-f] do not."""
_LONG: Final = 8


def groups_of(nodes: Items[Node]) -> list[list[int]]:
    """Return groups of indices; together they are all of them, and none is empty."""
    groups: list[list[int]] = [[at for at, node in enumerate(nodes) if not _is_wild(node, is_last=True)]]
    wild = sorted((_guard(node), at) for at, node in enumerate(nodes) if _is_wild(node, is_last=True))
    chain: list[bytes] = []  # of those that can be under way where this one is: each begins the next
    for guard, at in wild:
        while chain and not guard.startswith(chain[-1]):
            chain.pop()
        group = 1 + len(chain) // _MAX_WILD
        if group == len(groups):
            groups.append([])
        groups[group].append(at)
        chain.append(guard)
    return [group for group in groups if group]


def _is_wild(node: Node, *, is_last: bool) -> bool:
    match node:
        case Repeat(item, _, high):
            return _is_wild(item, is_last=False) or (
                (high is None or high > _LONG) and not is_last and _widest_set(item) > _WIDE_BYTES
            )
        case Sequence(items):
            last = len(items) - 1
            while last >= 0 and isinstance(items[last], Assertion):
                last -= 1
            return any(_is_wild(item, is_last=is_last and at >= last) for at, item in enumerate(items))
        case Alternatives(items):
            return any(_is_wild(item, is_last=is_last) for item in items)
        case Group(item):
            return _is_wild(item, is_last=is_last)
    return False


def _widest_set(node: Node) -> int:
    match node:
        case Bytes(mask):
            return mask.bit_count()
        case Sequence(items) | Alternatives(items):
            return max(map(_widest_set, items), default=0)
        case Repeat(item) | Group(item):
            return _widest_set(item)
    return 0


def _guard(node: Node) -> bytes:
    """Return what a name must have at its begin before the expression takes any byte, as far as that is plain text.

    Letters are in lower case; empty: nothing is known. Two expressions with different guards are hardly ever under way
    in the same name.
    """
    items = node.items if isinstance(node, Sequence) else ()
    if not items or items[0] != Assertion("begin"):
        return b""
    text = bytearray()
    for item in items[1:]:
        if _is_wild(item, is_last=False):
            break
        if isinstance(item, Bytes):
            letters = set(bytes(byte for byte in range(256) if item.mask >> byte & 1).lower())
            text += bytes(letters) if len(letters) == 1 else b""
    return bytes(text)
