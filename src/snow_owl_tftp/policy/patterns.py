"""Lists of globs (see `globs`) for paths below the root.

    few globs  ──► one regular expression           many ──► an automaton, of which no name makes more work than others

May know: globs. Must not know what a match is for.
"""

import re
from collections.abc import Iterable

from snow_owl_tftp.policy.automaton import many
from snow_owl_tftp.policy.globs import expression_of, tokens_of

__all__ = ["PathPatterns"]


class PathPatterns:
    """A list of globs, of which one must match."""

    __slots__ = ("_many", "_match")

    def __init__(self, patterns: Iterable[str]) -> None:
        r"""Compile the globs.

        Args:
            patterns: Relative to the root; one leading "/" is ignored, since peers write it too.

        Raises:
            ConfigError: A pattern is empty, or can match no path: it has an open "[", an empty or
                "." or ".." part, or a backslash, which paths never hold.
        """
        globs = [tokens_of(pattern) for pattern in patterns]
        self._many = many([globs]) if globs else None
        expressions = [expression_of(tokens) for tokens in globs]
        self._match = re.compile("|".join(expressions), re.DOTALL).fullmatch if expressions else None

    def match(self, path: bytes) -> bool:
        """Tell whether a normalised path matches any of the patterns."""
        text = path.decode("utf-8", "surrogateescape")
        if self._many is not None:
            return self._many.matches(text)
        return self._match is not None and self._match(text) is not None
