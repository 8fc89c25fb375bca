"""The file names of requests, in the spellings that files and rules agree on.

    name ──spellings_of──► as sent, and what is meant by it      looked for one after the other
           ──others_of───► without the root, in other encodings, in lower case       if neither is there

May know: text only, no file. Whether a name leads out of the root is for the kernel to say when it
is opened, since only the kernel sees the links on the way; hence `..` passes through here.

Names are bytes: what is no UTF-8 comes as lone surrogates (see `packets.Request`) and leaves as the
bytes it was. A name as sent always goes first; what firmware hangs behind a name is cut off only
where there is no such file.

Invariants:
- A spelling never says more than the name: no part of it is `..`, or holds a NUL, unless a part of the name as
  sent, or as it is meant, does.
- What a name costs has a bound: at most `MAX_SPELLINGS` paths, each no longer than the name three times.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Final

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = [
    "DEFAULT_NAMES",
    "MAX_SPELLINGS",
    "Names",
    "climbs_above_root",
    "fold",
    "in_lower_case",
    "meant_by",
    "normalise_name",
    "path_of",
    "spellings_of",
]

MAX_SPELLINGS: Final = 2 * 2 * 5 * 2
"""As sent and as meant, with and without the root, in four encodings and as it is, as it is and in lower case."""
_END_MARKER: Final = "\udcff"
"""The byte 0xFF, which ends the options of DHCP (RFC 2132 section 3.2). Intel boot ROMs take option 67
for longer than it is and send the marker, and what lies behind it, as a part of the name."""
_BLANKS: Final = " "
_CONTROLS: Final = "".join(map(chr, (*range(0x20), 0x7F)))
"""C0 and DEL: line ends of files that hold names, and what fills fixed fields."""
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_REMEMBERED: Final = 1024
"""A boot storm asks for the same few names: 0.1 µs instead of 1.5. Bounded, as peers choose the names."""


class Names:
    r"""How the names of one configuration are spelled; may be used by any thread.

    Attributes:
        spellings_of: Spells a name as one or two paths relative to the root, to be looked for in this order: that of
            the name as sent, such as "\boot\x64//pxelinux.0", and that of what is meant by it. In each the parts are
            joined by one "/", without empty and "." parts; b"." is the root itself. The case stays: Linux file systems
            tell "A" from "a". Raises RefusedError, ACCESS_VIOLATION, for a NUL, which ends names early; no request can
            hold one.
        others_of: Spells the same name in the further ways that the settings allow, for where none of these is there.

    Deviates: a backslash separates as a slash does, because Windows boot managers and EDK2 ask so;
        a file whose name holds a backslash cannot be reached (test_backslash_separates).
    """

    def __init__(
        self,
        *,
        cut: Collection[str] = ("ff", "blanks", "controls"),
        root: bytes = b"",
        encodings: Sequence[str] = (),
        in_lower_case: bool = False,
    ) -> None:
        """Compile settings.

        Args:
            cut: What is cut off from the end: "ff", the byte 0xFF and what follows; "blanks"; "controls".
            root: An absolute path that a name may begin with; empty: none.
            encodings: Python's names of codecs that extend ASCII by one byte a character.
            in_lower_case: Whether names are also looked for in lower case.
        """
        self._marker = _END_MARKER if "ff" in cut else ""
        self._padding = (_BLANKS if "blanks" in cut else "") + (_CONTROLS if "controls" in cut else "")
        self._root = path_of(root.decode("utf-8", "surrogateescape")) + b"/" if root.strip(b"/") else b""
        self._last_of_root = self._root.decode("utf-8", "surrogateescape").rpartition("/")[0].rpartition("/")[2]
        self._encodings = tuple(encodings)
        self._in_lower_case = in_lower_case
        self.spellings_of: Callable[[str], tuple[bytes, ...]] = lru_cache(maxsize=_REMEMBERED)(self._spell)
        self.others_of: Callable[[str], tuple[bytes, ...]] = lru_cache(maxsize=_REMEMBERED)(self._spell_otherwise)

    def meant_by(self, name: str) -> str:
        """Return a name without what firmware hangs behind it."""
        meant = name.partition(self._marker)[0] if self._marker else name
        return (meant.rstrip(self._padding) if self._padding else meant) or name

    def may_mean_more(self, name: str) -> bool:
        """Tell quickly, for floods of names that nobody has, whether there may be `others_of` a name."""
        return (
            self._in_lower_case
            or bool(self._encodings and not name.isascii())
            or bool(self._root and self._last_of_root in name)
        )

    def normalise(self, name: str) -> bytes:
        """Spell a name where nobody can look whether a file has it as sent: for what is made, and for handlers.

        Args:
            name: As for `spellings_of`.

        Returns:
            The path of what is `meant_by` the name, without the root.

        Raises:
            RefusedError: ACCESS_VIOLATION for C0, DEL and C1 elsewhere in it: nobody names a file so on purpose.
        """
        path = self.spellings_of(name)[-1]
        path = self._without_root(path) or path
        if _CONTROL.search(path.decode("utf-8", "surrogateescape")):
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Illegal file name", why="a control character in the name")
        return path

    def _spell(self, name: str) -> tuple[bytes, ...]:
        if "\0" in name:
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Illegal file name")
        meant = self.meant_by(name)
        return (path_of(name),) if meant == name else (path_of(name), path_of(meant))

    def _spell_otherwise(self, name: str) -> tuple[bytes, ...]:
        known = self.spellings_of(name)
        stripped = [*known, *filter(None, map(self._without_root, known))]
        encoded = [*stripped, *(other for path in stripped for other in self._encoded(path))]
        found = [*encoded, *map(in_lower_case, encoded)] if self._in_lower_case else encoded
        return tuple(path for path in dict.fromkeys(found) if path not in known)

    def _without_root(self, path: bytes) -> bytes:
        """Return what is left; nothing where the path does not lie below the root."""
        return path.removeprefix(self._root) if self._root and path.startswith(self._root) else b""

    def _encoded(self, path: bytes) -> Iterator[bytes]:
        """Yield a path in the other encodings: UTF-8 as each of these, and what is none, as UTF-8 once it is read as
        each of these.
        """
        if path.isascii():
            return
        try:
            text: str | None = path.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        for encoding in self._encodings:
            try:
                yield text.encode(encoding) if text is not None else path.decode(encoding).encode("utf-8")
            except UnicodeError:  # this one has no such character
                continue


def path_of(name: str) -> bytes:
    """Return a name as a path relative to the root, cut off nothing."""
    # Leading slashes vanish as empty parts: the root is all a peer can see of the file system.
    parts = [part for part in name.replace("\\", "/").split("/") if part and part != "."]
    return "/".join(parts).encode("utf-8", "surrogateescape") or b"."


def in_lower_case(path: bytes) -> bytes:
    """Return a path in lower case, character by character; what is no UTF-8 stays.

    A character whose lower case is more than one, such as "İ", or is of ASCII though it is not, as that of the Kelvin
    sign is, stays too: no part becomes another by more than its case.
    """
    if path.isascii():
        return path.lower()
    text = path.decode("utf-8", "surrogateescape")
    return "".join(map(_lower, text)).encode("utf-8", "surrogateescape")


def _lower(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 and lower.isascii() == character.isascii() else character


DEFAULT_NAMES: Final = Names()
"""Of no configuration."""
spellings_of: Final = DEFAULT_NAMES.spellings_of
meant_by: Final = DEFAULT_NAMES.meant_by
normalise_name: Final = DEFAULT_NAMES.normalise


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
