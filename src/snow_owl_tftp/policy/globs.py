"""What a glob for paths below the root says, and one regular expression that says the same.

    *       any run of characters within a part      ?       one character, never "/"
    **      any run of parts, "/" included           [a-z]   one of these; [!a-z] none of these

    text ─tokens_of─► tokens ─┬─expression_of─► an expression: of one glob, or of a few
                              └─Automaton─────► of many (see `automaton`)

May know: text only. Invariants: case counts; a pattern matches a whole path or nothing; no pattern
matches nothing at all, so to allow everything somebody must write `**`.

Whoever can send a datagram chooses the path, so no path may make the expression search for long: plain
`.*` with `.*` behind it tries every pair of ends, and four stars in a row of 490 dashes take minutes,
while nothing else is decided. Hence an expression settles each thing once (an atomic group), at the first
place where what follows it matches too. Nothing is missed by that:

- A `*` cannot pass a "/", so the "/" in what follows has one place only, and any later place of the rest
  leaves less for the next star.
- What a `**` skipped, the next `**` could as well have taken.
- Of the places within one part where what is behind a `**` may begin, the first is enough: from a later one the
  same "/" are met, and less lies before each. So a part is looked at once, not once a character of it.
- What is behind the last `**` ends with the path, so its "/" tell in which part it begins.

So a glob of m characters takes for a name of n a time that grows as m * n (tests/policy/test_automaton.py).
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from snow_owl_tftp.errors import ConfigError

__all__ = ["ANY", "LAZY", "Steps", "Token", "Variable", "expression_of", "tokens_of"]

LAZY: Final = "\0"
"""Stands behind the run of a gap: nothing, or the "?" that makes it stop at the first place."""
ANY: Final = "(?s:.)"
_IN_PART: Final = "[^/]"

Steps: TypeAlias = tuple[tuple[str, str], ...]
"""A token, character by character: a set that one is of, empty: none; and a set of which any run may follow, likewise.
A set is a character, or else an expression."""


class Token(NamedTuple):
    """What a glob is made of.

    Attributes:
        kind: "text": each character in its place; "gap": any run within a part; "anything"; "any_directories".
        expression: A regular one; a gap's with LAZY; empty: the kind says it.
        steps: What the expression matches, and if need be more; empty: the kind says it.
        parts: How many "/" are in it.
    """

    kind: Literal["text", "gap", "anything", "any_directories"]
    expression: str = ""
    steps: Steps = ()
    parts: int = 0


Variable: TypeAlias = Callable[[str], Token]
"""Translates what a pattern has in braces. Raises ConfigError."""

# Longest first. "**/" also stands for no directory at all: "**/x" allows "x".
_TOKEN = re.compile(
    r"(?P<any_directories>(?:(?<=/)|^)\*\*/)|(?P<anything>\*\*)|(?P<within_part>\*)|(?P<one>\?)"
    r"|\[(?P<not>!?)(?P<set>\]?[^\]/]*)\]|(?P<literal>.)",
    re.DOTALL,
)
_TOKEN_OR_VARIABLE = re.compile(r"\{(?P<variable>[^{}/]*)\}|" + _TOKEN.pattern, re.DOTALL)
_NAMED = re.compile(r"\(\?P<\w+>")
_SET_ITEM = re.compile("(.)-(.)|(.)", re.DOTALL)


def tokens_of(pattern: str, variable: Variable | None = None) -> list[Token]:
    """Take a glob apart.

    Args:
        pattern: Relative to the root; one leading "/" is ignored, since peers write it too.
        variable: Translates `{name}`; None: braces stand for themselves.

    Raises:
        ConfigError: It is empty, or can match no path: it has an open "[", an empty or "." or ".." part, or a
            backslash, which paths never hold.
    """
    text = pattern.removeprefix("/")
    if not text or "\\" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise ConfigError(f'"{pattern}" matches no path; write it like "backup/*.cfg", or "**" for everything')
    expression = _TOKEN if variable is None else _TOKEN_OR_VARIABLE
    try:
        return [_token(found, variable) for found in expression.finditer(text)]
    except re.error as error:
        raise ConfigError(f'"{pattern}" is no pattern: {error.msg}') from error


def expression_of(tokens: Sequence[Token]) -> str:
    """Return a regular expression of a whole path, to be compiled with DOTALL."""
    blocks: list[tuple[Token | None, list[Token]]] = [(None, [])]  # without `**`, and that which precedes each
    for token in tokens:
        if token.kind in ("anything", "any_directories"):
            blocks.append((token, []))
        else:
            blocks[-1][1].append(token)
    settled = [f"(?>{_block(before, block, is_last=False)})" for before, block in blocks[:-1]]
    return f"(?:{''.join(settled)}{_block(*blocks[-1], is_last=True)})"


def _block(before: Token | None, tokens: list[Token], *, is_last: bool) -> str:
    texts, gaps = [""], []
    for token in tokens:
        if token.kind == "gap":
            gaps.append(token.expression)
            texts.append("")
        else:
            texts[-1] += token.expression
    first, *behind = texts
    ending = gaps.pop().replace(LAZY, "") + behind.pop() if is_last and gaps else ""
    settled = [f"(?>{gap.replace(LAZY, '?')}{text})" for gap, text in zip(gaps, behind, strict=True)]
    begin = ""
    if before is not None:
        begin = _begin(before, tokens, first if ending or not is_last else rf"{first}\Z", is_last=is_last)
    return "".join((begin, first, *settled, ending))


def _begin(before: Token, tokens: list[Token], first: str, *, is_last: bool) -> str:
    """Return what goes to the place where a block begins, before which a `**` stands."""
    if is_last and before.kind == "anything" and not tokens:
        return ".*"
    begin = "(?:[^/]*+/)*?"
    if is_last:
        parts = sum(token.parts for token in tokens)
        begin = rf"(?>{begin}(?=[^/]*+(?:/[^/]*+){{{parts}}}\Z))"
    return begin if before.kind == "any_directories" else f"{begin}(?>[^/]*?(?={_NAMED.sub('(?:', first)}))"


def _token(found: re.Match[str], variable: Variable | None) -> Token:
    kind = found.lastgroup
    if kind == "variable" and variable is not None:
        return variable(found["variable"])
    if kind == "any_directories":
        return Token("any_directories")
    if kind == "anything":
        return Token("anything", steps=(("", ANY),))
    if kind == "within_part":
        return Token("gap", f"{_IN_PART}*{LAZY}", (("", _IN_PART),))
    if kind == "one":
        return Token("text", _IN_PART, ((_IN_PART, ""),))
    if kind == "set":
        # "/" stays out, whether by negation or by a range around it.
        expression = f"(?!/)[{'^' if found['not'] else ''}{_SET_ITEM.sub(_escaped_item, found['set'])}]"
        re.compile(expression)
        return Token("text", expression, ((expression, ""),))
    literal = found["literal"]
    if literal == "[":
        raise re.error('"[" without "]"')
    return Token("text", re.escape(literal), ((literal, ""),), literal == "/")


def _escaped_item(item: re.Match[str]) -> str:
    return "-".join(re.escape(end) for end in item.groups() if end)
