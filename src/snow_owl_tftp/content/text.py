"""A file as netascii, piece by piece: what both a copy and a stream are made of.

May know an open file and the netascii rules. Must not know names, transfers, or where the pieces go.

Invariants:
- What was read is one file: every piece is followed by a look whether size, mtime and ctime are still those of
  the opening, and the end is told only behind such a look. A piece that follows a change is never handed out.
  A rename, a link, a chmod and a chown move ctime as well, and show by what they changed: they are no reason to end.
- No more than a piece is converted at a time, by a function that whoever makes a Text gives it: this layer knows that
  of `protocol` alone, which holds the GIL (milliseconds for a piece of line ends); the engine has one that does not.
- The descriptor is closed once, and not while somebody reads by it: its number might be another file's by then.
- Every method may be called by any thread, and may wait for the file.
"""

import errno
import os
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["PIECE_BYTES", "Encode", "Text", "text_refusal"]

PIECE_BYTES: Final = 1 << 16
"""64 KiB: a tenth of a millisecond."""
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EFBIG})

Encode: TypeAlias = Callable[[bytes], bytes]
"""protocol.netascii.encode, or what does the same."""


class Text:
    """A text file that is being read.

    Attributes:
        source: The file; this closes it.
    """

    def __init__(self, source: OpenFile, encode: Encode = netascii.encode) -> None:
        """Begin at its beginning; the file is taken over, and `encode` converts it piece by piece."""
        self.source = source
        self._encode = encode
        self._offset_bytes = 0
        self._ctime_ns = source.ctime_ns
        self._owned_by = _ownership(os.fstat(source.fd))  # cannot fail: the descriptor is open
        self._reading = threading.Lock()

    def read(self, size_bytes: int = PIECE_BYTES) -> bytes:
        """Convert the next piece.

        Args:
            size_bytes: Of the file; at most `PIECE_BYTES`.

        Returns:
            Up to twice as many bytes of netascii; none: the file has ended, and was one file.

        Raises:
            RefusedError: It is being changed, or cannot be read.
        """
        with self._reading:
            try:
                chunk = self._read_checked(size_bytes)
            except OSError as error:
                raise text_refusal(error) from error
        return self._encode(chunk) if chunk else b""

    def close(self, *, waits: bool = True) -> None:
        """Close the file, when nobody reads it any more; a second call does nothing.

        Args:
            waits: False: it stays open where somebody reads it just now, for the process is about to end.
        """
        if self._reading.acquire(blocking=waits):
            try:
                self.source.close()
            finally:
                self._reading.release()

    def _read_checked(self, size_bytes: int) -> bytes:
        source = self.source
        # Not past the size seen at opening: a file that somebody appends to would never end.
        wanted_bytes = min(size_bytes, source.size_bytes - self._offset_bytes)
        chunk = os.pread(source.fd, wanted_bytes, self._offset_bytes) if wanted_bytes else b""
        self._offset_bytes += len(chunk)
        if not self._is_same(os.fstat(source.fd)) or (wanted_bytes and not chunk):
            raise RefusedError(ErrorCode.NOT_DEFINED, "File is being changed, try again")
        return chunk

    def _is_same(self, now: os.stat_result) -> bool:
        if (now.st_size, now.st_mtime_ns) != (self.source.size_bytes, self.source.mtime_ns):
            return False
        if now.st_ctime_ns != self._ctime_ns:
            # Written, and then its mtime was put back, if nothing else explains it.
            if _ownership(now) == self._owned_by:
                return False
            self._ctime_ns, self._owned_by = now.st_ctime_ns, _ownership(now)
        return True


def _ownership(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_nlink, status.st_mode, status.st_uid, status.st_gid


def text_refusal(error: OSError) -> RefusedError:
    """Return what a client is told when a text cannot be read or converted for this reason."""
    text = "Server busy, try again" if error.errno in _SHORTAGES else "I/O error"
    return RefusedError(ErrorCode.NOT_DEFINED, text)
