"""RE2, for the one purpose it has here: linear time, whatever the expression and whatever the name.

A few bytes in a row, each out of a set, are looked for by `re`, which is as sure to end there and five times as quick.

    nodes ─Matcher─► search(name, from) ─► what matched          patterns ─Matches─► which of many match a name

May know: google-re2, which is imported by the first Matcher, so that a server without rewrites does not pay for it.
Must not know rules.

Invariants:
- Leftmost, then longest: what POSIX says, not Perl.
- Each expression, and each set of them, uses a bounded amount of memory, also for names that are made to use much.
- A set that cannot tell says so, never "no match".
"""

import re
from collections.abc import Collection, Iterable
from importlib import import_module
from typing import Any, Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.effort import is_large, is_short_row, work_of, work_of_triggers
from snow_owl_tftp.policy.rewrite.grouping import groups_of
from snow_owl_tftp.policy.rewrite.nodes import Node, Sequence
from snow_owl_tftp.policy.rewrite.translate import translate
from snow_owl_tftp.policy.rewrite.triggers import triggers_of

__all__ = ["Matcher", "Matches"]

_EXPRESSION_BYTES: Final = 1 << 18
"""Of one expression; beyond it RE2 refuses it, or forgets states that it has made, and goes on by a slower way."""
_SETS_BYTES: Final = 1 << 25
"""Of all of them together, most of it for states that names have led to; RE2 begins anew when they are used up."""
_SET_BYTES: Final = 1 << 18
"""Of a set at least, however many there are."""


def _options(max_bytes: int) -> tuple[Any, Any]:
    try:
        re2 = import_module("re2")
    except ImportError as error:
        raise ConfigError(
            "rewrite: google-re2 is not installed; pip install 'snow-owl-tftp[rewrite]', or remove the rules"
        ) from error
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character
    options.longest_match = True
    options.log_errors = False  # to standard error, and what is wrong is raised
    options.max_mem = max_bytes
    return re2, options


class Matcher:
    """One expression.

    Attributes:
        work: Returns what a match takes, of so many bytes and those before it, in half a microsecond.
        is_slow: Some names make it so: it is looked for alone, when it is its turn.
        triggers: Bytes that do (see `triggers`).
        work_of_triggers: Returns what a search takes at most, of so many of these in a name of so many bytes.
    """

    __slots__ = ("_has_begin", "_numbers", "_search", "is_slow", "triggers", "work", "work_of_triggers")

    def __init__(self, node: Node, wanted: Collection[int]) -> None:
        """Compile it.

        Args:
            node: The expression.
            wanted: Numbers of the groups that will be asked for.

        Raises:
            ConfigError: It is too large, or the package is missing.
        """
        text, self._numbers = translate(node, wanted)
        re2, options = _options(_EXPRESSION_BYTES)
        try:
            self._search = re2.compile(text, options).search
        except re2.error as error:
            raise ConfigError(f"{_reason(error)}; write it with smaller counts, or as several rules") from error
        if is_short_row(node):
            self._search = re.compile(text, re.DOTALL).search
        self.work = work_of(node, len(self._numbers))
        self.triggers = b"" if is_short_row(node) else triggers_of(node, is_large=is_large(node))
        self.is_slow = bool(self.triggers) or is_large(node)
        self.work_of_triggers = work_of_triggers(node)
        self._has_begin = rb"\A" in text

    def search(self, name: bytes, start: int = 0) -> tuple[int, int, list[bytes]] | None:
        """Find the leftmost match, and of those the longest.

        Args:
            name: Where to search.
            start: Look only behind this place, which is no begin of the name.

        Returns:
            Where it begins and ends, and what matched: the whole, then groups by number; None: nothing did.
        """
        # Nothing before the place counts, also for words; but "^" must see that there is something.
        offset = 0 if self._has_begin else start
        found = self._search(name[offset:], start - offset)
        if found is None:
            return None
        groups = [b""] * (1 + max(self._numbers, default=0))
        groups[0] = found.group()
        for at, number in enumerate(self._numbers, 1):
            groups[number] = found.group(at) or b""
        return found.start() + offset, found.end() + offset, groups


class Matches:
    """Many expressions, looked for in as few passes as keep each of them quick (see `grouping`)."""

    def __init__(self, nodes: Iterable[Node], numbers: Iterable[int] | None = None) -> None:
        """Compile them, which were compiled one by one before; their numbers are their places where none are given."""
        listed = list(nodes)
        numbers = list(range(len(listed)) if numbers is None else numbers)
        groups = groups_of(listed)
        max_bytes = max(_SETS_BYTES // max(1, len(groups)), _SET_BYTES)
        self._sets = [_Set([listed[at] for at in group], [numbers[at] for at in group], max_bytes) for group in groups]

    def of(self, name: bytes) -> set[int] | None:
        """Return the numbers of those that match; None: RE2 could not tell."""
        matching: set[int] = set()
        for one in self._sets:
            found = one.of(name)
            if found is None:
                return None
            matching.update(found)
        return matching


class _Set:
    def __init__(self, nodes: Iterable[Node], indices: list[int], max_bytes: int) -> None:
        re2, options = _options(max_bytes)
        self._set = re2.Set.SearchSet(options)
        for node in nodes:
            self._set.Add(translate(node, ())[0])
        # It matches every name: where it is missing RE2 had no memory left, and tells so by telling nothing.
        self._always = self._set.Add(translate(Sequence(()), ())[0])
        self._indices = indices
        try:
            self._set.Compile()
        except re2.error:  # too large for the memory that it may have
            self._set = None

    def of(self, name: bytes) -> list[int] | None:
        found = (self._set.Match(name) or ()) if self._set is not None else ()
        if self._always not in found:
            return None
        return [self._indices[at] for at in found if at != self._always]


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("latin-1") if isinstance(reason, bytes) else str(reason)
