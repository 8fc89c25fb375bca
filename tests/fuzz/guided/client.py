"""A client against a hostile server: whatever the server says, no wrong file, no crash, and an end.

A script is a byte for what the client is asked to do, and then a step of the server's for each few bytes: a datagram
from the port that it answers from, or from another one, several at once, or a wait for what the client says.

The bytes of block n are a function of n, as in `hostile_server`; so a file is right if it has the blocks from 1 on up
to a short one that was sent.
"""

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache

from tests.fuzz.guided.script import Script
from tests.fuzz.hostile_server import STRANGE, payload_of

from snow_owl_tftp import Client
from snow_owl_tftp.errors import TransferError
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error, build_oack

UDP_SEGMENT = 103
MOST_DATAGRAMS = 200
BLKSIZES = [512, 8, 1000, 1428]
HEARS_S = 0.005
ENDS_S = 50.0
CONTENT = payload_of(3, 5000)
OPTIONS = [
    ("blksize", "1000"),
    ("blksize", "8"),
    ("windowsize", "4"),
    ("windowsize", "1"),
    ("tsize", "600"),
    ("x", "1"),
]


@cache
def players() -> tuple[Client, ThreadPoolExecutor]:
    """They last until `close`: an engine for each script would cost more than the script."""
    client = Client("127.0.0.1", timeout=0.1, retries=2, windowsize=16, max_size_bytes=100_000)
    return client, ThreadPoolExecutor(1)


def close() -> None:
    client, thread = players()
    players.cache_clear()
    client.close()
    thread.shutdown()


class Server:
    """One conversation by script."""

    def __init__(self, script: Script, sockets: list[socket.socket]) -> None:
        self.script = script
        self.listener, self.sock, self.stranger = sockets
        self.next = 1
        self.sent = 0
        self.blksize = script.pick(BLKSIZES)
        self.short: set[int] = set()
        self.is_judged = True
        self.is_heard = False

    def play(self) -> None:
        request, self.peer = self.listener.recvfrom(2000)
        self.is_get = request[1] == Opcode.RRQ
        steps = [self.block, self.block, self.window, self.train, self.hear, self.hear, self.oack, self.ack]
        steps += [self.again, self.raw, self.strange, self.error]
        while not self.script.is_over and self.sent < MOST_DATAGRAMS:
            self.script.pick(steps)()

    def end(self, asked: "Future[object]") -> None:
        """What has not ended by now need not wait for its timers, and may be asking again, without options."""
        enough = build_error(1, "that was all")
        for sock in (self.sock, self.stranger):
            self.send(enough, sock)
        self.listener.settimeout(HEARS_S)
        while not asked.done():
            with suppress(TimeoutError):
                _, self.peer = self.listener.recvfrom(2000)
                self.send(enough)

    def send(self, datagram: bytes, sock: socket.socket | None = None) -> None:
        self.sent += 1
        (sock or self.sock).sendto(datagram, self.peer)

    def data(self, index: int, size: int) -> bytes:
        # Whatever was agreed on: a block that is shorter than that ends the file, and it alone.
        places = {index, index & 0xFFFF}  # the number is all that a receiver sees
        self.short |= {(place - 1) * blksize + size for place in places for blksize in BLKSIZES if size < blksize}
        return build_data(index & 0xFFFF, payload_of(index, size))

    def size(self) -> int:
        what = self.script.byte()
        return self.blksize if what < 200 else what - 200 if what < 254 else self.blksize + what - 253

    def block(self) -> None:
        index = max(0, self.next + self.script.pick([0, 0, 0, 0, 1, -1, 2, 16, 65535, 65536]))
        self.send(self.data(index, self.size()))
        self.next = max(self.next, index + 1) if index == self.next else self.next

    def window(self) -> None:
        for _ in range(1 + self.script.byte() % 16):
            self.send(self.data(self.next, self.blksize))
            self.next += 1

    def train(self) -> None:
        """What the kernel hands over as one (UDP_GRO)."""
        blocks = [self.data(self.next + number, self.blksize) for number in range(self.script.byte() % 20)]
        blocks.append(self.data(self.next + len(blocks), min(self.size(), self.blksize)))
        self.next += len(blocks)
        self.sent += len(blocks)
        segment = (self.blksize + 4).to_bytes(2, "little")
        self.sock.sendmsg([b"".join(blocks)], [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)], 0, self.peer)

    def hear(self) -> None:
        self.sock.settimeout(HEARS_S)
        try:
            answer = self.sock.recv(70_000)
        except TimeoutError:
            return
        self.is_heard = True
        if len(answer) >= 4 and answer[:2] == (b"\0\4" if self.is_get else b"\0\3"):
            ahead = (int.from_bytes(answer[2:4], "big") + 1 - self.next) & 0xFFFF
            self.next += ahead if ahead < 0x8000 else ahead - 0x10000
            if not self.is_get and self.script.byte() < 200:
                self.send(build_ack(self.next - 1 & 0xFFFF))

    def oack(self) -> None:
        self.send(build_oack([self.script.pick(OPTIONS) for _ in range(self.script.byte() % 4)]))

    def ack(self) -> None:
        self.send(build_ack(self.next - 1 + self.script.pick([0, 0, 1, -1, 16, 32768]) & 0xFFFF))

    def again(self) -> None:
        for _ in range(self.script.byte() % 32):
            self.send(build_data(self.next - 1 & 0xFFFF, payload_of(self.next - 1, self.blksize)))

    def raw(self) -> None:
        datagram = self.script.take(self.script.byte())
        self.is_judged &= datagram[:2] != b"\0\3" and datagram[:2] != b"\0\6"
        self.send(datagram)

    def strange(self) -> None:
        """Once the client has spoken to the other port: who answers first is no stranger (RFC 1350 section 4)."""
        if self.is_heard:
            said = [build_data(self.next & 0xFFFF, STRANGE[: self.blksize]), build_error(1, "forged"), build_ack(0)]
            self.send(self.script.pick(said), self.stranger)

    def error(self) -> None:
        self.send(b"\0\5" + self.script.take(2 + self.script.byte() % 40))

    def is_right(self, content: bytes) -> bool:
        if not self.is_judged:
            return True
        return len(content) in self.short and any(content == whole(blksize, len(content)) for blksize in BLKSIZES)


def whole(blksize: int, size: int) -> bytes:
    return b"".join(payload_of(index, blksize) for index in range(1, size // blksize + 2))[:size]


def check(data: bytes) -> None:
    """Raises AssertionError for a wrong file or a count that cannot be, TimeoutError for what does not end."""
    script = Script(data)
    client, thread = players()
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(ENDS_S)
        url = f"tftp://127.0.0.1:{sockets[0].getsockname()[1]}/f"
        is_put = script.byte() & 1
        server = Server(script, sockets)
        asked = thread.submit(client.put, url, CONTENT) if is_put else thread.submit(client.get, url)
        server.play()
        server.end(asked)
        judge(server, asked, client)
    finally:
        for sock in sockets:
            sock.close()


def judge(server: Server, asked: "Future[object]", client: Client) -> None:
    try:
        got = asked.result(ENDS_S)
    except TransferError as failed:
        what = str(failed)
    else:
        what = "the file"
        assert not isinstance(got, bytes) or server.is_right(got), (len(got), sorted(server.short)[:20])
    assert what, "an error says what happened"
    counts = client.counters()
    assert counts["transfers_started"] >= counts["transfers_ended"], counts
    assert counts["send_errors"] == 0, counts
