"""A terrible network with a virtual clock, for two sans-I/O ends: loses, duplicates, delays and reorders.

May know: what an end looks like (start, receive, tick, deadline_ns, done). Must not: read a clock or open a socket.
Invariants: everything follows from the generator that is passed in; a datagram is changed never, and time only grows.
"""

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


class End(Protocol):
    """One side of a transfer."""

    done: bool
    deadline_ns: int | None

    def start(self, now_ns: int) -> list[bytes]: ...
    def receive(self, datagram: bytes, now_ns: int) -> list[bytes]: ...
    def tick(self, now_ns: int) -> list[bytes]: ...


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to each datagram: probabilities, and delays in nanoseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    delay_ns: int = 1_000_000
    jitter_ns: int = 0
    late_ns: int = 5_000_000


@dataclass(slots=True)
class Network:
    """Carries datagrams between `ends`, until both are done or `limit_ns` of virtual time have passed."""

    weather: Weather
    rng: random.Random
    now_ns: int = 1_000_000_000
    sent: list[int] = field(default_factory=lambda: [0, 0])
    lost: list[int] = field(default_factory=lambda: [0, 0])
    duplicated: list[int] = field(default_factory=lambda: [0, 0])
    late: list[int] = field(default_factory=lambda: [0, 0])
    _latest_ns: list[int] = field(default_factory=lambda: [0, 0])
    _wire: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def run(self, ends: tuple[End, End], limit_ns: int) -> int:
        """Returns the virtual time that the transfer took; ends[0] starts."""
        began_ns = self.now_ns
        self.post(0, ends[0].start(self.now_ns))
        self.post(1, ends[1].start(self.now_ns))
        while not (ends[0].done and ends[1].done) and self.now_ns - began_ns < limit_ns:
            if not self.step(ends):
                break
        return self.now_ns - began_ns

    def step(self, ends: tuple[End, End]) -> bool:
        """One arrival or one timer, whichever is first; False when nothing can happen any more."""
        timers = [(end.deadline_ns, i) for i, end in enumerate(ends) if end.deadline_ns is not None and not end.done]
        timer = min(timers, default=None)
        if self._wire and (timer is None or self._wire[0][0] <= timer[0]):
            self.now_ns, _, to, datagram = heapq.heappop(self._wire)
            self.post(to, ends[to].receive(datagram, self.now_ns))
        elif timer is not None:
            self.now_ns = max(self.now_ns, timer[0])
            self.post(timer[1], ends[timer[1]].tick(self.now_ns))
        else:
            return False
        return True

    def post(self, sender: int, datagrams: list[bytes]) -> None:
        """Puts datagrams of ends[sender] on the wire, or loses them."""
        for datagram in datagrams:
            self.sent[sender] += 1
            if self.rng.random() < self.weather.loss:
                self.lost[sender] += 1
                continue
            self._carry(sender, datagram)
            if self.rng.random() < self.weather.duplicate:
                self.duplicated[sender] += 1
                self._carry(sender, datagram)

    def _carry(self, sender: int, datagram: bytes) -> None:
        # Jitter keeps the order, as the queues of a path do; only what is late is overtaken.
        arrives_ns = self.now_ns + self.weather.delay_ns + self.rng.randint(0, self.weather.jitter_ns)
        arrives_ns = self._latest_ns[sender] = max(arrives_ns, self._latest_ns[sender])
        if self.rng.random() < self.weather.late:
            arrives_ns += self.weather.late_ns
            self.late[sender] += 1
        heapq.heappush(self._wire, (arrives_ns, next(self._order), 1 - sender, datagram))
