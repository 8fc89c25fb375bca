"""Turns what handlers return into verdicts.

    RRQ ─path_of─► ReadRequest ─read─► Response ─contents─► descriptor, or chunks ─negotiate─► TransferPlan
    WRQ ─path_of─► receiving ─Received─► Upload ─write─► last ACK, or ERROR

May know: handlers, contents, streams, protocol and the plan. Must not know the engine or sockets; `abort` is given by
whoever has one.
Invariants:
- A handler is asked about names that lead nowhere outside, and about nothing else.
- A coroutine is run by the loop; what is none runs in a thread, since it may wait.
- The time limit of a request covers the handler and the opening of what it returned.
"""

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.refusals import OutsideRootError
from snow_owl_tftp.content.text import PIECE_BYTES, Text
from snow_owl_tftp.content.translate import MAX_COPIED_BYTES
from snow_owl_tftp.errors import InternalError, RefusedError
from snow_owl_tftp.library.confined import ConfinedFile, path_of
from snow_owl_tftp.library.receiving import Receiver
from snow_owl_tftp.library.response_bytes import ContentThreads, memory_of, open_pipe
from snow_owl_tftp.library.responses import ReadHandler, ReadRequest, Refuse, Response, Upload, WriteHandler
from snow_owl_tftp.library.streams import Stream
from snow_owl_tftp.observe.records import log_event
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.answer import accept_file, accept_stream, accept_text, answer, refuse_write
from snow_owl_tftp.server.sockets import format_address
from snow_owl_tftp.server.texts import Texts
from snow_owl_tftp.server.verdict import IncomingRequest, Pours, Refused, Verdict, refuse

__all__ = ["HandlerDecider", "Handlers", "check_handler", "is_coroutine_function"]


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the caller gave.

    Attributes:
        read: Answers RRQs.
        write: Takes uploads; None: WRQs are refused.
        root: Nothing outside of it is sent; None: a handler says what is.
        timeout_s: For a handler and the opening of its content; for every step of a stream.
    """

    read: ReadHandler
    write: WriteHandler | None
    root: Path | None
    timeout_s: float


class HandlerDecider:
    """Asks the caller's handler about every request.

    Attributes:
        limits: What may be negotiated.
        abort: Ends a started transfer with ERROR 0 and a text.
    """

    def __init__(self, handlers: Handlers, limits: OptionLimits, max_upload_bytes: int) -> None:
        """Take the handlers.

        Args:
            handlers: They, and what holds for them.
            limits: What may be negotiated.
            max_upload_bytes: The most that a client may send.
        """
        self._read, self._write = handlers.read, handlers.write
        self._root = handlers.root
        self._timeout_s = handlers.timeout_s
        self.limits = limits
        self._receiver = Receiver(limits, max_upload_bytes)
        self._streams: set[asyncio.Task[None]] = set()
        self._threads, self._texts = ContentThreads(), self._make_texts()  # no thread runs before it is needed
        self.abort: Callable[[int, str], None] = lambda transfer_id, text: None

    def decide(self, incoming: IncomingRequest) -> Verdict | Awaitable[Verdict]:
        """See Decider.decide."""
        return answer(incoming, self._answer_read, self._answer_write)

    def _answer_read(self, incoming: IncomingRequest, request: Request) -> Awaitable[Verdict]:
        return self.ask(incoming, request, self._read)

    def _answer_write(self, incoming: IncomingRequest, request: Request) -> Verdict:
        path, write = path_of(request.filename), self._write
        if write is None:
            return refuse_write(incoming, request)
        return self._receive(incoming, request, path, write)

    def close(self) -> None:
        """Let the threads go, which no transfer needs any more; new ones come with the next request."""
        self._threads.close()
        self._texts.close()
        self._threads, self._texts = ContentThreads(), self._make_texts()

    def _make_texts(self) -> Texts:
        texts = Texts()
        texts.abort = lambda transfer_id, text: self.abort(transfer_id, text)
        return texts

    async def wait_closed(self) -> None:
        """Wait for the end of every stream; the server has stopped, so that no transfer of one lives."""
        if self._streams:
            await asyncio.wait(self._streams)  # not gather: cancelled, that would cancel the closing of every stream

    def ask(
        self,
        incoming: IncomingRequest,
        request: Request,
        handler: Callable[[ReadRequest], Any],
        otherwise: Callable[[], Verdict | Awaitable[Verdict]] | None = None,
    ) -> Awaitable[Verdict]:
        """Ask a handler about an RRQ.

        Args:
            incoming: The request.
            request: The same, parsed.
            handler: Of the kind that `Handlers.read` is.
            otherwise: Answers where the handler returns None; None: that is a mistake of the handler's.

        Raises:
            RefusedError: The name leads out of every root, so nobody is asked.
        """
        return self._answer(incoming, request, path_of(request.filename), handler, otherwise)

    async def _answer(
        self,
        incoming: IncomingRequest,
        request: Request,
        path: str,
        handler: Callable[[ReadRequest], Any],
        otherwise: Callable[[], Verdict | Awaitable[Verdict]] | None,
    ) -> Verdict:
        read = ReadRequest(
            *incoming.peer, incoming.local_address, path, request.mode, _options(request), _raw_name(incoming.datagram)
        )
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                response = _response_of(await self._call(handler, read), is_optional=otherwise is not None)
                if response is not None:
                    return await self._accept(incoming, request, response)
        except TimeoutError as error:
            if not limit.expired():  # the handler's own: a failure like any other
                return _failed(request, error)
            return refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))
        except OutsideRootError as error:
            return refuse(request, error)
        except RefusedError as error:
            refusal = Refuse(error.code, error.text)  # a handler's, perhaps: held to the same bounds
            return refuse(request, RefusedError(refusal.code, refusal.text, why=error.why))
        except Exception as error:
            return _failed(request, error)
        assert otherwise is not None, "what is no response has somebody else to answer"
        return await _otherwise(request, otherwise)

    async def _call(self, handler: Callable[[Any], Any], argument: ReadRequest | Upload) -> Any:
        if is_coroutine_function(handler):
            answer = handler(argument)
        else:
            answer = await self._threads.call(handler, argument)
        return await answer if inspect.isawaitable(answer) else answer

    def _receive(self, incoming: IncomingRequest, request: Request, path: str, write: WriteHandler) -> Verdict:
        who = (*incoming.peer, path, request.mode, _options(request), _raw_name(incoming.datagram))

        async def store(data: bytes) -> Refuse | None:
            try:
                return await self._offer(write, Upload(*who, data))
            except RefusedError as error:
                return Refuse(error.code, error.text)
            except Exception as error:
                fields = {"peer": format_address(*incoming.peer), "file": request.filename}
                log_event(logging.ERROR, "a handler failed", fields, error)
                return Refuse(ErrorCode.NOT_DEFINED, "Internal error")

        return self._receiver.begin(incoming.transfer_id, request, store)

    async def _offer(self, write: WriteHandler, upload: Upload) -> Refuse | None:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                answer = await self._call(write, upload)
        except TimeoutError:
            if not limit.expired():
                raise  # the handler's own: a failure like any other
            return Refuse(ErrorCode.NOT_DEFINED, "Server busy, try again")
        return answer if isinstance(answer, Refuse) else None

    async def _accept(self, incoming: IncomingRequest, request: Request, response: Response) -> Verdict:
        content: Any = response.content
        if isinstance(content, Refuse):
            raise RefusedError(content.code, content.text)
        if isinstance(content, AsyncIterable):
            return self._accept_stream(incoming, request, aiter(content), None)
        if isinstance(content, str):
            content = content.encode()
        if isinstance(content, bytes | bytearray | memoryview):
            data = bytes(content)
            if request.mode == "netascii" and len(data) > MAX_COPIED_BYTES:
                return self._accept_stream(incoming, request, _pieces_of(data), None)
            fd = memory_of(netascii.encode(data) if request.mode == "netascii" else data)
            return accept_file(incoming, request, OpenFile(fd, b"", os.fstat(fd)), self.limits)
        if isinstance(content, os.PathLike | ConfinedFile):
            file = content if isinstance(content, ConfinedFile) else Path(content)
            return await self._accept_path(incoming, request, file)
        if hasattr(content, "read"):
            size_bytes = None if request.mode == "netascii" else await self._threads.measure(content)
            chunks = self._threads.chunks_of(content, size_bytes)
            return self._accept_stream(incoming, request, chunks, size_bytes)
        return self._accept_stream(incoming, request, self._threads.chunks_of_iterator(content), None)

    async def _accept_path(self, incoming: IncomingRequest, request: Request, path: Path | ConfinedFile) -> Verdict:
        texts = self._texts
        file = await self._threads.open_file(path, self._root, texts if request.mode == "netascii" else None)
        if isinstance(file, Text):
            return accept_text(texts, file, incoming, request, self.limits)
        return accept_file(incoming, request, file, self.limits)

    def _accept_stream(
        self, incoming: IncomingRequest, request: Request, chunks: AsyncIterator[bytes], size_bytes: int | None
    ) -> Verdict:
        def open_stream() -> tuple[int, Pours]:
            reader, writer = open_pipe()
            stream = Stream(
                chunks,
                writer,
                name=request.filename,
                is_netascii=request.mode == "netascii",
                timeout_s=self._timeout_s,
                abort=lambda: self.abort(incoming.transfer_id, "the content could not be made"),
                tasks=self._streams,
            )
            return reader, stream

        return accept_stream(incoming, request, self.limits, size_bytes, open_stream)


def _response_of(answer: Any, *, is_optional: bool) -> Response | None:
    """Raises: TypeError."""
    if answer is None and not is_optional:
        raise TypeError("the handler returned nothing; return a Response, or a Refuse")
    return answer if answer is None or isinstance(answer, Response) else Response(answer)


async def _otherwise(request: Request, answer: Callable[[], Verdict | Awaitable[Verdict]]) -> Verdict:
    try:
        verdict = answer()
    except RefusedError as error:
        return refuse(request, error)
    return await verdict if isinstance(verdict, Awaitable) else verdict


async def _pieces_of(data: bytes) -> AsyncIterator[bytes]:
    """Cut what is to be converted: each piece costs the event loop a turn."""
    for offset in range(0, len(data), PIECE_BYTES):
        yield data[offset : offset + PIECE_BYTES]


def is_coroutine_function(function: Any) -> bool:
    """Tell whether calling it does not wait, because what it returns is awaited or iterated by the loop."""
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return any(is_kind(function) or is_kind(getattr(function, "__call__", None)) for is_kind in kinds)  # noqa: B004


def check_handler(name: str, function: Any) -> None:
    """Find what is wrong with a handler before the first request does.

    Args:
        name: The argument it was given as.
        function: What was given.

    Raises:
        TypeError: It cannot be called, or not with one argument.
    """
    if inspect.iscoroutine(function):
        function.close()  # else Python complains, later and elsewhere, that nobody awaited it
        raise TypeError(f"{name} must be a function, not what calling one returned: {name}={function.__name__}")
    if not callable(function):
        raise TypeError(f"{name} must be a function of one argument, not {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function of C that does not say
        return
    try:
        signature.bind(object())
    except TypeError as error:
        raise TypeError(f"{name} is called with one argument, and takes {signature}: {error}") from None


def _failed(request: Request, cause: Exception) -> Refused:
    error = InternalError("a handler failed")
    error.__cause__ = cause
    refused = refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Internal error"))
    return Refused(refused.datagram, error, request)


def _options(request: Request) -> dict[str, str]:
    return {name.lower(): value for name, value in reversed(request.options)}


def _raw_name(datagram: bytes) -> bytes:
    return datagram[2:].partition(b"\0")[0]
