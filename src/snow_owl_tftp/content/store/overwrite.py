"""The last resort of an upload: new content for a file that keeps its inode.

    a file mounted by itself (containers)         rename(2) says EBUSY
    a directory that this user may not write      nothing can be made beside the file, "touch x; chmod 666 x"

May know two descriptors and one name in a directory. Must not know why.

Invariants:
- It begins only when everything was received, and when the disk has room for it.
- It is not atomic: who reads meanwhile may see a part. A transfer of ours that does ends with an ERROR; after a crash
  the file may be a mixture.
- One writer at a time, told by flock(2).
- A file with several names is not written: another of them may be the version that was kept.
"""

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import Final

from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.write_all import pwrite_all

__all__ = ["copy_bytes", "may_overwrite", "overwrite"]

_CHUNK_BYTES: Final = 1 << 18
"""256 KiB: what one copy holds in memory at a time."""
_OPEN: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CANNOT_RESERVE: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def may_overwrite(name: bytes, directory_fd: int, status: os.stat_result) -> bool:
    """Tell whether a file could be written in place, by its permissions."""
    return _is_single_file(status) and os.access(name, os.W_OK, dir_fd=directory_fd, effective_ids=True)


def overwrite(name: bytes, directory_fd: int, source_fd: int, *, fsync: bool) -> None:
    """Give a file the content of another.

    Args:
        name: Of the file.
        directory_fd: Where it is.
        source_fd: All of this is copied.
        fsync: Whether it must be on the disk before this returns.

    Raises:
        OSError: It could not be opened, another writer has it (EAGAIN), or the disk has no room: it is as it was.
            Any other failure leaves a mixture.
    """
    fd = os.open(name, _OPEN, dir_fd=directory_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status, size_bytes = os.fstat(fd), os.fstat(source_fd).st_size
        if not _is_single_file(status):
            raise PermissionError(errno.EACCES, "not a regular file of one name")
        _make_room(fd, status.st_size, size_bytes)
        copy_bytes(source_fd, fd)
        os.ftruncate(fd, size_bytes)
        if fsync:
            os.fsync(fd)
    finally:
        close_descriptor(fd)


def copy_bytes(source_fd: int, target_fd: int) -> None:
    """Write all of one file over the beginning of another.

    Raises:
        OSError: A part may have been written.
    """
    offset_bytes = 0
    while chunk := os.pread(source_fd, _CHUNK_BYTES, offset_bytes):
        offset_bytes = pwrite_all(target_fd, chunk, offset_bytes)


def _is_single_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _make_room(fd: int, old_bytes: int, new_bytes: int) -> None:
    """Find out that the disk is full while the old content is still there."""
    if new_bytes <= old_bytes:
        return
    try:
        os.posix_fallocate(fd, old_bytes, new_bytes - old_bytes)
    except OSError as error:
        if error.errno in _CANNOT_RESERVE:
            return
        with suppress(OSError):
            os.ftruncate(fd, old_bytes)
        raise
