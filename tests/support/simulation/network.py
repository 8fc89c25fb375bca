"""A path in virtual time: a clock, and the two ways of a path with all that they do to a datagram.

May know: bytes and nanoseconds. Must not: know TFTP, read a clock, open a socket.
Invariants: all randomness comes from the generator that is passed in, and a datagram's fate depends on its number on
this way alone, never on when it is sent or what it holds. So two senders with one seed meet the same weather, and an
oracle can ask for a fate before it sends.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MS: Final = 1_000_000
S: Final = 1_000_000_000
FRAME_BYTES: Final = 46
"""What a datagram takes on the wire beside its payload: UDP 8, IPv4 20, Ethernet 14 and 4."""


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a path.

    Attributes:
        delay_ns: Of every datagram.
        jitter_ns: Evenly spread between 0 and this, on top.
        keeps_order: Jitter delays what is behind, as a queue does; False: it is overtaken (ECMP, link aggregation).
        loss: Probability, each datagram for itself.
        burst: Probabilities that a spell begins in which everything is lost, and that it ends (Gilbert's model).
        doubled: Probability that a datagram arrives twice.
        rate_bps: Of the slowest link; 0: boundless.
        queue_bytes: Before that link, tail drop; 0: boundless.
        lost_numbers: Datagrams that are lost in any case, the first is 1.
        grows: (from when, by how much) the delay grows: another route, or a queue that others fill.
    """

    delay_ns: int = 0
    jitter_ns: int = 0
    keeps_order: bool = True
    loss: float = 0.0
    burst: tuple[float, float] | None = None
    doubled: float = 0.0
    rate_bps: int = 0
    queue_bytes: int = 0
    lost_numbers: tuple[int, ...] = ()
    grows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What will happen to a datagram, before it is sent; a full queue comes on top."""

    is_lost: bool
    is_doubled: bool
    jitter_ns: int


class Clock:
    """Virtual time, and what is to be done when."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (max(when_ns, self.now_ns), next(self._order), action))

    def run(self, until_ns: int, is_over: Callable[[], bool]) -> None:
        """Does what is due until it is over, or `until_ns`, or nothing can happen any more."""
        while self._due and not is_over():
            if self._due[0][0] > until_ns:
                self.now_ns = until_ns
                return
            self.now_ns, _, action = heapq.heappop(self._due)
            action()


@dataclass(slots=True)
class Link:
    """A `Way` at work: carries datagrams to `deliver`, and tells of each that it loses."""

    clock: Clock
    way: Way
    rng: random.Random
    deliver: Callable[[bytes], None]
    on_lost: Callable[[bytes, int], None] = field(default=lambda _datagram, _would_arrive_ns: None)
    lost_total: int = 0
    _number: int = 0
    _next: Fate | None = None
    _is_bad: bool = False
    _free_ns: int = 0
    _latest_ns: int = 0

    def send(self, datagram: bytes) -> None:
        fate = self.peek()
        self._next = None
        for _ in range(1 + fate.is_doubled):
            arrives_ns = self.arrival_ns(len(datagram), fate)
            if fate.is_lost or self.room_at_ns() > self.clock.now_ns:
                self.lost_total += 1
                self.on_lost(datagram, arrives_ns)
                continue
            self._free_ns = self._leaves_ns(len(datagram))
            self._latest_ns = max(self._latest_ns, arrives_ns)
            self.clock.at(arrives_ns, lambda: self.deliver(datagram))

    def peek(self) -> Fate:
        """The fate of the next datagram. Always as many draws: one way's loss does not shift the other's jitter."""
        if self._next is None:
            self._number += 1
            by_itself, spell, twice, late = (self.rng.random() for _ in range(4))
            begins, ends = self.way.burst or (0.0, 1.0)
            self._is_bad = spell >= ends if self._is_bad else spell < begins
            is_lost = by_itself < self.way.loss or self._is_bad or self._number in self.way.lost_numbers
            self._next = Fate(is_lost, twice < self.way.doubled, int(late * self.way.jitter_ns))
        return self._next

    def arrival_ns(self, size_bytes: int, fate: Fate) -> int:
        """When it arrives, or would have arrived, if it is sent now."""
        arrives_ns = self._unhindered_ns(size_bytes, fate)
        return max(arrives_ns, self._latest_ns) if self.way.keeps_order else arrives_ns

    def departure_ns(self, size_bytes: int, fate: Fate, not_before_ns: int) -> int:
        """When it must be sent to arrive then, or as soon after as it can."""
        if self.arrival_ns(size_bytes, fate) >= not_before_ns:
            return self.clock.now_ns
        # What waits for the slowest link anyway arrives no later for being sent later.
        return max(self.clock.now_ns, self._free_ns) + not_before_ns - self._unhindered_ns(size_bytes, fate)

    def _unhindered_ns(self, size_bytes: int, fate: Fate) -> int:
        """Its arrival, whatever is before it."""
        grows = self.way.grows
        more_ns = grows[1] if grows and self.clock.now_ns >= grows[0] else 0
        return self._leaves_ns(size_bytes) + self.way.delay_ns + more_ns + fate.jitter_ns

    def room_at_ns(self) -> int:
        """From when on the queue has room for one more."""
        if not (self.way.rate_bps and self.way.queue_bytes):
            return self.clock.now_ns
        return max(self.clock.now_ns, self._free_ns - self.way.queue_bytes * 8 * S // self.way.rate_bps)

    def _leaves_ns(self, size_bytes: int) -> int:
        """When its last bit is on the slowest link."""
        if not self.way.rate_bps:
            return self.clock.now_ns
        return max(self._free_ns, self.clock.now_ns) + (size_bytes + FRAME_BYTES) * 8 * S // self.way.rate_bps
