"""What an upload holds while it arrives: the file that it is received into, its room, and where both belong.

    Reception ──► received.fd, written by whoever ──► (netascii: decode) ──► a StagedFile to publish

May know one directory, by descriptor, one name in it and the terms. Must not know roots, limits or what is
published under which conditions.

Invariants:
- Everything that it opened it closes, once, in `close`; until then the directory stays open, since a hidden name lies
  in it.
- Not for several threads at once.
"""

import errno
import os
from typing import Final

from snow_owl_tftp.content.store.overwrite import may_overwrite
from snow_owl_tftp.content.store.places import UploadTerms
from snow_owl_tftp.content.store.space import Reservation
from snow_owl_tftp.content.store.staging import ScratchFile, StagedFile
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.protocol.netascii import NetasciiDecoder

__all__ = ["NOTHING_NEW", "Reception", "may_write_only"]

NOTHING_NEW: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""A directory that takes no new file; a file in it may be writable all the same."""
_CHUNK_BYTES: Final = 1 << 18
"""256 KiB: what one copy holds in memory at a time."""


class Reception:
    """The files of one upload under way.

    Attributes:
        received: What arrives is written to it.
        reservation: What it holds of the room for all; whoever reserves it releases it.
    """

    __slots__ = ("_decoded", "_directory_fd", "_present", "_terms", "received", "reservation")

    def __init__(self, terms: UploadTerms, directory_fd: int, present: os.stat_result | None) -> None:
        """Create the file to receive into.

        Args:
            terms: Of the upload.
            directory_fd: Where the file is to be, or will be below; taken over unless this fails.
            present: What has the name now.

        Raises:
            OSError: It cannot be created.
        """
        self._terms = terms
        self._directory_fd = directory_fd
        self._present = present
        self._decoded: StagedFile | None = None
        self.reservation: Reservation | None = None
        self.received = self._make_file()

    def decode(self) -> StagedFile:
        """Return another file, with the text that was received as netascii.

        Raises:
            OSError: It cannot be created or written.
        """
        self._decoded = self._make_file()
        decoder = NetasciiDecoder()
        offset_bytes = 0
        while chunk := os.pread(self.received.fd, _CHUNK_BYTES, offset_bytes):
            offset_bytes += len(chunk)
            _write_all(self._decoded.fd, decoder.decode(chunk))
        _write_all(self._decoded.fd, decoder.finish())
        return self._decoded

    def close(self) -> None:
        """Close both files and the directory; what was not published is gone. Once."""
        if self._decoded is not None:
            self._decoded.close()
        self.received.close()
        close_descriptor(self._directory_fd)

    def _make_file(self) -> StagedFile:
        """Beside the name, or elsewhere where only the file itself may be written."""
        name = self._terms.path.rpartition(b"/")[2]
        try:
            return StagedFile(self._directory_fd)
        except OSError as error:
            if error.errno not in NOTHING_NEW or not may_write_only(
                name, self._directory_fd, self._present, self._terms
            ):
                raise
        return ScratchFile()


def may_write_only(name: bytes, directory_fd: int, present: os.stat_result | None, terms: UploadTerms) -> bool:
    """Tell whether a file may be written although nothing can be made beside it: a version could not be kept then."""
    return present is not None and terms.on_existing != "version" and may_overwrite(name, directory_fd, present)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
