"""Open a path part after part, confined by descriptors: for what openat2 refuses, and for kernels without it.

    name ──part──► descriptor ──part──► descriptor … ──► file
              link, relative ──► its parts, from the directory that it lies in
              link, absolute ──► the place whose path it begins with, and from there the rest of its parts

A place is a directory that links may lead to: the root, and what `link_targets` names.

Invariants, which hold whatever is renamed meanwhile:
- Every step opens one part, and no link, relative to a descriptor that is held; paths are compared as
  text only, to choose a place. So what is opened lies in a place, or did when it was looked up.
- `..` goes back to the descriptor we came from and never asks the file system for a parent, so a
  directory that is moved out of its place under our feet takes nobody along.
- Only a link leads from one place to another, and by its own parts alone: the parts of a name end at
  the top of the place they are in, and cannot complete a link that leads to no place.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.paths import real_path

__all__ = ["READ_FLAGS", "Place", "WalkResolver"]

READ_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_LOOK: Final = os.O_PATH | os.O_CLOEXEC
_MAX_LINKS: Final = 40
"""MAXSYMLINKS of the kernel."""


class Place:
    """A directory held open, and the paths by which links name it. It closes when nobody uses it any more.

    Attributes:
        fd: O_PATH; -1 once closed.
        real_path: Its path without links, as parts, when it was opened.
        paths: That, and the path by which it was asked for.
        identity: Device and inode.
    """

    __slots__ = ("fd", "identity", "paths", "real_path")

    def __init__(self, path: str | os.PathLike[str], key: str, fd: int = -1) -> None:
        """Open it; execute permission is enough.

        Args:
            path: The directory.
            key: The setting that names it, for an error.
            fd: The directory, if it is open already; taken over.

        Raises:
            ConfigError: It is no directory that can be opened.
        """
        self.fd = fd
        try:
            if fd < 0:
                self.fd = os.open(path, _LOOK | os.O_DIRECTORY)
            status = os.fstat(self.fd)
        except OSError as error:
            raise ConfigError(
                f"{key}: {os.fspath(path)}: {error.strerror}; name a directory that this user may enter"
            ) from error
        self.identity = (status.st_dev, status.st_ino)
        self.real_path = _parts_of(real_path(path))
        self.paths = frozenset({self.real_path, _parts_of(os.path.abspath(path))})  # noqa: PTH100 - with its links

    def close(self) -> None:
        """Close it at once; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close_descriptor(fd)

    def __del__(self) -> None:
        self.close()


def _parts_of(path: str) -> tuple[bytes, ...]:
    return tuple(part for part in os.fsencode(path).split(b"/") if part)


class WalkResolver:
    """Confines by descriptors; see Resolver in `confine`."""

    def __init__(self, root_fd: int, places: Sequence[Place] = ()) -> None:
        """Take the directory to stay in; the descriptor remains the caller's.

        Args:
            root_fd: The directory that names are relative to.
            places: Where links may lead, the root itself first; none: absolute links lead nowhere.
        """
        self._root_fd = root_fd
        self._places = tuple(places)
        self._place_of_path = {path: place for place in reversed(self._places) for path in place.paths}

    def open(self, path: bytes) -> int:
        """See Resolver.open."""
        walk = self._begin(path)
        try:
            return walk.run()
        except OSError as error:
            return -(error.errno or errno.EIO)
        finally:
            walk.close()

    def open_cached(self, path: bytes) -> int:
        """See Resolver.open_cached; a walk cannot know what is in the cache."""
        return -errno.EAGAIN

    def explain(self, path: bytes) -> str:
        """See Resolver.explain."""
        walk = self._begin(path)
        try:
            close_descriptor(walk.run())
        except OSError as error:
            return walk.describe(error)
        finally:
            walk.close()
        return ""

    def _begin(self, path: bytes) -> "_Walk":
        return _Walk(path, self._root_fd, self._places[0] if self._places else None, self._place_of_path)


class _Walk:
    """One path on its way.

    Attributes:
        directories: Descriptors from the top of the place down to where we are; the first is the place's.
        names: Of all but the first.
        pending: Parts still to go, the next one last, and whether a link brought them.
    """

    def __init__(
        self, path: bytes, root_fd: int, root: Place | None, place_of_path: dict[tuple[bytes, ...], Place]
    ) -> None:
        self.directories = [root_fd]
        self.names: list[bytes] = []
        self.pending = [(part, False) for part in reversed(path.split(b"/"))]
        self._root = self._place = root
        self._place_of_path = place_of_path
        self._links = 0
        self._link = b""  # the last one followed, as "name -> target"
        self._part = b"."
        self._is_opening = False  # what is left is to open what was found, for reading

    def run(self) -> int:
        """Return a descriptor. Raises: OSError."""
        while self.pending:
            part, is_of_link = self.pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                self._go_up(is_of_link=is_of_link)
                continue
            self._part = part
            fd, mode = _look_at(part, self.directories[-1])
            if stat.S_ISDIR(mode):
                self.directories.append(fd)
                self.names.append(part)
            elif stat.S_ISLNK(mode):
                self._follow(fd)
            else:
                return self._open_last(fd, mode)
        self._part, self._is_opening = b".", True
        return os.open(b".", READ_FLAGS, dir_fd=self.directories[-1])

    def close(self) -> None:
        """Close what is held, but for the place."""
        for fd in self.directories[1:]:
            close_descriptor(fd)
        del self.directories[1:], self.names[:]

    def describe(self, error: OSError) -> str:
        """Say what stands in the way, for the operator."""
        number = error.errno or errno.EIO
        code = errno.errorcode.get(number, str(number))
        here, there = self._shown(*self.names), self._shown(*self.names, self._part)
        if number == errno.EXDEV and self._link:
            return f"the link {os.fsdecode(self._link)} leads out of the root ({code})"
        if number == errno.EXDEV:
            return f"the name leads out of the root ({code})"
        if number == errno.ELOOP:
            return f"links without end, such as {os.fsdecode(self._link)} ({code})"
        if number in (errno.EACCES, errno.EPERM):
            return f"{there} may not be read ({code})" if self._is_opening else f"{here} may not be entered ({code})"
        return f"{there}: {os.strerror(number)} ({code})"

    def _shown(self, *parts: bytes) -> str:
        above = () if self._place is self._root else (b"", *(self._place.real_path if self._place else ()))
        return os.fsdecode(b"/".join((*above, *parts))) or "the root"

    def _go_up(self, *, is_of_link: bool) -> None:
        if len(self.directories) > 1:
            close_descriptor(self.directories.pop())
            self.names.pop()
        elif is_of_link and self._place is not None:
            self._change_place(self._place.real_path[:-1])
        else:
            raise OSError(errno.EXDEV, "above the root")

    def _follow(self, fd: int) -> None:
        try:
            target = os.readlink(b"", dir_fd=fd)
        finally:
            close_descriptor(fd)
        self._link = os.fsencode(self._shown(*self.names, self._part)) + b" -> " + target
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, "links without end")
        self.pending += [(part, True) for part in reversed(target.split(b"/"))]
        if target.startswith(b"/"):
            self._change_place(())

    def _change_place(self, above: tuple[bytes, ...]) -> None:
        """Go on in the place that the parts of links lead to from `above`, the smallest if one holds another."""
        parts = []
        while self.pending and self.pending[-1][1]:
            parts.append(self.pending.pop()[0])
        path, found, rest_from = above, self._place_of_path.get(above), 0
        is_real = True  # no part of `path` can be a link, so that its parent is what remains without the last part
        for number, part in enumerate(parts, 1):
            if part == b"..":
                if not is_real:
                    break
                path = path[:-1]
                found = None
            elif part not in (b"", b"."):
                path, is_real = (*path, part), False
            if path in self._place_of_path:
                found, rest_from = self._place_of_path[path], number
        if found is None:
            raise OSError(errno.EXDEV, "out of every place")
        self.close()
        self._place, self.directories = found, [found.fd]
        self.pending += [(part, True) for part in reversed(parts[rest_from:])]

    def _open_last(self, fd: int, mode: int) -> int:
        """Open what is no directory and no link; what is not regular is returned unopened, as O_PATH."""
        if not self.pending and not stat.S_ISREG(mode):
            return fd
        close_descriptor(fd)
        if self.pending:
            raise OSError(errno.ENOTDIR, "a file on the way")
        self._is_opening = True
        return os.open(self._part, READ_FLAGS | os.O_NOFOLLOW, dir_fd=self.directories[-1])


def _look_at(part: bytes, directory: int) -> tuple[int, int]:
    """Return a descriptor that can only be looked at, and st_mode."""
    fd = os.open(part, _LOOK | os.O_NOFOLLOW, dir_fd=directory)
    try:
        return fd, os.fstat(fd).st_mode
    except OSError:
        close_descriptor(fd)
        raise
