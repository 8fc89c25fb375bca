"""Globs for paths below the root, compiled once to one regular expression.

    *       any run of characters within a part      ?       one character, never "/"
    **      any run of parts, "/" included           [a-z]   one of these; [!a-z] none of these

May know: text only. Invariants: case counts; a pattern matches a whole path or nothing; no pattern
matches nothing at all, so to allow everything somebody must write `**`.

Whoever can send a datagram chooses the path, so no path may make the expression search for long: plain
`.*` with `.*` behind it tries every pair of ends, and four stars in a row of 490 dashes take minutes,
while nothing else is decided. Hence what a star matches is settled once (an atomic group), at the first
place where what follows it matches too. Nothing is missed by that. A `*` cannot pass a "/", so the "/" in
what follows has one place only, and any later place of the rest leaves less for the next star; what a
`**` skipped, the next `**` could as well have taken. Only behind the last `**` every beginning is tried,
since the path must end with the pattern: the square of its length at most.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from snow_owl_tftp.errors import ConfigError

__all__ = ["LAZY", "PathPatterns", "Variable", "expression_of"]

LAZY: Final = "\0"
"""Stands behind the run of a gap: nothing, or the "?" that makes it stop at the first place."""

Variable: TypeAlias = Callable[[str], tuple[bool, str]]
"""Translates what a pattern has in braces: whether it is a gap as `*` is one, and its expression, a gap's with LAZY.
Raises ConfigError."""

# Longest first. "**/" also stands for no directory at all: "**/x" allows "x".
_TOKEN = re.compile(
    r"(?P<any_directories>(?:(?<=/)|^)\*\*/)|(?P<anything>\*\*)|(?P<within_part>\*)|(?P<one>\?)"
    r"|\[(?P<not>!?)(?P<set>\]?[^\]/]*)\]|(?P<literal>.)",
    re.DOTALL,
)
_TOKEN_OR_VARIABLE = re.compile(r"\{(?P<variable>[^{}/]*)\}|" + _TOKEN.pattern, re.DOTALL)
_SET_ITEM = re.compile("(.)-(.)|(.)", re.DOTALL)


class PathPatterns:
    """A list of globs, of which one must match."""

    __slots__ = ("_match",)

    def __init__(self, patterns: Iterable[str]) -> None:
        r"""Compile the globs.

        Args:
            patterns: Relative to the root; one leading "/" is ignored, since peers write it too.

        Raises:
            ConfigError: A pattern is empty, or can match no path: it has an open "[", an empty or
                "." or ".." part, or a backslash, which paths never hold.
        """
        expressions = [expression_of(pattern) for pattern in patterns]
        self._match = re.compile("|".join(expressions), re.DOTALL).fullmatch if expressions else None

    def match(self, path: bytes) -> bool:
        """Tell whether a normalised path matches any of the patterns."""
        return self._match is not None and self._match(path.decode("utf-8", "surrogateescape")) is not None


def expression_of(pattern: str, variable: Variable | None = None) -> str:
    """Translate one glob.

    Args:
        pattern: As of `PathPatterns`.
        variable: Translates `{name}`; None: braces stand for themselves.

    Returns:
        A regular expression of a whole path, to be compiled with DOTALL.

    Raises:
        ConfigError: As of `PathPatterns`.
    """
    text = pattern.removeprefix("/")
    if not text or "\\" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise ConfigError(f'"{pattern}" matches no path; write it like "backup/*.cfg", or "**" for everything')
    token = _TOKEN if variable is None else _TOKEN_OR_VARIABLE
    try:
        expression = _joined([_translated(token, variable) for token in token.finditer(text)])
        re.compile(expression)
    except re.error as error:
        raise ConfigError(f'"{pattern}" is no pattern: {error.msg}') from error
    return f"(?:{expression})"


def _translated(token: re.Match[str], variable: Variable | None) -> tuple[str | None, str]:
    if token.lastgroup != "variable" or variable is None:
        return token.lastgroup, _expression_of_token(token)
    is_gap, expression = variable(token["variable"])
    return "within_part" if is_gap else "literal", expression


def _joined(tokens: list[tuple[str | None, str]]) -> str:
    """Put together what was translated: blocks without `**`, and what may lie before each of them."""
    blocks: list[tuple[str, list[str]]] = [("", [""])]  # what precedes; fixed texts with a gap between two of them
    for kind, expression in tokens:
        if kind in ("any_directories", "anything"):
            blocks.append((expression, [""]))
        elif kind == "within_part":
            blocks[-1][1].extend((expression, ""))
        else:
            blocks[-1][1][-1] += expression
    settled = [f"(?>{before}{_block(texts, is_last=False)})" for before, texts in blocks[:-1]]
    before, texts = blocks[-1]
    return "".join(settled) + before + _block(texts, is_last=True)


def _block(texts: list[str], *, is_last: bool) -> str:
    first, *others = texts
    gaps, behind = others[::2], others[1::2]
    ending = gaps.pop().replace(LAZY, "") + behind.pop() if is_last and others else ""
    settled = [f"(?>{gap.replace(LAZY, '?')}{text})" for gap, text in zip(gaps, behind, strict=True)]
    return "".join((first, *settled, ending))


def _expression_of_token(token: re.Match[str]) -> str:
    kind = token.lastgroup
    if kind == "any_directories":
        return "(?:.*?/)??"
    if kind == "anything":
        return ".*?"
    if kind == "within_part":
        return f"[^/]*{LAZY}"
    if kind == "one":
        return "[^/]"
    if kind == "set":
        # "/" stays out, whether by negation or by a range around it.
        return f"(?!/)[{'^' if token['not'] else ''}{_SET_ITEM.sub(_escaped_item, token['set'])}]"
    if token["literal"] == "[":
        raise re.error('"[" without "]"')
    return re.escape(token["literal"])


def _escaped_item(item: re.Match[str]) -> str:
    return "-".join(re.escape(end) for end in item.groups() if end)
