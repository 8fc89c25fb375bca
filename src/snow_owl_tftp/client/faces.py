"""The two faces: `Client` blocks, `AsyncClient` awaits; both only wait for the future of one Transfer.

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
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias, TypedDict, Unpack, overload

from snow_owl_tftp.client.address import is_literal, resolve
from snow_owl_tftp.client.core import ClientCore
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.sources import source_for
from snow_owl_tftp.client.targets import target_for
from snow_owl_tftp.client.transfer import ProgressCallback, Transfer, TransferResult
from snow_owl_tftp.client.url import DEFAULT_PORT, TftpUrl, is_tftp_url, parse_url
from snow_owl_tftp.plan import Role

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
        self._closed = False

    def __del__(self) -> None:
        if getattr(self, "_core", None) is not None:
            warnings.warn(f"{type(self).__name__} was not closed", ResourceWarning, stacklevel=2)
            self._shut()

    def counters(self) -> dict[str, Any]:
        """What the engine counted so far: system calls, datagrams, blocks, retransmits, by name; {}: never used."""
        core = self._core
        return core.counters() if core is not None else {}

    def _shut(self) -> None:
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
        transfer = Transfer(Role.RECEIVER, url.path, mode, addresses, target=target_for(to, mode), progress=progress)
        core.submit(transfer)
        return transfer

    def _begin_put(self, url: TftpUrl, content: Content, progress: ProgressCallback | None) -> Transfer:
        core = self._living_core()
        mode = url.mode or self._settings.mode
        addresses = resolve(url.host, url.port, self._settings.bind)
        transfer = Transfer(Role.SENDER, url.path, mode, addresses, source=source_for(content, mode), progress=progress)
        core.submit(transfer)
        return transfer

    def _living_core(self) -> ClientCore:
        """Made by whoever comes first, before anything is opened that would have to be closed if it fails."""
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            if self._core is None:
                self._core = ClientCore(self._settings)
            return self._core

    def _cancel(self, transfer: Transfer) -> None:
        core = self._core
        if core is not None:
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
        """End what is under way (TransferAborted, servers are told), the threads and sockets."""
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
                everything has arrived.
            progress: Called with (bytes so far, size or None) about ten times a second, by another thread.

        Returns:
            The bytes, or with `to` how the transfer went.

        Raises:
            TransferError: It failed; see its subclasses.
            OSError: The name of the host is not known, there is no route, or `to` cannot be written.
            ValueError: `name` is no URL, or fits no packet of 512 bytes.

        Spec: RFC 1350, RFC 2347 to 2349, RFC 7440.
        """
        transfer = self._begin_get(self._locate(name), to, progress)
        return _outcome(self._wait(transfer), to)

    def put(self, name: str, content: Content, *, progress: ProgressCallback | None = None) -> TransferResult:
        """Upload a file; the arguments and errors of `get`, but for:

        Args:
            name: What the file is to be called there.
            content: Bytes; a path (a str is one); or a file object, read from where it stands to its end.
            progress: As for `get`.

        Returns:
            How the transfer went.
        """
        return self._wait(self._begin_put(self._locate(name), content, progress))

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

    A cancelled call tells the server (ERROR 0) and leaves nothing.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As Client.close."""
        await asyncio.to_thread(self._shut)

    @overload
    async def get(self, name: str, to: None = None, *, progress: ProgressCallback | None = None) -> bytes: ...
    @overload
    async def get(self, name: str, to: Destination, *, progress: ProgressCallback | None = None) -> TransferResult: ...
    async def get(
        self, name: str, to: Destination | None = None, *, progress: ProgressCallback | None = None
    ) -> bytes | TransferResult:
        """As Client.get; `progress` is called in the event loop."""
        url = self._locate(name)
        told = _InLoop(progress) if progress is not None else None
        blocks = isinstance(to, str | os.PathLike) and _is_special(to)
        transfer = await self._begin(url, lambda: self._begin_get(url, to, told), blocks=blocks)
        return _outcome(await self._wait(transfer, told), to)

    async def put(self, name: str, content: Content, *, progress: ProgressCallback | None = None) -> TransferResult:
        """As Client.put; `progress` is called in the event loop, a file object is read in another thread."""
        url = self._locate(name)
        told = _InLoop(progress) if progress is not None else None
        blocks = hasattr(content, "read") or (url.mode or self._settings.mode) == "netascii"
        blocks = blocks or (isinstance(content, str | os.PathLike) and _is_special(content))
        transfer = await self._begin(url, lambda: self._begin_put(url, content, told), blocks=blocks)
        return await self._wait(transfer, told)

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
    """Download one file: `get("tftp://10.0.0.1/boot/grub.cfg")`. See Client.get, and ClientSettings for `settings`.

    For more than a few files a Client is cheaper: it keeps its threads.
    """
    with Client(**settings) as client:
        return client.get(url, to, progress=progress) if to is not None else client.get(url, progress=progress)


def put(
    url: str, content: Content, *, progress: ProgressCallback | None = None, **settings: Unpack[SettingsArguments]
) -> TransferResult:
    """Upload one file: `put("tftp://10.0.0.1/startup.cfg", Path("startup.cfg"))`. See Client.put and ClientSettings."""
    with Client(**settings) as client:
        return client.put(url, content, progress=progress)


def _outcome(result: TransferResult, to: Destination | None) -> bytes | TransferResult:
    if to is not None:
        return result
    return result.data or b""


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
        if self.error is not None:
            raise self.error
        self._loop.call_soon_threadsafe(self._call, done_bytes, size_bytes)

    def _call(self, done_bytes: int, size_bytes: int | None) -> None:
        if self.error is not None:
            return
        try:
            self._progress(done_bytes, size_bytes)
        except Exception as error:  # anything that a caller's code raises
            self.error = error
