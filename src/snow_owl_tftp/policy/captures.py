"""Globs with variables, for what is made: which of many a path matches, and what its variables stand for.

    "pxelinux.cfg/01-{mac_dashes}", …  ─NamePatterns─►  find(b"pxelinux.cfg/01-52-54-00-12-34-56")
                                                         ─► number 0, {"mac_dashes": "52-54-00-12-34-56"}

    {mac} {mac_dashes} {mac_plain} {address} {address_hex} {uuid}   what has this form, in either case
    {any_other_name}                                                one or more characters of one part

May know: text only. Must not know what a match is for.

Invariants:
- The first pattern that matches is meant; a path with a part `..` matches none, since its text is not where it leads.
- No path makes the search long: see `patterns`. What was found is remembered for the last 1,024 paths.
- What a variable stands for has no "/", no control character, and is not empty.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.patterns import LAZY, expression_of

__all__ = ["Captured", "NamePatterns"]

_HEX: Final = "[0-9A-Fa-f]"
_FORMS: Final[Mapping[str, str]] = {
    "mac": f"{_HEX}{{2}}(?::{_HEX}{{2}}){{5}}",
    "mac_dashes": f"{_HEX}{{2}}(?:-{_HEX}{{2}}){{5}}",
    "mac_plain": f"{_HEX}{{12}}",
    "address": rf"(?:[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}|{_HEX}{{0,4}}(?::{_HEX}{{0,4}}){{2,7}})",
    "address_hex": f"{_HEX}{{8}}",
    "uuid": f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",
}
_FREE: Final = rf"[^/\x00-\x1f\x7f]+{LAZY}"
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
        self._patterns = [_compile(pattern, frozenset(reserved)) for pattern in patterns]
        self.variables = [tuple(pattern.groupindex) for pattern in self._patterns]
        # One search for all: what does not fit is seen at its first characters.
        self._any = re.compile("|".join(f"({_NAMED.sub('(?:', one.pattern)})" for one in self._patterns), re.DOTALL)
        self._find = lru_cache(maxsize=_REMEMBERED)(self._search)

    def find(self, path: bytes) -> Captured | None:
        """Return what a normalised path matches; None: nothing."""
        return self._find(path)

    def _search(self, path: bytes) -> Captured | None:
        text = path.decode("utf-8", "surrogateescape")
        found = self._any.fullmatch(text)
        if found is None or ".." in text.split("/") or found.lastindex is None:
            return None
        number = found.lastindex - 1
        match = self._patterns[number].fullmatch(text)
        assert match is not None, "the same expression, but for the names of its groups"
        plain = {name: _plain(value) for name, value in match.groupdict().items()}
        return Captured(number, plain)


_NAMED: Final = re.compile(r"\(\?P<\w+>")


def _plain(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _compile(pattern: str, reserved: frozenset[str]) -> re.Pattern[str]:
    seen: set[str] = set()

    def translate(name: str) -> tuple[bool, str]:
        if not _IDENTIFIER.fullmatch(name):
            raise ConfigError(
                f'"{pattern}": {{{name}}} is no variable; write it in small letters, such as {{mac_dashes}}'
            )
        if name in reserved:
            raise ConfigError(f'"{pattern}": {{{name}}} means something else in templates; choose another name')
        if name in seen:
            raise ConfigError(f'"{pattern}": {{{name}}} stands there twice; give each its own name')
        seen.add(name)
        form = _FORMS.get(name)
        return form is None, f"(?P<{name}>{form or _FREE})"

    return re.compile(expression_of(pattern, translate), re.DOTALL)
