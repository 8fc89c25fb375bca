"""The two faces: `Client` blocks, `AsyncClient` awaits; both only wait for the future of one Transfer.

A face that was used before fork() is of no use in the child, and says so: threads do not follow.

May know: the core, asyncio. Must not: know packets, sockets or the engine.
Invariants: what a face does beyond waiting is in `_Face`, once; a face that is interrupted while it waits cancels its
transfer; nothing blocks the event loop but opening a local file.
"""

import asyncio
import os
import stat
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias, TypedDict, Unpack, overload

from snow_owl_tftp.client.address import is_literal, resolve
from snow_owl_tftp.client.core import ClientCore
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.sources import source_for
from snow_owl_tftp.client.targets import target_for
from snow_owl_tftp.client.transfer import HearsSilence, ProgressCallback, Transfer, TransferResult
from snow_owl_tftp.client.url import DEFAULT_PORT, TftpUrl, is_tftp_url, parse_url
from snow_owl_tftp.errors import ForkedError
from snow_owl_tftp.plan.transfer import Role

__all__ = ["AsyncClient", "Client", "Content", "Destination", "SettingsArguments", "get", "put"]

Destination: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, or a file object open for writing bytes."""
Content: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""Bytes; a path (a str is one); or a file object open for reading bytes."""


class SettingsArguments(TypedDict, total=False):
    """The fields of ClientSettings as keyword arguments."""

    blksize: int | None
    windowsize: int
    timeout: float | None
    retries: int
    mode: str
    port_range: tuple[int, int] | None
    bind: str | None
    max_size_bytes: int
    max_transfers: int
    no_options: bool


class _Face:
    """What both faces share: a core, and how a call becomes a Transfer."""

    def __init__(
        self, host: str | None = None, port: int = DEFAULT_PORT, **settings: Unpack[SettingsArguments]
    ) -> None:
        """Keep the settings; threads and descriptors come with the first transfer.

        Args:
            host: Where names without `tftp://` are; None: every name must be a URL.
            port: UDP port of `host`, 1..65535.
            **settings: See ClientSettings.

        Raises:
            ConfigError: A setting is out of its range.
        """
        self._settings = ClientSettings(**settings)
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        self._core: ClientCore | None = None
        self._process_id: int | None = None  # of the process that has, or makes, the core
        self._closed = False

    def __del__(self) -> None:
        if getattr(self, "_core", None) is not None and not self._is_forked():
            warnings.warn(f"{type(self).__name__} was not closed", ResourceWarning, stacklevel=2)
            self._shut()

    def counters(self) -> dict[str, Any]:
        """What the engine has counted so far.

        Returns:
            By name: counts since the first transfer (`datagrams_sent`, `bytes_received` …), levels (`live_transfers`)
            and two histograms as lists, as section 11 of docs/engine-contract.md lists them. Empty before the first
            transfer and after `close`.

        Raises:
            ForkedError: It was used before fork(), and this is the child.
        """
        self._check_process()
        core = self._core
        return core.counters() if core is not None else {}

    def _is_forked(self) -> bool:
        """Whether the core, or a thread that makes it, was left behind in the parent; asked without the lock, which
        that thread may have held.
        """
        return self._process_id not in (None, os.getpid())

    def _check_process(self) -> None:
        if self._is_forked():
            raise ForkedError(type(self).__name__)

    def _shut(self) -> None:
        if self._is_forked():
            return  # nothing of it is ours
        with self._lock:
            self._closed = True
            core, self._core = self._core, None
        if core is not None:
            core.close()

    def _locate(self, name: str) -> TftpUrl:
        if is_tftp_url(name):
            return parse_url(name)
        if self._host is None:
            raise ValueError(f"not a tftp:// URL, and the client has no host: {name!r}")
        if not name:
            raise ValueError("no file name")
        return TftpUrl(self._host, self._port, name)

    def _begin_get(self, url: TftpUrl, to: Destination | None, progress: ProgressCallback | None) -> Transfer:
        core = self._living_core()
        mode = url.mode or self._settings.mode
        addresses = resolve(url.host, url.port, self._settings.bind)
        transfer = Transfer(Role.RECEIVER, url.path, mode, addresses, progress=progress)
        if to is None or (isinstance(to, str | os.PathLike) and not _is_special(to)):
            transfer.open_target = partial(target_for, to, mode)
        else:
            transfer.target = target_for(to, mode)
        core.submit(transfer)
        return transfer

    def _begin_put(self, url: TftpUrl, content: Content, progress: ProgressCallback | None) -> Transfer:
        core = self._living_core()
        mode = url.mode or self._settings.mode
        addresses = resolve(url.host, url.port, self._settings.bind)
        transfer = Transfer(Role.SENDER, url.path, mode, addresses, source=source_for(content, mode), progress=progress)
        core.submit(transfer)
        return transfer

    def _begin_size(self, url: TftpUrl) -> Transfer:
        core = self._living_core()
        mode = url.mode or self._settings.mode
        addresses = resolve(url.host, url.port, self._settings.bind)
        transfer = Transfer(Role.RECEIVER, url.path, mode, addresses, is_probe=True)
        transfer.open_target = partial(target_for, None, mode)
        core.submit(transfer)
        return transfer

    def _living_core(self) -> ClientCore:
        """Made by whoever comes first, before anything is opened that would have to be closed if it fails."""
        self._check_process()
        self._process_id = os.getpid()  # before the lock: see `_is_forked`
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            if self._core is None:
                self._core = ClientCore(self._settings)
            return self._core

    def _cancel(self, transfer: Transfer) -> None:
        core = self._core
        if core is not None and not self._is_forked():
            core.cancel(transfer)


class Client(_Face):
    """Transfers that block; may be used by several threads at once.

    with Client("10.0.0.1", windowsize=32) as client:
        kernel = client.get("boot/vmlinuz")
        client.put("logs/boot.txt", Path("boot.txt"))
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the transfers, threads and sockets. May be called twice, and by any thread.

        Calls that wait in other threads raise TransferAborted, and their servers are told (ERROR 0); a later call is a
        ValueError. A file object that a thread is just writing to is waited for.

        Deviates: RFC 1350 section 6 encourages the receiver of the last DATA to wait, in case its ACK was lost. An
        open client does, for five seconds; a closed one does not, so that a short script need not wait for what its
        server would repeat a second later (test_closing_a_client_after_success_sends_no_error).
        """
        self._shut()

    @overload
    def get(self, name: str, to: None = None, *, progress: ProgressCallback | None = None) -> bytes: ...
    @overload
    def get(self, name: str, to: Destination, *, progress: ProgressCallback | None = None) -> TransferResult: ...
    def get(
        self, name: str, to: Destination | None = None, *, progress: ProgressCallback | None = None
    ) -> bytes | TransferResult:
        """Download a file.

        Args:
            name: On the client's host, or a tftp:// URL.
            to: None: return the bytes. A path appears complete or not at all. A file object is written to once
                everything has arrived, by another thread, and is not closed.
            progress: Called with (bytes so far, size in bytes or None) about ten times a second and once at the end,
                by another thread. What it raises ends the transfer and is raised here; at the end the file is there.
                If it has a method `unanswered(server, asked)`, that is called instead while the server is silent,
                with its address and how often it was asked.

        Returns:
            The bytes, or with `to` how the transfer went.

        Raises:
            TransferError: It failed, and nothing is left of it; see its subclasses.
            OSError: The name of the host is not known, there is no route, no descriptor is left, or `to` cannot be
                written.
            ValueError: `name` is no URL, or fits no packet of 512 bytes, or the client is closed.
            TypeError: `to` is neither a path nor a file object.
            RuntimeError: A progress callback of this client calls it, and would wait for itself.
            ForkedError: The client was used before fork(), and this is the child.

        Spec: RFC 1350, RFC 2347 to 2349, RFC 7440.
        """
        transfer = self._begin_get(self._locate(name), to, progress)
        return _outcome(self._wait(transfer), to)

    def put(self, name: str, content: Content, *, progress: ProgressCallback | None = None) -> TransferResult:
        """Upload a file.

        Args:
            name: What the file is to be called: on the client's host, or a tftp:// URL.
            content: Bytes; a path (a str is one); or a file object, read from where it stands to its end and not
                closed. What is no plain file is copied first, so that its size can be announced.
            progress: As for `get`; at the end the server has the file.

        Returns:
            How the transfer went.

        Raises:
            TransferError: It failed; see its subclasses.
            OSError: The name of the host is not known, there is no route, no descriptor is left, or `content` cannot
                be read or copied.
            ValueError: As for `get`.
            TypeError: `content` is none of these.
            RuntimeError, ForkedError: As for `get`.

        Spec: RFC 1350, RFC 2347 to 2349, RFC 7440.
        """
        return self._wait(self._begin_put(self._locate(name), content, progress))

    def size(self, name: str) -> int | None:
        """Ask for the size of a file, which is not fetched.

        Args:
            name: As for `get`.

        Returns:
            Bytes, as many as `get` would return; None: the server does not tell (it knows no tsize, or the mode is
            netascii, in which servers disagree what they count).

        Raises:
            TransferError, OSError, ValueError, ForkedError: As for `get`.

        Spec: RFC 2349, Transfer Size Option Specification.
        """
        return _size(self._wait(self._begin_size(self._locate(name))))

    def _wait(self, transfer: Transfer) -> TransferResult:
        try:
            return transfer.future.result()
        except BaseException:
            self._cancel(transfer)  # KeyboardInterrupt; one that failed by itself is unknown by now
            raise


class AsyncClient(_Face):
    """The same for asyncio. Time limits are asyncio's: `async with asyncio.timeout(5): await client.get(…)`.

        async with AsyncClient("10.0.0.1", windowsize=32) as client:
            await client.put("startup.cfg", Path("startup.cfg"))

    A cancelled call tells the server (ERROR 0) and leaves nothing, unless its file has come into place in that moment.
    Cancelling does not wait for a thread that opens a FIFO or reads a file object; that one goes on by itself.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As Client.close, for the tasks that wait; a thread does the waiting."""
        await asyncio.to_thread(self._shut)

    @overload
    async def get(self, name: str, to: None = None, *, progress: ProgressCallback | None = None) -> bytes: ...
    @overload
    async def get(self, name: str, to: Destination, *, progress: ProgressCallback | None = None) -> TransferResult: ...
    async def get(
        self, name: str, to: Destination | None = None, *, progress: ProgressCallback | None = None
    ) -> bytes | TransferResult:
        """Download a file.

        Args:
            name: On the client's host, or a tftp:// URL.
            to: As for Client.get.
            progress: As for Client.get, but called in the event loop.

        Returns:
            The bytes, or with `to` how the transfer went.

        Raises:
            TransferError: It failed, and nothing is left of it; see its subclasses.
            OSError, ValueError, TypeError, ForkedError: As Client.get.

        Spec: RFC 1350, RFC 2347 to 2349, RFC 7440.
        """
        url = self._locate(name)
        told = _in_loop(progress)
        blocks = isinstance(to, str | os.PathLike) and _is_special(to)
        transfer = await self._begin(url, lambda: self._begin_get(url, to, told), blocks=blocks)
        return _outcome(await self._wait(transfer, told), to)

    async def put(self, name: str, content: Content, *, progress: ProgressCallback | None = None) -> TransferResult:
        """Upload a file.

        Args:
            name: What the file is to be called: on the client's host, or a tftp:// URL.
            content: As for Client.put; a file object is read in another thread.
            progress: As for Client.put, but called in the event loop.

        Returns:
            How the transfer went.

        Raises:
            TransferError: It failed; see its subclasses.
            OSError, ValueError, TypeError, ForkedError: As Client.put.

        Spec: RFC 1350, RFC 2347 to 2349, RFC 7440.
        """
        url = self._locate(name)
        told = _in_loop(progress)
        blocks = hasattr(content, "read") or (url.mode or self._settings.mode) == "netascii"
        blocks = blocks or (isinstance(content, str | os.PathLike) and _is_special(content))
        transfer = await self._begin(url, lambda: self._begin_put(url, content, told), blocks=blocks)
        return await self._wait(transfer, told)

    async def size(self, name: str) -> int | None:
        """As Client.size."""
        url = self._locate(name)
        transfer = await self._begin(url, lambda: self._begin_size(url), blocks=False)
        return _size(await self._wait(transfer, None))

    async def _begin(self, url: TftpUrl, begin: Callable[[], Transfer], *, blocks: bool) -> Transfer:
        """Asking the name service and copying go to another thread; nothing else is worth one."""
        if not blocks and is_literal(url.host):
            return begin()
        task = asyncio.ensure_future(asyncio.to_thread(begin))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The thread cannot be stopped: what it begins is ended as soon as it has begun.
            task.add_done_callback(self._cancel_begun)
            raise

    def _cancel_begun(self, task: "asyncio.Future[Transfer]") -> None:
        if not task.cancelled() and task.exception() is None:
            self._cancel(task.result())

    async def _wait(self, transfer: Transfer, told: "_InLoop | None") -> TransferResult:
        try:
            result = await asyncio.wrap_future(transfer.future)
        except asyncio.CancelledError:
            self._cancel(transfer)
            raise
        if told is not None and told.error is not None:
            raise told.error
        return result


@overload
def get(
    url: str, to: None = None, *, progress: ProgressCallback | None = None, **settings: Unpack[SettingsArguments]
) -> bytes: ...
@overload
def get(
    url: str, to: Destination, *, progress: ProgressCallback | None = None, **settings: Unpack[SettingsArguments]
) -> TransferResult: ...
def get(
    url: str,
    to: Destination | None = None,
    *,
    progress: ProgressCallback | None = None,
    **settings: Unpack[SettingsArguments],
) -> bytes | TransferResult:
    """Download one file: `get("tftp://10.0.0.1/boot/grub.cfg")`.

    For more than a few files a Client is cheaper: it keeps its threads.

    Args:
        url: A tftp:// URL.
        to: As for Client.get.
        progress: As for Client.get.
        **settings: See ClientSettings.

    Returns:
        The bytes, or with `to` how the transfer went.

    Raises:
        TransferError: It failed, and nothing is left of it; see its subclasses.
        ConfigError: A setting is out of its range.
        OSError, ValueError, TypeError: As Client.get.

    Spec: RFC 1350, RFC 2347 to 2349, RFC 3617, RFC 7440.
    """
    with Client(**settings) as client:
        return client.get(url, to, progress=progress) if to is not None else client.get(url, progress=progress)


def put(
    url: str, content: Content, *, progress: ProgressCallback | None = None, **settings: Unpack[SettingsArguments]
) -> TransferResult:
    """Upload one file: `put("tftp://10.0.0.1/startup.cfg", Path("startup.cfg"))`.

    Args:
        url: A tftp:// URL.
        content: As for Client.put.
        progress: As for Client.put.
        **settings: See ClientSettings.

    Returns:
        How the transfer went.

    Raises:
        TransferError: It failed; see its subclasses.
        ConfigError: A setting is out of its range.
        OSError, ValueError, TypeError: As Client.put.

    Spec: RFC 1350, RFC 2347 to 2349, RFC 3617, RFC 7440.
    """
    with Client(**settings) as client:
        return client.put(url, content, progress=progress)


def _outcome(result: TransferResult, to: Destination | None) -> bytes | TransferResult:
    if to is not None:
        return result
    return result.data or b""


def _size(result: TransferResult) -> int | None:
    """Of a probe: what was announced, or what a file of one short block amounts to."""
    return len(result.data) if result.data is not None else result.tsize


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether opening or reading it may wait for somebody: a FIFO, a terminal."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False  # absent: it is made, or refused, at once


class _InLoop:
    """A progress callback, called where asyncio code expects to run.

    Attributes:
        error: What it raised; the core is told at its next call, so that it ends the transfer as a plain one does.
    """

    def __init__(self, progress: ProgressCallback) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self.error: BaseException | None = None

    def __call__(self, done_bytes: int, size_bytes: int | None) -> None:
        self._pass_on(self._progress, done_bytes, size_bytes)

    def _pass_on(self, callback: Callable[..., None], *arguments: Any) -> None:
        if self.error is not None:
            raise self.error
        self._loop.call_soon_threadsafe(self._call, callback, arguments)

    def _call(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self.error is not None:
            return
        try:
            callback(*arguments)
        except Exception as error:  # anything that a caller's code raises
            self.error = error


class _InLoopWithSilence(_InLoop):
    """One that hears of silence as well."""

    def __init__(self, progress: HearsSilence) -> None:
        super().__init__(progress)
        self._hearing = progress

    def unanswered(self, server: str, asked: int) -> None:
        self._pass_on(self._hearing.unanswered, server, asked)


def _in_loop(progress: ProgressCallback | None) -> _InLoop | None:
    if progress is None:
        return None
    return _InLoopWithSilence(progress) if isinstance(progress, HearsSilence) else _InLoop(progress)
