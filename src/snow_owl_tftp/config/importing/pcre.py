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

_CLASSES: Final = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]", r"\s": "[ \t]"}
"""Perl's, which POSIX does not have."""
_BEYOND: Final = re.compile(r"\(\?[^:]|\\[1-9]|\\[bBAzZGQEK]|[*+?}]\+")
"""Look-around, back references, possessive quantifiers: what linear time cannot have."""


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
        elif (beyond := _BEYOND.search(pattern)) is not None:
            problems.append(f"{place}:{number}: {beyond[0]} needs backtracking, which patterns here do not have")
        else:
            lines.append(f"reG {_posix(pattern)} {_replacement(replacement.strip())}")
    if problems:
        raise ConfigError("\n".join(problems))
    yield from ("# atftpd's patterns are for reads of files that are missing.", r"rEG ^.*$ \0", *lines)


def _posix(pattern: str) -> str:
    for perl, posix in _CLASSES.items():
        pattern = pattern.replace(perl, posix)
    return pattern.replace("(?:", "(").replace("#", r"\#")


def _replacement(text: str) -> str:
    return re.sub(r"\$(\d)", r"\\\1", text.replace("\\", "\\\\").replace(" ", "\\ ").replace("#", "\\#"))
