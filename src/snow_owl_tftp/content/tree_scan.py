"""Reads the names below a root, and reads them again where something has changed.

    TreeScan ──scan()──► CaseTree
        a file came or went ──update()──► the same tree, one directory read again
        a directory did, or a link to one ──► another tree, all of it read again

May know: directories, through a Resolver that confines, and inotify. Must not know requests, threads or the log.

Invariants:
- A directory is watched before it is read, so no change falls between.
- Directories are told apart by device and inode: links that lead round in a circle cost nothing.
- A tree has at most `max_names` names, so at most as many watches; what would have more is no tree.
- What lies on a file system that other machines change unseen is left out, and so is what no request can name.

Used by one thread, which may wait for the file system as long as that takes.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from snow_owl_tftp.content.any_case import CaseTree, Directory
from snow_owl_tftp.content.confine import Resolver
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.inotify import Change, Inotify

__all__ = ["ScanEndedError", "TooManyNamesError", "TreeScan"]

_MAX_PATH_BYTES: Final = 512
"""A request has no more (RFC 2347)."""


class TooManyNamesError(Exception):
    """There are more names than were to be kept."""


class ScanEndedError(Exception):
    """Nobody wants the tree any more."""


class TreeScan:
    """Reads one tree."""

    def __init__(
        self,
        resolver: Resolver,
        inotify: Inotify,
        *,
        max_names: int,
        with_hidden: bool,
        is_local: Callable[[int], bool],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare; nothing is read before `scan`.

        Args:
            resolver: Opens paths below the root.
            inotify: Tells what changes; stays the caller's.
            max_names: Files and directories that a tree may have.
            with_hidden: Whether names that begin with a dot are among them.
            is_local: Asked of an open directory: whether nobody changes it but by this kernel.
            is_wanted: Asked before each directory: whether anybody still waits for the tree.
        """
        self._resolver = resolver
        self._inotify = inotify
        self._max_names = max_names
        self._with_hidden = with_hidden
        self._is_local = is_local
        self._is_wanted = is_wanted
        self._locals: dict[int, bool] = {}

    def scan(self, before: CaseTree | None = None) -> CaseTree:
        """Read everything.

        Args:
            before: The tree until now, whose watches are taken over or dropped.

        Raises:
            OSError: The root cannot be read, or the system has no watch left.
            TooManyNamesError: See max_names.
            ScanEndedError: See is_wanted.
        """
        self._locals.clear()
        known: dict[tuple[int, int], Directory] = {}
        waiting: deque[tuple[Directory | None, bytes, bytes]] = deque([(None, b"", b".")])
        total = 0
        while waiting:
            if not self._is_wanted():
                raise ScanEndedError
            parent, name, path = waiting.popleft()
            fd = self._open(path)
            if fd < 0:
                if parent is None:
                    raise OSError(-fd, os.strerror(-fd))
                continue
            try:
                directory, is_new = self._enter(fd, path, known)
                if directory is None:
                    continue
                if parent is not None:
                    parent.below[name] = directory
                if is_new:
                    waiting.extend((directory, below, _joined(path, below)) for below in self._read(fd, directory))
                    total += directory.names_total
                    self._check(total)
            finally:
                close_descriptor(fd)
        directories = list(known.values())
        tree = CaseTree(directories[0], directories)
        for watch in before.by_watch if before is not None else ():
            if watch not in tree.by_watch:
                self._inotify.forget(watch)
        return tree

    def update(self, tree: CaseTree, changes: Iterable[Change]) -> CaseTree:
        """Bring a tree up to date; see `scan` for what is raised."""
        stale: dict[int, Directory] = {}
        for change in changes:
            directory = tree.by_watch.get(change.watch)
            if change.watch < 0 or (directory is not None and (change.is_lost or change.is_of_directory)):
                return self.scan(tree)
            if directory is not None:  # else it was given up, and this is the last that is heard of it
                stale[change.watch] = directory
        if not all(map(self._refresh, stale.values())):
            return self.scan(tree)
        self._check(tree.names_total)
        return tree

    def _check(self, total: int) -> None:
        if total > self._max_names:
            raise TooManyNamesError

    def _open(self, path: bytes) -> int:
        """Return a descriptor of a directory, or a negative errno."""
        fd = self._resolver.open(path)
        if fd >= 0 and not stat.S_ISDIR(os.fstat(fd).st_mode):
            close_descriptor(fd)
            return -errno.ENOTDIR
        return fd

    def _enter(self, fd: int, path: bytes, known: dict[tuple[int, int], Directory]) -> tuple[Directory | None, bool]:
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if identity in known:
            return known[identity], False
        if status.st_dev not in self._locals:
            self._locals[status.st_dev] = self._is_local(fd)
        if not self._locals[status.st_dev]:
            if not known:
                raise OSError(errno.EOPNOTSUPP, "the root is on a file system that others may change unseen")
            return None, False
        known[identity] = Directory(path, identity, self._inotify.watch(fd))
        return known[identity], True

    def _read(self, fd: int, directory: Directory) -> list[bytes]:
        """Fill a directory; return what may be directories below it."""
        names, below = [], []
        for name, is_directory, is_link in self._entries(fd):
            if len(directory.path) + len(name) < _MAX_PATH_BYTES:
                names.append(name)
                if is_directory or is_link:
                    below.append(name)
                self._check(len(names))
        directory.fill(names)
        return below

    def _entries(self, fd: int) -> Iterator[tuple[bytes, bool, bool]]:
        with os.scandir(fd) as entries:
            for entry in entries:
                if self._with_hidden or not entry.name.startswith("."):
                    is_directory = entry.is_dir(follow_symlinks=False)
                    yield os.fsencode(entry.name), is_directory, entry.is_symlink()

    def _refresh(self, directory: Directory) -> bool:
        """Read the files of one directory again; False: it, or a directory below it, is another one now."""
        fd = self._open(directory.path)
        if fd < 0:
            return False
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != directory.identity:
                return False
            below = self._read(fd, directory)
        finally:
            close_descriptor(fd)
        return {name: self._identity(_joined(directory.path, name)) for name in below} == {
            name: directory.below[name].identity if name in directory.below else None for name in below
        } and directory.below.keys() <= set(below)

    def _identity(self, path: bytes) -> tuple[int, int] | None:
        """Return device and inode of a directory that would be read; None: there is none."""
        fd = self._open(path)
        if fd < 0:
            return None
        try:
            status = os.fstat(fd)
            is_read = self._locals.get(status.st_dev, True)  # one that is not known yet is worth a scan
            return (status.st_dev, status.st_ino) if is_read else None
        finally:
            close_descriptor(fd)


def _joined(path: bytes, name: bytes) -> bytes:
    return name if path == b"." else path + b"/" + name
