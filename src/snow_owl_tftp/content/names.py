"""The file names of requests, in the spellings that files and rules agree on.

May know: text only, no file. Whether a name leads out of the root is for the kernel to say when it
is opened, since only the kernel sees the links on the way; hence `..` passes through here.

Names are bytes: what is no UTF-8 comes as lone surrogates (see `packets.Request`) and leaves as the
bytes it was. A name as sent always goes first; what firmware hangs behind a name is cut off only
where there is no such file.
"""

import re
from functools import lru_cache
from typing import Final

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["climbs_above_root", "fold", "meant_by", "normalise_name", "spellings_of"]

_END_MARKER: Final = "\udcff"
"""The byte 0xFF, which ends the options of DHCP (RFC 2132 section 3.2). Intel boot ROMs take option 67
for longer than it is and send the marker, and what lies behind it, as a part of the name."""
_PADDING: Final = "".join(map(chr, (*range(0x21), 0x7F)))
"""C0, blank and DEL: line ends of files that hold names, and what fills fixed fields."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


# A boot storm asks for the same few names: 0.1 µs instead of 1.5. Bounded, as peers choose the names.
@lru_cache(maxsize=1024)
def spellings_of(name: str) -> tuple[bytes, ...]:
    r"""Spell a name as paths relative to the root, to be looked for in this order.

    Args:
        name: The name as the request spells it, such as "\boot\x64//pxelinux.0".

    Returns:
        One or two paths: that of the name as sent, and that of what is `meant_by` it. In each the
        parts are joined by one "/", without empty and "." parts; b"." is the root itself. The case
        stays: Linux file systems tell "A" from "a".

    Raises:
        RefusedError: ACCESS_VIOLATION for a NUL, which ends names early; no request can hold one.

    Deviates: a backslash separates as a slash does, because Windows boot managers and EDK2 ask so;
        a file whose name holds a backslash cannot be reached (test_backslash_separates).
    """
    if "\0" in name:
        raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Illegal file name")
    meant = meant_by(name)
    return (_path_of(name),) if meant == name else (_path_of(name), _path_of(meant))


def meant_by(name: str) -> str:
    """Return a name without what firmware hangs behind it: the 0xFF and what follows, control characters, blanks."""
    return name.partition(_END_MARKER)[0].rstrip(_PADDING) or name


def _path_of(name: str) -> bytes:
    # Leading slashes vanish as empty parts: the root is all a peer can see of the file system.
    parts = [part for part in name.replace("\\", "/").split("/") if part and part != "."]
    return "/".join(parts).encode("utf-8", "surrogateescape") or b"."


def normalise_name(name: str) -> bytes:
    """Spell a name where nobody can look whether a file has it as sent: for what is made, and for handlers.

    Args:
        name: As for `spellings_of`.

    Returns:
        The path of what is `meant_by` the name.

    Raises:
        RefusedError: ACCESS_VIOLATION for C0, DEL and C1 elsewhere in it: nobody names a file so on purpose.
    """
    path = spellings_of(name)[-1]
    if _CONTROL.search(path.decode("utf-8", "surrogateescape")):
        raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Illegal file name", why="a control character in the name")
    return path


def fold(path: bytes) -> bytes:
    """Return a normalised path without `..`, by its text alone: what a `..` takes back is gone with it, and those that
    would climb above the root are left out.
    """
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part != b".":
            parts.append(part)
    return b"/".join(parts) or b"."


def climbs_above_root(path: bytes) -> bool:
    """Tell whether the `..` of a normalised path alone, without any link, lead above the root."""
    depth = 0
    for part in path.split(b"/"):
        depth += -1 if part == b".." else 1
        if depth < 0:
            return True
    return False
