"""Who touches what lies outside: inotify on every directory and file of it, and what it is like before and after.

    with untouched(base / "outside", base / "secret") as touches:      fails if anything there was opened or changed
        assert not touches()                                           what was since the last look

May know: Linux. Must not: know what is tested.
Invariant: an O_PATH descriptor is a look at a name, as stat is, and no touch; everything else is.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["untouched"]

IN_TOUCHED = 0x00000FFF & ~0x00000010 & ~0x00000008  # include/uapi/linux/inotify.h: all but IN_CLOSE_*
HEADER = struct.Struct("=iIII")


@contextmanager
def untouched(*places: Path) -> Iterator[Callable[[], list[str]]]:
    everything = [path for place in places for path in (place, *place.rglob("*")) if not path.is_symlink()]
    before = _state(places)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    try:
        watches = {libc.inotify_add_watch(fd, bytes(path), IN_TOUCHED): path for path in everything}
        assert -1 not in watches, os.strerror(ctypes.get_errno())
        yield lambda: _events(fd, watches)
        touched = _events(fd, watches)
        assert not touched, touched[:20]
    finally:
        os.close(fd)
    assert _state(places) == before


def _events(fd: int, watches: dict[int, Path]) -> list[str]:
    found = []
    while True:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return found
        at = 0
        while at < len(data):
            watch, mask, _, length = HEADER.unpack_from(data, at)
            name = data[at + HEADER.size : at + HEADER.size + length].rstrip(b"\0")
            at += HEADER.size + length
            found.append(f"{watches.get(watch)}/{os.fsdecode(name)}: {mask:#x}")


def _state(places: tuple[Path, ...]) -> dict[str, tuple[object, ...]]:
    """Everything but atime, which readers may change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (path for place in places for path in (place, *sorted(place.rglob("*")))):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, status.st_nlink, content)
    return found
