"""A file that a client sends to a handler: into memory, whole, then handed over, then acknowledged.

    WRQ ─begin─► plan     FirstData ─open─► memfd, written by the engine
    Received ─► Upload ─write─► None: last ACK    Refuse: ERROR

May know: the words of handlers, protocol and the plan. Must not know the engine.
Invariants:
- Memory is bounded: one upload by `max_upload_bytes`, all of them by `_MAX_UPLOADS` of that size.
- An upload of which nothing has arrived counts for nothing: whoever sends WRQs and nothing else locks nobody out.
- A handler sees whole files only, and its client hears that all went well only after it has returned.
- The descriptor is closed after the Completion only: until then the engine may write to it.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Final

from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.library.response_bytes import memory_of
from snow_owl_tftp.library.responses import Refuse
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.plan.freeze import freeze_upload
from snow_owl_tftp.plan.transfer import NO_SINK_YET
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.netascii import NetasciiDecoder
from snow_owl_tftp.protocol.options import Negotiated, OptionLimits, negotiate
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.verdict import Accepted, CommitRefusal, Sink, UploadContext

__all__ = ["Receiver"]

_MAX_UPLOADS: Final = 256
"""At a time; what comes beyond is told to try again, which a client does."""
_PIECE_BYTES: Final = 1 << 16
"""Converted a turn of the event loop: some milliseconds where it is line ends alone."""
_TOO_LARGE: Final = "Larger than this server takes"
_BUSY: Final = "Server busy, try again"
_ABORTED: Final = CommitRefusal(ErrorCode.NOT_DEFINED, "Upload was aborted", 0)

Store = Callable[[bytes], Awaitable[Refuse | None]]
"""Hands a file over."""


class Receiver:
    """Makes uploads, and counts them."""

    def __init__(self, limits: OptionLimits, max_upload_bytes: int) -> None:
        """Set the limits.

        Args:
            limits: What may be negotiated.
            max_upload_bytes: Of one file, as it is sent.
        """
        self._limits = limits
        self._max_upload_bytes = max_upload_bytes
        self._live = 0

    def begin(self, transfer_id: int, request: Request, store: Store) -> Accepted:
        """Take a file.

        Args:
            transfer_id: Of the request.
            request: A WRQ.
            store: Called with the file when it is whole.

        Returns:
            Its plan.

        Raises:
            RefusedError: It announces more than is taken, or there are too many already.
        """
        negotiated = negotiate(request, size_bytes=None, limits=self._limits)
        if negotiated.tsize is not None and negotiated.tsize > self._max_upload_bytes:
            raise RefusedError(ErrorCode.DISK_FULL, _TOO_LARGE)
        if self._live >= _MAX_UPLOADS:
            raise RefusedError(ErrorCode.NOT_DEFINED, _BUSY)
        receiving = _Receiving(self, request, negotiated, store)
        return Accepted(
            freeze_upload(transfer_id, self._max_upload_bytes, negotiated.tsize, negotiated, receiving), None
        )

    def open(self) -> int:
        """One upload more: return what it is written to. Raises: RefusedError, there are too many; OSError."""
        if self._live >= _MAX_UPLOADS:
            raise RefusedError(ErrorCode.NOT_DEFINED, _BUSY)
        fd = memory_of(b"")
        self._live += 1
        return fd

    def close(self, fd: int) -> None:
        """One upload less."""
        close_descriptor(fd)
        self._live -= 1


class _Receiving(UploadContext):
    """An upload under way."""

    __slots__ = ("_is_over", "_receiver", "_store", "fd")

    def __init__(self, receiver: Receiver, request: Request, negotiated: Negotiated, store: Store) -> None:
        super().__init__(request, negotiated.tsize, negotiated)
        self._receiver = receiver
        self._store = store
        self.fd = NO_SINK_YET
        self._is_over = False

    async def open(self) -> Sink | CommitRefusal:
        """See UploadContext.open."""
        if self._is_over:
            return _ABORTED
        try:
            self.fd = self._receiver.open()
        except RefusedError as error:
            return CommitRefusal(error.code, error.text, 0)
        except OSError as error:  # no descriptor is left
            return CommitRefusal(ErrorCode.NOT_DEFINED, _BUSY, error.errno or errno.EMFILE)
        return Sink(self.fd, 0)

    async def commit(self, received_bytes: int) -> CommitRefusal | None:
        """See UploadContext.commit."""
        if self._is_over:
            return _ABORTED
        # Before anything is awaited: the descriptor may be closed by then.
        data = os.pread(self.fd, received_bytes, 0)
        if len(data) != received_bytes:
            return CommitRefusal(ErrorCode.NOT_DEFINED, "I/O error", errno.EIO)
        if self.size_bytes not in (None, received_bytes):
            # A block that is cut short ends a transfer (RFC 1350 section 6), so this is all we can tell it by.
            return CommitRefusal(ErrorCode.NOT_DEFINED, "Fewer or more bytes than announced by tsize", 0)
        if self.request.mode == "netascii":
            data = await _decode(data)
        refusal = await self._store(data)
        self.is_stored = refusal is None
        return None if refusal is None else CommitRefusal(refusal.code, refusal.text, 0)

    def retired(self) -> None:
        """See UploadContext.retired."""
        self._is_over = True
        fd, self.fd = self.fd, NO_SINK_YET
        if fd != NO_SINK_YET:
            self._receiver.close(fd)


async def _decode(data: bytes) -> bytes:
    """Convert netascii to local text, and let others have their turn."""
    decoder, pieces = NetasciiDecoder(), list[bytes]()
    for offset in range(0, len(data), _PIECE_BYTES):
        pieces.append(decoder.decode(data[offset : offset + _PIECE_BYTES]))
        await asyncio.sleep(0)
    return b"".join((*pieces, decoder.finish()))
