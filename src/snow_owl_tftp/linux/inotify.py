"""inotify(7): what changes in directories, which the standard library leaves out.

May know: directories by descriptor. Must not know what is looked for in them.

Invariants:
- A watch is put on what a descriptor leads to, by way of /proc, and never on a path that may lead elsewhere meanwhile.
- `read` never waits; who wants to wait polls `fd`.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from snow_owl_tftp.linux.descriptors import close_descriptor

__all__ = ["Change", "Inotify"]

# include/uapi/linux/inotify.h
_IN_MOVED_FROM: Final = 0x00000040
_IN_MOVED_TO: Final = 0x00000080
_IN_CREATE: Final = 0x00000100
_IN_DELETE: Final = 0x00000200
_IN_ONLYDIR: Final = 0x01000000
_IN_Q_OVERFLOW: Final = 0x00004000
_IN_UNMOUNT: Final = 0x00002000
_IN_IGNORED: Final = 0x00008000
_IN_ISDIR: Final = 0x40000000
_NAMES: Final = _IN_CREATE | _IN_DELETE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_ONLYDIR
_HEADER: Final = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, len; the name follows
_BUFFER_BYTES: Final = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Change(NamedTuple):
    """Something that happened.

    Attributes:
        watch: As `Inotify.watch` returned it; -1: of no single directory.
        is_of_directory: A directory came or went, not a file or a link.
        is_lost: Changes were lost, or the watch is gone; nothing is known any more.
    """

    watch: int
    is_of_directory: bool
    is_lost: bool


class Inotify:
    """Watches directories for names that come and go. Whoever makes it closes it.

    Attributes:
        fd: Readable when something has happened; -1 once closed.
    """

    def __init__(self) -> None:
        """Begin with no watch.

        Raises:
            OSError: EMFILE: fs.inotify.max_user_instances is reached; ENOSYS: this system has none.
        """
        self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _last_error("inotify_init1")

    def watch(self, directory_fd: int) -> int:
        """Watch an open directory; one that is watched already has the same number again.

        Raises:
            OSError: ENOSPC: fs.inotify.max_user_watches is reached; ENOENT: there is no /proc.
        """
        number: int = _libc.inotify_add_watch(self.fd, b"/proc/self/fd/%d" % directory_fd, _NAMES)
        if number < 0:
            raise _last_error("inotify_add_watch")
        return number

    def forget(self, number: int) -> None:
        """Watch a directory no more; it may be gone."""
        _libc.inotify_rm_watch(self.fd, number)

    def read(self) -> list[Change]:
        """Return what has happened since the last time; nothing: nothing has."""
        try:
            data = os.read(self.fd, _BUFFER_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        return list(_changes(data))

    def close(self) -> None:
        """Drop all watches; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close_descriptor(fd)


def _changes(data: bytes) -> Iterator[Change]:
    at = 0
    while at < len(data):
        watch, mask, _, name_bytes = _HEADER.unpack_from(data, at)
        at += _HEADER.size + name_bytes
        is_lost = bool(mask & (_IN_Q_OVERFLOW | _IN_UNMOUNT | _IN_IGNORED))
        yield Change(watch, bool(mask & _IN_ISDIR), is_lost)


def _last_error(call: str) -> OSError:
    number = ctypes.get_errno() or errno.EIO
    return OSError(number, f"{call}: {os.strerror(number)}")
