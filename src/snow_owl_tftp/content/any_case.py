"""Names of files that differ from a request's in case only, found without asking the file system.

    CaseTree ──find(b"BOOT/bcd")──► b"Boot/BCD", if no other name comes down to the same

May know: names, as somebody has read them. Must not ask a file system: `tree_scan` makes trees and keeps them fresh.

Invariants:
- What is found is a name that was there when its directory was read. It is opened like any other, confined and by the
  same rules, so one that is outdated, or leads elsewhere now, does no harm.
- A look-up is bounded by the parts of the name and by `_MAX_WAYS`, whatever directories and links there are.
- One thread changes a tree, others look things up meanwhile: a directory's names are replaced whole.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from snow_owl_tftp.content.names import in_lower_case

__all__ = ["CaseTree", "Directory"]

_MAX_WAYS: Final = 16
"""Directories whose path differs in case only: more are somebody's game, and the name counts as ambiguous."""


class Directory:
    """A directory that was read.

    Attributes:
        path: By which it was found first, relative to the root.
        identity: Device and inode.
        watch: Its number for inotify.
        below: The directories in it, and those that links in it lead to, by name.
        names_total: How many names it holds.
    """

    __slots__ = ("_names", "below", "identity", "names_total", "path", "watch")

    def __init__(self, path: bytes, identity: tuple[int, int], watch: int) -> None:
        """Begin without a name."""
        self.path = path
        self.identity = identity
        self.watch = watch
        self.below: dict[bytes, Directory] = {}
        self._names: dict[bytes, bytes | tuple[bytes, ...]] = {}
        self.names_total = 0

    def fill(self, names: Sequence[bytes]) -> None:
        """Take its names, directories included, instead of those that it had."""
        folded: dict[bytes, bytes | tuple[bytes, ...]] = {}
        for name in names:
            key = in_lower_case(name)
            key = name if key == name else key  # one object where one will do
            other = folded.get(key)
            folded[key] = name if other is None else (*((other,) if isinstance(other, bytes) else other), name)
        self._names = folded
        self.names_total = len(names)

    def spelled(self, folded: bytes) -> tuple[bytes, ...]:
        """Return the names that come down to this one in lower case."""
        found = self._names.get(folded, ())
        return (found,) if isinstance(found, bytes) else found


class CaseTree:
    """The names below a root.

    Attributes:
        root: Its directory.
        by_watch: All directories by the number of their watch.
        ambiguous_total: How often several names came down to the one that was looked for.
    """

    def __init__(self, root: Directory, directories: Iterable[Directory]) -> None:
        """Take what was read."""
        self.root = root
        self.by_watch = {directory.watch: directory for directory in directories}
        self.ambiguous_total = 0

    @property
    def names_total(self) -> int:
        """Files and directories."""
        return sum(directory.names_total for directory in self.by_watch.values())

    def find(self, path: bytes, below: bytes = b"") -> bytes | None:
        """Find the one file whose name differs from this one in case at most.

        Args:
            path: Normalised. One with `..` has none, since that asks for more than names.
            below: The directory that it is relative to, by its exact path from the root; empty: the root.

        Returns:
            Its path, relative to that directory; None: there is none, or there are several.
        """
        top = self._directory(below)
        if top is None:
            return None
        *directories, last = in_lower_case(path).split(b"/")
        ways = {top: b""}  # by directory: two links to one are no two files
        for part in directories:
            ways = {
                child: way + name + b"/"
                for directory, way in ways.items()
                for name in directory.spelled(part)
                if (child := directory.below.get(name)) is not None
            }
            if len(ways) > _MAX_WAYS:
                self.ambiguous_total += 1
                return None
        found = [
            way + name
            for directory, way in ways.items()
            for name in directory.spelled(last)
            if name not in directory.below
        ]
        self.ambiguous_total += len(found) > 1
        return found[0] if len(found) == 1 else None

    def _directory(self, path: bytes) -> Directory | None:
        found: Directory | None = self.root
        for part in path.split(b"/") if path else ():
            found = found.below.get(part) if found is not None else None
        return found
