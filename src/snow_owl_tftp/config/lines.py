"""On which line of a TOML file a key stands.

    text, ("rules", 2, "paths") ──line_of──► 17

The standard library's parser keeps no positions, but it is the judge of what a text says: the key stands where the
shortest beginning of the text that has it ends. So no second parser can disagree with the first. Only for files that
are refused, or shown: a look takes some ten parses.

May know: TOML. Must not know the schema.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Parts", "depth_of", "line_of", "parts_of"]

Parts: TypeAlias = Sequence[str | int]
"""A key path, with the places in lists counted from 0."""

_MISSING: Final = object()
_IN_LIST: Final = re.compile(r"(.*)\[([0-9]{1,9})\]", re.DOTALL)
_BEGINS: Final = re.compile(r"""\s*(?:$|\#|\[|[\w"'-][^=]*=)""")
"""A line that may begin a statement, or has none: only before such a one another can end."""


def parts_of(path: str) -> list[str | int]:
    """Take a key path as messages have it apart: "rules[3].paths", where the first of a list is 1."""
    parts: list[str | int] = []
    for piece in path.split("."):
        found = _IN_LIST.fullmatch(piece)  # else a key of the operator's, whatever is in it
        parts += [piece] if found is None else [found[1], int(found[2]) - 1]
    return parts


def depth_of(tree: object, parts: Parts) -> int:
    """Return how many of the parts, from the first, lead to something in a tree."""
    for depth, part in enumerate(parts):
        tree = _step(tree, part)
        if tree is _MISSING:
            return depth
    return len(parts)


def line_of(text: str, parts: Parts) -> int:
    """Return the line, from 1, on which a key or table stands.

    Args:
        text: Valid TOML.
        parts: Of a key that the text has.
    """
    lines = text.split("\n")
    before, behind = (
        0,
        len(lines),
    )  # ends of statements; the first `behind` lines have the key, the first `before` do not
    while (end := _end_between(lines, before, behind)) is not None:
        if depth_of(_parsed(lines, end), parts) == len(parts):
            behind = end
        else:
            before = end
    return before + 1


def _end_between(lines: list[str], before: int, behind: int) -> int | None:
    """Return the end of a statement between two, near the middle; None: there is none."""
    middle = (before + behind) // 2
    upwards = range(max(middle, before + 1), behind)
    ends = (end for end in (*upwards, *range(middle - 1, before, -1)) if _BEGINS.match(lines[end]))
    return next((end for end in ends if _parsed(lines, end) is not None), None)


def _parsed(lines: list[str], count: int) -> dict[str, Any] | None:
    """Parse the first lines; None: they end within a value."""
    try:
        return tomllib.loads("\n".join(lines[:count]) + "\n")  # a line that ends with CR needs it
    except tomllib.TOMLDecodeError:
        return None


def _step(tree: object, part: str | int) -> object:
    if isinstance(part, str):
        return tree.get(part, _MISSING) if isinstance(tree, Mapping) else _MISSING
    return tree[part] if isinstance(tree, list) and 0 <= part < len(tree) else _MISSING
