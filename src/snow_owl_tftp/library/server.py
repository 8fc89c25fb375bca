"""A server inside somebody's program: requests are answered by a function of theirs.

    async def handler(request: ReadRequest) -> Response | Refuse:
        return Response(render(request.client, request.path))

    async with Server(bind=("127.0.0.1", 0), read=handler) as server:
        print(server.url("boot.cfg"))

May know: the server's loop, handlers, the report, settings. Must not let one handler touch another's transfer.
Invariants:
- A handler that raises, refuses or takes too long ends its own request or transfer with an ERROR, nobody else's.
- What streams from an iterator waits at a full pipe: memory stays bounded by the pipe and the engine's window.
- An iterator that fails never looks like the end of a file (`streams`).
- Nothing is global; several servers live in one process.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.paths import by_path
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError, ForkedError
from snow_owl_tftp.library.counts import Counts, counts_of
from snow_owl_tftp.library.handler import HandlerDecider, Handlers, check_handler, is_coroutine_function
from snow_owl_tftp.library.responses import ReadHandler, ReadRequest, Refuse, Response, WriteHandler
from snow_owl_tftp.library.threaded import LoopThread
from snow_owl_tftp.library.told import Completion, LibraryReport
from snow_owl_tftp.server.generation import option_limits
from snow_owl_tftp.server.loop import TransferServer
from snow_owl_tftp.server.sockets import format_address

__all__ = ["Server"]

_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a client on this machine reaches a wildcard, which is no address to send to."""

_HANDLER_DECIDES: Final = "remove it; the handler decides what is served"
_LOG_IS_PYTHONS: Final = 'set up logging.getLogger("snow_owl_tftp") instead'
_NO_AUDIT: Final = "remove it; a Server of the library writes no audit log"
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "bind_addr": "use the argument bind instead",
    "root_dir": "use the argument root instead",
    "link_targets": _HANDLER_DECIDES,
    "hidden": "use request.under(root, hidden=True) instead",
    "names": "remove it; the handler decides what a name means",
    "rewrite": _HANDLER_DECIDES,
    "rewrite_file": _HANDLER_DECIDES,
    "rewrite_max_steps": _HANDLER_DECIDES,
    "rules": _HANDLER_DECIDES,
    "max_file_size_bytes": _HANDLER_DECIDES,
    "machines": _HANDLER_DECIDES,
    "template_dir": _HANDLER_DECIDES,
    "templates": _HANDLER_DECIDES,
    "handlers": "use the argument read instead",
    "drain_timeout_s": "remove it; stop() ends running transfers",
    "write_config": "use the argument write instead",
    "logging.format": _LOG_IS_PYTHONS,
    "logging.file": _LOG_IS_PYTHONS,
    "logging.audit_enabled": _NO_AUDIT,
    "logging.audit_file": _NO_AUDIT,
    "performance.platform.batch.enable_flows": "remove it; the handler is asked every time",
}
"""Keys, and tables of them, that this server does not look at; and what to do about it."""


class Server:
    """A TFTP server whose requests are answered by functions of the caller's.

    A context manager. After `async with` coroutines run in the event loop that entered it; after a plain `with` in one
    of its own, in a thread.
    """

    def __init__(
        self,
        *,
        bind: str | tuple[str, int] = ("127.0.0.1", 0),
        read: ReadHandler | None = None,
        write: WriteHandler | None = None,
        root: str | os.PathLike[str] | None = None,
        on_complete: Callable[[Completion], object] | None = None,
        handler_timeout_s: float = 10.0,
        max_upload_bytes: int = 1 << 20,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            bind: Host and UDP port, or both in one text as the setting `bind_addr` has them ("127.0.0.1:6969",
                "[::1]:0"). The host is a numeric address: names are not looked up. Port 0 lets the kernel choose.
            read: Answers every RRQ: a coroutine function, or a plain one, which runs in one of 32 threads. May also
                raise RefusedError. Not given: the files below `root` are sent.
            write: Takes every file that a client has sent, whole, before the client is told that all went well; a
                function of either kind. It refuses by returning a Refuse, or raising RefusedError. Not given: WRQs are
                refused.
            root: The directory that no Path is sent from outside of, links included, whatever `read` returns.
            on_complete: Called by the event loop at the end of every transfer; must not wait.
            handler_timeout_s: How long a handler may take, opening what it returns included; and then, where that is an
                iterator or a file object, every step of it.
            max_upload_bytes: The largest file that is taken, 1 and more. It is held in memory, and so are up to 256 at
                a time.
            settings: Other settings by key path, as in the configuration file: {"workers": 2}.

        Raises:
            ConfigError: The host is no numeric address, a setting is unknown, out of its range, or without effect here,
                or an argument is.
            TypeError: A handler cannot be called with one argument, or there is none.
        """
        handlers = _handlers_of(read, write, root, handler_timeout_s)
        if max_upload_bytes < 1:
            raise ConfigError(f"Server: max_upload_bytes must be at least 1, not {max_upload_bytes}")
        if on_complete is not None:
            _check_callback(on_complete)
        _refuse_settings_without_effect(settings or {})
        # Whether there are uploads decides how large the engine's buffers are; the rules are the handler's.
        own = {"bind_addr": _bind_addr_of(bind), "write_config.enabled": write is not None}
        asked = override(Settings(), {**(settings or {}), **own}, source="Server")
        self._settings = override(asked, _patience_with(handler_timeout_s, settings or {}), source="Server")
        self._decider = HandlerDecider(handlers, option_limits(self._settings), max_upload_bytes)
        self._core = TransferServer(self._settings, self._decider, LibraryReport(self._settings, on_complete))
        self._core.on_stopped = self._decider.close
        self._decider.abort = self._core.abort
        self._process_id: int | None = None  # of the process that it was started in

    def _check_process(self) -> None:
        if self._is_forked():
            raise ForkedError("Server")

    def _is_forked(self) -> bool:
        return self._process_id not in (None, os.getpid())

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

        Raises:
            ForkedError: The server was started before fork(), and this is the child.
        """
        self._check_process()
        return self._core.counters()

    def counts(self) -> Counts:
        """Count what has become of requests and transfers, from any thread and at any time.

        Returns:
            What was counted up to now, for good: it does not change any more.

        Raises:
            ForkedError: The server was started before fork(), and this is the child.
        """
        self._check_process()
        return counts_of(self._core.tally)

    async def start(self) -> None:
        """Bind and answer.

        Raises:
            ConfigError: This machine does not have the address.
            EngineError: The operating system refused a socket, memory or a thread.
            RuntimeError: The server runs already.
            ForkedError: It was started before fork(), and this is the child.
        """
        self._check_process()
        await self._core.start()
        self._process_id = os.getpid()

    async def stop(self) -> None:
        """End what still runs, tell its peers, and release every socket and thread.

        May be called again at any time. If it is cancelled, the rest is done all the same while the loop runs.

        Raises:
            ForkedError: The server was started before fork(), and this is the child.
        """
        self._check_process()
        await self._core.stop()
        await self._core.wait_committed()
        await self._decider.wait_closed()
        self._process_id = None

    def __enter__(self) -> Self:
        self._check_process()
        self._thread = LoopThread()
        try:
            self._thread.run(self.start())
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_forked():
            return  # it goes on in the parent
        try:
            self._thread.run(self.stop())
        finally:
            self._thread.close()

    def __repr__(self) -> str:
        where = " and ".join(format_address(*address) for address in self._core.addresses)
        return f"<Server {where or 'that was not started'}>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_forked():
            await self.stop()


def _patience_with(handler_timeout_s: float, settings: Mapping[str, object]) -> dict[str, int]:
    """The engine waits for a handler that stores an upload for as long as it may take, and a moment longer."""
    key, most_s = "retransmit.stalled_give_up_s", 86_400
    if key in by_path(settings):
        return {}
    return {key: int(max(Settings().retransmit.stalled_give_up_s, min(handler_timeout_s, most_s - 10) + 10))}


def _handlers_of(
    read: ReadHandler | None, write: WriteHandler | None, root: str | os.PathLike[str] | None, timeout_s: float
) -> Handlers:
    if read is None and write is None and root is None:
        raise TypeError("a Server needs read=, a function that answers requests, or root=, a directory to send from")
    for name, function in (("read", read), ("write", write)):
        if function is not None:
            check_handler(name, function)
    if not timeout_s > 0:
        raise ConfigError(f"Server: handler_timeout_s must be more than 0, not {timeout_s}")
    if root is not None and not _is_directory(Path(root)):
        raise ConfigError(f"Server: root: {os.fspath(root)} is no directory; name one that this program may enter")
    directory = None if root is None else Path(root)
    return Handlers(read or _sends_files_below(directory), write, directory, timeout_s)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # it lies where this program may not look
        return False


def _sends_files_below(root: Path | None) -> ReadHandler:
    async def send(request: ReadRequest) -> Response | Refuse:
        return Refuse() if root is None else Response(request.under(root))

    return send


def _check_callback(on_complete: Callable[[Completion], object]) -> None:
    check_handler("on_complete", on_complete)
    if is_coroutine_function(on_complete):
        raise TypeError("on_complete must be a plain function; it may start a task: asyncio.ensure_future(...)")


def _bind_addr_of(bind: str | tuple[str, int]) -> str:
    if isinstance(bind, str):
        return bind
    try:
        host, port = bind
    except (TypeError, ValueError):
        raise ConfigError(f'Server: bind must be "ADDR:PORT" or (ADDR, PORT), not {bind!r}') from None
    return format_address(host, port)


def _refuse_settings_without_effect(settings: Mapping[str, object]) -> None:
    problems = [
        f"Server: {key}: has no effect here; {remedy}"
        for key in by_path(settings)
        for known, remedy in _WITHOUT_EFFECT.items()
        if f"{key}.".startswith(f"{known}.")
    ]
    if problems:
        raise ConfigError("\n".join(problems))
