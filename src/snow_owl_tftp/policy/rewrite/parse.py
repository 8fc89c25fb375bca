r"""The map file of tftpd-hpa (`in.tftpd -m`), as it is.

    rg \\ /                ──parse_map──► rules, or every faulty line with its number
    ri ^[a-z]:
    e ^ok/   # comment

One rule a line: OPERATION REGEX [REPLACEMENT], or :LABEL. Fields end at a blank that no backslash precedes; "#" begins
a comment in the same way. The grammar is that of tftpd-hpa 6; what an older one has means the same there.

May know: bytes, lines, and whether an expression is one. Must not run a rule, nor read a file.

Invariants: every faulty line is named, not only the first; what tftpd-hpa refuses is refused.
"""

from itertools import combinations
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.policy.rewrite.ere import parse_ere
from snow_owl_tftp.policy.rewrite.rules import Rule, Source

__all__ = ["parse_map"]

_BLANKS: Final = b" \t\n\v\f\r"
_FLAGS: Final = frozenset("rgieEsajGP46~")
_REFUSED: Final = frozenset(map(frozenset, ("r~", "ra", "rj", "aj", "as", "ej", "ae", "es", "eE", "Ej", "aE", "Es")))
"""Pairs that tftpd-hpa refuses too: each says two things at once."""


def parse_map(content: bytes, name: str) -> Source:
    """Parse a whole file.

    Args:
        content: Of the file.
        name: Of the file, for errors.

    Raises:
        ConfigError: A line is no rule; one line of text for each of them.
    """
    rules, problems = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            rule = _parse_line(line.replace(b"\r", b""), f"line {number}")
        except ConfigError as error:
            problems.append(f"{name}: line {number}: {error}")
            continue
        if rule is not None:
            rules.append(rule)
    if problems:
        raise ConfigError("\n".join(problems))
    return Source(name, tuple(rules))


def _parse_line(line: bytes, where: str) -> Rule | None:
    if b"\0" in line:
        raise ConfigError("there is a NUL in it; this is no map file")
    operation, rest = _field(line)
    if not operation:
        return None
    if operation.startswith(b":"):
        return Rule(where, label=operation[1:] or _field(rest)[0])
    flags = operation.decode("latin-1")
    _check_flags(flags)
    pattern, rest = _field(rest)
    if not pattern:
        raise ConfigError(f'"{flags}" has no regular expression; write "^" for every name')
    replacement, _ = _field(rest)
    if "j" in flags and not replacement:
        raise ConfigError('"j" names no label; write the name of one behind the expression')
    parse_ere(pattern)  # here too, so that all faulty lines are told at once
    return _rule(where, flags, pattern, replacement)


def _rule(where: str, flags: str, pattern: bytes, replacement: bytes) -> Rule:
    rewrites = "r" in flags
    repeats = rewrites and "g" in flags
    return Rule(
        where,
        pattern,
        replacement,
        rewrites=rewrites,
        repeats=repeats and flags.count("g") == 1,
        repeats_behind=repeats and flags.count("g") > 1,
        ends="e" in flags,
        ends_if_openable="E" in flags,
        restarts="s" in flags,
        denies="a" in flags,
        jumps="j" in flags,
        is_inverse="~" in flags,
        ignore_case="i" in flags,
        # Both of a pair exclude one another, so that the rule is for nobody: as in tftpd-hpa.
        for_reads="P" not in flags,
        for_writes="G" not in flags,
        for_v4="6" not in flags,
        for_v6="4" not in flags,
    )


def _check_flags(flags: str) -> None:
    for flag in flags:
        if flag not in _FLAGS:
            shown = flag if flag.isprintable() else f"\\x{ord(flag):02x}"
            raise ConfigError(f'"{shown}" is no operation; there are r g gg i e E s a j G P 4 6 ~')
    for pair in combinations(sorted(set(flags)), 2):
        if frozenset(pair) in _REFUSED:
            raise ConfigError(f'"{pair[0]}" and "{pair[1]}" cannot be combined; write two rules')


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Return the first field, its backslashes kept, and what follows it."""
    line = line.lstrip(_BLANKS)
    is_escaped = False
    for at, byte in enumerate(line):
        if not is_escaped and (byte in _BLANKS or byte == ord("#")):
            return line[:at], line[at:]
        # A backslash that is escaped itself escapes nothing.
        is_escaped = not is_escaped and byte == ord("\\")
    return line, b""
