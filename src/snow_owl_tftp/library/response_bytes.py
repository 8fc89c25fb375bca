"""What a Response holds, made ready to be sent: a descriptor of exactly that, or an iterator of its chunks.

    bytes, a path, a confined file   ─► descriptor: the size is known, and the engine reads by itself
    a file object, an iterator       ─► chunks, for a Stream: only Python can make them, and they may never end

May know: files and threads. Must not know requests, plans or the engine.
Invariants:
- What may wait for a disk, a pipe or a lock is done by threads of the server's own: those of the program stay its own.
  One that hangs is left behind when its time is up, and does not keep the program from ending (see `patient`); the
  others go on, and opening does not share theirs with reading.
- A descriptor that nobody waits for any more is closed.
- Only what the operating system says to our own opening becomes a refusal; all else is a failure of whoever made the
  content.
"""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.refusals import OutsideRootError, refusal_of_errno
from snow_owl_tftp.content.text import Text
from snow_owl_tftp.errors import RefusedError
from snow_owl_tftp.library.confined import ConfinedFile, confine
from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.linux.memfd import memory_file
from snow_owl_tftp.observe.records import log_event
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.server.patient import PatientThreads
from snow_owl_tftp.server.texts import Texts

__all__ = ["ContentThreads", "memory_of", "open_pipe"]

_MEMORY_NAME: Final = "tftp-response"
_OPENING_THREADS: Final = 8
_CALLING_THREADS: Final = 32
"""Each is held by one handler that is no coroutine; what comes beyond waits for its turn, or for its time to be up."""
_READING_THREADS: Final = 32
"""Each is held by one read: a pipe that stays silent costs one of them until it speaks or ends."""
_MAX_WAITING: Final = 1024
"""For the threads of one kind, those in them and those whose time was up included: what comes beyond is refused."""
_CHUNK_BYTES: Final = 1 << 16
"""What a pipe holds (pipe(7)): more at once would only wait."""


_END: Final = object()


class ContentThreads:
    """Calls handlers that are no coroutines, opens paths, reads file objects and iterators."""

    def __init__(self) -> None:
        self._calling = PatientThreads(_CALLING_THREADS, _CALLING_THREADS, "tftp-handler")
        self._opening = PatientThreads(_OPENING_THREADS, _OPENING_THREADS, "tftp-open")
        self._reading = PatientThreads(_READING_THREADS, _READING_THREADS, "tftp-read")

    def close(self) -> None:
        """Tell the threads to end; one that hangs is not waited for."""
        for threads in (self._calling, self._opening, self._reading):
            threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, function: Callable[[Any], Any], argument: object) -> Any:
        """Call a function that may wait.

        Args:
            function: The caller's.
            argument: Its only one.

        Returns:
            What it returns.
        """
        return await asyncio.wrap_future(_submit(self._calling, _call, function, argument))

    async def open_file(self, file: Path | ConfinedFile, root: Path | None, texts: Texts | None) -> OpenFile | Text:
        """Open a regular file.

        Args:
            file: Whose content is to be sent.
            root: Where it has to be; None: anywhere.
            texts: What converts it to netascii, by its own threads; None: nothing does.

        Returns:
            What to send, the caller's; of an OpenFile as many bytes as it says, while its `held` lives.

        Raises:
            RefusedError: It is outside of the root, no regular file, or cannot be opened or read.
        """
        opening = _submit(texts.threads if texts else self._opening, _open_file, file, root, texts)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    async def measure(self, file: BinaryIO) -> int | None:
        """Return how many bytes are left in a file object; None: it does not say, or says 0, as files of /proc do."""
        return await asyncio.wrap_future(_submit(self._reading, _measure, file))

    async def chunks_of(self, file: BinaryIO, size_bytes: int | None) -> AsyncIterator[bytes]:
        """Read a file object to its end.

        Args:
            file: Stays open.
            size_bytes: What was announced; None: nothing was.

        Returns:
            Its bytes, in chunks.

        Raises:
            TypeError: It is not open for reading bytes, or does not wait for them.
            ValueError: It is longer or shorter than announced.
        """
        done_bytes = 0
        while (chunk := await asyncio.wrap_future(_submit(self._reading, file.read, _CHUNK_BYTES))) != b"":
            if not isinstance(chunk, bytes):
                raise TypeError(f"a file must be open for reading bytes, and block: read() gave {type(chunk).__name__}")
            done_bytes += len(chunk)
            if size_bytes is not None and done_bytes > size_bytes:
                break
            yield chunk
        if size_bytes not in (None, done_bytes):
            raise ValueError(f"the file was to have {size_bytes} bytes, and has another number")

    async def chunks_of_iterator(self, chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
        """Take what an iterator yields, each step in a thread.

        Args:
            chunks: Closed at the end where it can be.

        Returns:
            The same chunks.
        """
        iterator = iter(chunks)
        try:
            while (chunk := await asyncio.wrap_future(_submit(self._reading, next, iterator, _END))) is not _END:
                yield chunk  # whatever else it is, the stream refuses
        finally:
            if isinstance(iterator, Generator):
                iterator.close()


def memory_of(data: bytes) -> int:
    """Return a descriptor of bytes, the caller's. Raises: RefusedError."""
    with _our_own():
        return memory_file(_MEMORY_NAME, [data])


def open_pipe() -> tuple[int, int]:
    """Return the non-blocking reading and writing end of a pipe, the caller's. Raises: RefusedError."""
    with _our_own():
        return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


@contextmanager
def _our_own() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refusal_of_errno(error.errno or 0) from error


def _submit(threads: PatientThreads, function: Callable[..., Any], *arguments: object) -> "Future[Any]":
    """Raises: RefusedError, when too much waits."""
    if threads.waiting_for(None) >= _MAX_WAITING:
        raise RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again")
    return threads.submit(function, *arguments)


def _call(function: Callable[[Any], Any], argument: object) -> Any:
    try:
        return function(argument)
    except StopIteration as error:  # no future can hold one: whoever waits would wait for ever
        raise RuntimeError("a handler raised StopIteration") from error


def _open_file(file: Path | ConfinedFile, root: Path | None, texts: Texts | None) -> OpenFile | Text:
    with _our_own():
        file = file if root is None else _confine(root, file)
        fd = file.open_descriptor() if isinstance(file, ConfinedFile) else _open_path(file)
        opened = OpenFile(fd, b"", os.fstat(fd))  # cannot fail: the descriptor is ours and open
        if opened.size_bytes:
            return opened if texts is None else texts.made_of(opened)
        try:
            copy = _read_unsized(fd, texts is not None)
            return OpenFile(copy, b"", os.fstat(copy))  # as above
        finally:
            opened.close()


def _confine(root: Path, file: Path | ConfinedFile) -> ConfinedFile:
    try:
        return confine(root, file)
    except OutsideRootError:
        # A defect of the program, or an attack that it let through: its log must say so, unasked.
        log_event(logging.WARNING, "a Response is outside of the root", {"response": str(file), "root": str(root)})
        raise


def _open_path(path: Path) -> int:
    # O_NONBLOCK: a FIFO without a writer would hold the thread for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # cannot fail: the descriptor is ours and open
        close_descriptor(fd)
        raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Not a regular file")
    return fd


def _read_unsized(fd: int, is_netascii: bool) -> int:
    """Copy a file that says 0: one of /proc does so whatever it holds."""
    chunks = iter(lambda: os.read(fd, _CHUNK_BYTES), b"")
    copy = memory_file(_MEMORY_NAME, map(netascii.encode, chunks) if is_netascii else chunks)
    if os.fstat(fd).st_size:  # an ordinary one, which somebody has begun to write
        close_descriptor(copy)
        raise RefusedError(ErrorCode.NOT_DEFINED, "File is being changed, try again")
    return copy


def _measure(file: BinaryIO) -> int | None:
    try:
        if not file.seekable():
            return None
        begin = file.tell()
        end = file.seek(0, os.SEEK_END)
    except (AttributeError, OSError):
        return None
    file.seek(begin)  # a failure here is one: what is left would not be the file
    return (end - begin) or None


def _close_opened(opening: "Future[OpenFile | Text]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
