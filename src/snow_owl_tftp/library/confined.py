r"""Names of the network, and files below a directory of the program's.

    "\boot//./x", "/boot/x", "boot/y/../x"   ─path_of──► "boot/x"       "../x" ─► ERROR 2, no handler is asked
    a path that a handler made                ─confine──► ConfinedFile, or ERROR 2 where it is outside of the root

May know: paths, content.files, which names are hidden. Must not know handlers, plans or the engine.
Invariants:
- What `path_of` returns is relative and has no `..`: joined to a directory it names nothing outside of it, links aside.
- A ConfinedFile is opened by the kernel beneath its root, so that no link leads out of it either. It is no path: what
  is not confined (open, Path) refuses to take it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.names import climbs_above_root, fold, normalise_name
from snow_owl_tftp.content.refusals import OutsideRootError, refusal_of_errno
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.paths import real_path
from snow_owl_tftp.policy.rules import is_hidden
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["ConfinedFile", "confine", "path_of"]


@dataclass(frozen=True, slots=True)
class ConfinedFile:
    """A regular file below a directory, links included; what `ReadRequest.under` returns.

    Nothing is looked up before it is opened or sent, so it may name a file that does not exist.

    Attributes:
        root: The directory that nothing leads out of.
        path: Relative to it.
        hidden: Whether it may be opened though a part of the path begins with a dot.
    """

    root: Path
    path: str
    hidden: bool = False

    def open(self) -> BinaryIO:
        """Open it for reading.

        Returns:
            A file object of its bytes, which the caller closes.

        Raises:
            RefusedError: It does not exist, is hidden, leads out of the root, is no regular file, or may not be read.
                Left alone by a handler, it is what the client is told.
        """
        return os.fdopen(self.open_descriptor(), "rb")

    def read_bytes(self) -> bytes:
        """Read it whole.

        Returns:
            Its bytes.

        Raises:
            RefusedError: As for `open`.
        """
        with self.open() as file:
            return file.read()

    def is_file(self) -> bool:
        """Tell whether it can be sent: the way to a second choice.

        Returns:
            False where `open` would fail.
        """
        try:
            close_descriptor(self.open_descriptor())
        except RefusedError:
            return False
        return True

    def open_descriptor(self) -> int:
        """Open it for reading.

        Returns:
            A descriptor, the caller's.

        Raises:
            RefusedError: As for `open`.
        """
        if not self.hidden and is_hidden(os.fsencode(self.path)):
            raise RefusedError(ErrorCode.FILE_NOT_FOUND, "File not found")
        try:
            tree = FileTree(self.root)
        except ConfigError as error:  # of the file server: there the root is a setting
            cause = error.__cause__
            raise refusal_of_errno((isinstance(cause, OSError) and cause.errno) or 0) from error
        try:
            return tree.open_for_reading(self.path).fd
        finally:
            tree.close()


def path_of(name: str) -> str:
    """Spell the name of a request as a relative path.

    Args:
        name: As the request spells it.

    Returns:
        Its parts joined by "/", without empty ones, "." and "..": what a ".." takes back is gone with it, and so is
        what firmware hangs behind a name. "." for the root itself. Bytes that are not UTF-8 are surrogates, as
        os.fsdecode makes them.

    Raises:
        RefusedError: ACCESS_VIOLATION for control characters that are no mere end of it, and, as OutsideRootError, for
            `..` that lead above the root.
    """
    spelled = normalise_name(name)
    if climbs_above_root(spelled):
        raise OutsideRootError(by_link=False)
    return fold(spelled).decode("utf-8", "surrogateescape")


def confine(root: Path, file: Path | ConfinedFile) -> ConfinedFile:
    """Hold a file to a root; looks at the file system, so that it may wait.

    Args:
        root: The directory.
        file: Any path, a relative one relative to the working directory, as everywhere; or a file that is confined
            already, to a directory that has to be the root or below it.

    Returns:
        The same file, to be opened beneath the root.

    Raises:
        OutsideRootError: It is not below the root.
        RefusedError: It is confined already, and cannot be opened.
    """
    if isinstance(file, ConfinedFile):
        directory = _relative(real_path(file.root), real_path(root))
        # Held to its own directory first. That one may be moved, or become a link, before it is opened again: what is
        # sent is opened beneath the root.
        close_descriptor(file.open_descriptor())
        return ConfinedFile(root, f"{directory}/{file.path}", hidden=True)
    absolute = os.path.abspath(file)  # noqa: PTH100 - resolve() would follow links, which the kernel is to judge
    try:
        return ConfinedFile(root, _relative(absolute, os.path.abspath(root)), hidden=True)  # noqa: PTH100
    except OutsideRootError:  # a root that is a link, and a path that was resolved
        return ConfinedFile(root, _relative(absolute, real_path(root)), hidden=True)


def _relative(path: str, root: str) -> str:
    if os.path.commonpath([root, path]) != root:
        raise OutsideRootError(by_link=False)
    return os.path.relpath(path, root)
