"""Content that is still being made, on its way into the pipe that the engine reads.

    Accepted ─start─► engine ◄─pipe─ Stream ◄─anext─ an iterator of the caller's
                        └─Completion─► release

May know: asyncio and pipes. Must not know requests, verdicts or the engine.
Invariants:
- Nothing is asked of an iterator before the engine has taken the plan: an abort before that is ignored by contract.
- The writing end is closed when the iterator has ended, or the transfer has. An iterator that fails in any way aborts
  the transfer and leaves the pipe open until then: its end would look like the end of the file.
- A pipe and a chunk are all that is made ahead of the engine's window.
- An iterator that never waits gives way to the others after every chunk.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable

from snow_owl_tftp.linux.descriptors import close_descriptor
from snow_owl_tftp.observe.records import log_event
from snow_owl_tftp.protocol import netascii

__all__ = ["Stream"]


class Stream:
    """One iterator, from the start of its transfer to the end of both."""

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        writer: int,
        *,
        name: str,
        is_netascii: bool,
        timeout_s: float,
        abort: Callable[[], None],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        """Take the iterator and the descriptor over; `begin` or `release` must follow.

        Args:
            chunks: What to send; closed at the end where it can be.
            writer: The non-blocking writing end of a pipe.
            name: Of what is asked for, for the log.
            is_netascii: Whether to convert on the way.
            timeout_s: For each chunk, and for closing the iterator.
            abort: Ends the transfer with an ERROR, once it has begun.
            tasks: Holds the task while it runs.
        """
        self._chunks = chunks
        self._writer = writer
        self._name = name
        self._is_netascii = is_netascii
        self._timeout_s = timeout_s
        self._abort = abort
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._is_pouring = False
        self._is_over = asyncio.Event()

    def begin(self) -> None:
        """The engine has taken the plan: begin to ask and to write."""
        self._task = asyncio.ensure_future(self._feed())
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    def release(self) -> None:
        """The transfer has ended, or will never begin."""
        self._is_over.set()
        if self._task is None:
            self.begin()  # it asks for nothing any more, it only closes
        elif self._is_pouring:
            self._task.cancel()

    async def _feed(self) -> None:
        self._is_pouring = True
        failure = await self._pour()
        self._is_pouring = False
        if failure is not None and not self._is_over.is_set():
            log_event(logging.ERROR, "a stream failed", {"file": self._name}, failure)
            self._abort()
            await self._is_over.wait()
        close_descriptor(self._writer)
        await self._close_chunks()
        if failure is not None and not isinstance(failure, Exception):
            raise failure  # cancelled, or the program is to end

    async def _pour(self) -> BaseException | None:
        """Writes what the iterator yields, no faster than the client takes it; returns what stopped it early."""
        try:
            while not self._is_over.is_set():
                try:
                    async with asyncio.timeout(self._timeout_s):
                        chunk = await anext(self._chunks)
                except StopAsyncIteration:
                    return None
                await self._write(netascii.encode(chunk) if self._is_netascii else chunk)
                await asyncio.sleep(0)
        except BaseException as error:
            return error
        return None

    async def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._writer, rest) :]
            except BlockingIOError:
                await _writable(self._writer)
            except BrokenPipeError:
                await self._is_over.wait()  # the reader is gone, so the Completion is on its way
                return

    async def _close_chunks(self) -> None:
        aclose = getattr(self._chunks, "aclose", None)
        if aclose is None:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await aclose()
        except Exception as error:  # its transfer is over: nobody but the log can be told
            log_event(logging.ERROR, "a stream could not be closed", {"file": self._name}, error)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def on_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, on_ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)
