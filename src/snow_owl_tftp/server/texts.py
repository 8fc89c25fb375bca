"""Files asked for in netascii: small ones become a copy, larger ones are converted as their clients take them.

    OpenFile ─┬─ at most MAX_COPIED_BYTES ─► NetasciiCache ─► a descriptor, whose size is known
              └─ larger ─► Text ─read, in a thread─► TextStream ─► pipe ─► engine

May know: files, threads, pipes, the context of a plan, and who converts without the GIL. Must not know rules, names or
the running engine; `abort` is given by whoever has one.

Invariants:
- What a request of 60 bytes costs is a copy of a small file, or a pipe of one page and two pages of text: the rest
  is converted for those only who have acknowledged what they were sent.
- Threads of their own open and convert: no name that is asked for as octet waits for them, and of one device
  or directory two at most are held by what hangs.
- Streams are bounded, in all and by client; where there is no room the oldest one that nobody has answered gives
  way, then the one that stopped longest ago; where all go on the newcomer is told to try again.
- The pipe is closed before the Completion only behind the last piece: its end would look like the end of the file.
- No method of a TextStream waits: reading and closing a file may ask a file server, so threads do both.
"""

import asyncio
import fcntl
import mmap
import os
import resource
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from snow_owl_tftp._engine.protocol.netascii import encode
from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.refusals import refusal_of_errno
from snow_owl_tftp.content.text import PIECE_BYTES, Text
from snow_owl_tftp.content.translate import MAX_COPIED_BYTES, NetasciiCache
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.server.patient import PatientThreads

__all__ = ["TextStream", "Texts"]

_THREADS: Final = 8
_THREADS_PER_KEY: Final = 2
"""More of one device would wait for the same disk."""
_HELP_AFTER_S: Final = 0.002
"""What took so long waits for a disk, or for another conversion."""
_MAX_STREAMS: Final = 256
_MAX_COPIES: Final = 4096
_READ_S: Final = 10.0
"""For one piece: a client that gets nothing gives up about then."""
_SMALL_PIPE_BYTES: Final = mmap.PAGESIZE
_FIRST_PIECE_BYTES: Final = 2 * mmap.PAGESIZE
"""More than that pipe, and what the engine reads of it for a client that has answered nothing (two blocks of 512
bytes): so the piece is written whole only when the client has."""
_PIPE_BYTES: Final = 4 * PIECE_BYTES
"""Two pieces where every byte is a line end: one is converted while the other is sent."""
_STOPPED_S: Final = 10.0
"""A client that takes nothing for so long may be gone; in a table that is not full it is waited for."""
_BUSY: Final = "Server busy, try again"


class Texts:
    """Makes copies and streams, and bounds both.

    Attributes:
        abort: Ends a started transfer with ERROR 0 and a text.
        threads: For what opens texts; never waited for.
        refused_total: Streams that were refused because all others went on.
        gave_way_total: Streams that ended for a newcomer.
    """

    def __init__(self) -> None:
        """Begin with none; at most an eighth of the descriptors are for copies, and a fourth for streams."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            descriptors = _MAX_COPIES * 8
        self.abort: Callable[[int, str], None] = lambda transfer_id, text: None
        self.threads = PatientThreads(
            _THREADS, _THREADS_PER_KEY, "tftp-text", max_spares=_THREADS_PER_KEY, help_after_s=_HELP_AFTER_S
        )
        self.refused_total = self.gave_way_total = 0
        self._cache = NetasciiCache(max_copies=min(_MAX_COPIES, descriptors // 8), encode=encode)
        self._max_streams = min(_MAX_STREAMS, max(4, descriptors // 12))  # three for each
        # Touched by the event loop alone. The one that wrote last stands last; whether somebody has answered it.
        self._streams: dict[TextStream, bool] = {}
        self._of_host = Counter[str]()

    def close(self) -> None:
        """Let go of threads and kept copies; no transfer needs either any more."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self._cache.close()

    def at_once(self, source: OpenFile) -> OpenFile | Text | None:
        """Return what to send if nothing must be read for it; never blocks.

        Args:
            source: Taken over if it becomes a Text, else the caller's.

        Returns:
            A copy, a Text, or None: ask `made_of`, in a thread.

        Raises:
            RefusedError: No descriptor is left.
        """
        return Text(source, encode) if source.size_bytes > MAX_COPIED_BYTES else self._cache.cached(source)

    def made_of(self, source: OpenFile) -> OpenFile | Text:
        """Return what to send; may wait.

        Args:
            source: Taken over.

        Returns:
            A copy, whose `held` must live as long as it is used, or a Text.

        Raises:
            RefusedError: See NetasciiCache.translate.
        """
        if source.size_bytes > MAX_COPIED_BYTES:
            return Text(source, encode)
        try:
            return self._cache.translate(source)
        finally:
            source.close()

    def stream(self, text: Text, transfer_id: int, host: str) -> tuple[int, "TextStream"]:
        """Make a pipe for a text.

        Args:
            text: Taken over, also on failure.
            transfer_id: Of the request.
            host: Whose it is.

        Returns:
            The pipe's non-blocking reading end, the caller's, and what writes to it: `begin` or `release` must follow.

        Raises:
            RefusedError: No descriptor is left.
        """
        try:
            reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.close_text(text)
            raise refusal_of_errno(error.errno or 0) from error
        _resize(writer, _SMALL_PIPE_BYTES)
        return reader, TextStream(self, text, writer, transfer_id, host)

    def close_text(self, text: Text) -> None:
        """Close a text, in a thread: on a file server that may take its time."""
        try:
            closing = self.threads.submit_for(_key_of(text), text.close)
        except RuntimeError:  # the server has ended
            text.close(waits=False)
        else:
            closing.add_done_callback(lambda done: text.close(waits=False) if done.cancelled() else None)

    # ---- for a TextStream, in the event loop

    def admit(self, stream: "TextStream") -> bool:
        """Whether a stream may begin; another one may end for it."""
        is_full_for_host = self._of_host[stream.host] >= max(1, self._max_streams // 4)
        if is_full_for_host or len(self._streams) >= self._max_streams:
            elder = self._who_gives_way(stream.host if is_full_for_host else None)
            if elder is None:
                self.refused_total += 1
                return False
            self.gave_way_total += 1
            self.forget(elder)
            elder.fail(_BUSY)
        self._streams[stream] = False
        self._of_host[stream.host] += 1
        return True

    def note_progress(self, stream: "TextStream", *, is_answered: bool) -> None:
        """Something was written."""
        if self._streams.pop(stream, None) is not None:
            self._streams[stream] = is_answered

    def forget(self, stream: "TextStream") -> None:
        """It holds no place any more; a second call does nothing."""
        if self._streams.pop(stream, None) is not None:
            self._of_host[stream.host] -= 1
            if not self._of_host[stream.host]:
                del self._of_host[stream.host]

    def _who_gives_way(self, host: str | None) -> "TextStream | None":
        candidates = [stream for stream in self._streams if host in (None, stream.host)]
        for stream in candidates:
            if not self._streams[stream]:
                return stream
        if candidates and asyncio.get_running_loop().time() - candidates[0].wrote_s > _STOPPED_S:
            return candidates[0]
        return None

    def is_behind(self, text: Text) -> bool:
        """Whether so much waits for the text's device that one more read would not be done in time."""
        return self.threads.waiting_for(_key_of(text)) >= 2 * self._max_streams


class TextStream:
    """One text, from the start of its transfer to the Completion.

    Attributes:
        host: Of the client.
        wrote_s: When something was written last, by the loop's clock.
    """

    def __init__(self, texts: Texts, text: Text, writer: int, transfer_id: int, host: str) -> None:
        """Take text and descriptor over."""
        self.host = host
        self.wrote_s = 0.0
        self._texts = texts
        self._text = text
        self._writer = writer
        self._transfer_id = transfer_id
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading: asyncio.Future[bytes] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._rest = memoryview(b"")
        self._is_answered = self._is_over = False

    def begin(self) -> None:
        """The engine has taken the plan."""
        self._loop = asyncio.get_running_loop()
        if self._texts.admit(self):
            self._read(_FIRST_PIECE_BYTES)
        else:
            self.fail(_BUSY)

    def release(self) -> None:
        """The transfer has ended, or will never begin; a second call does nothing."""
        self._texts.forget(self)
        self._rest_for_ever()
        self._close_writer()

    def fail(self, reason: str) -> None:
        """End the transfer; the pipe stays open until it has."""
        self._rest_for_ever()
        self._texts.abort(self._transfer_id, reason)

    def _rest_for_ever(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._loop is not None:
            self._loop.remove_writer(self._writer)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._reading is not None:
            self._reading.cancel()
        self._texts.close_text(self._text)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, -1
        if writer >= 0:
            close_descriptor(writer)

    def _read(self, size_bytes: int) -> None:
        if self._texts.is_behind(self._text):
            self.fail(_BUSY)
            return
        loop = asyncio.get_running_loop()
        reading = self._texts.threads.submit_for(_key_of(self._text), self._text.read, size_bytes)
        self._reading = asyncio.wrap_future(reading, loop=loop)
        self._reading.add_done_callback(self._on_read)
        self._deadline = loop.call_later(_READ_S, self.fail, _BUSY)

    def _on_read(self, done: "asyncio.Future[bytes]") -> None:
        if self._is_over:
            if not done.cancelled():
                done.exception()  # looked at: nobody is to be told
            return
        if self._deadline is not None:
            self._deadline.cancel()
        try:
            piece = done.result()
        except RefusedError as error:
            self.fail(error.text)
        except Exception:
            self.fail("Internal error")
            raise
        else:
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        if not piece:
            self._rest_for_ever()
            self._close_writer()
            return
        self._rest = memoryview(piece)
        self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._rest = self._rest[os.write(self._writer, self._rest) :]
        except BlockingIOError:
            loop.add_writer(self._writer, self._write)
            return
        except BrokenPipeError:  # the engine has closed its end, so the Completion is on its way
            loop.remove_writer(self._writer)
            return
        self._note_progress(loop)
        if self._rest:
            loop.add_writer(self._writer, self._write)
            return
        loop.remove_writer(self._writer)
        self._read(PIECE_BYTES)

    def _note_progress(self, loop: asyncio.AbstractEventLoop) -> None:
        self.wrote_s = loop.time()
        if not self._rest and not self._is_answered:
            self._is_answered = True
            _resize(self._writer, _PIPE_BYTES)
        self._texts.note_progress(self, is_answered=self._is_answered)


def _key_of(text: Text) -> bytes:
    return b"device %d" % text.source.device


def _resize(pipe: int, size_bytes: int) -> None:
    with suppress(OSError):  # EPERM: the user has many pipes already (pipe-user-pages-soft); what it has will do
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size_bytes)
