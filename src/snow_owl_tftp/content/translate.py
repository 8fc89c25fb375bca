"""netascii copies of files, so that the engine streams them like any other file.

    OpenFile ──pread, encode──► sealed memfd ──► OpenFile with the exact netascii size

May know an open file and the netascii rules. Must not know names, rules or transfers.

Invariants:
- A copy is complete and sealed before anybody sees it: its size is exact (tsize), and it can change
  under nobody.
- A file that changed while it was read gives no copy; mixed content is never handed out.
- One content, told by device, inode, mtime and size, is converted once however many ask for it at
  the same time; the others wait for the first.
- The copies kept hold at most `max_kept_bytes` together, but the newest is kept whatever its size:
  those who wait for it must find it. A copy in use outlives its eviction, since every user has a
  descriptor of its own.
- Every method may be called by any thread.
"""

import errno
import fcntl
import os
import threading
from collections import OrderedDict
from typing import Final, TypeAlias

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["NetasciiCache"]

_CHUNK_BYTES: Final = 1 << 18
"""256 KiB: twice the kernel's default read-ahead, so a chunk costs few system calls and little memory."""
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EFBIG})

_Content: TypeAlias = tuple[int, int, int, int]


class NetasciiCache:
    """Converts files to netascii and keeps the last copies."""

    def __init__(self, max_kept_bytes: int = 64 << 20, max_source_bytes: int = 256 << 20) -> None:
        """Start empty.

        Args:
            max_kept_bytes: How much memory the copies may take while nobody uses them.
            max_source_bytes: Larger files are refused: a copy lies in memory and may be twice as
                large. Text that needs netascii is far smaller; images are asked for as octet.
        """
        self._max_kept_bytes = max_kept_bytes
        self._max_source_bytes = max_source_bytes
        self._lock = threading.Lock()  # guards all below; never held while a file is read
        self._kept: OrderedDict[_Content, OpenFile] = OrderedDict()
        self._kept_bytes = 0
        self._being_made: dict[_Content, threading.Event] = {}

    def cached(self, source: OpenFile) -> OpenFile | None:
        """Return the copy of a file if there is one already; never blocks.

        Args:
            source: The file; it stays open and the caller's.

        Returns:
            The copy, which the caller closes, or None: ask `translate`, in a thread.

        Raises:
            RefusedError: No descriptor is left.
        """
        content = _content_of(source)
        with self._lock:
            copy = self._kept.get(content)
            if copy is None:
                return None
            self._kept.move_to_end(content)
            return _share(copy, source.relative_path)

    def translate(self, source: OpenFile) -> OpenFile:
        """Return the copy of a file, made now unless it is there or on its way.

        Args:
            source: The file; it stays open and the caller's.

        Returns:
            The copy, which the caller closes. All it says is of the copy, but for the path.

        Raises:
            RefusedError: The file is too large, is being changed or cannot be read, or memory or
                descriptors are short.
        """
        if source.size_bytes > self._max_source_bytes:
            raise RefusedError(ErrorCode.ACCESS_VIOLATION, "File too large for netascii")
        while (copy := self.cached(source)) is None:
            self._make_or_wait(source)
        return copy

    def close(self) -> None:
        """Drop what is kept; copies handed out stay open."""
        with self._lock:
            while self._kept:
                self._drop_oldest()

    def _make_or_wait(self, source: OpenFile) -> None:
        """Make the copy, or wait for the thread that does; should it fail, the next one tries."""
        content = _content_of(source)
        with self._lock:
            if content in self._kept:
                return
            other = self._being_made.get(content)
            if other is None:
                self._being_made[content] = done = threading.Event()
        if other is not None:
            other.wait()
            return
        try:
            self._keep(content, _convert(source))
        finally:
            with self._lock:
                del self._being_made[content]
            done.set()

    def _keep(self, content: _Content, copy: OpenFile) -> None:
        with self._lock:
            self._kept[content] = copy
            self._kept_bytes += copy.size_bytes
            while self._kept_bytes > self._max_kept_bytes and len(self._kept) > 1:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Must be called under the lock: nobody may be sharing the descriptor meanwhile."""
        _, copy = self._kept.popitem(last=False)
        self._kept_bytes -= copy.size_bytes
        copy.close()


def _content_of(file: OpenFile) -> _Content:
    return file.device, file.inode, file.mtime_ns, file.size_bytes


def _share(copy: OpenFile, relative_path: bytes) -> OpenFile:
    """Give the copy a second descriptor, so that its two holders close independently."""
    try:
        fd = fcntl.fcntl(copy.fd, fcntl.F_DUPFD_CLOEXEC, 0)
    except OSError as error:
        raise _refusal(error) from error
    return OpenFile(fd, relative_path, os.fstat(fd))


def _convert(source: OpenFile) -> OpenFile:
    try:
        fd = os.memfd_create("netascii", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise _refusal(error) from error
    try:
        _encode_into(fd, source)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return OpenFile(fd, source.relative_path, os.fstat(fd))
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise _refusal(error) from error
        raise


def _encode_into(fd: int, source: OpenFile) -> None:
    offset_bytes = 0
    # Not past the size seen at opening: a file that somebody appends to would never end.
    while offset_bytes <= source.size_bytes and (chunk := os.pread(source.fd, _CHUNK_BYTES, offset_bytes)):
        offset_bytes += len(chunk)
        encoded = memoryview(netascii.encode(chunk))
        while encoded:
            encoded = encoded[os.write(fd, encoded) :]
    if (offset_bytes, os.fstat(source.fd).st_mtime_ns) != (source.size_bytes, source.mtime_ns):
        raise RefusedError(ErrorCode.NOT_DEFINED, "File is being changed, try again")


def _refusal(error: OSError) -> RefusedError:
    text = "Server busy, try again" if error.errno in _SHORTAGES else "I/O error"
    return RefusedError(ErrorCode.NOT_DEFINED, text)
