r"""POSIX extended regular expressions, as glibc's regcomp(REG_EXTENDED) reads them, which is what a tftpd-hpa map has.

    b"^(/tftpboot/)?([^/]+)$" ──parse_ere──► nodes

May know: bytes. Must not know any library of regular expressions.

Invariants:
- What glibc accepts is understood as glibc does, or refused with a remedy: back references alone, since no
  program that finds them is sure to end.
- What glibc refuses is refused.

    a|b  (a)  a*  a+  a?  a{2,5}  .  [a-z]  ^  $  \.        and of GNU: \w \W \s \S \b \B \< \> \` \'
"""

import re
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.brackets import CLASSES, fold_case, parse_bracket
from snow_owl_tftp.policy.rewrite.nodes import ANY, Alternatives, Assertion, Bytes, Group, Node, Repeat, Sequence

__all__ = ["MAX_REPEATS", "parse_ere"]

MAX_REPEATS: Final = 1000
"""RE2's own limit (kMaxRepeat); glibc has 32,767."""
_MAX_NESTING: Final = 100
"""Parentheses in parentheses: below Python's and RE2's limits, above anything that is written by hand."""
_WORD: Final = CLASSES[b"alnum"] | 1 << ord("_")
_SETS: Final = {
    b"w": _WORD,
    b"W": ANY & ~_WORD,
    b"s": CLASSES[b"space"],
    b"S": ANY & ~CLASSES[b"space"],
}
_PLACES: Final = {
    b"b": Assertion("word"),
    b"B": Assertion("not_word"),
    b"<": Assertion("word_begin"),
    b">": Assertion("word_end"),
    b"`": Assertion("begin"),
    b"'": Assertion("end"),
}
_INTERVAL: Final = re.compile(rb"\{([0-9]*)(?:(,)([0-9]*))?\}")


def parse_ere(text: bytes, *, ignore_case: bool = False, is_strict: bool = False) -> tuple[Node, int]:
    r"""Parse an expression.

    Args:
        text: The expression, at most some kilobytes.
        ignore_case: Letters of ASCII match in both cases.
        is_strict: Refuse a backslash before a letter or digit that means nothing here, such as "\d", instead of taking
            the letter for itself as glibc does.

    Returns:
        What it is made of, and how many groups it has.

    Raises:
        ConfigError: It is none; the text says what is wrong and what to write, not where.
    """
    parser = _Parser(text, ignore_case, is_strict)
    node = parser.alternatives(nesting=0)
    return node, parser.groups_total


class _Parser:
    def __init__(self, text: bytes, ignore_case: bool, is_strict: bool) -> None:
        self._text = text
        self._at = 0
        self._ignore_case = ignore_case
        self._is_strict = is_strict
        self.groups_total = 0

    def alternatives(self, nesting: int) -> Node:
        if nesting > _MAX_NESTING:
            raise ConfigError(f"more than {_MAX_NESTING} parentheses in one another; write fewer")
        items = [self._sequence(nesting)]
        while self._next() == b"|":
            self._at += 1
            items.append(self._sequence(nesting))
        return items[0] if len(items) == 1 else Alternatives(tuple(items))

    def _next(self) -> bytes:
        return self._text[self._at : self._at + 1]

    def _sequence(self, nesting: int) -> Node:
        items: list[Node] = []
        while (char := self._next()) not in (b"", b"|") and not (char == b")" and nesting):
            atom = self._atom(nesting)
            # A place is never repeated: "^*" is an error to glibc, and is one here when the star comes next.
            items.append(atom if isinstance(atom, Assertion) else self._repeated(atom))
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _atom(self, nesting: int) -> Node:
        char = self._next()
        if char in b"*+?{":
            raise ConfigError(f'nothing stands before "{char.decode()}" to be repeated; write "\\{char.decode()}"')
        if char == b"(":
            return self._group(nesting)
        if char == b"[":
            mask, self._at = parse_bracket(self._text, self._at, ignore_case=self._ignore_case)
            return Bytes(mask)
        self._at += 1
        if char == b"\\":
            return self._escape()
        if char == b"^":
            return Assertion("begin")
        if char == b"$":
            return Assertion("end")
        return Bytes(ANY) if char == b"." else self._literal(char)

    def _literal(self, char: bytes) -> Bytes:
        mask = 1 << char[0]
        return Bytes(fold_case(mask) if self._ignore_case else mask)

    def _group(self, nesting: int) -> Node:
        self._at += 1
        self.groups_total += 1
        number = self.groups_total
        item = self.alternatives(nesting + 1)
        if self._next() != b")":
            raise ConfigError('"(" has no end; add ")", or write "\\(" for the character')
        self._at += 1
        return Group(item, number)

    def _escape(self) -> Node:
        char = self._next()
        self._at += 1
        if not char:
            raise ConfigError('it ends with a backslash; write "\\\\" for the character')
        if char in _SETS:
            return Bytes(_SETS[char])
        if char in _PLACES:
            return _PLACES[char]
        if char in b"123456789":
            raise ConfigError(
                f'"\\{char.decode()}" refers back to a group, which could take for ever; write out what it stands for'
            )
        if self._is_strict and char.isalnum():
            raise ConfigError(f'"\\{char.decode()}" means nothing here; write [0-9] for digits, or "{char.decode()}"')
        return self._literal(char)

    def _repeated(self, node: Node) -> Node:
        while (char := self._next()) and char in b"*+?{":
            if char == b"{":
                low, high = self._interval()
            else:
                self._at += 1
                low, high = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}[char]
            node = Repeat(node, low, high)
        return node

    def _interval(self) -> tuple[int, int | None]:
        found = _INTERVAL.match(self._text, self._at)
        if found is None or not (found[1] or found[2]):
            raise ConfigError('"{" begins no count such as {2} or {1,3}; write "\\{" for the character')
        self._at = found.end()
        low = int(found[1] or 0)
        high = low if not found[2] else int(found[3]) if found[3] else None
        if max(low, high or 0) > MAX_REPEATS:
            raise ConfigError(f'"{found[0].decode()}" repeats more than {MAX_REPEATS} times; write a smaller count')
        if high is not None and low > high:
            raise ConfigError(f'"{found[0].decode()}" counts backwards; turn it round')
        return low, high
