"""A blocking TFTP client that keeps to the RFCs, and breaks them where a test asks for it.

    with Client(("127.0.0.1", port)) as client:
        got = client.get("boot.img", options={"blksize": 1428, "windowsize": 16, "tsize": 0})
        got.payload, got.oack["tsize"], got.peer

May know: protocol.packets, which has its own tests, and plain sockets. Must not: import the server or the engine, whose
judge it is.
Invariants: one socket, one source port, any number of transfers after one another, as boot ROMs do; it gives up, with
an exception, after `give_up_s`, so no test hangs.

Faults: `say` and `hear` see every datagram that is about to leave or has arrived, and return what really leaves or is
heard: `[]` loses it, `[datagram, datagram]` doubles it. `drop_nth`, `double_nth`, `lose_randomly` make the usual ones.
"""

import itertools
import random
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import (
    Ack,
    Data,
    Error,
    Oack,
    Packet,
    build_ack,
    build_data,
    build_error,
    build_request,
    parse_untrusted,
)

Address = tuple[str, int]
Fault = Callable[[bytes], Iterable[bytes]]
Options = Mapping[str, str | int]


class Refused(Exception):  # noqa: N818 - the name of what happened
    """The peer sent an ERROR."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"ERROR {code}: {text}")
        self.code = code
        self.text = text


class Silence(Exception):  # noqa: N818
    """Nothing came within `give_up_s`."""


@dataclass(slots=True)
class Transfer:
    """What happened. `oack` has lower-case names; `heard` and `said` are the datagrams after faults, in order."""

    payload: bytes = b""
    peer: Address = ("", 0)
    oack: dict[str, str] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    blksize_bytes: int = 512
    windowsize_blocks: int = 1

    def count_heard(self, opcode: Opcode) -> int:
        """Datagrams of one kind that arrived, repetitions included."""
        return sum(datagram[:2] == opcode.to_bytes(2, "big") for datagram in self.heard)


def unchanged(datagram: bytes) -> Iterable[bytes]:
    return [datagram]


def drop_nth(*numbers: int) -> Fault:
    """Loses the datagrams with these numbers; the first one has number 1."""
    count = itertools.count(1)
    return lambda datagram: [] if next(count) in numbers else [datagram]


def double_nth(*numbers: int) -> Fault:
    count = itertools.count(1)
    return lambda datagram: [datagram] * (2 if next(count) in numbers else 1)


def lose_randomly(rng: random.Random, probability: float) -> Fault:
    return lambda datagram: [] if rng.random() < probability else [datagram]


class Client:
    """One UDP socket.

    Args:
        server: Host and port of the requests.
        source: Address to send from; empty: the kernel chooses.
        timeout_s: Without an answer for so long, the last datagrams are sent again.
        give_up_s: Without progress for so long, Silence is raised.
        say: Fault on what leaves.
        hear: Fault on what arrives.
        strict_address: Answers must come from the address that was asked; False takes them from anywhere.
    """

    def __init__(
        self,
        server: Address,
        *,
        source: str = "",
        timeout_s: float = 0.5,
        give_up_s: float = 10.0,
        say: Fault = unchanged,
        hear: Fault = unchanged,
        strict_address: bool = True,
    ) -> None:
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.server = server
        self.timeout_s = timeout_s
        self.give_up_s = give_up_s
        self.say = say
        self.hear = hear
        self.strict_address = strict_address
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((source or ("::" if family == socket.AF_INET6 else "0.0.0.0"), 0))
        self.last_sender = server
        self._waiting: list[tuple[bytes, Address]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    @property
    def port(self) -> int:
        """Our TID."""
        return int(self.socket.getsockname()[1])

    # ---- datagrams

    def send(self, datagram: bytes, to: Address | None = None, transfer: Transfer | None = None) -> None:
        for said in self.say(datagram):
            self.socket.sendto(said, to or self.server)
            if transfer is not None:
                transfer.said.append(said)

    def receive(self, timeout_s: float | None = None) -> tuple[bytes, Address]:
        """The next datagram that `hear` lets through. Raises: Silence after `timeout_s` (default: give_up_s)."""
        deadline = time.monotonic() + (self.give_up_s if timeout_s is None else timeout_s)
        while not self._waiting:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Silence
            self.socket.settimeout(left_s)
            try:
                datagram, sender = self.socket.recvfrom(65536)
            except TimeoutError:
                raise Silence from None
            self.last_sender = (sender[0], sender[1])
            self._waiting += [(heard, self.last_sender) for heard in self.hear(datagram)]
        return self._waiting.pop(0)

    def has_heard(self) -> bool:
        """Whether a datagram has arrived that nobody has received yet."""
        try:
            self._waiting.append(self.receive(0.0001))
        except Silence:
            return False
        return True

    def request(
        self, filename: str, mode: str = "octet", options: Options | None = None, kind: Opcode = Opcode.RRQ
    ) -> None:
        """Send an RRQ or WRQ and wait for nothing."""
        self.send(build_request(kind, filename, mode, _option_pairs(options)))

    def receive_packet(self, timeout_s: float | None = None) -> tuple[Packet, Address]:
        datagram, sender = self.receive(timeout_s)
        return parse_untrusted(datagram), sender

    def exchange(self, datagram: bytes) -> tuple[Packet, Address]:
        """Send one datagram to the server's request port and parse its first answer."""
        self.send(datagram)
        return self.receive_packet()

    # ---- transfers

    def get(
        self,
        filename: str,
        mode: str = "octet",
        options: Options | None = None,
        *,
        on_block: Callable[[int], None] = lambda index: None,
    ) -> Transfer:
        """Download a file; netascii payload is returned as it was on the wire.

        Args:
            filename: As in the RRQ.
            mode: As in the RRQ.
            options: As in the RRQ.
            on_block: Called with the unbounded index of every new block, before it is acknowledged.

        Raises:
            Refused: The server sent an ERROR.
            Silence: It said nothing any more.
        """
        return _Download(self, on_block).run(build_request(Opcode.RRQ, filename, mode, _option_pairs(options)))

    def put(self, filename: str, payload: bytes, mode: str = "octet", options: Options | None = None) -> Transfer:
        """Upload a file, payload as on the wire; arguments and exceptions as for `get`."""
        return _Upload(self, payload).run(build_request(Opcode.WRQ, filename, mode, _option_pairs(options)))

    def probe_size(self, filename: str, code: int = ErrorCode.OPTION_REFUSED) -> int:
        """Ask for tsize and give up with an ERROR, as firmware does."""
        self.request(filename, options={"tsize": 0})
        packet, peer = self.receive_packet()
        if not isinstance(packet, Oack):
            raise _unexpected(packet)
        self.send(build_error(code, "TFTP Aborted"), peer)
        return int(dict(packet.options)["tsize"])


class _Run:
    """What both directions share: the peer's TID, repetition after a timeout, giving up without progress."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.transfer = Transfer()
        self.last: list[bytes] = []
        self.done = False

    def run(self, request: bytes) -> Transfer:
        self.say([request])
        progress_at = time.monotonic()
        while not self.done:
            try:
                datagram, sender = self.client.receive(self.client.timeout_s)
            except Silence:
                if time.monotonic() - progress_at > self.client.give_up_s:
                    raise
                self.say(self.last)
                continue
            if not self._is_peer(sender):
                continue
            self.transfer.heard.append(datagram)
            packet = parse_untrusted(datagram)
            if isinstance(packet, Error):
                raise _unexpected(packet)
            if self.on_packet(packet):
                progress_at = time.monotonic()
        return self.transfer

    def say(self, datagrams: list[bytes]) -> None:
        self.last = datagrams
        for datagram in datagrams:
            self.client.send(datagram, self.transfer.peer if self.transfer.peer[1] else None, self.transfer)

    def on_packet(self, packet: Packet) -> bool:
        """Returns whether this was progress."""
        raise NotImplementedError

    def accept_oack(self, oack: Oack) -> None:
        self.transfer.oack = {name.lower(): value for name, value in oack.options}
        self.transfer.blksize_bytes = int(self.transfer.oack.get("blksize", 512))
        self.transfer.windowsize_blocks = int(self.transfer.oack.get("windowsize", 1))

    def _is_peer(self, sender: Address) -> bool:
        """RFC 1350 section 4: the first answer fixes the server's TID."""
        if self.transfer.peer[1] == 0:
            if self.client.strict_address and sender[0].split("%")[0] != self.client.server[0].split("%")[0]:
                return False
            self.transfer.peer = sender
        return sender == self.transfer.peer


class _Download(_Run):
    def __init__(self, client: Client, on_block: Callable[[int], None]) -> None:
        super().__init__(client)
        self.on_block = on_block
        self.pieces: list[bytes] = []
        self.unacknowledged = 0
        self.has_acknowledged_gap = False

    def on_packet(self, packet: Packet) -> bool:
        if isinstance(packet, Oack):
            if not self.pieces:
                self.accept_oack(packet)
                self.say([build_ack(0)])
            return not self.pieces
        if not isinstance(packet, Data):
            raise _unexpected(packet)
        expected = len(self.pieces) + 1
        if packet.block != expected & 0xFFFF:
            self._on_wrong_block(packet.block, expected)
            return False
        self._take(packet.payload, expected)
        return True

    def _take(self, payload: bytes, index: int) -> None:
        self.pieces.append(payload)
        self.unacknowledged += 1
        self.has_acknowledged_gap = False
        self.on_block(index)
        is_last = len(payload) < self.transfer.blksize_bytes
        if is_last or self.unacknowledged == self.transfer.windowsize_blocks:
            self.unacknowledged = 0
            self.say([build_ack(index & 0xFFFF)])
        if is_last:
            self.transfer.payload = b"".join(self.pieces)
            self.done = True

    def _on_wrong_block(self, block: int, expected: int) -> None:
        """RFC 7440 section 4: acknowledge the last block in order, once a gap; repetitions are heard in silence."""
        ahead = (block - expected) & 0xFFFF
        if ahead < 0x8000 and not self.has_acknowledged_gap:
            self.has_acknowledged_gap = True
            self.unacknowledged = 0
            self.say([build_ack((expected - 1) & 0xFFFF)])


class _Upload(_Run):
    def __init__(self, client: Client, payload: bytes) -> None:
        super().__init__(client)
        self.payload = payload
        self.base = 0
        self.is_open = False

    def on_packet(self, packet: Packet) -> bool:
        if isinstance(packet, Oack):
            if self.is_open:
                return False
            self.accept_oack(packet)
            return self._send_window(0)
        if not isinstance(packet, Ack):
            raise _unexpected(packet)
        if not self.is_open:
            return self._send_window(0) if packet.block == 0 else False
        forward = (packet.block - self.base) & 0xFFFF
        if forward > self.transfer.windowsize_blocks or (forward == 0 and self.base):
            return False
        return self._send_window(self.base + forward)

    def _send_window(self, base: int) -> bool:
        self.is_open, self.base = True, base
        size = self.transfer.blksize_bytes
        final = len(self.payload) // size + 1
        if base == final:
            self.transfer.payload = self.payload
            self.done = True
            return True
        last = min(final, base + self.transfer.windowsize_blocks)
        self.say(
            [
                build_data(index & 0xFFFF, self.payload[(index - 1) * size : index * size])
                for index in range(base + 1, last + 1)
            ]
        )
        return True


def _option_pairs(options: Options | None) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in (options or {}).items()]


def _unexpected(packet: Packet) -> Exception:
    if isinstance(packet, Error):
        return Refused(packet.code, packet.text)
    return AssertionError(f"did not expect {packet}")
