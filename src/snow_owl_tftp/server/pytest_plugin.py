"""The pytest fixture `tftp_server`, for people who test network code of their own.

    def test_boots(tftp_server):
        tftp_server.files["boot.cfg"] = b"kernel vmlinuz"
        device.boot(tftp_server.url("boot.cfg"))
        assert tftp_server.requests[0].path == "boot.cfg"

May know: pytest and the library server. Must not cost a run that does not use it: everything is imported inside.
Invariant: the server lives in a thread of its own on the loopback, and is gone when the test ends.
"""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from snow_owl_tftp.server.library import ReadRequest, Refuse, Response, Server

__all__ = ["TftpServerFixture", "tftp_server"]

_DEADLINE_S = 30.0


@dataclass(slots=True)
class TftpServerFixture:
    """A running server.

    Attributes:
        files: Name to content; may be changed at any time. A name that is not there is refused with ERROR 1.
        requests: Every RRQ so far, in order.
        address: Host and UDP port.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    requests: "list[ReadRequest]" = field(default_factory=list)
    address: tuple[str, int] = ("", 0)
    _server: "Server | None" = field(default=None, repr=False)

    def url(self, name: str) -> str:
        """Name a file of this server.

        Args:
            name: Any key of `files`.

        Returns:
            Its TFTP URL.

        Raises:
            RuntimeError: The server does not run.
        """
        if self._server is None:
            raise RuntimeError("the server does not run")
        return self._server.url(name)

    async def _answer(self, request: "ReadRequest") -> "Response | Refuse":
        from snow_owl_tftp.server.library import Refuse, Response

        self.requests.append(request)
        content = self.files.get(request.path)
        return Refuse() if content is None else Response(content)


@pytest.fixture
def tftp_server() -> Iterator[TftpServerFixture]:
    """A TFTP server on 127.0.0.1 that serves a dictionary."""
    from snow_owl_tftp.server.library import Server

    fixture = TftpServerFixture()
    fixture._server = server = Server(read=fixture._answer)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tftp-server-fixture", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(_DEADLINE_S)
        fixture.address = server.address
        yield fixture
        _stop(server, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_DEADLINE_S)
        loop.close()


def _stop(server: "Server", loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(_DEADLINE_S)
    asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(_DEADLINE_S)
