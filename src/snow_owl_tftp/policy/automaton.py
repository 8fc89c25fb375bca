"""Many globs at once: which of them a path matches, in a time that depends on its length alone and on no other letter.

    tokens of all globs ──► one bit for each place in each of them, and for each character two masks
    path ─a character─► where each glob has come to: (bits << 1) & entered | bits & kept ─► … ─► those at their end

This is Shift-And: a glob of n characters has n places, and a character moves all places of all globs in four operations
of one long integer. A thousand globs of 13 characters take 0.27 ms for a name of 512 bytes, whatever that is, where to
try them one by one takes what the name makes of it (15 ms).

May know: tokens of globs. Must not know what a match is for.

Invariants:
- As many steps as the path has characters; no step branches by the bits (tests/policy/test_automaton.py counts).
- Of a token with a form of its own (`{address}`) it knows less than its expression, and says yes where that may say no.
- Memory: a mask of a bit for each place, for each character that the globs name.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from snow_owl_tftp.policy.globs import ANY, Token

__all__ = ["Automaton", "many"]

_Masks = tuple[int, int]
"""Places that a character leads into from the place before; and those where it changes nothing."""
_LAST: Final = 0x110000
_MANY_STEPS: Final = 256
"""Of globs, about 16 usual ones: fewer are tried one by one, which takes 0.3 ms at most for a name of 512 bytes."""


def many(lists: Sequence[Sequence[Sequence[Token]]]) -> "Automaton | None":
    """Return an automaton of lists of globs, or None where they are so few that they are better tried one by one."""
    steps = sum(max(1, len(token.steps)) for globs in lists for tokens in globs for token in tokens)
    return Automaton(lists) if steps > _MANY_STEPS else None


class Automaton:
    """Lists of globs, of each of which one must match; never changed once made.

    Attributes:
        places: In all globs, each a bit.
    """

    def __init__(self, lists: Iterable[Sequence[Sequence[Token]]]) -> None:
        """Lay the globs out, one behind the other.

        Args:
            lists: Tokens of globs as of `globs.tokens_of`; a list without globs matches every path.
        """
        layout = _Layout()
        self._numbers: dict[int, int] = {}  # the place where a glob ends, and which list it is of
        for number, globs in enumerate(lists):
            for tokens in globs:
                self._numbers[layout.add(tokens)] = number
            if not globs:
                self._numbers[layout.add_any()] = number
        self.places = layout.places
        self._begin = _mask(layout.begins)
        self._ends = _mask(self._numbers)
        self._reopened = _mask(layout.reopened)
        self._masks = _Table(layout)

    def of(self, text: str) -> Iterator[int]:
        """Yield the numbers, from 0, of the lists that a path matches, in their order."""
        if not (bits := self._run(text) & self._ends):
            return
        digits = f"{bits:b}"[::-1]
        number, at = -1, digits.find("1")
        while at >= 0:
            if (found := self._numbers[at]) != number:
                number = found
                yield number
            at = digits.find("1", at + 1)

    def matches(self, text: str) -> bool:
        """Tell whether a path matches any."""
        return self._run(text) & self._ends != 0

    def _run(self, text: str) -> int:
        bits, masks = self._begin, self._masks
        for at, part in enumerate(text.split("/")):
            if at:
                entered, kept = masks["/"]
                moved = bits << 1 & entered
                bits = moved | bits & kept | (moved & self._reopened) << 1
            for character in part:
                entered, kept = masks[character]
                bits = bits << 1 & entered | bits & kept
                if not bits:
                    return 0
        return bits


class _Layout:
    """Where each glob has its places.

    Attributes:
        places: So far.
        begins: Where a path begins.
        reopened: Behind a "/" before `**/`: the place there is kept, and the one behind it is entered too.
        entered: For each set of characters, as an expression, the places that they lead into.
        kept: Likewise those that they do not lead out of.
    """

    def __init__(self) -> None:
        self.places = 0
        self.begins: list[int] = []
        self.reopened: list[int] = []
        self.entered: defaultdict[str, list[int]] = defaultdict(list)
        self.kept: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, tokens: Sequence[Token]) -> int:
        """Lay out a glob; returns the place where it ends."""
        at, is_first, kind = self._new(), True, ""
        self.begins.append(at)
        for token in tokens:
            if token.kind != "any_directories":
                for consumed, kept in token.steps:
                    if consumed:
                        at = self._new()
                        self.entered[consumed].append(at)
                    if kept:
                        self.kept[kept].append(at)
            elif kind != token.kind:  # two of them are as one
                self.kept[ANY].append(at)
                (self.begins if is_first else self.reopened).append(at + is_first)
                at = self._new()
                self.entered["/"].append(at)
            is_first, kind = False, token.kind
        return at

    def add_any(self) -> int:
        """Lay out what every path matches; returns its place."""
        at = self._new()
        self.begins.append(at)
        self.kept[ANY].append(at)
        return at

    def _new(self) -> int:
        self.places += 1
        return self.places - 1


class _Table(dict[str, _Masks]):
    """Masks by character: those that globs name, and ASCII, are here; of the rest those between two such are alike."""

    def __init__(self, layout: _Layout) -> None:
        super().__init__()
        self._sides = _Sets(layout.entered), _Sets(layout.kept)
        self._same: dict[int, int] = {}  # most characters have the same masks, of kilobytes
        named = sorted({*map(chr, range(0x80)), *self._sides[0].named, *self._sides[1].named})
        for character in named:
            self[character] = self._masks_of(character)
        # Behind each: the characters up to the next one, of which none is an end of a range.
        self._named = [ord(character) for character in named]
        nexts = [*self._named[1:], _LAST]
        self._between = [
            self._masks_of(chr(min(code + 1, next_ - 1))) for code, next_ in zip(self._named, nexts, strict=True)
        ]

    def _masks_of(self, character: str) -> _Masks:
        entered, kept = (side.of(character) for side in self._sides)
        return self._same.setdefault(entered, entered), self._same.setdefault(kept, kept)

    def __missing__(self, character: str) -> _Masks:
        return self._between[bisect_right(self._named, ord(character)) - 1]


class _Sets:
    """Places by sets of characters; a set of one, which most are, is found without asking."""

    def __init__(self, places: dict[str, list[int]]) -> None:
        single = {text: _mask(at) for text, at in places.items() if len(text) == 1}
        self._single = single
        self._sets = [
            (re.compile(text, re.DOTALL).fullmatch, _mask(at)) for text, at in places.items() if text not in single
        ]
        # Every character of the text of a set, its ends among them.
        ends = {character for text in places if text not in single for character in text}
        self.named = {*single, *ends, *(chr(ord(end) + 1) for end in ends if ord(end) + 1 < _LAST)}

    def of(self, character: str) -> int:
        """Return the places of the sets that a character is in."""
        mask = self._single.get(character, 0)
        for matches, places in self._sets:
            if matches(character):
                mask |= places
        return mask


def _mask(places: Iterable[int]) -> int:
    """Return an integer with these bits, made at once: one after the other would copy it each time."""
    places = list(places)
    octets = bytearray(max(places, default=0) // 8 + 1)
    for at in places:
        octets[at >> 3] |= 1 << (at & 7)
    return int.from_bytes(octets, "little")
