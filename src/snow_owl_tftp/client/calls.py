"""What both clients share: an engine of their own, and how a call becomes a Transfer.

A client that was used before fork() is of no use in the child, and says so: threads do not follow.

May know: the core, sources and targets. Must not know: packets, sockets, or how a caller waits.
Invariants: the core is made once, by the first call; a client that was closed, or that belongs to another process,
begins nothing.
"""

import os
import stat
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypedDict, Unpack

from snow_owl_tftp.client.address import resolve
from snow_owl_tftp.client.events import ClientCore
from snow_owl_tftp.client.progress import ProgressCallback
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.sources import source_for
from snow_owl_tftp.client.targets import target_for
from snow_owl_tftp.client.transfer import Transfer, TransferResult
from snow_owl_tftp.client.url import DEFAULT_PORT, TftpUrl, is_tftp_url, parse_url
from snow_owl_tftp.errors import ForkedError
from snow_owl_tftp.plan.transfer import Role

__all__ = ["Calls", "Content", "Destination", "SettingsArguments", "content_or_result", "is_special", "size_of"]

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


class Calls:
    """The part of a client that does not wait."""

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
        if to is None or (isinstance(to, str | os.PathLike) and not is_special(to)):
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


def content_or_result(result: TransferResult, to: Destination | None) -> bytes | TransferResult:
    """What a get returns: the bytes, or where they went somewhere else how it went."""
    if to is not None:
        return result
    return result.data or b""


def size_of(result: TransferResult) -> int | None:
    """Of a probe: what was announced, or what a file of one short block amounts to."""
    return len(result.data) if result.data is not None else result.tsize


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether opening or reading it may wait for somebody: a FIFO, a terminal."""
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False  # absent: it is made, or refused, at once
