"""Globs with variables, for what is made: which of many a path matches, and what its variables stand for.

    "pxelinux.cfg/01-{mac_dashes}", …  ─NamePatterns─►  find(b"pxelinux.cfg/01-52-54-00-12-34-56")
                                                         ─► number 0, {"mac_dashes": "52-54-00-12-34-56"}

    {mac} {mac_dashes} {mac_plain} {address} {address_hex} {uuid}   what has this form, in either case
    {any_other_name}                                                one or more characters of one part

May know: text only. Must not know what a match is for.

Invariants:
- The first pattern that matches is meant; a path with a part `..` matches none, since its text is not where it leads.
- No path makes the search long: see `patterns`. What was found is remembered for the last 1,024 paths.
- What a variable stands for has no "/", no control character, and is not empty. A path with a control character matches
  no pattern with a variable of any other name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.automaton import many
from snow_owl_tftp.policy.globs import LAZY, Steps, Token, expression_of, tokens_of

__all__ = ["Captured", "NamePatterns"]

_HEX: Final = "[0-9A-Fa-f]"
_IN_ADDRESS: Final = "[0-9A-Fa-f:.]"
_FORMS: Final[Mapping[str, str]] = {
    "mac": f"{_HEX}{{2}}(?::{_HEX}{{2}}){{5}}",
    "mac_dashes": f"{_HEX}{{2}}(?:-{_HEX}{{2}}){{5}}",
    "mac_plain": f"{_HEX}{{12}}",
    "address": rf"(?:[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}|{_HEX}{{0,4}}(?::{_HEX}{{0,4}}){{2,7}})",
    "address_hex": f"{_HEX}{{8}}",
    "uuid": f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",
}
_SHAPES: Final[Mapping[str, str]] = {
    "mac": ":".join(["hh"] * 6),
    "mac_dashes": "-".join(["hh"] * 6),
    "mac_plain": "h" * 12,
    "address_hex": "h" * 8,
    "uuid": "-".join("h" * count for count in (8, 4, 4, 4, 12)),
}
"""The same character by character, "h" for a digit."""
_STEPS: Final[Mapping[str, Steps]] = {
    "address": ((_IN_ADDRESS, ""), (_IN_ADDRESS, _IN_ADDRESS)),
    **{name: tuple((_HEX if one == "h" else one, "") for one in shape) for name, shape in _SHAPES.items()},
}
_PLAIN: Final = r"[^/\x00-\x1f\x7f]"
_FREE: Final = rf"{_PLAIN}+{LAZY}"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]*")
_REMEMBERED: Final = 1024


class Captured(NamedTuple):
    """What a path matches.

    Attributes:
        number: Of the pattern, from 0.
        variables: What its variables stand for; bytes that are no UTF-8 are U+FFFD.
    """

    number: int
    variables: Mapping[str, str]


class NamePatterns:
    """Several globs, of which the first that matches is meant.

    Attributes:
        variables: The names of each pattern's.
    """

    def __init__(self, patterns: Iterable[str], reserved: Iterable[str] = ()) -> None:
        """Compile the globs.

        Args:
            patterns: As of `PathPatterns`, with `{variables}`.
            reserved: Names that no variable may have.

        Raises:
            ConfigError: See `PathPatterns`; or what is in braces is no name, is reserved, or stands there twice.
        """
        globs = [_tokens_of(pattern, frozenset(reserved)) for pattern in patterns]
        expressions = [expression_of(tokens) for tokens in globs]
        self._patterns = [re.compile(expression, re.DOTALL) for expression in expressions]
        self.variables = [tuple(pattern.groupindex) for pattern in self._patterns]
        self._are_free = [any(name not in _FORMS for name in names) for names in self.variables]
        self._many = many([[tokens] for tokens in globs])
        # One search for all: what does not fit is seen at its first characters.
        self._any = re.compile("|".join(f"({_NAMED.sub('(?:', one)})" for one in expressions), re.DOTALL)
        self._find = lru_cache(maxsize=_REMEMBERED)(self._search)

    def find(self, path: bytes) -> Captured | None:
        """Return what a normalised path matches; None: nothing."""
        return self._find(path)

    def _search(self, path: bytes) -> Captured | None:
        text = path.decode("utf-8", "surrogateescape")
        candidates = self._candidates(text)
        if not candidates or ".." in text.split("/"):
            return None
        for number in candidates:
            if self._are_free[number] and _CONTROL.search(text) is not None:
                continue
            if (match := self._patterns[number].fullmatch(text)) is not None:
                return Captured(number, {name: _plain(value) for name, value in match.groupdict().items()})
        return None

    def _candidates(self, text: str) -> Sequence[int]:
        """Return the patterns that may match, in their order."""
        if self._many is not None:
            return list(self._many.of(text))
        found = self._any.fullmatch(text)
        return () if found is None else range((found.lastindex or 1) - 1, len(self._patterns))


_NAMED: Final = re.compile(r"\(\?P<\w+>")


def _plain(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _tokens_of(pattern: str, reserved: frozenset[str]) -> list[Token]:
    seen: set[str] = set()

    def translate(name: str) -> Token:
        if not _IDENTIFIER.fullmatch(name):
            raise ConfigError(
                f'"{pattern}": {{{name}}} is no variable; write it in small letters, such as {{mac_dashes}}'
            )
        if name in reserved:
            raise ConfigError(f'"{pattern}": {{{name}}} means something else in templates; choose another name')
        if name in seen:
            raise ConfigError(f'"{pattern}": {{{name}}} stands there twice; give each its own name')
        seen.add(name)
        if name in _FORMS:
            return Token("text", f"(?P<{name}>{_FORMS[name]})", _STEPS[name])
        return Token("gap", f"(?P<{name}>{_FREE})", ((_PLAIN, _PLAIN),))

    return tokens_of(pattern, translate)
