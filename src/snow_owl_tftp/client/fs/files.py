"""The files that `filesystem` opens: one that was fetched, one that is to be stored.

May know: the blocking client. Must not: know fsspec; what it asks of a file is here by its names alone.
Invariants: half a file is never stored; the garbage collector sends nothing; what exceeds _MEMORY_BYTES is on disk.
"""

import io
import logging
import sys
import tempfile
import warnings
from typing import Any, BinaryIO, cast

from snow_owl_tftp.client.api import Client, SettingsArguments

__all__ = ["DownloadFile", "UploadFile"]

_MEMORY_BYTES = 16 << 20
"""Larger files are kept on disk while they are open."""
_log = logging.getLogger(__name__)


class DownloadFile(tempfile.SpooledTemporaryFile[bytes]):
    """What was fetched, with what fsspec asks of its files.

    Attributes:
        path: The URL.
        size: In bytes.
    """

    def __init__(self, path: str) -> None:
        super().__init__(_MEMORY_BYTES)
        self.path = path
        self.size = 0

    def __del__(self) -> None:
        # fsspec's readers of compressed files never close what is below them; nothing is lost with it.
        self.close()

    @property
    def blocksize(self) -> int:
        """`blockcache::` alone asks for this; here it can be told what it cannot have."""
        raise AttributeError("TFTP fetches no blocks: use filecache:: or simplecache::, not blockcache::")


class UploadFile(io.BufferedIOBase):
    """What is to be stored: `commit` does, `discard` does not, and `close` does one of them.

    A file that is closed while an exception is raised, other than one that was being handled when it was opened, is
    discarded: what closes files then (`with`, `finally`, fsspec, a TextIOWrapper) need not say why. So is a file that
    nobody closes. In a transaction of fsspec a closed file waits for its end.

    Args:
        url: Where to.
        settings: Of the client.
        autocommit: False: the end of a transaction decides.
    """

    def __init__(self, url: str, settings: SettingsArguments, autocommit: bool) -> None:
        self._spool = tempfile.SpooledTemporaryFile[bytes](_MEMORY_BYTES)
        self._url = url
        self._settings = settings
        self._autocommit = autocommit
        self._handled = sys.exc_info()[1]
        self._is_half = False

    def __del__(self) -> None:
        if not self.closed:
            self._dealloc_warn(self)
            self.discard()

    def _dealloc_warn(self, source: object) -> None:
        """Also called by a TextIOWrapper that is about to close us because nobody has closed it."""
        self._is_half = True
        warnings.warn(f"{self._url} was not closed, and is not stored", ResourceWarning, stacklevel=2, source=source)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # An exception that was being handled, raised again: only this tells.
        self._is_half = self._is_half or kind is not None
        self.close()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._content().write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._content().seek(offset, whence)

    def tell(self) -> int:
        return self._content().tell()

    def truncate(self, size: int | None = None) -> int:
        return self._content().truncate(size)

    def close(self) -> None:
        """Store it, unless it is but half of a file.

        Raises:
            TransferError: It was not stored.
        """
        if self.closed:
            return
        error = sys.exc_info()[1]
        if error is not None and error is not self._handled:
            self._is_half = True
            _log.warning("%s is not stored: it was closed while this was raised: %r", self._url, error)
        if self._is_half:
            self.discard()
        elif self._autocommit:
            self.commit()
        else:
            super().close()

    def commit(self) -> None:
        """Store it, but for one that was discarded.

        Raises:
            TransferError: It was not stored.
        """
        super().close()
        self._handled = None
        if self._spool.closed:
            return
        with self._spool as spool, Client(**self._settings) as client:
            size_bytes = spool.seek(0, io.SEEK_END)
            spool.flush()  # the client reads the descriptor, not the buffer above it
            spool.seek(0)
            client.put(self._url, spool.read() if size_bytes <= _MEMORY_BYTES else cast(BinaryIO, spool))

    def discard(self) -> None:
        """Forget it."""
        super().close()
        self._handled = None
        self._spool.close()

    def _content(self) -> "tempfile.SpooledTemporaryFile[bytes]":
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._spool
