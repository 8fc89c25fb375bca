"""A lease file, as its DHCP server writes it: what was appended is read, and all of it where all was written anew.

    dnsmasq  the file is emptied and written again    ─► all of it, believed once it is whole and left alone
    Kea      a cleaned file begins anew               ─► the end of the old one, then the new one; nothing is forgotten
    dhcpd    a new file takes the name                ─► the end of the old one, then all of the new one

May know: files and how servers replace them. Must not know how leases are written (policy.machines.dhcp).

Invariants: memory is that of one chunk and what waits for its end; a look at a large file lets others run between
chunks; what cannot be read keeps what is known, until it ends by itself.
"""

import errno
import os
import threading
import time
from contextlib import suppress
from typing import Final

from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.operate.machines.files import open_regular, stamp_of
from snow_owl_tftp.operate.machines.followed import FollowOutcome, Told
from snow_owl_tftp.policy.machines.dhcp import LeaseReader, reader_of
from snow_owl_tftp.policy.machines.leases import LeaseTable

__all__ = ["LeaseFile"]

_CHUNK_BYTES: Final = 64 * 1024
"""Some 700 leases: a millisecond of Python."""
_PAUSE_S: Final = 0.001
"""Between two chunks the event loop has its turn."""
_MAX_BEGINNING_BYTES: Final = 4096
"""A first line that is longer is no lease file's."""
_AGAIN_S: Final = 0.05
_MISSING: Final = os.strerror(errno.ENOENT)
_MAX_TRIES: Final = 20
"""A file that has been changing for a second is believed as it is."""
_OLDER: Final = ((".completed",), (".2", ".1"))
"""Where Kea has put leases aside while it cleans its file, and afterwards: the first of these that are there."""


class LeaseFile:
    """See FollowedFile."""

    def __init__(self, path: str, table: LeaseTable) -> None:
        """Prepare to fill a table; nothing is opened before the first look."""
        self.path = os.path.abspath(path)  # noqa: PTH100 - with its links
        self._table = table
        self._fd = -1
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._beginning = b""
        self._reader: LeaseReader | None = None
        self._stamp: object = None
        self._is_in_place = False
        self._tries = 0
        self._trouble = ""
        self._left_out = 0
        self._is_closed = False
        self._is_looking = threading.Lock()

    def look(self) -> FollowOutcome:
        """See FollowedFile.look."""
        with self._is_looking:
            try:
                is_whole = self._follow()
                trouble = ""
            except (OSError, ValueError) as error:
                is_whole, trouble = True, getattr(error, "strerror", None) or str(error)
                self._close_file()  # the next look begins with it anew
                self._reader = None
            self._table.drop_ended()
            if self._is_closed:
                self._close_file()
            self._tries = 0 if is_whole else self._tries + 1
            return FollowOutcome(tuple(self._news(trouble)), None if is_whole else _AGAIN_S)

    def close(self) -> None:
        """See FollowedFile.close."""
        self._is_closed = True
        if self._is_looking.acquire(blocking=False):
            self._close_file()
            self._is_looking.release()

    def _news(self, trouble: str) -> list[Told]:
        told = []
        if trouble and trouble != self._trouble:
            is_missing = trouble == _MISSING
            remedy = (
                "it is read once it is there"
                if is_missing
                else "let this user read it, or take it out of machines.leases"
            )
            told.append(
                Told("warning", "lease file cannot be read", {"file": self.path, "reason": trouble, "remedy": remedy})
            )
        elif self._trouble and not trouble:
            told.append(Told("info", "lease file is read again", {"file": self.path, "leases": len(self._table)}))
        self._trouble = trouble
        if self._table.left_out_total > self._left_out == 0:
            told.append(Told("warning", "more leases than are kept", {"file": self.path, "kept": len(self._table)}))
        self._left_out = self._table.left_out_total
        return told

    def _follow(self) -> bool:
        """Return whether all was read that there is; raises OSError, or ValueError: it is no lease file."""
        if self._fd >= 0:
            is_whole = self._read_on()  # also what a file that lost its name got last
            if self._is_named():
                return is_whole
            self._close_file()
        self._open()
        return self._read_on()

    def _is_named(self) -> bool:
        with suppress(FileNotFoundError):  # between two files of the name: the old one will do
            status = os.stat(self.path)  # noqa: PTH116 - as its path leads
            return (status.st_dev, status.st_ino) == self._file
        return True

    def _open(self) -> None:
        self._fd = open_regular(self.path)
        status = os.fstat(self._fd)
        self._file, self._stamp = (status.st_dev, status.st_ino), None
        if self._reader is None or self._reader.is_whole_when_renamed:
            self._begin_anew()
        else:
            self._begin_reading()

    def _close_file(self) -> None:
        if self._fd >= 0:
            close_descriptor(self._fd)
            self._fd = -1

    def _begin_anew(self) -> None:
        self._table.begin_anew()
        self._begin_reading()

    def _begin_reading(self) -> None:
        self._offset, self._beginning, self._reader = 0, b"", None

    def _read_on(self) -> bool:
        status = os.fstat(self._fd)
        stamp = stamp_of(status)
        if stamp == self._stamp:
            return True
        if self._stamp is not None and (self._is_in_place or status.st_size < self._offset):
            self._begin_anew()
        last = self._read_chunks()
        # In the middle of being written it is empty, ends anywhere, or grows while it is read.
        is_whole = last == b"\n" and stamp_of(os.fstat(self._fd)) == stamp
        if self._is_in_place and not is_whole and self._tries < _MAX_TRIES:
            self._begin_anew()
            return False
        if self._reader is not None or not status.st_size:
            self._table.end_anew()
        self._stamp = stamp
        return True

    def _read_chunks(self) -> bytes:
        """Learn what there is, and return the last byte."""
        last = b""
        while chunk := os.pread(self._fd, _CHUNK_BYTES, self._offset):
            self._offset += len(chunk)
            last = chunk[-1:]
            self._learn(chunk)
            if len(chunk) == _CHUNK_BYTES:
                time.sleep(_PAUSE_S)
        return last

    def _learn(self, chunk: bytes) -> None:
        if self._reader is None:
            chunk = self._beginning + chunk
            self._reader = reader_of(chunk)
            if self._reader is None:
                if len(chunk) > _MAX_BEGINNING_BYTES:
                    raise ValueError("its first line is longer than any of a lease file")
                self._beginning = chunk
                return
            self._beginning = b""
            self._is_in_place = self._reader.is_rewritten_in_place
            if self._reader.server == "Kea":
                self._learn_older()
        self._table.learn(self._reader.feed(chunk))

    def _learn_older(self) -> None:
        """What Kea has put aside, as Kea itself does at its start."""
        for names in _OLDER:
            found = False
            for name in names:
                found = self._learn_whole(self.path + name) or found
            if found:
                return

    def _learn_whole(self, path: str) -> bool:
        try:
            fd = open_regular(path)
        except OSError:
            return False
        reader: LeaseReader | None = None
        try:
            while chunk := os.read(fd, _CHUNK_BYTES):
                reader = reader or reader_of(chunk)
                if reader is None:
                    return False
                self._table.learn(reader.feed(chunk))
                time.sleep(_PAUSE_S)
        finally:
            close_descriptor(fd)
        return True
