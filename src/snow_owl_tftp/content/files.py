"""Regular files below one directory, opened for reading.

May know: the file system, through a Resolver that confines. Must not know who asks, or why.

Invariants:
- The root is opened and kept: what is mounted over its path, or renamed, later changes nothing before
  somebody calls `look_again`. What was opened below the old root stays open.
- A descriptor that leaves here is of a regular file below the root, or below a directory that links
  may lead to, and no larger than allowed.
- What is refused leaks nothing (`refusals`).
- Every method may be called by any thread.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from snow_owl_tftp.content.confine import CachedResolver, Resolver, choose_resolver, enter, enter_cached
from snow_owl_tftp.content.devices import device_of
from snow_owl_tftp.content.names import climbs_above_root, spellings_of
from snow_owl_tftp.content.refusals import (
    IO_ERROR,
    NOT_REGULAR,
    FileTooLargeError,
    OutsideRootError,
    RequirementError,
    refusal_of_errno,
)
from snow_owl_tftp.content.source import LATER, Identity, Later, Named, NotHere
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.file_systems import is_on_local_file_system

__all__ = ["FileTree", "OpenFile"]

_PATH_MAX: Final = 4096  # linux/limits.h

_Require: TypeAlias = Literal["nothing", "world_readable", "owned"]
_ASK_RESOLVER: Final = (-errno.EXDEV, -errno.ENOSYS, -errno.EPERM, -errno.EINVAL, -errno.EAGAIN, -errno.EINTR)
"""A link that is absolute, a kernel without openat2, a race with a rename: the resolver knows another way."""
_ABSENT: Final = (-errno.ENOENT, -errno.ENOTDIR, -errno.ENAMETOOLONG)


class OpenFile:
    """An open regular file; whoever holds it closes it.

    Read it with pread only: a descriptor may share its offset with others.

    Attributes:
        fd: Open for reading, close-on-exec; -1 once closed.
        size_bytes: As of opening.
        relative_path: Normalised, relative to the root, links not resolved.
        is_as_sent: The name was found as the request spells it; nothing was cut off.
        mtime_ns: Of the file, as of opening.
        ctime_ns: Likewise. Unlike mtime nobody can set it back: with size, mtime, inode and device it tells one
            content from another.
        inode: Of the file.
        device: Of the file.
        held: Must live as long as the content is used; None: nothing.
        root_fd: The root that it was found in, where whoever looks there again finds the same; -1: not known, or other
            roots come first.
    """

    __slots__ = (
        "ctime_ns",
        "device",
        "fd",
        "held",
        "inode",
        "is_as_sent",
        "mtime_ns",
        "relative_path",
        "root_fd",
        "size_bytes",
    )

    def __init__(self, fd: int, relative_path: bytes, status: os.stat_result, *, is_as_sent: bool = True) -> None:
        """Take over `fd`, whose fstat gave `status`."""
        self.fd = fd
        self.relative_path = relative_path
        self.is_as_sent = is_as_sent
        self.size_bytes = status.st_size
        self.mtime_ns = status.st_mtime_ns
        self.ctime_ns = status.st_ctime_ns
        self.inode = status.st_ino
        self.device = status.st_dev
        self.held: object = None
        self.root_fd = -1

    @property
    def identity(self) -> Identity:
        """Tells this content from any other."""
        return Identity(self.device, self.inode, self.size_bytes, self.mtime_ns, self.ctime_ns)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close_descriptor(fd)


class FileTree:
    """All that may be read: the regular files below one directory.

    Attributes:
        max_file_size_bytes: Larger files are refused from now on; 0: no limit.
        is_local: The root's own file system answers from the kernel's caches, never from another machine.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        max_file_size_bytes: int = 0,
        make_resolver: Callable[[int, Sequence[Place]], Resolver] = choose_resolver,
        link_targets: Sequence[str] = (),
        key: str = "root_dir",
    ) -> None:
        """Open the root.

        Args:
            root: A directory; execute permission on it is enough.
            max_file_size_bytes: Larger files are refused; 0: no limit.
            make_resolver: How to confine; by default, as this kernel can do best.
            link_targets: Directories outside the root that links may lead to.
            key: The setting that names the root, for an error.

        Raises:
            ConfigError: The root, or what links may lead to, is no directory that can be opened.
        """
        self.max_file_size_bytes = max_file_size_bytes
        self._root = root
        self._link_targets = tuple(link_targets)
        self._make_resolver = make_resolver
        self._key = key
        self._take(self._open_places())

    def look_again(self) -> bool:
        """Look up the paths of the root and of what links may lead to, and go on there if they lead elsewhere now.

        Returns:
            Whether anything changed: what was decided before may not be repeated.

        Raises:
            ConfigError: One is no directory that can be opened; everything stays as it was.
        """
        places = self._open_places()
        if [(place.identity, place.paths) for place in places] == [
            (place.identity, place.paths) for place in self._places
        ]:
            return False
        self._take(places)
        return True

    def close(self) -> None:
        """Close the root; files opened before stay open."""
        for place in self._places:
            place.close()

    @property
    def _root_fd(self) -> int:
        return self._places[0].fd

    @property
    def places(self) -> tuple[Place, ...]:
        """The root, and where links may lead; they stay open while somebody holds them, or this."""
        return self._places

    @property
    def asked_for(self) -> tuple[str | os.PathLike[str], tuple[str, ...]]:
        """The path of the root and those of what links may lead to, as they were given."""
        return self._root, self._link_targets

    def _open_places(self) -> tuple[Place, ...]:
        return (Place(self._root, self._key), *(Place(path, "link_targets") for path in self._link_targets))

    def _take(self, places: tuple[Place, ...]) -> None:
        # Threads that still open below the old places hold them by their resolver, until they are done.
        self._places = places
        self.is_local = is_on_local_file_system(places[0].fd)
        self._name_max = _name_max_bytes(places[0].fd)
        self._resolver = self._make_resolver(places[0].fd, places)

    def device_of(self, named: Named, may_wait_on: int | None = None) -> int:
        """See ContentSource.device_of, and devices.device_of."""
        return device_of(self._places, named.paths[0], may_wait_on, is_local=self.is_local)

    def open_for_reading(self, name: str) -> OpenFile:
        """Open a file; may block where the file system is slow.

        Args:
            name: As a request spells it; see `spellings_of`.

        Returns:
            The file, which the caller closes.

        Raises:
            RefusedError: See NotHere.refusal of `open`.
        """
        file = self._open(spellings_of(name))
        if isinstance(file, NotHere):
            raise file.refusal
        return file

    def open(self, named: Named) -> OpenFile | NotHere:
        """Open a file; may block where the file system is slow.

        Args:
            named: What the rules allow.

        Returns:
            The file, which the caller closes; or what to answer instead: OutsideRootError and FileTooLargeError where
            these are the reason.
        """
        return self._open(named.paths, named.require)

    def _open(self, paths: tuple[bytes, ...], require: _Require = "nothing") -> OpenFile | NotHere:
        resolver = self._resolver
        for path in paths:
            fd = resolver.open(path)
            if fd not in _ABSENT:
                break
        if fd < 0:
            return NotHere(_refusal(-fd, path, resolver))
        return self._accept(fd, path, require, is_as_sent=path is paths[0])

    def open_now(self, named: Named) -> OpenFile | NotHere | Later:
        """Open a file if that can be done without waiting for anything.

        It answers when every part of the path is in the kernel's dentry cache, on the root's own
        mount, and that mount is of a local file system. A name known not to exist is an answer too;
        any other refusal needs a look at what is to blame, which may wait.

        Args:
            named: As for open.

        Returns:
            As `open`; LATER: nothing is known yet.
        """
        return self._open_now(self._resolver, named) if self.is_local else LATER

    def open_now_below(self, below: bytes, named: Named) -> OpenFile | NotHere | Later | None:
        """Do the same, confined to a directory beneath the root.

        Args:
            below: Its path.
            named: As for open, relative to that directory.

        Returns:
            As `open_now`; None: there is no such directory.
        """
        fd = enter_cached(self._root_fd, below) if self.is_local else -errno.EAGAIN
        if fd < 0:
            return None if fd in _ABSENT else LATER
        try:
            # On the same mount, so what is known of the root's holds; absolute links wait for a thread.
            return self._open_now(CachedResolver(fd), named)
        finally:
            close_descriptor(fd)

    def open_below(self, below: bytes, named: Named) -> OpenFile | NotHere:
        """Open a file, confined to a directory beneath the root; may block where the file system is slow."""
        place = self.enter(below)
        return place if isinstance(place, NotHere) else _OneRoot(self, place).open(named)

    def enter(self, below: bytes) -> Place | NotHere:
        """Open a directory beneath the root; may block where the file system is slow."""
        fd = self.descriptor_of(below)
        if fd < 0:
            return NotHere(_refusal(-fd, below, self._resolver))
        root = self._places[0]
        try:
            return Place(os.fsdecode(os.path.join(b"/", *root.real_path, below)), "roots", fd)  # noqa: PTH118 - bytes
        except ConfigError:  # it ceased to answer
            return NotHere(refusal_of_errno(errno.EIO))

    def descriptor_of(self, below: bytes) -> int:
        """Return a descriptor of a directory beneath the root, the caller's, or a negative errno; may block."""
        fd = enter(self._root_fd, below)
        if fd not in _ASK_RESOLVER:
            return fd
        fd = self._resolver.open(below)
        if fd >= 0 and not stat.S_ISDIR(os.fstat(fd).st_mode):
            close_descriptor(fd)
            return -errno.ENOTDIR
        return fd

    def _open_now(self, resolver: Resolver | CachedResolver, named: Named) -> OpenFile | NotHere | Later:
        paths = named.paths
        for path in paths:
            fd = resolver.open_cached(path)
            if fd == -errno.EAGAIN and len(path) > self._name_max and self._is_too_long(path, resolver):
                fd = -errno.ENAMETOOLONG
            if fd not in _ABSENT:
                break
        if fd in _ABSENT:
            return NotHere(refusal_of_errno(-fd))
        if fd < 0:
            return LATER
        return self._accept(fd, path, named.require, is_as_sent=path is paths[0])

    def _is_too_long(self, path: bytes, resolver: Resolver | CachedResolver) -> bool:
        """Whether a part is longer than any name on the root's own file system, where it is known to be looked for.

        The kernel's caches hold no such name, so each of a flood of them would take a thread.
        """
        parts = path.split(b"/")
        at = next((at for at, part in enumerate(parts) if len(part) > self._name_max), None)
        if at is None:
            return False
        if at == 0:
            return True
        # Another file system may be mounted, or linked to, on the way there, and allow more.
        fd = resolver.open_cached(b"/".join(parts[:at]))
        if fd >= 0:
            close_descriptor(fd)
        return fd >= 0 or fd in _ABSENT

    def _accept(self, fd: int, path: bytes, require: _Require, *, is_as_sent: bool) -> OpenFile | NotHere:
        try:
            status = os.fstat(fd)
        except OSError as error:
            close_descriptor(fd)
            refusal = RefusedError(*IO_ERROR)
            refusal.__cause__ = error
            return NotHere(refusal)
        if not stat.S_ISREG(status.st_mode):
            close_descriptor(fd)
            return NotHere(RefusedError(*NOT_REGULAR))
        if 0 < self.max_file_size_bytes < status.st_size:
            close_descriptor(fd)
            return NotHere(FileTooLargeError(status.st_size))
        if require != "nothing" and (why := _lacks(status, require)):
            close_descriptor(fd)
            return NotHere(RequirementError(why))
        return OpenFile(fd, path, status, is_as_sent=is_as_sent)


class _OneRoot(FileTree):
    """A directory for one look, by what is known of the tree that it lies in."""

    def __init__(self, tree: FileTree, place: Place) -> None:
        self.max_file_size_bytes = tree.max_file_size_bytes
        self._places = (place, *tree.places[1:])
        self._resolver = choose_resolver(place.fd, self._places)


def _lacks(status: os.stat_result, require: _Require) -> str:
    """Return why a file may not be read although it can be; empty: it may."""
    if require == "owned" and os.geteuid():
        return "" if status.st_uid == os.geteuid() else "the file belongs to another user than the server's (require)"
    return "" if status.st_mode & stat.S_IROTH else "not everybody may read the file (require)"


def _refusal(error_number: int, path: bytes, resolver: Resolver) -> RefusedError:
    if -error_number in _ABSENT:
        return refusal_of_errno(error_number)
    # Seen a moment later: if nothing stands in the way any more, the errno is all there is to tell.
    why = resolver.explain(path) or f"{os.strerror(error_number)} ({errno.errorcode.get(error_number, error_number)})"
    if error_number == errno.EXDEV:
        return OutsideRootError(by_link=not climbs_above_root(path), why=why)
    if error_number == errno.ELOOP:
        return OutsideRootError(by_link=True, why=why)
    return refusal_of_errno(error_number, why)


def _name_max_bytes(fd: int) -> int:
    """Return how long a name may be in a directory, or more than any request holds where that is not known."""
    try:
        # Asks statfs(2), as is_local does. So does os.fpathconf, but with the GIL: one that hangs would stop all.
        return os.fstatvfs(fd).f_namemax or _PATH_MAX
    except OSError:
        return _PATH_MAX
