"""Bracket expressions of POSIX: `[a-z_]`, `[^/]`, `[[:digit:]]`, `[]abc]`.

    b"[^/]*" at 0 ──parse_bracket──► a set of bytes, and where it ends

May know: bytes in the C locale. Must not know what surrounds a bracket.

Invariant: a backslash is a backslash here, as POSIX has it.
"""

from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.nodes import ANY, mask_of

__all__ = ["CLASSES", "fold_case", "parse_bracket"]

_UPPER: Final = bytes(range(ord("A"), ord("Z") + 1))
_LOWER: Final = _UPPER.lower()
_DIGIT: Final = b"0123456789"
_GRAPH: Final = bytes(range(0x21, 0x7F))

CLASSES: Final = {
    name: mask_of(members)
    for name, members in {
        b"alpha": _UPPER + _LOWER,
        b"upper": _UPPER,
        b"lower": _LOWER,
        b"digit": _DIGIT,
        b"alnum": _UPPER + _LOWER + _DIGIT,
        b"xdigit": _DIGIT + b"ABCDEFabcdef",
        b"space": b" \t\n\v\f\r",
        b"blank": b" \t",
        b"punct": bytes(byte for byte in _GRAPH if not chr(byte).isalnum()),
        b"graph": _GRAPH,
        b"print": b" " + _GRAPH,
        b"cntrl": bytes((*range(0x20), 0x7F)),
    }.items()
}
"""`isalpha` and its kind, as they are in the C locale: names are bytes, so no other letters are known."""


def fold_case(mask: int) -> int:
    """Add the other case of every letter of a set; ASCII only, since names are bytes."""
    upper, lower = mask & CLASSES[b"upper"], mask & CLASSES[b"lower"]
    return mask | upper << 0x20 | lower >> 0x20


def parse_bracket(text: bytes, at: int, *, ignore_case: bool) -> tuple[int, int]:
    """Parse a bracket expression.

    Args:
        text: The whole expression.
        at: Where its "[" is.
        ignore_case: Take both cases of every letter.

    Returns:
        The set as a mask, and the place behind the "]".

    Raises:
        ConfigError: It has no end, a range runs backwards, or a class is none.
    """
    at += 1
    is_negated = text[at : at + 1] == b"^"
    at += is_negated
    mask, is_first = 0, True
    while text[at : at + 1] != b"]" or is_first:
        low, at = _element(text, at)
        # A hyphen is a range unless it stands last.
        if text[at : at + 1] == b"-" and text[at + 1 : at + 2] not in (b"]", b""):
            high, at = _element(text, at + 1)
            mask |= _range(low, high)
        else:
            mask |= low if isinstance(low, int) else mask_of(low)
        is_first = False
    if ignore_case:
        mask = fold_case(mask)
    return (ANY & ~mask if is_negated else mask), at + 1


def _range(low: int | bytes, high: int | bytes) -> int:
    if isinstance(low, int) or isinstance(high, int):
        raise ConfigError("a class is no end of a range; write it by itself, such as [[:digit:]a-f]")
    if low > high:
        raise ConfigError(f'the range "{low.decode("latin-1")}-{high.decode("latin-1")}" runs backwards; turn it round')
    return mask_of(bytes(range(low[0], high[0] + 1)))


def _element(text: bytes, at: int) -> tuple[int | bytes, int]:
    """Return a mask for a class or one byte for anything else, and the place behind it."""
    kind = text[at : at + 2]
    if kind in (b"[:", b"[=", b"[."):
        end = text.find(kind[1:] + b"]", at + 2)
        if end < 0:
            raise ConfigError(f'"{kind.decode()}" has no end; write it like [[:alpha:]]')
        name = text[at + 2 : end]
        if kind == b"[:":
            if name not in CLASSES:
                raise ConfigError(f"[:{name.decode('latin-1')}:] is no class; there are {_names()}")
            return CLASSES[name], end + 2
        if len(name) != 1:
            raise ConfigError(f"{kind.decode()}…{kind[1:].decode()}] holds one character; write its characters out")
        return (mask_of(name) if kind == b"[=" else name), end + 2
    if at >= len(text):
        raise ConfigError('"[" has no end; add "]", or write "\\[" for the character')
    return text[at : at + 1], at + 1


def _names() -> str:
    return ", ".join(sorted(name.decode() for name in CLASSES))
