"""Regular files below one directory, opened for reading.

May know: the file system, through a Resolver that confines. Must not know who asks, or why.

Invariants:
- The root is opened once and kept: what is mounted over its path, or renamed, later changes nothing.
- A descriptor that leaves here is of a regular file below the root, and no larger than allowed.
- What is refused leaks nothing: the text of a RefusedError holds no path and no name.
- Every method may be called by any thread.

Refusals follow RFC 1350's codes as clients use them: boot loaders go on with the next candidate at
ERROR 1 and stop at others, so only "there is no such file" may say 1; what a retry may cure says 0.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from snow_owl_tftp.content.beneath import Resolver, choose_resolver
from snow_owl_tftp.content.names import climbs_above_root, normalise_name
from snow_owl_tftp.errors import ConfigError, RefusedError
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["FileTooLargeError", "FileTree", "OpenFile", "OutsideRootError", "WouldBlock", "refusal_of_errno"]

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


class WouldBlock(Exception):  # noqa: N818 - the name of the condition, not of an error
    """`FileTree.open_cached` cannot answer at once; call `open_for_reading` in a thread.

    It stays within the server and never reaches a peer, hence it is no TftpError.
    """


class OutsideRootError(RefusedError):
    """The name leads out of the root, or nowhere along links.

    Attributes:
        by_link: A symbolic link does it; otherwise the `..` of the name itself.
    """

    def __init__(self, *, by_link: bool) -> None:
        super().__init__(*_DENIED)
        self.by_link = by_link


class FileTooLargeError(RefusedError):
    """The file is larger than `max_file_size_bytes` allows.

    Attributes:
        size_bytes: How large it is.
    """

    def __init__(self, size_bytes: int) -> None:
        super().__init__(ErrorCode.ACCESS_VIOLATION, "File too large to serve")
        self.size_bytes = size_bytes


class OpenFile:
    """An open regular file; whoever holds it closes it.

    Read it with pread only: a descriptor may share its offset with others.

    Attributes:
        fd: Open for reading, close-on-exec; -1 once closed.
        size_bytes: As of opening.
        relative_path: Normalised, relative to the root, links not resolved.
        mtime_ns: Of the file, as of opening.
        ctime_ns: Likewise. Unlike mtime nobody can set it back: with size, mtime, inode and device it tells one
            content from another.
        inode: Of the file.
        device: Of the file.
        held: Must live as long as the content is used; None: nothing.
    """

    __slots__ = ("ctime_ns", "device", "fd", "held", "inode", "mtime_ns", "relative_path", "size_bytes")

    def __init__(self, fd: int, relative_path: bytes, status: os.stat_result) -> None:
        """Take over `fd`, whose fstat gave `status`."""
        self.fd = fd
        self.relative_path = relative_path
        self.size_bytes = status.st_size
        self.mtime_ns = status.st_mtime_ns
        self.ctime_ns = status.st_ctime_ns
        self.inode = status.st_ino
        self.device = status.st_dev
        self.held: object = None

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


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
        make_resolver: Callable[[int], Resolver] = choose_resolver,
    ) -> None:
        """Open the root.

        Args:
            root: A directory; execute permission on it is enough.
            max_file_size_bytes: Larger files are refused; 0: no limit.
            make_resolver: How to confine; by default, as this kernel can do best.

        Raises:
            ConfigError: The root is no directory that can be opened.
        """
        try:
            self._root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(
                f"root_dir: {os.fspath(root)}: {error.strerror}; name a directory that this user may enter"
            ) from error
        self.max_file_size_bytes = max_file_size_bytes
        self._resolver = make_resolver(self._root_fd)
        self.is_local = _file_system_type(self._root_fd) in _LOCAL_FILE_SYSTEMS

    def close(self) -> None:
        """Close the root; files opened before stay open."""
        fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            os.close(fd)

    def open_for_reading(self, name: str) -> OpenFile:
        """Open a file; may block where the file system is slow.

        Args:
            name: As the request spells it; see `normalise_name`.

        Returns:
            The file, which the caller closes.

        Raises:
            RefusedError: What to answer instead: OutsideRootError and FileTooLargeError where
                these are the reason.
        """
        path = normalise_name(name)
        fd = self._resolver.open(path)
        if fd < 0:
            raise _refusal(-fd, path)
        return self._accept(fd, path)

    def open_cached(self, name: str) -> OpenFile:
        """Open a file if that can be done without waiting for anything.

        It answers when every part of the path is in the kernel's dentry cache, on the root's own
        mount, and that mount is of a local file system. A name known not to exist is an answer too.

        Args:
            name: As for open_for_reading.

        Returns:
            The file, which the caller closes.

        Raises:
            WouldBlock: Nothing is known yet; ask open_for_reading, in a thread.
            RefusedError: As for open_for_reading.
        """
        path = normalise_name(name)
        fd = self._resolver.open_cached(path) if self.is_local else -errno.EAGAIN
        if fd == -errno.EAGAIN:
            raise WouldBlock
        if fd < 0:
            raise _refusal(-fd, path)
        return self._accept(fd, path)

    def _accept(self, fd: int, path: bytes) -> OpenFile:
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError(*_NOT_REGULAR)
            if 0 < self.max_file_size_bytes < status.st_size:
                raise FileTooLargeError(status.st_size)
        except OSError as error:
            os.close(fd)
            raise RefusedError(*_IO_ERROR) from error
        except RefusedError:
            os.close(fd)
            raise
        return OpenFile(fd, path, status)


def _refusal(error_number: int, path: bytes) -> RefusedError:
    if error_number == errno.EXDEV:
        return OutsideRootError(by_link=not climbs_above_root(path))
    if error_number == errno.ELOOP:
        return OutsideRootError(by_link=True)
    return refusal_of_errno(error_number)


def refusal_of_errno(error_number: int) -> RefusedError:
    """Return what a client is told when a file cannot be opened for this reason."""
    return RefusedError(*_REFUSAL_OF_ERRNO.get(error_number, _IO_ERROR))


def _file_system_type(fd: int) -> int:
    """Return statfs f_type, or 0 where it cannot be told, which is no local file system."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
