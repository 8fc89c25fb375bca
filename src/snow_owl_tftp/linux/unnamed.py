"""Files that have no name yet, and the one step that gives them one.

    open_unnamed(folder) ──► fd, written by whoever ──► give_name(fd, name)      the name is free
                                                    └─► give_name(fd, hidden), rename(hidden, name)
    where there are no such files: a hidden name from the start ──► rename_new(hidden, name)

May know: descriptors, directories and names in them. Must not know what is published, or what to do where a name is
taken.
Invariants: whatever ends the process, a file without a name is gone with it; nothing here replaces a file.
"""

import contextlib
import ctypes
import errno
import os
from typing import Final

from snow_owl_tftp.linux.descriptors import close_descriptor

__all__ = ["give_name", "open_unnamed", "rename_new"]

_NO_UNNAMED_FILES: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
"""O_TMPFILE on NFS, CIFS, FAT; EISDIR is what open(2) names for kernels that do not know the flag."""
_RENAME_NOREPLACE: Final = 1  # include/uapi/linux/fs.h
_NO_NOREPLACE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})
"""renameat2 with flags on NFS, on old kernels, and under seccomp filters that do not know it."""

# glibc 2.28 and later; where it is missing a link and an unlink do the same in two steps.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def open_unnamed(directory: str | bytes | os.PathLike[str], mode: int, *, dir_fd: int | None = None) -> int:
    """Open a new file without a name, for reading and writing, close-on-exec.

    Args:
        directory: In whose file system it lies, and where it may get a name.
        mode: Its permissions, less the umask.
        dir_fd: What `directory` is relative to.

    Returns:
        A descriptor, or -1 where there is no such thing: the file system knows none, or without /proc (a bare chroot)
        it could never be given a name.

    Raises:
        OSError: No file can be made there.
    """
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return -1
        raise
    if os.access(_link_to(fd), os.F_OK):
        return fd
    close_descriptor(fd)
    return -1


def give_name(fd: int, name: str | bytes | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """Give a file of `open_unnamed` its name.

    Raises:
        FileExistsError: Something has it.
        OSError: It cannot be given.
    """
    # linkat follows this link to the file itself, which Python asks for only where a directory is named; it is not
    # used for a path that is absolute. AT_EMPTY_PATH would need no /proc, but a capability.
    os.link(_link_to(fd), name, src_dir_fd=fd, dst_dir_fd=dir_fd, follow_symlinks=True)


def rename_new(name: bytes, new_name: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename a file unless something has the new name.

    Where the kernel cannot do that in one step, the file gets the new name and then loses the old one; if only that
    fails nobody is told, and it has both.

    Raises:
        FileExistsError: Something has the new name.
        OSError: It has the old name still, and not the new one.
    """
    error_number = errno.ENOSYS
    if _renameat2 is not None:
        if _renameat2(src_dir_fd, name, dst_dir_fd, new_name, _RENAME_NOREPLACE) == 0:
            return
        error_number = ctypes.get_errno()
    if error_number not in _NO_NOREPLACE:
        raise OSError(error_number, os.strerror(error_number))
    os.link(name, new_name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=src_dir_fd)


def _link_to(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
