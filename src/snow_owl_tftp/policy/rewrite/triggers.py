"""Which bytes of a name make RE2 slow at an expression, so that they are counted before it is searched.

    "x.{12}y" ──triggers_of──► b"x": each of them may be the one, until twelve bytes later

RE2 makes a state for each combination of places at which an expression is under way: a row of k bytes that may be
anything, behind a byte that may stand in the row as well, has 2 ** k of them. Names made for that take 0.2 ms for
"x.{12}y", and 2.3 ms for "x.{1,400}y"; where the expression begins at the begin of the name alone, or with such a row,
there are as many states as places; and even these are too large to be kept where an expression has hundreds of places.

May know: nodes. Must not know RE2.

Invariant: only the time depends on what is guessed here (see `Program`), and whether a name is refused that takes it.
"""

from typing import Final

from snow_owl_tftp.policy.rewrite.nodes import ANY, Alternatives, Assertion, Bytes, Group, Node, Repeat, Sequence

__all__ = ["triggers_of"]

_PAIR: Final = 2
"""A letter in both cases is as good as one byte."""
_LONG: Final = 7
"""Bytes of a row: 128 states are no harm."""
_MAX_VISITS: Final = 2_000
"""Of nodes; an expression with more, its counts written out, is taken for slow at any byte."""


def triggers_of(node: Node, *, is_large: bool) -> bytes:
    """Return these bytes; empty: no name makes the expression slow.

    Args:
        node: The expression.
        is_large: It has so many places that where it may begin anywhere, every byte of its own counts.
    """
    walk = _Walk()
    walk.over(node)
    if walk.visits > _MAX_VISITS:
        mask = ANY
    else:
        mask = walk.bytes_of_it if is_large and walk.begins_anywhere else walk.triggers
    return bytes(byte for byte in range(256) if mask >> byte & 1)


class _Walk:
    """On the way through an expression, from its begin.

    Attributes:
        triggers: What was found.
        visits: Nodes so far.
        bytes_of_it: Which bytes it may match.
        begins_anywhere: And not at the begin of the name alone.
    """

    def __init__(self) -> None:
        self.triggers = 0
        self.visits = 0
        self.bytes_of_it = 0
        self.begins_anywhere = False
        self._floats = True  # it may be here at any byte of the name
        self._row = 0  # bytes, each out of several, up to here
        self._in_row = 0  # which they may be
        self._before = 0  # what may stand before them; nothing: they begin the expression
        self._last = 0

    def over(self, node: Node) -> None:
        self.visits += 1
        if self.visits > _MAX_VISITS:
            return
        match node:
            case Bytes(mask):
                self._byte(mask)
            case Assertion(kind):
                self._floats &= kind != "begin"
            case Sequence(items):
                for item in items:
                    self.over(item)
            case Group(item):
                self.over(item)
            case Alternatives(items):
                self._either(items)
            case Repeat(item, low, high):
                self._repeated(item, low, high)

    def _byte(self, mask: int) -> None:
        self.begins_anywhere |= self._floats and not self._last
        self.bytes_of_it |= mask
        if mask.bit_count() <= _PAIR:
            self._row = self._in_row = 0
        else:
            self._before = self._before if self._row else self._last
            self._row += 1
            self._in_row |= mask
            if self._floats and self._row > _LONG and self._before & self._in_row:
                self.triggers |= self._before
        self._last = mask

    def _either(self, items: tuple[Node, ...]) -> None:
        state = self._floats, self._row, self._in_row, self._before, self._last
        ends = []
        for item in items:
            self._floats, self._row, self._in_row, self._before, self._last = state
            self.over(item)
            ends.append((self._floats, self._last))
        self._floats = any(floats for floats, _ in ends)
        for _, last in ends:
            self._last |= last

    def _repeated(self, item: Node, low: int, high: int | None) -> None:
        for _ in range(min(_LONG + 1, 1 if high is None else high)):
            self.over(item)
        if high is None:
            self._row = self._in_row = 0  # it stays where it is: no combination is new
        self._floats |= low != high
