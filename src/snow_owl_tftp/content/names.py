"""The file names of requests, in the one spelling that files and rules agree on.

May know: text only, no file. Whether a name leads out of the root is for the kernel to say when it
is opened, since only the kernel sees the links on the way; hence `..` passes through here.
"""

import re
from functools import lru_cache

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["climbs_above_root", "normalise_name"]

# C0, DEL and C1: the ends of strings, of lines, and escape sequences of terminals.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


# A boot storm asks for the same few names: 0.1 µs instead of 1.1. Bounded, as peers choose the names.
@lru_cache(maxsize=1024)
def normalise_name(name: str) -> bytes:
    r"""Spell a name as a path relative to the root.

    Args:
        name: The name as the request spells it, such as "\boot\x64//pxelinux.0".

    Returns:
        Its parts joined by one "/" each, without empty and "." parts; b"." for the root itself.
        The case stays: Linux file systems tell "A" from "a".

    Raises:
        RefusedError: ACCESS_VIOLATION for a control character, which no file to be served has
            and which could end the name early (NUL) or forge a line of a log.

    Deviates: a backslash separates as a slash does, because Windows boot managers and EDK2 ask so;
        a file whose name holds a backslash cannot be reached (test_backslash_separates).
    """
    if not name.isprintable() and _CONTROL.search(name):
        raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Illegal file name")
    # Leading slashes vanish as empty parts: the root is all a peer can see of the file system.
    parts = [part for part in name.replace("\\", "/").split("/") if part and part != "."]
    return "/".join(parts).encode("utf-8", "surrogateescape") or b"."


def climbs_above_root(path: bytes) -> bool:
    """Tell whether the `..` of a normalised path alone, without any link, lead above the root."""
    depth = 0
    for part in path.split(b"/"):
        depth += -1 if part == b".." else 1
        if depth < 0:
            return True
    return False
