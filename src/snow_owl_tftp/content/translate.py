"""netascii copies of small files, so that the engine streams them like any other file.

    OpenFile ──Text──► sealed memfd ──► OpenFile with the exact netascii size

May know an open file and the netascii rules. Must not know names, rules or transfers.

Invariants:
- A copy is complete and sealed before anybody sees it: its size is exact (tsize), and it can change
  under nobody.
- A file that changed while it was read gives no copy; mixed content is never handed out.
- One content, told by device, inode, size, mtime and ctime, is converted once however many ask for it at
  the same time; the others wait for the first. Without ctime a release with fixed times, in an inode that
  was given back, would be taken for the old one for ever.
- A file that was changed a moment before may be changed again within one tick of its file system's clock, and
  look the same: a copy of it serves those who ask about now, and is not kept for those who ask later.
- Only a file of at most `MAX_COPIED_BYTES` is copied: what a request of 60 bytes makes us do is about what
  opening a file costs. Larger ones are converted as their clients take them (`server.texts`).
- All copies together, those in use included, take at most `max_total_bytes`, and are `max_copies` at most, since each
  has a descriptor.
- The copies kept hold at most `max_kept_bytes` together, but the newest is kept whatever its size:
  those who wait for it must find it. A copy in use outlives its eviction, since every user has a
  descriptor of its own.
- Every method may be called by any thread.
"""

import fcntl
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.source import Identity
from snow_owl_tftp.content.text import Encode, Text, text_refusal
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.memfd import READ_ONLY, memory_file
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["MAX_COPIED_BYTES", "NetasciiCache"]

MAX_COPIED_BYTES: Final = 1 << 18
"""256 KiB: a millisecond of converting; texts that are asked for as netascii hardly ever are larger."""
_SETTLED_NS: Final = 2_000_000_000
"""Older changes than that have a time of their own: FAT counts in 2 s, the others in a tick of at most 10 ms."""


class _Kept:
    """A copy, kept or not any more, and what is known of it.

    Attributes:
        copy: Whose descriptor is ours.
        until_ns: Until when (CLOCK_MONOTONIC) it may be handed out; None: as long as it is kept.
        users: Who was given a descriptor and uses it yet.
        is_kept: Whether it may be handed out again.
    """

    __slots__ = ("copy", "is_kept", "until_ns", "users")

    def __init__(self, copy: OpenFile, until_ns: int | None) -> None:
        self.copy = copy
        self.until_ns = until_ns
        self.users = 0
        self.is_kept = True


class _Use:
    """One user of a copy; it ends when nobody holds this any more."""

    __slots__ = ("_ended", "_of")

    def __init__(self, of: _Kept, ended: deque[_Kept]) -> None:
        self._of = of
        self._ended = ended

    def __del__(self) -> None:
        self._ended.append(self._of)  # no lock: this very thread may hold it


class NetasciiCache:
    """Converts files to netascii and keeps the last copies."""

    def __init__(
        self,
        max_kept_bytes: int = 64 << 20,
        max_total_bytes: int = 128 << 20,
        max_copies: int = 4096,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        encode: Encode = netascii.encode,
    ) -> None:
        """Start empty.

        Args:
            max_kept_bytes: How much memory the copies may take while nobody uses them.
            max_total_bytes: How much memory all copies may take; who needs more is told to try again.
            max_copies: How many there may be, likewise; a fourth of them is kept while nobody uses them.
            clock_ns: CLOCK_MONOTONIC.
            encode: Converts a piece.
        """
        self._encode = encode
        self._max_kept_bytes = max_kept_bytes
        self._max_total_bytes = max_total_bytes
        self._max_copies = max_copies
        self._clock_ns = clock_ns
        self._lock = threading.Lock()  # guards all below; never held while a file is read
        self._kept: OrderedDict[Identity, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._total_bytes = 0
        self._total_copies = 0
        self._ended: deque[_Kept] = deque()
        self._being_made: dict[Identity, threading.Event] = {}

    def cached(self, source: OpenFile) -> OpenFile | None:
        """Return the copy of a file if there is one already; never blocks.

        Args:
            source: The file; it stays open and the caller's.

        Returns:
            The copy, which the caller closes, or None: ask `translate`, in a thread.

        Raises:
            RefusedError: No descriptor is left.
        """
        content = source.identity
        with self._lock:
            kept = self._find(content)
            if kept is None:
                return None
            self._kept.move_to_end(content)
            return self._share(kept, source.relative_path)

    def translate(self, source: OpenFile) -> OpenFile:
        """Return the copy of a file, made now unless it is there or on its way.

        Args:
            source: The file, of at most `MAX_COPIED_BYTES`; it stays open and the caller's.

        Returns:
            The copy, which the caller closes. All it says is of the copy, but for the path. `held` has to live
            as long as a descriptor of it is used.

        Raises:
            RefusedError: The file is being changed or cannot be read, or memory or descriptors are short.
        """
        while (copy := self.cached(source)) is None:
            self._make_or_wait(source)
        return copy

    def close(self) -> None:
        """Drop what is kept; copies handed out stay open."""
        with self._lock:
            while self._kept:
                self._drop(next(iter(self._kept)))

    def _make_or_wait(self, source: OpenFile) -> None:
        """Make the copy, or wait for the thread that does; should it fail, the next one tries."""
        content = source.identity
        with self._lock:
            if self._find(content) is not None:
                return
            other = self._being_made.get(content)
            if other is None:
                self._being_made[content] = done = threading.Event()
        if other is not None:
            other.wait()
            return
        try:
            is_settled = time.time_ns() - source.ctime_ns > _SETTLED_NS  # asked before it is read
            copy = self._copy(source)
            self._keep(content, _Kept(copy, None if is_settled else self._clock_ns() + _SETTLED_NS))
        finally:
            with self._lock:
                del self._being_made[content]
            done.set()

    def _copy(self, source: OpenFile) -> OpenFile:
        self._take_room(source.size_bytes)
        copy = None
        try:
            copy = _opened(_convert(source, self._encode), source.relative_path)
        finally:
            with self._lock:
                self._total_bytes += (copy.size_bytes if copy else 0) - source.size_bytes
                self._total_copies -= copy is None
        return copy

    def _take_room(self, size_bytes: int) -> None:
        """Account for one more copy, of at least so many bytes.

        Raises:
            RefusedError: Those in use leave no room.
        """
        with self._lock:
            self._end_uses()
            unused = [content for content, kept in self._kept.items() if not kept.users]
            while self._is_full(size_bytes):
                if not unused:
                    raise RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again")
                self._drop(unused.pop(0))
            self._total_bytes += size_bytes
            self._total_copies += 1

    def _is_full(self, size_bytes: int) -> bool:
        return self._total_bytes + size_bytes > self._max_total_bytes or self._total_copies >= self._max_copies

    def _end_uses(self) -> None:
        """Under the lock."""
        while self._ended:
            kept = self._ended.popleft()
            kept.users -= 1
            self._forget_unless_used(kept)

    def _forget_unless_used(self, kept: _Kept) -> None:
        if not kept.users and not kept.is_kept:
            self._total_bytes -= kept.copy.size_bytes
            self._total_copies -= 1

    def _share(self, kept: _Kept, relative_path: bytes) -> OpenFile:
        """Give the copy a second descriptor, so that its two holders close independently; under the lock."""
        try:
            fd = fcntl.fcntl(kept.copy.fd, fcntl.F_DUPFD_CLOEXEC, 0)
        except OSError as error:
            raise text_refusal(error) from error
        shared = _opened(fd, relative_path)
        kept.users += 1
        shared.held = _Use(kept, self._ended)
        return shared

    def _find(self, content: Identity) -> _Kept | None:
        """Return what is kept, unless its time is up; under the lock."""
        kept = self._kept.get(content)
        if kept is None or kept.until_ns is None or self._clock_ns() < kept.until_ns:
            return kept
        self._drop(content)
        return None

    def _keep(self, content: Identity, kept: _Kept) -> None:
        with self._lock:
            self._kept[content] = kept
            self._kept_bytes += kept.copy.size_bytes
            while len(self._kept) > 1 and self._keeps_too_much():
                self._drop(next(iter(self._kept)))

    def _keeps_too_much(self) -> bool:
        return self._kept_bytes > self._max_kept_bytes or len(self._kept) > self._max_copies // 4

    def _drop(self, content: Identity) -> None:
        """Must be called under the lock: nobody may be sharing the descriptor meanwhile."""
        kept = self._kept.pop(content)
        self._kept_bytes -= kept.copy.size_bytes
        kept.copy.close()
        kept.is_kept = False
        self._forget_unless_used(kept)


def _opened(fd: int, relative_path: bytes) -> OpenFile:
    """Takes the descriptor over. Raises: RefusedError."""
    try:
        return OpenFile(fd, relative_path, os.fstat(fd))
    except OSError as error:
        close_descriptor(fd)
        raise text_refusal(error) from error


def _convert(source: OpenFile, encode: Encode) -> int:
    """Convert a file to netascii, by `encode`; it stays open and the caller's.

    Returns:
        A descriptor of the copy in memory, sealed, the caller's.

    Raises:
        RefusedError: The file is being changed or cannot be read, or memory or descriptors are short.
    """
    try:
        return memory_file("netascii", iter(Text(source, encode).read, b""), seals=READ_ONLY)
    except OSError as error:
        raise text_refusal(error) from error
