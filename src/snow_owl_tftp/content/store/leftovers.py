"""One walk over the tree, at start or when the space seems used up: what lies there, and what a crash left.

May know: directories, regular files and the hidden names of `staging`. Must not know limits or rules;
which files count is a question that its caller answers.

Invariants:
- No link is followed, so nothing outside the root is seen, and a link's target never counts.
- Only a regular file with a hidden name of ours, which no process holds locked, is removed.
- The work is bounded, in entries and in depth; a walk that was cut short says so.
"""

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from snow_owl_tftp.content.store.staging import is_staging_name
from snow_owl_tftp.linux.descriptors import close_descriptor

__all__ = ["Survey", "survey"]

MAX_ENTRIES: Final = 2_000_000
"""About 4 s of a walk in the cache (2 µs an entry, ext4); a start must not hang on a tree without end."""
MAX_DEPTH: Final = 64
"""Directories; each level holds a descriptor open meanwhile."""

_VERSION_SUFFIX: Final = re.compile(rb"\.~[0-9]+~$")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Survey(Struct, frozen=True):
    """What a walk found.

    Attributes:
        removed_files: Leftovers of a crash that are gone now.
        counted_bytes: Sizes of the files that count, added up.
        is_complete: Whether the whole tree was seen.
    """

    removed_files: int
    counted_bytes: int
    is_complete: bool


def survey(root_fd: int, *, counts: Callable[[bytes], bool], removes_leftovers: bool) -> Survey:
    """Walk the tree below a directory.

    Args:
        root_fd: The directory; it stays open and the caller's.
        counts: Whether a path, relative to the root, counts; an older version of a file
            (`name.~1~`) is asked about by the file's own name.
        removes_leftovers: Whether leftovers of a crash are removed.

    Returns:
        What was found. A directory that cannot be read holds nothing for this purpose.
    """
    walk = _Walk(counts, removes_leftovers=removes_leftovers)
    walk.enter(b".", root_fd, b"", MAX_DEPTH)
    return Survey(walk.removed_files, walk.counted_bytes, walk.is_complete)


class _Walk:
    def __init__(self, counts: Callable[[bytes], bool], *, removes_leftovers: bool) -> None:
        self._counts = counts
        self._removes_leftovers = removes_leftovers
        self._entries_left = MAX_ENTRIES
        self.removed_files = 0
        self.counted_bytes = 0
        self.is_complete = True

    def enter(self, name: bytes, parent_fd: int, prefix: bytes, levels_left: int) -> None:
        try:
            directory_fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        except OSError:
            return
        try:
            with os.scandir(directory_fd) as entries:
                for entry in entries:
                    if self._entries_left == 0 or levels_left == 0:
                        self.is_complete = False
                        return
                    self._entries_left -= 1
                    self._see(entry, directory_fd, prefix, levels_left)
        except OSError:
            return  # it broke under us; what was seen so far stands
        finally:
            close_descriptor(directory_fd)

    def _see(self, entry: os.DirEntry[str], directory_fd: int, prefix: bytes, levels_left: int) -> None:
        name = os.fsencode(entry.name)
        with contextlib.suppress(OSError):  # it vanished meanwhile
            if entry.is_dir(follow_symlinks=False):
                self.enter(name, directory_fd, prefix + name + b"/", levels_left - 1)
            elif not entry.is_file(follow_symlinks=False):
                return
            elif is_staging_name(name):
                self.removed_files += self._removes_leftovers and _remove_leftover(name, directory_fd)
            elif self._counts(prefix + _VERSION_SUFFIX.sub(b"", name)):
                self.counted_bytes += entry.stat(follow_symlinks=False).st_size


def _remove_leftover(name: bytes, directory_fd: int) -> bool:
    """Remove a file that nobody holds: another server on this root may be writing one right now."""
    fd = _open_any_way(name, directory_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError, an OSError: it is alive
        os.unlink(name, dir_fd=directory_fd)
        return True
    finally:
        close_descriptor(fd)


def _open_any_way(name: bytes, directory_fd: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | _FILE, dir_fd=directory_fd)
    except PermissionError:  # a file_mode without read permission
        return os.open(name, os.O_WRONLY | _FILE, dir_fd=directory_fd)
