"""On which file system the way to a file has to wait: so that whoever asks one that hangs hangs with its own kind only.

    device_of(places, b"a/b/c")      a is known, b is a mount point, what is in it is not known ─► the device of b
    device_of(…, may_wait_on=7)      looks up what is not known as well, as long as that lies on device 7

May know: directories, links and the places that these may lead to. Must not know who asks, or why.

Invariants:
- Without `may_wait_on` nothing is asked but what the kernel has in its caches, so the event loop may call it.
- What is waited for lies on `may_wait_on`; but the text of a link that was found is read wherever it lies.
- Nothing is confined by it and nothing opened: the answer says in which queue to stand, no more.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

from snow_owl_tftp.content.confine import look, look_cached
from snow_owl_tftp.content.walk import Place
from snow_owl_tftp.linux.descriptors import close_descriptor

__all__ = ["device_of", "device_of_descriptor"]

_MAX_PARTS: Final = 64
"""Then it is somebody's game: what lies deeper stands in the queue of the device that was found so far."""

_AT_EMPTY_PATH: Final = 0x1000
_AT_STATX_DONT_SYNC: Final = 0x4000
_STATX_TYPE: Final = 0x1
_STATX_BYTES: Final = 256
_MODE_AT: Final = 28  # struct statx, include/uapi/linux/stat.h
_DEVICE_AT: Final = 136

# Gives the GIL up: there are file systems that ask their server in spite of AT_STATX_DONT_SYNC.
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
if _statx is not None:
    _statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    _statx.restype = ctypes.c_int


def device_of_descriptor(fd: int) -> tuple[int, int]:
    """Return (st_dev, st_mode) of an open file, without asking a file server; mode 0 where it is not known."""
    if _statx is not None:
        buffer = ctypes.create_string_buffer(_STATX_BYTES)
        if _statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_TYPE, buffer) == 0:
            (mode,) = struct.unpack_from("=H", buffer, _MODE_AT)
            return os.makedev(*struct.unpack_from("=II", buffer, _DEVICE_AT)), mode
    return 0, 0


def device_of(places: Sequence[Place], path: bytes, may_wait_on: int | None = None, *, is_local: bool = False) -> int:
    """Return the device whose file system has to be asked next on the way to a file.

    Args:
        places: The root, and the other directories that links may lead to.
        path: Relative to the root, normalised.
        may_wait_on: Look up what is not known as well where it lies on this device; may block then.
        is_local: The root's own file system asks nobody for the text of a link.

    Returns:
        Its st_dev; that of the file itself, or of its last directory, where nothing needs to be asked.
    """
    way = _Way(places, may_wait_on, is_local=is_local)
    try:
        return way.follow(path)
    finally:
        way.close()


class _Way:
    """Descriptors from a place down to where we are."""

    def __init__(self, places: Sequence[Place], may_wait_on: int | None, *, is_local: bool) -> None:
        self._places = places
        self._may_wait_on = may_wait_on
        self._held: list[int] = []
        self._top = self._at = places[0].fd
        self._device = device_of_descriptor(self._at)[0]
        self._links_of = self._device if is_local else None

    def close(self) -> None:
        while self._held:
            close_descriptor(self._held.pop())

    def follow(self, path: bytes) -> int:
        parts = path.split(b"/")[::-1]
        for _ in range(_MAX_PARTS):
            if not parts:
                break
            part = parts.pop()
            if part == b"..":
                self._go_up()
            elif part not in (b"", b".") and not self._step(part, parts):
                break
        return self._device

    def _step(self, part: bytes, parts: list[bytes]) -> bool:
        """Go one part further; False: here it has to wait, or it ends."""
        fd = look_cached(self._at, part)
        if fd < 0 and self._device == self._may_wait_on:
            fd = look(self._at, part)
        if fd < 0:
            return False
        device, mode = device_of_descriptor(fd)
        if not stat.S_ISLNK(mode):
            self._held.append(fd)
            self._at, self._device = fd, device
            return True
        try:
            return self._follow_link(fd, parts)
        finally:
            close_descriptor(fd)

    def _follow_link(self, fd: int, parts: list[bytes]) -> bool:
        if self._may_wait_on is None and self._device != self._links_of:
            return False  # its text may have to be asked for; a local file system has it when it has the link
        try:
            text = os.fsencode(os.readlink("", dir_fd=fd))
        except OSError:
            return False
        rest = self._change_place(text) if text.startswith(b"/") else text
        if rest is None:
            return False
        parts.extend(rest.split(b"/")[::-1])
        return True

    def _change_place(self, text: bytes) -> bytes | None:
        """Begin again at the place that an absolute link leads to; what follows below it, None: it leads to none."""
        named = tuple(part for part in text.split(b"/") if part)
        found = [(len(path), place) for place in self._places for path in place.paths if named[: len(path)] == path]
        if not found:
            return None
        length, place = max(found, key=lambda one: one[0])
        self.close()
        self._top = self._at = place.fd
        self._device = device_of_descriptor(self._at)[0]
        return b"/".join(named[length:])

    def _go_up(self) -> None:
        if self._held:
            close_descriptor(self._held.pop())
            self._at = self._held[-1] if self._held else self._top
            self._device = device_of_descriptor(self._at)[0]
