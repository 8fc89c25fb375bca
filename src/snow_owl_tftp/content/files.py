"""Regular files below one directory, opened for reading.

May know: the file system, through a Resolver that confines. Must not know who asks, or why.

Invariants:
- The root is opened and kept: what is mounted over its path, or renamed, later changes nothing before
  somebody calls `look_again`. What was opened below the old root stays open.
- A descriptor that leaves here is of a regular file below the root, or below a directory that links
  may lead to, and no larger than allowed.
- What is refused leaks nothing: the text of a RefusedError holds no path and no name.
- Every method may be called by any thread.

Refusals follow RFC 1350's codes as clients use them: boot loaders go on with the next candidate at
ERROR 1 and stop at others, so only "there is no such file" may say 1; what a retry may cure says 0.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from snow_owl_tftp.content.confine import CachedResolver, Resolver, choose_resolver, enter, enter_cached
from snow_owl_tftp.content.devices import device_of
from snow_owl_tftp.content.names import climbs_above_root, spellings_of
from snow_owl_tftp.content.source import LATER, Identity, Later, Named, NotHere
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = [
    "FileTooLargeError",
    "FileTree",
    "OpenFile",
    "OutsideRootError",
    "RequirementError",
    "is_on_local_file_system",
    "refusal_of_errno",
]

# statfs(2) f_type, include/uapi/linux/magic.h: what answers from the dentry cache without asking
# another machine or a process. Anything else (NFS, CIFS, FUSE) may revalidate, so it may block.
_LOCAL_FILE_SYSTEMS: Final = frozenset(
    {
        0x0000EF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x794C7630,  # overlayfs
        0x73717368,  # squashfs
        0xF2F52010,  # f2fs
        0xE0F5E1E2,  # erofs
    }
)
_STATFS_BYTES: Final = 256
"""struct statfs has 120 bytes on 64-bit Linux, at most 88 on 32-bit; f_type is its first word."""

_PATH_MAX: Final = 4096  # linux/limits.h

_NOT_FOUND: Final = (ErrorCode.FILE_NOT_FOUND, "File not found")
_BUSY: Final = (ErrorCode.NOT_DEFINED, "Server busy, try again")
_IO_ERROR: Final = (ErrorCode.NOT_DEFINED, "I/O error")
_DENIED: Final = (ErrorCode.ACCESS_VIOLATION, "Access violation")
_NOT_REGULAR: Final = (ErrorCode.ACCESS_VIOLATION, "Not a regular file")

_REFUSAL_OF_ERRNO: Final = {
    errno.ENOENT: _NOT_FOUND,
    errno.ENOTDIR: _NOT_FOUND,
    errno.ENAMETOOLONG: _NOT_FOUND,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENXIO: _NOT_REGULAR,  # a socket, or a device without a driver
    errno.ENODEV: _NOT_REGULAR,
    errno.EMFILE: _BUSY,
    errno.ENFILE: _BUSY,
    errno.ENOMEM: _BUSY,
    errno.EAGAIN: _BUSY,  # a writer holds a lease, or renames would not end
}
_Require: TypeAlias = Literal["nothing", "world_readable", "owned"]
_ASK_RESOLVER: Final = (-errno.EXDEV, -errno.ENOSYS, -errno.EPERM, -errno.EINVAL, -errno.EAGAIN, -errno.EINTR)
"""A link that is absolute, a kernel without openat2, a race with a rename: the resolver knows another way."""
_ABSENT: Final = (-errno.ENOENT, -errno.ENOTDIR, -errno.ENAMETOOLONG)


class OutsideRootError(RefusedError):
    """The name leads out of the root, or nowhere along links.

    Attributes:
        by_link: A symbolic link does it; otherwise the `..` of the name itself.
    """

    def __init__(self, *, by_link: bool, why: str = "") -> None:
        super().__init__(*_DENIED, why=why)
        self.by_link = by_link


class FileTooLargeError(RefusedError):
    """The file is larger than `max_file_size_bytes` allows.

    Attributes:
        size_bytes: How large it is.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(ErrorCode.ACCESS_VIOLATION, "File too large to serve")
        self.size_bytes = size_bytes


class RequirementError(RefusedError):
    """It is there, and not as whoever decides about it requires."""

    def __init__(self, why: str) -> None:
        super().__init__(*_DENIED, why=why)


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
        self._take(self._open_places(root, self._link_targets))

    def look_again(self, root: str | os.PathLike[str] | None = None, link_targets: Sequence[str] | None = None) -> bool:
        """Look up the paths of the root and of what links may lead to, and go on there if they lead elsewhere now.

        Args:
            root: Its path from now on; None: as before.
            link_targets: Likewise.

        Returns:
            Whether anything changed: what was decided before may not be repeated.

        Raises:
            ConfigError: One is no directory that can be opened; everything stays as it was.
        """
        root = self._root if root is None else root
        link_targets = self._link_targets if link_targets is None else tuple(link_targets)
        places = self._open_places(root, link_targets)
        self._root, self._link_targets = root, link_targets
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

    def _open_places(self, root: str | os.PathLike[str], link_targets: Sequence[str]) -> tuple[Place, ...]:
        return (Place(root, self._key), *(Place(path, "link_targets") for path in link_targets))

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
        root = self._places[0]
        fd = enter(root.fd, below)
        if fd in _ASK_RESOLVER:
            fd = self._resolver.open(below)
        if fd < 0:
            return NotHere(_refusal(-fd, below, self._resolver))
        try:
            return Place(os.fsdecode(os.path.join(b"/", *root.real_path, below)), "roots", fd)  # noqa: PTH118 - bytes
        except ConfigError:  # it ceased to answer
            return NotHere(refusal_of_errno(errno.EIO))

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
            refusal = RefusedError(*_IO_ERROR)
            refusal.__cause__ = error
            return NotHere(refusal)
        if not stat.S_ISREG(status.st_mode):
            close_descriptor(fd)
            return NotHere(RefusedError(*_NOT_REGULAR))
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


def refusal_of_errno(error_number: int, why: str = "") -> RefusedError:
    """Return what a client is told when a file cannot be opened for this reason, and the operator."""
    return RefusedError(*_REFUSAL_OF_ERRNO.get(error_number, _IO_ERROR), why=why)


def _name_max_bytes(fd: int) -> int:
    """Return how long a name may be in a directory, or more than any request holds where that is not known."""
    try:
        # Asks statfs(2), as is_local does. So does os.fpathconf, but with the GIL: one that hangs would stop all.
        return os.fstatvfs(fd).f_namemax or _PATH_MAX
    except OSError:
        return _PATH_MAX


def is_on_local_file_system(fd: int) -> bool:
    """Tell whether what is open answers from the kernel's caches, and nobody changes it but by this kernel."""
    return _file_system_type(fd) in _LOCAL_FILE_SYSTEMS


def _file_system_type(fd: int) -> int:
    """Return statfs f_type, or 0 where it cannot be told, which is no local file system."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
