"""A server that is as hostile as its dice say, and knows which files an honest receiver may take from what it said.

    with HostileServer(seed) as server:
        got = client.get(f"tftp://127.0.0.1:{server.port}/17")
        assert server.is_right("17", got)

The bytes of block n are a function of n, whoever says them and however often; only a block that is short ends a file.
So a receiver is right if, and only if, it has the blocks from 1 on, each once, up to a short one that was really sent.
What a stranger says (another port) holds other bytes, and must leave no trace.

May know: protocol.packets, and how an OACK is read. Must not: know the client, whose judge it is.
Invariants: a conversation's dice depend on the seed, the file's name and the number of the request alone; no
conversation speaks for ever: what it may send is bounded.
"""

import random
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from snow_owl_tftp.errors import BadPacket
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.oack import accept_oack_untrusted
from snow_owl_tftp.protocol.packets import (
    Request,
    build_ack,
    build_data,
    build_error,
    build_oack,
    parse_request_untrusted,
)

STREAM = random.Random(11).randbytes(1 << 20)
STRANGE = random.Random(12).randbytes(2048)
MOST_DATAGRAMS = 3000
REPEATS = 200
TURN_S = 0.01
LISTENER_BYTES = 4 << 20
"""Hundreds of requests come at once, and one that is lost only costs time."""


def payload_of(block_index: int, size: int) -> bytes:
    """What block `block_index` holds, or begins with; the number of 16 bits is all that a receiver sees."""
    start = (block_index & 0xFFFF) * 977 % (len(STREAM) - 65536)
    return STREAM[start : start + size]


@dataclass(eq=False)
class Conversation:
    """One request, and the port that answers it."""

    request: Request
    peer: tuple[str, int]
    dice: random.Random
    sock: socket.socket
    stranger: socket.socket
    blksize: int = 512
    windowsize: int = 1
    tsize: int | None = None
    oack: bytes = b""
    size: int = 0
    short: list[int] = field(default_factory=list)
    """Sizes of files that a block which really was sent would end."""
    heard: dict[int, bytes] = field(default_factory=dict)
    next: int = 1
    sent: int = 0
    is_silent: bool = False
    repeats: list[bytes] = field(default_factory=list)

    def begin(self) -> None:
        self.size = self.dice.choice([0, 1, 511, 512, 513, 5120, self.dice.randrange(60_000)])
        if self.request.options and self.dice.random() < 0.8:
            self._make_oack()
            self.send(self.oack)
        elif self.request.kind == Opcode.WRQ:
            self.send(build_ack(0))
        else:
            self.go_on(1)

    def _make_oack(self) -> None:
        names = dict(self.request.options)
        limits = {"blksize": [8, 512, 1000, 1428], "windowsize": [1, 2, 7, 64], "tsize": [self.size]}
        answer = [(name, str(self.dice.choice(limits[name]))) for name in names if name in limits]
        if self.dice.random() < 0.15:
            answer.append(self.dice.choice([("multicast", "224.0.0.1,1,1"), ("blksize", "70000"), ("x", "")]))
        oack = build_oack(answer)
        if self.dice.random() < 0.15:
            oack = b"\0\6" + mutated(oack[2:], self.dice)
        self.oack = oack
        try:
            agreed = accept_oack_untrusted(self.request.options, oack)
        except BadPacket:
            return
        self.blksize, self.windowsize, self.tsize = agreed.blksize_bytes, agreed.windowsize_blocks, agreed.tsize

    # ---- saying

    def send(self, datagram: bytes, sock: socket.socket | None = None) -> None:
        """From its own port, or a stranger's. Where nobody is left to hear it, it has spoken enough: the client's next
        transfer may get the port, and cannot tell who is meant."""
        if self.is_silent:
            return
        self.sent += 1
        self.is_silent = self.sent > MOST_DATAGRAMS
        try:
            (sock or self.sock).send(datagram)
        except ConnectionRefusedError:
            self.is_silent = True

    def data(self, index: int, size: int | None = None) -> None:
        """The DATA of a block; with a size of its own where it is to end the file."""
        whole = min(self.blksize, max(0, self.size - (index - 1) * self.blksize))
        size = whole if size is None else size
        if size < self.blksize:
            self.short.append((index - 1) * self.blksize + size)
        self.send(build_data(index & 0xFFFF, payload_of(index, size)))

    @property
    def final(self) -> int:
        return self.size // self.blksize + 1

    def go_on(self, first: int) -> None:
        """A window from `first` on, and whatever comes to mind between two blocks."""
        for index in range(first, min(first + self.windowsize, self.final + 1)):
            if self.dice.random() < 0.1:
                self.harass(index)
            if self.dice.random() > 0.02:
                self.data(index)
        if self.dice.random() < 0.1:
            self.harass(self.final)

    def harass(self, index: int) -> None:
        self.dice.choice(self._mischief())(index)

    def _mischief(self) -> list[Callable[[int], None]]:
        return [
            self._strangers_say,
            self._junk,
            self._jump,
            self._behind_the_end,
            self._again,
            self._ends(),
            self._acks,
        ]

    def _strangers_say(self, index: int) -> None:
        if not self.sent:
            return  # RFC 1350 section 4: who answers first is no stranger
        said = [build_data(index & 0xFFFF, STRANGE[: self.blksize]), build_data(index & 0xFFFF, b"forged")]
        said += [build_ack(index & 0xFFFF), build_error(1, "forged"), build_oack([("blksize", "8")]), STRANGE[:600]]
        self.send(self.dice.choice(said), self.stranger)

    def _junk(self, index: int) -> None:
        junk = mutated(build_data(index & 0xFFFF, payload_of(index, 20)), self.dice)
        is_data = len(junk) >= 4 and junk[:2] == b"\0\3"
        if not is_data and junk[:2] != b"\0\5":
            self.send(junk)

    def _jump(self, index: int) -> None:
        for _ in range(self.dice.randrange(1, 4)):
            self.data(max(1, index + self.dice.choice([-40, -2, -1, 1, 2, 5, 100, 32768, 65535, 65536])), self.blksize)

    def _behind_the_end(self, index: int) -> None:
        self.data(self.final + self.dice.randrange(1, 3), self.dice.choice([0, 1, self.blksize]))

    def _again(self, index: int) -> None:
        if index > 1:
            for _ in range(self.dice.choice([1, 2, 50])):
                self.send(build_data(index - 1 & 0xFFFF, payload_of(index - 1, self.blksize)))

    def _acks(self, index: int) -> None:
        for block in (0, index, index + 1, 65535):
            if self.request.kind == Opcode.RRQ:
                self.send(build_ack(block & 0xFFFF))
        if self.oack:
            self.send(self.oack)

    def _ends(self) -> Callable[[int], None]:
        """Seldom, for after these there is no more to see."""
        if self.dice.random() < 0.7:
            return self._again
        return self.dice.choice([self._error, self._huge, self._cut, self._silence, self._repeat_for_ever])

    def _error(self, index: int) -> None:
        text = self.dice.choice([b"", b"no", b"\xff\xfe", b"e" * 600, b"\x1b[2J", b"%s"])
        self.send(
            b"\0\5"
            + self.dice.choice([0, 1, 5, 8, 9, 65535]).to_bytes(2, "big")
            + text
            + b"\0" * self.dice.randrange(2)
        )

    def _huge(self, index: int) -> None:
        self.send(build_data(index & 0xFFFF, STREAM[: self.dice.choice([self.blksize + 1, 9000, 60_000])]))

    def _cut(self, index: int) -> None:
        self.data(index, self.dice.randrange(self.blksize))

    def _silence(self, index: int) -> None:
        self.is_silent = True

    def _repeat_for_ever(self, index: int) -> None:
        before = max(0, index - 1)
        self.repeats = [build_data(before & 0xFFFF, payload_of(before, self.blksize))] * REPEATS

    # ---- hearing

    def hear(self, datagram: bytes) -> None:
        if self.repeats or self.is_silent or len(datagram) < 4 or datagram[:2] == b"\0\5":
            return
        block = int.from_bytes(datagram[2:4], "big")
        if self.request.kind == Opcode.RRQ and datagram[:2] == b"\0\4":
            self._hear_ack(block)
        elif self.request.kind == Opcode.WRQ and datagram[:2] == b"\0\3":
            self._hear_data(block, datagram[4:])

    def _hear_ack(self, block: int) -> None:
        ahead = (block - self.next + 1) & 0xFFFF
        if ahead <= self.windowsize:
            self.next += ahead
        if self.next <= self.final:
            self.go_on(self.next)

    def _hear_data(self, block: int, payload: bytes) -> None:
        if block != self.next & 0xFFFF:
            return
        self.heard[self.next] = payload
        self.next += 1
        if self.dice.random() < 0.1:
            self.harass_sender()
        if len(payload) < self.blksize or (self.next - 1) % self.windowsize == 0:
            self.send(build_ack(block))

    def harass_sender(self) -> None:
        blocks = [self.next - 1, self.next, self.next - 2, 0, 65535, self.next + self.windowsize + 1, 32768]
        for _ in range(self.dice.choice([1, 3, 100])):
            self.send(build_ack(self.dice.choice(blocks) & 0xFFFF))
        if self.dice.random() < 0.3:
            self.send(build_ack(self.next & 0xFFFF), self.stranger)
        if self.dice.random() < 0.1:
            self._error(0)
        if self.dice.random() < 0.1:
            self.is_silent = True

    # ---- judging

    def right_sizes(self) -> set[int]:
        return {size for size in self.short if self.tsize is None or size == self.tsize}

    def is_right(self, content: bytes) -> bool:
        if len(content) not in self.right_sizes():
            return False
        blocks = range(1, len(content) // self.blksize + 2)
        return b"".join(payload_of(index, self.blksize) for index in blocks)[: len(content)] == content


def received(sock: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
    """All that waits."""
    while True:
        try:
            yield sock.recvfrom(70_000)
        except BlockingIOError:
            return
        except ConnectionRefusedError:
            continue  # of something sent before


def mutated(datagram: bytes, dice: random.Random) -> bytes:
    changed = bytearray(datagram)
    for _ in range(dice.choice([1, 1, 3])):
        at = dice.randrange(len(changed)) if changed else 0
        what = dice.randrange(4)
        if what == 0 and changed:
            changed[at] ^= 1 << dice.randrange(8)
        elif what == 1:
            del changed[at:]
        elif what == 2:
            changed += dice.randbytes(dice.randrange(1, 40))
        elif changed:
            changed[at] = dice.choice([0, 1, 3, 255])
    return bytes(changed)


class HostileServer:
    """One thread with all conversations; `talks`: by file name, in the order of the requests."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.talks: dict[str, list[Conversation]] = {}
        self._endless: list[Conversation] = []
        """Those that repeat a datagram, one each turn."""
        self._of_peer: dict[tuple[str, int], Conversation] = {}
        self._seen: set[tuple[tuple[str, int], bytes]] = set()
        self._poll = selectors.EpollSelector()
        self._listener = self._socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LISTENER_BYTES)
        self.port = int(self._listener.getsockname()[1])
        self._poll.register(self._listener, selectors.EVENT_READ, None)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._poll.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        for talks in self.talks.values():
            for talk in talks:
                talk.stranger.close()
        self._poll.close()
        if self._error is not None:
            raise self._error

    @staticmethod
    def _socket(peer: tuple[str, int] | None = None) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        if peer:
            one.connect(peer)  # so it hears when nobody has that port any more
        return one

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except BaseException as error:  # handed to the test
            self._error = error

    def _turn(self) -> None:
        ready = self._poll.select(TURN_S)
        # Requests first: who sends one has left what its port was used for before.
        for request, peer in received(self._listener):
            self._on_request(request, peer)
        for key, _ in ready:
            if key.data is not None:
                for datagram, _peer in received(key.fileobj):  # type: ignore[arg-type]
                    key.data.hear(datagram)
                self._note(key.data)
        for talk in self._endless:
            talk.send(talk.repeats.pop())
        self._endless = [talk for talk in self._endless if talk.repeats and not talk.is_silent]

    def _on_request(self, datagram: bytes, peer: tuple[str, int]) -> None:
        if datagram[:2] not in (b"\0\1", b"\0\2") or (peer, datagram) in self._seen:
            return
        self._seen.add((peer, datagram))
        if peer in self._of_peer:
            self._of_peer[peer].is_silent = True
        request = parse_request_untrusted(datagram)
        talks = self.talks.setdefault(request.filename, [])
        dice = random.Random(f"{self.seed}:{request.filename}:{len(talks)}")
        talk = Conversation(request, peer, dice, self._socket(peer), self._socket(peer))
        self._of_peer[peer] = talk
        self._poll.register(talk.sock, selectors.EVENT_READ, talk)
        talks.append(talk)
        talk.begin()
        self._note(talk)

    def _note(self, talk: Conversation) -> None:
        if talk.repeats and not talk.is_silent and talk not in self._endless:
            self._endless.append(talk)

    def is_right(self, name: str, content: bytes) -> bool:
        """Whether it is a file that the client may have taken `name` for."""
        return any(talk.is_right(content) for talk in self.talks.get(name, []))

    def is_anothers(self, content: bytes) -> bool:
        """Whether it is a whole file of some conversation: what still came for the last owner of its port may be what
        a client hears first, and nothing in DATA says which file it is of."""
        return any(talk.is_right(content) for talks in self.talks.values() for talk in talks)
