"""inotify(7) for folders: which names in them have changed, since whoever follows a file by its name must know at once.

    FolderNews ─follow("/var/lib/misc")─► watch 1; kernel ─events─► read() ─► {(1, b"dnsmasq.leases")}

A folder is followed and not the file, because files are replaced by others of the same name.

May know: inotify's bytes. Must not know what the files are. Called through ctypes, because Python has no wrapper.
Kernel facts: nothing is told of changes that another machine makes on a network file system. A full queue loses
events, and says so with IN_Q_OVERFLOW. A watch goes with its folder (IN_IGNORED).
"""

import ctypes
import os
import struct
import weakref
from typing import Final, NamedTuple

__all__ = ["ANY_WATCH", "FolderNews", "News"]

# include/uapi/linux/inotify.h
_IN_MODIFY: Final = 0x2
_IN_ATTRIB: Final = 0x4
_IN_MOVED_FROM: Final = 0x40
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_DELETE_SELF: Final = 0x400
_IN_MOVE_SELF: Final = 0x800
_IN_Q_OVERFLOW: Final = 0x4000
_IN_ONLYDIR: Final = 0x01000000
_NAMES_CHANGED: Final = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_WANTED: Final = _IN_MODIFY | _IN_ATTRIB | _NAMES_CHANGED | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_EVENT: Final = struct.Struct("=iIII")
"""inotify_event: watch, mask, cookie, length of the name that follows."""
_READ_BYTES: Final = 64 * 1024
ANY_WATCH: Final = -1
"""As the kernel numbers it where it does not know."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class News(NamedTuple):
    """Something in a folder has changed.

    Attributes:
        watch: What `follow` returned for it; ANY_WATCH: any.
        name: Of the file; empty: perhaps any in the folder, since names were made, moved or removed there.
    """

    watch: int
    name: bytes


class FolderNews:
    """One inotify instance; it is closed with the last reference to it, since a thread may be in `follow` for ever."""

    def __init__(self) -> None:
        """Follow nothing yet.

        Raises:
            OSError: No descriptor is left, or this user has too many instances (fs.inotify.max_user_instances).
        """
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        weakref.finalize(self, os.close, self._fd)

    def fileno(self) -> int:
        """For an event loop."""
        return self._fd

    def follow(self, folder: str) -> int:
        """Follow a folder, if it is not followed yet; looks it up, so call it in a thread.

        Returns:
            The number of its watch, the same for every path of the folder; never that of another one.

        Raises:
            OSError: There is none, or this user has too many watches (fs.inotify.max_user_watches).
        """
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(folder), _WANTED))

    def read(self) -> set[News]:
        """Return what has changed since the last call, without waiting; empty: nothing, as far as is known."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return set()
        news = set()
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            at += _EVENT.size + length
            is_any = bool(mask & ~(_IN_MODIFY | _IN_ATTRIB))
            news.add(News(ANY_WATCH if mask & _IN_Q_OVERFLOW else watch, b"" if is_any else name))
        return news


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
