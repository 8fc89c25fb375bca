"""The pytest fixture `tftp_server`, for people who test network code of their own.

    def test_boots(tftp_server):
        tftp_server.files["boot.cfg"] = "kernel vmlinuz"
        device.boot(tftp_server.url("boot.cfg"))
        assert tftp_server.requests[0].path == "boot.cfg"
        device.save(tftp_server.url("device.log"))
        assert tftp_server.uploads["device.log"].startswith(b"ok")

May know: pytest and the library server. Must not cost a run that does not use it: everything is imported inside.
Invariant: the server lives in a thread of its own on the loopback, and is gone when the test ends.
"""

from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from snow_owl_tftp.library.responses import ReadRequest, Refuse, Response, Upload
    from snow_owl_tftp.library.server import Server

__all__ = ["Files", "TftpServerFixture", "tftp_server"]

_MAX_UPLOAD_BYTES = 1 << 28


class Files(UserDict[str, Any]):
    """Name to content, under every spelling of a name that a server takes for one: "/boot.cfg" is "boot.cfg"."""

    def __getitem__(self, name: str) -> Any:
        return self.data[_spelled(name)]

    def __setitem__(self, name: str, content: Any) -> None:
        self.data[_spelled(name)] = content

    def __delitem__(self, name: str) -> None:
        del self.data[_spelled(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _spelled(name) in self.data


def _spelled(name: str) -> str:
    from snow_owl_tftp.errors import RefusedError
    from snow_owl_tftp.library.confined import path_of

    try:
        return path_of(name)
    except RefusedError as error:
        raise ValueError(f"no client can ask for {name!r}: {error}") from None


@dataclass(slots=True)
class TftpServerFixture:
    """A running server.

    Attributes:
        files: Name to content: bytes, text (sent as UTF-8), or whatever else a Response may hold. May be changed at any
            time. A name that is not there is refused with ERROR 1. What a client sends is put here too.
        uploads: Name to bytes, of what clients sent.
        requests: Every RRQ so far, in order.
        address: Host and UDP port.
    """

    files: Files = field(default_factory=Files)
    uploads: Files = field(default_factory=Files)
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
        from snow_owl_tftp.library.responses import Refuse, Response

        self.requests.append(request)
        content = self.files.get(request.path)
        return Refuse() if content is None else Response(content)

    async def _store(self, upload: "Upload") -> None:
        self.files[upload.path] = self.uploads[upload.path] = upload.data


@pytest.fixture
def tftp_server() -> Iterator[TftpServerFixture]:
    """A TFTP server on 127.0.0.1 that serves a dictionary, and takes uploads into it."""
    from snow_owl_tftp.library.server import Server

    fixture = TftpServerFixture()
    server = Server(read=fixture._answer, write=fixture._store, max_upload_bytes=_MAX_UPLOAD_BYTES)
    with server:
        fixture._server, fixture.address = server, server.address
        yield fixture
