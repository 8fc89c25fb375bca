"""A TFTP server that a test scripts packet by packet, to be as hostile as it likes.

    def script(talk):
        talk.oack(blksize=512)
        assert talk.hear() == build_ack(0)
        talk.data(1, b"short")

    with fake_server(script) as server:
        get(server.url("x"))
    server.requests[0].options

May know: protocol.packets. Must not: know the client or the engine, whose judge it is.
Invariants: every request is answered by one run of the script, from a socket (TID) of its own; nothing waits longer
than its limit; what a script raises fails the test when the server ends.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import (
    Request,
    build_ack,
    build_data,
    build_error,
    build_oack,
    parse_request_untrusted,
)

LIMIT_S = 5.0


class Silence(Exception):  # noqa: N818
    """The client said nothing within the limit."""


@dataclass(slots=True)
class Talk:
    """One conversation: the request, and the socket that answers it."""

    request: Request
    peer: tuple[str, int]
    sock: socket.socket
    number: int

    def send(self, datagram: bytes) -> None:
        self.sock.sendto(datagram, self.peer)

    def data(self, block: int, payload: bytes) -> None:
        self.send(build_data(block & 0xFFFF, payload))

    def ack(self, block: int) -> None:
        self.send(build_ack(block))

    def oack(self, **options: object) -> None:
        self.send(build_oack([(name, str(value)) for name, value in options.items()]))

    def error(self, code: int, text: str = "") -> None:
        self.send(build_error(code, text))

    def hear(self, limit_s: float = LIMIT_S) -> bytes:
        """The next datagram of the client."""
        self.sock.settimeout(limit_s)
        try:
            return self.sock.recvfrom(70000)[0]
        except TimeoutError:
            raise Silence(f"nothing from the client within {limit_s} s") from None

    def hear_ack(self, block: int, limit_s: float = LIMIT_S) -> None:
        """Reads until the ACK of `block`; what is before it is skipped."""
        while self.hear(limit_s) != build_ack(block & 0xFFFF):
            pass

    def hear_error(self, limit_s: float = LIMIT_S) -> int:
        """Reads until an ERROR; its code."""
        while (datagram := self.hear(limit_s))[:2] != b"\0\5":
            pass
        return int.from_bytes(datagram[2:4], "big")

    def serve(self, content: bytes, blksize: int = 512, windowsize: int = 1, first_block: int = 1) -> None:
        """Sends `content` as an honest server does, whole windows at a time, and waits for the last ACK."""
        blocks = [content[i : i + blksize] for i in range(0, len(content) + 1, blksize)]
        if len(content) % blksize == 0 and content:
            blocks[-1] = b""
        for start in range(0, len(blocks), windowsize):
            window = blocks[start : start + windowsize]
            for i, payload in enumerate(window):
                self.data(first_block + start + i, payload)
            self.hear_ack(first_block + start + len(window) - 1)


Script = Callable[[Talk], None]


@dataclass(slots=True)
class FakeServer:
    """A running server; `requests` are all so far, in order."""

    address: tuple[str, int]
    requests: list[Request] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def url(self, name: str) -> str:
        host, port = self.address
        return f"tftp://{'[' + host + ']' if ':' in host else host}:{port}/{name}"


def refuse_options(script: Script) -> Script:
    """The script for requests without options, ERROR 8 for others."""

    def run(talk: Talk) -> None:
        if talk.request.options:
            talk.error(ErrorCode.OPTION_REFUSED, "no options, please")
        else:
            script(talk)

    return run


def drop_options(script: Script) -> Script:
    """The script for requests without options, not a word to others."""

    def run(talk: Talk) -> None:
        if not talk.request.options:
            script(talk)

    return run


@contextmanager
def fake_server(script: Script, host: str = "127.0.0.1") -> Iterator[FakeServer]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as listener:
        listener.bind((host, 0))
        server = FakeServer(listener.getsockname()[:2])
        stop = threading.Event()
        thread = threading.Thread(target=_serve, args=(listener, script, server, stop), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            with socket.socket(family, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"stop", listener.getsockname())
            thread.join(LIMIT_S + 1)
            assert not thread.is_alive(), "the script hangs"
    if server.errors:
        raise server.errors[0]


def _serve(listener: socket.socket, script: Script, server: FakeServer, stop: threading.Event) -> None:
    seen: set[tuple[bytes, tuple[str, int]]] = set()
    while True:
        datagram, peer = listener.recvfrom(2048)
        if stop.is_set():
            return
        if datagram[:2] not in (b"\0\1", b"\0\2") or (datagram, peer) in seen:
            continue
        seen.add((datagram, peer))
        server.requests.append(parse_request_untrusted(datagram))
        with socket.socket(listener.family, socket.SOCK_DGRAM) as sock:
            sock.bind((listener.getsockname()[0], 0))
            try:
                script(Talk(server.requests[-1], peer, sock, len(server.requests)))
            except BaseException as error:  # handed to the test
                server.errors.append(error)
