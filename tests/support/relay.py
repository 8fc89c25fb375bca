"""A terrible network between a client and a server on loopback: loses, duplicates, delays, reorders, adds strangers.

    client ⇄ front, then one socket per server TID ⇄ relay ⇄ one socket per client ⇄ server

May know: UDP. Must not: change a datagram, or tell the ends apart: what it does to one direction it does to the other.
Invariants: what happens to the n-th datagram follows from the seed; the client sees one TID for each TID of the server,
and the server sees one TID for each of the client, so TIDs keep their meaning of RFC 1350 section 4.
"""

import heapq
import itertools
import random
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Self

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Weather:
    """Probabilities for each datagram, and how late a late one is."""

    loss: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    late_s: float = 0.003
    stray: float = 0.0


class Relay:
    """Runs in a thread while the context is open; ask `address` instead of the server.

    `counts` says what was done: carried, lost, duplicated, late, stray; `stray_answers` holds what strangers were told.
    """

    def __init__(self, server: Address, weather: Weather, seed: object) -> None:
        self.server = server
        self.weather = weather
        self.rng = random.Random(str(seed))
        self.counts = dict.fromkeys(("carried", "lost", "duplicated", "late", "stray"), 0)
        self.stray_answers: list[bytes] = []
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._upstream: dict[Address, socket.socket] = {}
        self._client_of: dict[int, Address] = {}
        self._downstream: dict[tuple[Address, Address], socket.socket] = {}
        self._tid_of: dict[int, tuple[socket.socket, Address]] = {}
        self._late: list[tuple[float, int, socket.socket, bytes, Address]] = []
        self._order = itertools.count()
        self._front = self._socket()
        self._stranger = self._socket()
        self._stop_read, self._stop_write = socket.socketpair()
        self._poll.register(self._stop_read.fileno(), select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="relay")
        self.address: Address = self._front.getsockname()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_write.send(b"x")
        self._thread.join()
        for one in [*self._sockets.values(), self._stop_read, self._stop_write]:
            one.close()
        self._poll.close()

    def _socket(self) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        one.bind(("127.0.0.1", 0))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._sockets[one.fileno()] = one
        self._poll.register(one.fileno(), select.EPOLLIN)
        return one

    def _run(self) -> None:
        while True:
            timeout_s = max(0.0, self._late[0][0] - time.monotonic()) if self._late else -1
            for fd, _ in self._poll.poll(timeout_s):
                if fd == self._stop_read.fileno():
                    return
                self._drain(self._sockets[fd])
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, via, datagram, to = heapq.heappop(self._late)
                via.sendto(datagram, to)

    def _drain(self, one: socket.socket) -> None:
        for _ in range(64):
            try:
                datagram, sender = one.recvfrom(65536)
            except BlockingIOError:
                return
            if one is self._stranger:
                self.stray_answers.append(datagram)
            elif one is self._front:
                self._carry(self._upstream_of(sender), datagram, self.server)
            elif one.fileno() in self._client_of:
                client = self._client_of[one.fileno()]
                self._carry(self._downstream_of(client, sender, one), datagram, client)
            else:
                via, tid = self._tid_of[one.fileno()]
                self._carry(via, datagram, tid)

    def _upstream_of(self, client: Address) -> socket.socket:
        if client not in self._upstream:
            self._upstream[client] = self._socket()
            self._client_of[self._upstream[client].fileno()] = client
        return self._upstream[client]

    def _downstream_of(self, client: Address, tid: Address, upstream: socket.socket) -> socket.socket:
        if (client, tid) not in self._downstream:
            self._downstream[client, tid] = self._socket()
            self._tid_of[self._downstream[client, tid].fileno()] = (upstream, tid)
        return self._downstream[client, tid]

    def _carry(self, via: socket.socket, datagram: bytes, to: Address) -> None:
        chance, weather = self.rng.random(), self.weather
        self.counts["carried"] += 1
        if chance < weather.loss:
            self.counts["lost"] += 1
            return
        chance -= weather.loss
        if chance < weather.late:
            self.counts["late"] += 1
            entry = (time.monotonic() + weather.late_s * self.rng.random(), next(self._order), via, datagram, to)
            heapq.heappush(self._late, entry)
            return
        via.sendto(datagram, to)
        chance -= weather.late
        if chance < weather.duplicate:
            self.counts["duplicated"] += 1
            via.sendto(datagram, to)
        elif chance - weather.duplicate < weather.stray and to != self.server:
            self.counts["stray"] += 1
            self._stranger.sendto(datagram, to)
