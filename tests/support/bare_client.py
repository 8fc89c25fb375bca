"""One request and its answer, datagram by datagram, for names that no client would send.

    with BareClient(server.address, "127.0.2.7") as client:
        client.read(b"../secret")          every datagram that came back, the last one an ERROR or the last DATA

May know: plain sockets and the layout of packets. Must not: import the package.
Invariant: it ends, with AssertionError where nothing came for `PATIENCE_S`.
"""

import socket
import struct
import time
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Answer", "BareClient"]

PATIENCE_S = 20.0
AGAIN_S = 1.0
DATA, ACK, ERROR, OACK = 3, 4, 5, 6
BLOCK = 512


class Answer(NamedTuple):
    """What came back.

    Attributes:
        code: Of the ERROR; None: there was none.
        text: Of the ERROR.
        payload: Of all DATA.
        datagrams: All of them.
    """

    code: int | None
    text: str
    payload: bytes
    datagrams: list[bytes]


class BareClient:
    """A socket of one address."""

    def __init__(self, server: tuple[str, int], source: str) -> None:
        self.server = server
        self.source = source
        self._new_socket()

    def _new_socket(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.source, 0))
        self.socket.settimeout(AGAIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.socket.close()

    def read(self, name: bytes, mode: bytes = b"octet", options: bytes = b"") -> Answer:
        return self._exchange(b"\0\1" + name + b"\0" + mode + b"\0" + options, b"")

    def write(self, name: bytes, payload: bytes, mode: bytes = b"octet") -> Answer:
        """Upload a single block."""
        assert len(payload) < BLOCK
        return self._exchange(b"\0\2" + name + b"\0" + mode + b"\0", payload)

    def _exchange(self, request: bytes, upload: bytes) -> Answer:
        datagrams: list[bytes] = []
        pieces: dict[int, bytes] = {}
        last, to = request, self.server
        self.socket.sendto(last, to)
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                datagram, sender = self.socket.recvfrom(65536)
            except TimeoutError:
                assert time.monotonic() < end_s, f"silence to {request!r}"
                self.socket.sendto(last, to)
                continue
            datagrams.append(datagram)
            if to == self.server:
                to = sender
            elif sender != to:
                continue  # of a copy of the request
            opcode, number = struct.unpack_from("!HH", datagram)
            if opcode == ERROR:
                text = datagram[4:].rstrip(b"\0").decode("latin-1")
                return Answer(number, text, b"".join(pieces.values()), datagrams)
            if opcode == DATA:
                pieces[number] = datagram[4:]
                last = struct.pack("!HH", ACK, number)
            elif opcode == OACK:
                last = struct.pack("!HH", ACK, 0)
            elif number == 1:  # of what was sent last
                return Answer(None, "", b"", datagrams)
            else:
                last = struct.pack("!HH", DATA, 1) + upload
            self.socket.sendto(last, to)
            if opcode == DATA and len(datagram) < 4 + BLOCK:
                return Answer(None, "", b"".join(pieces.values()), datagrams)
