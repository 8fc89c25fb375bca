"""Plays transfers of one client over one path, in virtual time, and says what they cost.

`read` and `write` put the project's Sender and Receiver against a model client; `ideal` puts an oracle in the
Sender's place. Everything follows from the case and the seed.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.support.simulation.machines import Agreed, Peer, make_receiver, make_sender
from tests.support.simulation.network import MS, Clock, Link, S, Way
from tests.support.simulation.oracle import Oracle, Stage
from tests.support.simulation.readers import DATA, Habits, Reader
from tests.support.simulation.writers import Manner, Writer

from snow_owl_tftp.protocol.transfer import ExchangeOutcome, Receiver, Sender

LIMIT_NS: Final = 600 * S
RRQ: Final = b"\0\1"
TICK_NS: Final = MS
"""The engine's timer wheel: a timer fires at the first tick behind its deadline."""
BETWEEN_NS: Final = 100 * MS
"""From the end of a client's transfer to its next."""
SLACK_NS: Final = 2 * TICK_NS


@dataclass(frozen=True, slots=True)
class Path:
    """To the client and back; `both` for the usual case."""

    down: Way = field(default_factory=Way)
    up: Way = field(default_factory=Way)

    @classmethod
    def both(cls, way: Way) -> "Path":
        return cls(way, way)

    @property
    def keeps_order(self) -> bool:
        return all(way.keeps_order or not way.jitter_ns for way in (self.down, self.up))


@dataclass(frozen=True, slots=True)
class Case:
    """One client, one path, one agreement; `transfers` of them in a row, of `blocks` each."""

    name: str
    path: Path
    agreed: Agreed = field(default_factory=Agreed)
    habits: Habits = field(default_factory=Habits)
    manner: Manner = field(default_factory=Manner)
    blocks: int = 600
    transfers: int = 2
    commit_ns: int = MS

    @property
    def patience_ns(self) -> int:
        """What may not be sent twice within: a second, or the negotiated `timeout`."""
        return self.agreed.timeout_s * S or S


@dataclass(slots=True)
class Played:
    """One transfer.

    Attributes:
        arrived: The client has it all, and every byte is right.
        ended_well: The server knows it too.
        took_ns: Until the client had it all; LIMIT_NS if it never had.
        blocks: Of the file.
        sent: DATA datagrams (uploads: ACK datagrams) of the server.
        repeats: Datagrams that the server sent again.
        early: Of these, sooner than the patience of the case.
        timeouts: Timers of the server that sent something again.
        damaged: Datagrams that the path lost or the client's buffer could not hold.
    """

    arrived: bool = False
    ended_well: bool = False
    took_ns: int = LIMIT_NS
    blocks: int = 0
    sent: int = 0
    repeats: int = 0
    early: int = 0
    timeouts: int = 0
    damaged: int = 0


class Server:
    """What the engine is to a state machine: carries its datagrams, and wakes it at its deadline."""

    def __init__(self, clock: Clock, machine: Sender | Receiver, case: Case, send: Callable[[bytes], None]) -> None:
        self.clock = clock
        self.machine = machine
        self.case = case
        self.played = Played(blocks=case.blocks)
        self._send = send
        self._left_ns: dict[bytes, int] = {}
        self._armed_ns: int | None = None
        self._is_committing = False

    def start(self) -> None:
        self._post(self.machine.start(self.clock.now_ns))

    def arrive(self, datagram: bytes) -> None:
        self._post(self.machine.receive(datagram, self.clock.now_ns))

    def ask_again(self) -> None:
        """The client repeats its request: while it has answered nothing, so does the server its first packet."""
        if not self.machine.proven:
            self._post([self.machine.terms.first_packet or b"\0\4\0\0"])

    def _post(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self._note(datagram)
            self._send(datagram)
        if isinstance(self.machine, Receiver) and self.machine.received and not self._is_committing:
            self._is_committing = True
            self.clock.at(self.clock.now_ns + self.case.commit_ns, self._commit)
        self._arm()

    def _commit(self) -> None:
        if isinstance(self.machine, Receiver) and not self.machine.done:
            self._post(self.machine.commit(self.clock.now_ns))

    def _note(self, datagram: bytes) -> None:
        now_ns = self.clock.now_ns
        left_ns = self._left_ns.get(datagram[:4])
        self._left_ns[datagram[:4]] = now_ns
        self.played.sent += datagram[:2] == DATA or isinstance(self.machine, Receiver)
        if left_ns is not None:
            self.played.repeats += 1
            self.played.early += now_ns - left_ns < self.case.patience_ns - SLACK_NS

    def _arm(self) -> None:
        deadline_ns = self.machine.deadline_ns
        if deadline_ns is not None and deadline_ns != self._armed_ns:
            self._armed_ns = deadline_ns
            self.clock.at((deadline_ns // TICK_NS + 1) * TICK_NS, lambda: self._tick(deadline_ns))

    def _tick(self, deadline_ns: int) -> None:
        if self.machine.deadline_ns == deadline_ns:
            self._armed_ns = None
            repeats = self.played.repeats
            self._post(self.machine.tick(self.clock.now_ns))
            # What a timer sends for the first time (a long burst that is spaced out) is no timeout.
            self.played.timeouts += self.played.repeats > repeats


class World:
    """A clock and the weather of one seed: it goes on from transfer to transfer."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.clock = Clock()
        self.down_rng = random.Random(f"{seed} down")
        self.up_rng = random.Random(f"{seed} up")
        size_bytes = (case.blocks - 1) * case.agreed.blksize + case.agreed.blksize // 2
        self.source = random.Random(f"{seed} file").randbytes(size_bytes)

    def down(self, deliver: Callable[[bytes], None]) -> Link:
        return Link(self.clock, self.case.path.down, self.down_rng, deliver)

    def up(self, deliver: Callable[[bytes], None]) -> Link:
        return Link(self.clock, self.case.path.up, self.up_rng, deliver)

    def run(self, is_over: Callable[[], bool]) -> None:
        self.clock.run(self.clock.now_ns + LIMIT_NS, is_over)

    def pass_time(self) -> None:
        self.clock.now_ns += BETWEEN_NS


def _reader(world: World) -> tuple[Reader, Link, list[Callable[[bytes], None]]]:
    """A client, the way to it, and where its ACKs go: the sender, which is made later, is put there."""
    ends: list[Callable[[bytes], None]] = []
    up = world.up(lambda datagram: ends[0](datagram))
    agreed = world.case.agreed
    reader = Reader(world.clock, world.case.habits, agreed.windowsize, agreed.blksize, up.send)
    return reader, up, ends


def read(case: Case, seed: int) -> list[Played]:
    """Plays the reads of a case: a client of which nothing is known, then the same one again."""
    world, peer = World(case, seed), Peer()
    return [_read_once(world, peer) for _ in range(case.transfers)]


def _read_once(world: World, peer: Peer) -> Played:
    reader, up, ends = _reader(world)
    down = world.down(reader.arrive)
    machine = make_sender(world.source, world.case.agreed, peer)
    server = Server(world.clock, machine, world.case, down.send)
    ends.append(lambda datagram: server.ask_again() if datagram[:2] == RRQ else server.arrive(datagram))
    began_ns = world.clock.now_ns
    server.start()
    _ask_until_answered(world, reader, up)
    world.run(lambda: machine.done or bool(reader.error))
    played = server.played
    played.ended_well = machine.outcome is ExchangeOutcome.OK
    _note_end(played, world, reader, began_ns)
    played.damaged = down.lost_total + up.lost_total + reader.overruns
    world.pass_time()
    return played


def _ask_until_answered(world: World, reader: Reader, up: Link) -> None:
    """The server sends an OACK three times at most: a client that has heard nothing repeats its request."""

    def ask() -> None:
        if reader.acked < 0 and reader.next == 1:
            up.send(RRQ + b"f\0octet\0")
            _ask_until_answered(world, reader, up)

    world.clock.at(world.clock.now_ns + world.case.habits.timer_ns, ask)


def _note_end(played: Played, world: World, reader: Reader, began_ns: int) -> None:
    played.arrived = reader.done_ns is not None and reader.content == world.source
    if reader.done_ns is not None and played.arrived:
        played.took_ns = reader.done_ns - began_ns


def ideal(case: Case, seed: int, kind: type[Oracle]) -> list[Played]:
    """The same reads, with an oracle in the server's place."""
    world = World(case, seed)
    return [_ideal_once(world, kind) for _ in range(case.transfers)]


def _ideal_once(world: World, kind: type[Oracle]) -> Played:
    reader, up, ends = _reader(world)
    down = world.down(reader.arrive)
    agreed = world.case.agreed
    stage = Stage(world.clock, reader, down, up)
    oracle = kind(stage, world.source, agreed.blksize, has_oack=agreed.has_oack)
    ends.append(oracle.receive)
    began_ns = world.clock.now_ns
    oracle.start()
    world.run(lambda: oracle.done)
    if not oracle.done:
        raise RuntimeError(f"{kind.__name__} is stuck at block {oracle.base}: {world.case}")
    played = Played(blocks=world.case.blocks, sent=oracle.sent_total, ended_well=oracle.done)
    _note_end(played, world, reader, began_ns)
    played.damaged = down.lost_total + up.lost_total + reader.overruns
    world.pass_time()
    return played


def write(case: Case, seed: int) -> list[Played]:
    """Plays the uploads of a case."""
    world, peer = World(case, seed), Peer()
    return [_write_once(world, peer) for _ in range(case.transfers)]


def _write_once(world: World, peer: Peer) -> Played:
    case, ends = world.case, list[Callable[[bytes], None]]()
    to_server = world.down(lambda datagram: ends[0](datagram))
    agreed = case.agreed
    writer = Writer(world.clock, case.manner, world.source, agreed.blksize, agreed.windowsize, to_server.send)
    to_client = world.up(writer.arrive)
    machine = make_receiver(agreed, peer)
    server = Server(world.clock, machine, case, to_client.send)
    ends.append(lambda datagram: server.ask_again() if datagram[:2] == b"\0\2" else server.arrive(datagram))
    began_ns = world.clock.now_ns
    writer.start()
    server.start()
    world.run(writer.is_over)
    played = server.played
    played.arrived = writer.done_ns is not None and machine.delivered == world.source
    played.ended_well = machine.outcome is ExchangeOutcome.OK
    if writer.done_ns is not None:
        played.took_ns = writer.done_ns - began_ns
    played.damaged = to_server.lost_total + to_client.lost_total
    world.pass_time()
    return played
