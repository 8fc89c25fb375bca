r"""A PCRE file of atftpd as a map file of tftpd-hpa, which `rewrite_file` takes.

    ^ppxelinux.cfg/(.*)$ pxelinux.cfg/$1     ──map_lines──►   reG ^ppxelinux.cfg/(.*)$ pxelinux.cfg/\1

atftpd looks into it only for reads, and only where the file is missing; the first pattern that matches wins. So the map
begins with a rule that ends at a name that exists.

May know: both forms. Must not compile a pattern: `rewrite test` does, with the map that comes of it.
"""

import re
from collections.abc import Iterator
from typing import Final

from snow_owl_tftp.errors import ConfigError

__all__ = ["map_lines"]

_CLASSES: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": "[:space:]"}
"""Perl's, which POSIX does not have, as they stand in a bracket."""
_TOKEN: Final = re.compile(
    r"\\(?P<escaped>.)|(?P<beyond>\(\?[^:]|[*+?}][+?])|(?P<group>\(\?:)|(?P<bracket>\[\^?\]?)|(?P<other>.)", re.DOTALL
)
_IN_BRACKET: Final = re.compile(r"\\(?P<escaped>.)|\[:[a-z]+:\]|(?P<beyond>\#)|(?P<end>\])|(?P<other>.)", re.DOTALL)


def map_lines(text: str, place: str) -> Iterator[str]:
    """Yield the lines of the map file.

    Raises:
        ConfigError: Lines that are no rule, or need what RE2 has not; each is named.
    """
    problems, lines = [], []
    for number, line in enumerate(text.splitlines(), 1):
        pattern, _, replacement = line.partition(" ")
        if not pattern or not replacement.strip():
            problems.append(f"{place}:{number}: expected PATTERN REPLACEMENT, got {line!r}")
        else:
            try:
                lines.append(f"reG {_posix(pattern)} {_replacement(replacement.strip())}")
            except ValueError as error:
                reason = "needs backtracking, or is something else than a map file has; write the rule anew"
                problems.append(f"{place}:{number}: {error} {reason}")
    if problems:
        raise ConfigError("\n".join(problems))
    yield from ("# atftpd's patterns are for reads of files that are missing.", r"rEG ^.*$ \0", *lines)


def _posix(pattern: str) -> str:
    """Raises: ValueError: It names what POSIX, or linear time, has not."""
    parts, is_in_bracket, at = [], False, 0
    while at < len(pattern):
        found = (_IN_BRACKET if is_in_bracket else _TOKEN).match(pattern, at)
        assert found is not None, "each takes any character"
        said, at = found.groupdict(), found.end()
        if said["beyond"]:
            raise ValueError(said["beyond"])
        if said["escaped"]:
            parts.append(_escaped(said["escaped"], is_in_bracket=is_in_bracket))
        elif said.get("group"):
            parts.append("(")
        else:
            parts.append(r"\#" if found[0] == "#" else found[0])
        is_in_bracket = not said.get("end") if is_in_bracket else bool(said.get("bracket"))
    return "".join(parts)


def _escaped(character: str, *, is_in_bracket: bool) -> str:
    members = _CLASSES.get(character.lower(), "")
    if members and not is_in_bracket:
        return f"[{'^' if character.isupper() else ''}{members}]"
    if members and character.islower():
        return members
    if character.isalnum() or (is_in_bracket and character in r"]^-\[#"):
        raise ValueError(f"\\{character}" + (" in a bracket" if is_in_bracket else ""))
    return character if is_in_bracket else f"\\{character}"


def _replacement(text: str) -> str:
    return re.sub(r"\$(\d)", r"\\\1", text.replace("\\", "\\\\").replace(" ", "\\ ").replace("#", "\\#"))
