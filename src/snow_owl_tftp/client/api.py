"""get and put for callers: `Client` blocks, `AsyncClient` awaits, and both only wait for the future of one Transfer.

May know: `calls`, asyncio. Must not know: the engine, packets or sockets.
Invariants: a call that is interrupted while it waits cancels its transfer; nothing blocks the event loop but opening a
local file.
"""

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self, Unpack, overload

from snow_owl_tftp.client.address import is_literal
from snow_owl_tftp.client.calls import (
    Calls,
    Content,
    Destination,
    SettingsArguments,
    content_or_result,
    is_special,
    size_of,
)
from snow_owl_tftp.client.progress import InLoop, ProgressCallback, in_loop
from snow_owl_tftp.client.transfer import Transfer, TransferResult
from snow_owl_tftp.client.url import TftpUrl

__all__ = ["AsyncClient", "Client", "Content", "Destination", "SettingsArguments", "get", "put"]


class Client(Calls):
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
        return content_or_result(self._wait(transfer), to)

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
        return size_of(self._wait(self._begin_size(self._locate(name))))

    def _wait(self, transfer: Transfer) -> TransferResult:
        try:
            return transfer.future.result()
        except BaseException:
            self._cancel(transfer)  # KeyboardInterrupt; one that failed by itself is unknown by now
            raise


class AsyncClient(Calls):
    """The same for asyncio. For time limits use asyncio's: `async with asyncio.timeout(5): await client.get(…)`.

        async with AsyncClient("10.0.0.1", windowsize=32) as client:
            await client.put("startup.cfg", Path("startup.cfg"))

    A cancelled call tells the server (ERROR 0) and leaves nothing, unless its file was just put into place.
    Cancelling does not wait for a thread that opens a FIFO or reads a file object; that thread goes on by itself.
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
        told = in_loop(progress)
        blocks = isinstance(to, str | os.PathLike) and is_special(to)
        transfer = await self._begin(url, lambda: self._begin_get(url, to, told), blocks=blocks)
        return content_or_result(await self._wait(transfer, told), to)

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
        told = in_loop(progress)
        blocks = hasattr(content, "read") or (url.mode or self._settings.mode) == "netascii"
        blocks = blocks or (isinstance(content, str | os.PathLike) and is_special(content))
        transfer = await self._begin(url, lambda: self._begin_put(url, content, told), blocks=blocks)
        return await self._wait(transfer, told)

    async def size(self, name: str) -> int | None:
        """As Client.size."""
        url = self._locate(name)
        transfer = await self._begin(url, lambda: self._begin_size(url), blocks=False)
        return size_of(await self._wait(transfer, None))

    async def _begin(self, url: TftpUrl, begin: Callable[[], Transfer], *, blocks: bool) -> Transfer:
        """In another thread where that may take a while: asking the name service, copying."""
        if not blocks and is_literal(url.host):
            return begin()
        task = asyncio.ensure_future(asyncio.to_thread(begin))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The thread cannot be stopped, so the transfer is cancelled as soon as it has begun.
            task.add_done_callback(self._cancel_begun)
            raise

    def _cancel_begun(self, task: "asyncio.Future[Transfer]") -> None:
        if not task.cancelled() and task.exception() is None:
            self._cancel(task.result())

    async def _wait(self, transfer: Transfer, told: InLoop | None) -> TransferResult:
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
