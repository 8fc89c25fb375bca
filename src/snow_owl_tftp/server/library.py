"""A server inside somebody's program: requests are answered by a coroutine of theirs.

    async def handler(request: ReadRequest) -> Response | Refuse:
        return Response(render(request.client, request.path))

    async with Server(bind=("127.0.0.1", 0), read=handler) as server:
        print(server.url("boot.cfg"))

May know: the server's core, contents, streams, settings, protocol. Must not: serve files by itself, or let one handler
touch another's transfer.
Invariants:
- A handler that raises, refuses or takes too long ends its own request or transfer with an ERROR, nobody else's.
- What streams from an iterator waits at a full pipe: memory stays bounded by the pipe and the engine's window.
- An iterator that fails never looks like the end of a file (`streams`).
- Nothing is global; several servers live in one process.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeAlias, cast
from urllib.parse import quote

from snow_owl_tftp._engine.engine import Engine
from snow_owl_tftp.config import Settings
from snow_owl_tftp.errors import BadPacket, ConfigError, RefusedError
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.plan import Role, TransferPlan
from snow_owl_tftp.protocol import netascii
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.options import OptionLimits, negotiate
from snow_owl_tftp.protocol.packets import Request, parse_request_untrusted, refuse_malformed_untrusted
from snow_owl_tftp.server.contents import ContentThreads, memory_of, open_pipe
from snow_owl_tftp.server.core import Server as CoreServer
from snow_owl_tftp.server.decide import Accepted, Asked, Refused, TransferContext, Verdict, option_limits, refuse
from snow_owl_tftp.server.report import Report
from snow_owl_tftp.server.sockets import format_address
from snow_owl_tftp.server.streams import Stream, StreamContext

__all__ = ["ReadHandler", "ReadRequest", "Refuse", "Response", "Server"]

_MAX_TEXT_CHARACTERS: Final = 250
"""As the engine cuts the text of an abort; an ERROR of some thousand bytes arrives nowhere."""


_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a client on this machine reaches a wildcard, which is no address to send to."""

_HANDLER_DECIDES: Final = "remove it; the handler decides what is served"
_LOG_IS_PYTHONS: Final = 'set up logging.getLogger("snow_owl_tftp") instead'
_NO_AUDIT: Final = "remove it; a Server of the library writes no audit log"
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "bind_addr": "use the argument bind instead",
    "root_dir": _HANDLER_DECIDES,
    "max_file_size_bytes": _HANDLER_DECIDES,
    "drain_timeout_s": "remove it; stop() ends running transfers",
    "write_config": "remove it; a Server of the library takes no uploads",
    "logging.format": _LOG_IS_PYTHONS,
    "logging.file": _LOG_IS_PYTHONS,
    "logging.audit_enabled": _NO_AUDIT,
    "logging.audit_file": _NO_AUDIT,
    "performance.platform.batch.enable_flows": "remove it; the handler is asked every time",
}
"""Keys, and tables of them, that this server does not look at; and what to do about it."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Who asks for what.

    Attributes:
        client: Address of the client.
        client_port: Its UDP port (TID).
        server: The address it asked, or None where the server is bound to one.
        path: The name as sent; anything but NUL may be in it, `..` included.
        mode: 'octet' or 'netascii'; the server converts, a handler need not look.
        options: Asked for, names in lower case; the server negotiates them.
    """

    client: str
    client_port: int
    server: str | None
    path: str
    mode: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refuse:
    """An ERROR instead of a file.

    Attributes:
        code: ErrorCode, 0..8; 1: file not found, 2: access violation.
        text: For the human at the other end; ASCII. What exceeds 250 characters is cut off.

    Raises:
        ValueError: There is no such code.
    """

    code: int = int(ErrorCode.FILE_NOT_FOUND)
    text: str = "File not found"

    def __post_init__(self) -> None:
        if self.code not in tuple(ErrorCode):
            raise ValueError(f"the code of an ERROR must be 0..8, not {self.code!r}")
        object.__setattr__(self, "text", self.text[:_MAX_TEXT_CHARACTERS])


@dataclass(frozen=True, slots=True)
class Response:
    """A file.

    Attributes:
        content: One of
            bytes;
            a path (a str is one) of a regular file;
            a file object open for reading bytes: read from where it stands to its end, as fast as the client takes it,
            and not closed. A client that asks for tsize is told it where the file can be measured by seeking, in
            octet mode. A `read` that hangs ends its transfer when its time is up, but holds one of 32 threads, and
            the end of the program, until it returns;
            an async iterable of bytes, whose length nobody knows, so that nobody is told a tsize;
            a Refuse.
    """

    content: bytes | str | os.PathLike[str] | BinaryIO | AsyncIterable[bytes] | Refuse


ReadHandler: TypeAlias = Callable[[ReadRequest], Awaitable["Response | Refuse"]]


class Server:
    """A TFTP server whose RRQs are answered by a coroutine; WRQs are refused.

    An async context manager. Handlers run in the event loop that entered it.
    """

    def __init__(
        self,
        *,
        bind: tuple[str, int] = ("127.0.0.1", 0),
        read: ReadHandler,
        handler_timeout_s: float = 10.0,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            bind: Host and UDP port. The host is a numeric address, IPv6 without brackets: names are not looked up.
                Port 0 lets the kernel choose.
            read: Answers every RRQ. May also raise RefusedError.
            handler_timeout_s: How long it may take, opening what it returns included; and then, where that is an
                iterator or a file object, every step of it.
            settings: Other settings by key path, as in the configuration file: {"workers": 2}.

        Raises:
            ConfigError: The host is no numeric address, or a setting is unknown, out of its range, or without
                effect here.
        """
        _refuse_settings_without_effect(settings or {})
        overrides = {**(settings or {}), "bind_addr": format_address(*bind)}
        self._settings = Settings().with_overrides(overrides, source="Server")
        self._decider = _HandlerDecider(read, option_limits(self._settings), handler_timeout_s)
        report = Report(self._settings, cast(Any, _StandardLog()), AuditLog(""))
        self._core = _Core(self._settings, self._decider, report)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that requests are answered at, the real port where 0 was asked.

        Raises:
            RuntimeError: The server was not started.
        """
        if not self._core.addresses:
            raise RuntimeError("the server has no address before it was started")
        return self._core.addresses[0]

    def url(self, path: str) -> str:
        """Name a file of this server.

        Args:
            path: What a handler is to find in `ReadRequest.path`, in any characters.

        Returns:
            Its TFTP URL, percent-encoded. A server of all addresses is named by that of the loopback.

        Raises:
            RuntimeError: The server was not started.

        Spec: RFC 3617 section 3.
        """
        host, port = self.address
        return f"tftp://{format_address(_LOOPBACK_OF.get(host, host), port)}/{quote(path)}"

    def counters(self) -> Mapping[str, object]:
        """Count what the engine does.

        Returns:
            System calls, datagrams, blocks, retransmits and more, by name (docs/engine-contract.md); empty while the
            server does not run.
        """
        return self._core.counters()

    async def start(self) -> None:
        """Bind and answer.

        Raises:
            ConfigError: This machine does not have the address.
            EngineError: The operating system refused a socket, memory or a thread.
            RuntimeError: The server runs already.
        """
        await self._core.start()

    async def stop(self) -> None:
        """End what still runs, tell its peers, and release every socket and thread.

        May be called again at any time. If it is cancelled, the rest is done all the same while the loop runs.
        """
        await self._core.stop()
        await self._decider.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class _Core(CoreServer):
    """The core, and what a decider of handlers needs of it."""

    def __init__(self, settings: Settings, decider: "_HandlerDecider", report: Report) -> None:
        super().__init__(settings, decider, report)
        self._on_end = decider.close
        decider.abort = self.abort

    def abort(self, transfer_id: int, text: str) -> None:
        """End a started transfer with ERROR 0."""
        if self._engine is not None:
            self._engine.abort(transfer_id, int(ErrorCode.NOT_DEFINED), text.encode())

    def _on_stopped(self, engine: Engine, ended: asyncio.Future[None]) -> None:
        try:
            super()._on_stopped(engine, ended)
        finally:
            self._on_end()


class _HandlerDecider:
    """Turns what a handler returns into plans."""

    def __init__(self, handler: ReadHandler, limits: OptionLimits, timeout_s: float) -> None:
        self._handler = handler
        self._limits = limits
        self._timeout_s = timeout_s
        self._streams: set[asyncio.Task[None]] = set()
        self._threads = ContentThreads()  # none runs before it is needed
        self.abort: Callable[[int, str], None] = lambda transfer_id, text: None

    def decide(self, asked: Asked) -> Verdict | Awaitable[Verdict]:
        datagram = asked.datagram
        try:
            request = parse_request_untrusted(datagram)
        except BadPacket as error:
            return Refused(refuse_malformed_untrusted(datagram, error.reason) or b"", error, None)
        if request.kind is Opcode.WRQ:
            return refuse(request, RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing is not allowed"))
        return self._answer(asked, request)

    def close(self) -> None:
        """Let the threads go, which no transfer needs any more; new ones come with the next request."""
        self._threads.close()
        self._threads = ContentThreads()

    async def wait_closed(self) -> None:
        """Wait for the end of every stream; the core has stopped, so that no transfer of one lives."""
        if self._streams:
            await asyncio.wait(self._streams)  # not gather: cancelled, that would cancel the closing of every stream

    async def _answer(self, asked: Asked, request: Request) -> Verdict:
        host, port = asked.peer
        options = {name.lower(): value for name, value in reversed(request.options)}
        read = ReadRequest(host, port, asked.local_address, request.filename, request.mode, options)
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await self._accept(asked.transfer_id, request, await self._handler(read))
        except TimeoutError:
            if not limit.expired():
                raise  # the handler's own: a failure like any other
            return refuse(request, RefusedError(ErrorCode.NOT_DEFINED, "Server busy, try again"))
        except RefusedError as error:
            refusal = Refuse(error.code, error.text)  # a handler's, perhaps: held to the same bounds
            return refuse(request, RefusedError(refusal.code, refusal.text))

    async def _accept(self, transfer_id: int, request: Request, response: Response | Refuse) -> Verdict:
        content = response.content if isinstance(response, Response) else response
        is_netascii = request.mode == "netascii"
        if isinstance(content, Refuse):
            raise RefusedError(content.code, content.text)
        if isinstance(content, AsyncIterable):
            return self._accept_stream(transfer_id, request, aiter(content), None)
        if isinstance(content, bytes | bytearray | memoryview):
            data = bytes(content)
            return self._accept_descriptor(
                transfer_id, request, memory_of(netascii.encode(data) if is_netascii else data)
            )
        if isinstance(content, str | os.PathLike):
            fd = await self._threads.open_path(content, is_netascii=is_netascii)
            return self._accept_descriptor(transfer_id, request, fd)
        if hasattr(content, "read"):
            size_bytes = None if is_netascii else await self._threads.measure(content)
            chunks = self._threads.chunks_of(content, size_bytes)
            return self._accept_stream(transfer_id, request, chunks, size_bytes)
        raise TypeError(f"a Response cannot hold {type(content).__name__}")

    def _accept_descriptor(self, transfer_id: int, request: Request, fd: int) -> Verdict:
        size_bytes = os.fstat(fd).st_size
        negotiated = negotiate(request, size_bytes=size_bytes, limits=self._limits)
        return Accepted(_plan(transfer_id, fd, TransferContext(request, size_bytes, negotiated)), None)

    def _accept_stream(
        self, transfer_id: int, request: Request, chunks: AsyncIterator[bytes], size_bytes: int | None
    ) -> Verdict:
        negotiated = negotiate(request, size_bytes=size_bytes, limits=self._limits)
        reader, writer = open_pipe()
        stream = Stream(
            chunks,
            writer,
            is_netascii=request.mode == "netascii",
            timeout_s=self._timeout_s,
            abort=lambda: self.abort(transfer_id, "the content could not be made"),
            tasks=self._streams,
        )
        context = StreamContext(request, size_bytes, negotiated, stream)
        return Accepted(_plan(transfer_id, reader, context, is_stream=True), None)


def _refuse_settings_without_effect(settings: Mapping[str, object]) -> None:
    problems = [
        f"Server: {key}: has no effect here; {remedy}"
        for key in _key_paths(settings)
        for known, remedy in _WITHOUT_EFFECT.items()
        if f"{key}.".startswith(f"{known}.")
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _key_paths(table: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _key_paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _plan(transfer_id: int, fd: int, context: TransferContext, *, is_stream: bool = False) -> TransferPlan:
    negotiated = context.negotiated
    timeout_s = negotiated.timeout_s
    return TransferPlan(
        transfer_id=transfer_id,
        role=Role.SENDER,
        fd=fd,
        size_bytes=0 if is_stream else context.size_bytes or 0,
        blksize_bytes=negotiated.blksize_bytes,
        windowsize_blocks=negotiated.windowsize_blocks,
        timeout_ns=timeout_s * 1_000_000_000 if timeout_s else 0,
        first_packet=negotiated.oack,
        stream=is_stream,
        context=context,
    )


class _StandardLog:
    """What a program that embeds us expects: `logging.getLogger("snow_owl_tftp")`, silent unless it is set up."""

    def __init__(self) -> None:
        self._log = logging.getLogger("snow_owl_tftp")

    def debug(self, event: str, **fields: Any) -> None:
        self._tell(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._tell(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        # A client that gives up is a server's daily bread, and no warning to the program around it.
        self._tell(logging.INFO, event, fields)

    def error(self, event: str, *, exc_info: Any = None, **fields: Any) -> None:
        self._log.error("%s %s", event, fields, exc_info=exc_info)

    def _tell(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._log.isEnabledFor(level):
            self._log.log(level, "%s %s", event, " ".join(f"{key}={value}" for key, value in fields.items()))
