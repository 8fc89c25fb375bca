"""How much uploads may still take: the account behind `max_total_bytes`.

    used       files of the area, as the last count found them, and what was committed since
    reserved   uploads that have begun to arrive: what each announced, or what it has received if it announced nothing
    granted    the part of it that was announced, or has arrived in full

May know sizes and descriptors to ask for sizes. Must not know names or where files lie.

Invariants:
- used + granted never exceeds the limit, where granted is what was announced or has arrived in full.
- An upload that announced nothing reserves only what has arrived: to reserve all that is left would
  let one silent client lock out every other. Such uploads may outgrow the limit together, so `trim` looks
  at them every now and then, and cuts the largest off until the others fit.
- Who arrives first is stored: what others hold without a grant keeps newcomers out, but never one that is complete.
  Otherwise many that end together would each be refused for the others' sake, and none be stored.
- Before anything is refused the area is counted anew (not more often than `RECOUNT_S`), as somebody
  may have tidied up behind our back. Where that takes long, since something below the area hangs, the account goes on
  with what it knows until the count is over; there is one at a time.
- A reservation that another upload needs is never waited for: the client is told, and may retry.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from snow_owl_tftp.content.store.refusals import UploadError, refuse_upload
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.memfd import FULL, memory_file

__all__ = ["Reservation", "Space"]

_LITTLE: Final = 8
"""With less room than this part of the limit the area is counted before an upload of unknown size begins."""
RECOUNT_S: Final = 10.0
"""A count walks the whole area, in the thread of the upload that would be refused."""


class Reservation:
    """What one running upload holds; known to its Space only."""

    __slots__ = ("announced_bytes", "fd", "is_cut_off")

    def __init__(self, fd: int, announced_bytes: int | None) -> None:
        self.fd = fd
        self.announced_bytes = announced_bytes
        self.is_cut_off = False

    def held_bytes(self) -> int:
        return os.fstat(self.fd).st_size if self.announced_bytes is None else self.announced_bytes


class Space:
    """The account of one upload area. Every method may be called by any thread."""

    def __init__(
        self,
        max_total_bytes: int,
        count_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], None]], None] = lambda count: count(),
    ) -> None:
        """Open the account; nothing is counted yet.

        Args:
            max_total_bytes: 0: no limit, and nothing is ever counted.
            count_bytes: Counts what lies in the area; may take long, and runs at the first upload at
                the latest (`set_counted` spares that).
            clock: Seconds.
            run: Has a count made, and returns when it is over or takes too long; raises nothing.
        """
        self._max_bytes = max_total_bytes
        self._run = run
        self._count_bytes = count_bytes
        self._clock = clock
        self._lock = threading.Lock()  # guards all below, but for forget_count; not held during a count
        self._used_bytes = 0
        self._added_since_count = 0
        self._counted_at: float | None = None
        self._is_counting = False
        self._running: set[Reservation] = set()

    @property
    def used_bytes(self) -> int:
        """What lies in the area, as far as known."""
        return self._used_bytes

    def set_counted(self, counted_bytes: int) -> None:
        """Take over a count that began when nothing was running."""
        with self._lock:
            self._used_bytes = counted_bytes
            self._counted_at = self._clock()

    def forget_count(self) -> None:
        """Count anew before the next upload: which files count has changed. Never waits.

        One assignment, without the lock: whoever has that may be waiting for a disk that hangs (fstat, ftruncate).
        """
        self._counted_at = None

    def check(self, announced_bytes: int | None) -> None:
        """Refuse an upload for which there is no room now. Nothing is reserved: it may never send a byte.

        Args:
            announced_bytes: Its size, if the client said.

        Raises:
            UploadError: There is no room (ERROR 3).
        """
        if self._max_bytes:
            self._claim(None, _least_bytes(announced_bytes), _least_bytes(announced_bytes))

    def reserve(self, fd: int, announced_bytes: int | None) -> tuple[Reservation, int]:
        """Let an upload begin to grow.

        Args:
            fd: Of the file being received; open until the reservation is released.
            announced_bytes: Its size, if the client said.

        Returns:
            The reservation, and the most bytes that it may grow to; 0: no limit.

        Raises:
            UploadError: There is no room (ERROR 3).
        """
        reservation = Reservation(fd, announced_bytes)
        if self._max_bytes == 0:
            return reservation, 0
        # Where nobody knows how much comes: a limit that files have left by another way should not cut it off.
        enough_bytes = self._max_bytes // _LITTLE if announced_bytes is None else announced_bytes
        room_bytes = self._claim(reservation, _least_bytes(announced_bytes), enough_bytes)
        return reservation, room_bytes if announced_bytes is None else announced_bytes

    def finish(self, reservation: Reservation) -> None:
        """Grant an upload that has arrived what it holds; it is not cut off from now on.

        Raises:
            UploadError: It was cut off, or there is no room (ERROR 3).
        """
        with self._lock:
            if reservation.is_cut_off:
                raise _no_room()
            size_bytes = reservation.held_bytes()
        self.claim(reservation, size_bytes)

    def claim(self, reservation: Reservation, size_bytes: int) -> None:
        """Hold exactly the size that a finished upload turned out to have.

        Raises:
            UploadError: There is no room (ERROR 3), or it was cut off; what was held before is still held.
        """
        if self._max_bytes == 0:
            return
        if not self._try_grant(reservation, size_bytes) and self._is_count_old():
            self._recount()
        if not self._try_grant(reservation, size_bytes):
            raise _no_room()

    def trim(self) -> int:
        """Cut off the largest uploads that announced nothing, until the others fit; return how many.

        What is written to such an upload from now on finds the disk full, and what was written is gone.
        """
        if self._max_bytes == 0:
            return 0
        with self._lock:
            held, excess_bytes = self._excess()
        if excess_bytes > 0 and self._is_count_old():
            self._recount()
        cut_off = 0
        with self._lock:
            held, excess_bytes = self._excess()
            for running in sorted(held, key=held.__getitem__, reverse=True):
                if excess_bytes <= 0:
                    break
                if running.announced_bytes is None and held[running]:
                    _cut_off(running)
                    excess_bytes -= held[running]
                    cut_off += 1
        return cut_off

    def settle(self, reservation: Reservation, stored_bytes: int, replaced_bytes: int) -> None:
        """The upload is in its place: what it held is used now, what it replaced is free."""
        with self._lock:
            self._running.discard(reservation)
            self._used_bytes = max(0, self._used_bytes + stored_bytes - replaced_bytes)
            # A count under way may or may not have seen the file; better counted twice than not at all.
            self._added_since_count += stored_bytes

    def release(self, reservation: Reservation) -> None:
        """The upload is gone; a second call does nothing."""
        with self._lock:
            self._running.discard(reservation)

    def _claim(self, reservation: Reservation | None, least_bytes: int, enough_bytes: int) -> int:
        if self._counted_at is None:
            self._recount()
        room_bytes = self._try_claim(reservation, least_bytes)
        if room_bytes < enough_bytes and self._is_count_old():
            self._recount()
            room_bytes = self._try_claim(reservation, least_bytes)
        if room_bytes < least_bytes:
            raise _no_room()
        return room_bytes

    def _try_grant(self, reservation: Reservation, size_bytes: int) -> bool:
        with self._lock:
            others = sum(other.announced_bytes or 0 for other in self._running if other is not reservation)
            fits = not reservation.is_cut_off and self._used_bytes + others + size_bytes <= self._max_bytes
            if fits:
                reservation.announced_bytes = size_bytes
            return fits

    def _excess(self) -> tuple[dict[Reservation, int], int]:
        """Return what each running upload holds, and by how much all is beyond the limit; under the lock."""
        held = {running: running.held_bytes() for running in self._running}
        return held, self._used_bytes + sum(held.values()) - self._max_bytes

    def _try_claim(self, reservation: Reservation | None, least_bytes: int) -> int:
        with self._lock:
            others = sum(other.held_bytes() for other in self._running if other is not reservation)
            room_bytes = self._max_bytes - self._used_bytes - others
            if room_bytes >= least_bytes and reservation is not None:
                self._running.add(reservation)
            return room_bytes

    def _is_count_old(self) -> bool:
        counted_at = self._counted_at  # once: it may be forgotten at any moment
        return counted_at is None or self._clock() - counted_at >= RECOUNT_S

    def _recount(self) -> None:
        with self._lock:
            if self._is_counting:
                return
            self._is_counting = True
            self._counted_at = self._clock()
            self._added_since_count = 0
        self._run(self._count)

    def _count(self) -> None:
        try:
            counted_bytes = self._count_bytes()
            with self._lock:
                self._used_bytes = counted_bytes + self._added_since_count
        finally:
            self._is_counting = False


def _least_bytes(announced_bytes: int | None) -> int:
    # Something must fit: a limit of 0 bytes would read as no limit further down.
    return 1 if announced_bytes is None else announced_bytes


def _no_room() -> UploadError:
    return refuse_upload(OSError(errno.EDQUOT, "max_total_bytes"))


def _cut_off(reservation: Reservation) -> None:
    """Put a device that is always full in the place of the file; a write that is under way ends as it would have."""
    fd = _open_full()
    try:
        os.ftruncate(reservation.fd, 0)  # it may have a name, and live on until the transfer ends
        os.dup2(fd, reservation.fd, inheritable=False)
    finally:
        close_descriptor(fd)
    reservation.is_cut_off = True


def _open_full() -> int:
    try:
        # Write-only: whoever might read it would get zeros without an end.
        return os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:  # a bare chroot: then the client is told of an I/O error
        return memory_file("full", seals=FULL)
