"""A bad network between load and server: seeded loss and a constant delay, in a process of its own.

    python -m snow_owl_tftp.bench.relay '{"host": …, "port": …, "rtt_ms": 20, "loss_percent": 1, …}'
        ── {"port": 40000} ──►        where the load sends its requests
        ◄── end of input ──
        ── {"forwarded": …} ──►       what happened

    load 127.64.x.y ◄──► 127.0.0.1:port (relay) 127.128.x.y ◄──► server

May know: UDP and the first two bytes of a packet. Must not know transfers.
Invariants: what is lost follows from the seed and the order of arrival; the order never changes; a client
behind the relay has an address of its own before the server, so the server sees as many clients as there are.

Limit: Python forwards about 60,000 datagrams a second here. `busy_share` tells how near a run came; above 0.9 the
relay, not the server, was measured, and the report says so.
"""

import json
import os
import random
import select
import socket
import sys
import time
from collections import deque
from typing import Any, Final

from snow_owl_tftp.linux.sockopts import IP_PKTINFO, enlarge, tell_local_address

__all__ = ["main"]

_BUFFER_BYTES: Final = 16 << 20
_BATCH: Final = 256
_REQUEST_OPCODES: Final = (1, 2)
_DATA: Final = b"\3"
_SHIFT: Final = 64
"""127.64.x.y … 127.127.x.y become 127.128.x.y … 127.191.x.y."""


class _Relay:
    """Two sockets and two queues of datagrams on their way."""

    def __init__(self, server: tuple[str, int], rtt_ms: float, loss_percent: float, seed: int) -> None:
        self._server = server
        self._delay_s = rtt_ms / 2000
        self._loss = loss_percent / 100
        self._rngs = (random.Random(f"{seed}:up"), random.Random(f"{seed}:down"))
        self._down = _socket("127.0.0.1")
        self._up = _socket("0.0.0.0")
        tell_local_address(self._up)
        self._tids: dict[bytes, tuple[str, int]] = {}
        self._ports: dict[bytes, int] = {}
        self._on_way: deque[tuple[float, bool, bytes, bytes]] = deque()
        self._newest: dict[bytes, int] = {}
        self.forwarded = self.lost = self.overflowed = self.repeated = 0
        self.busy_s = 0.0

    @property
    def port(self) -> int:
        return int(self._down.getsockname()[1])

    def run(self, control_fd: int) -> None:
        """Until `control_fd` becomes readable."""
        down_fd, up_fd = self._down.fileno(), self._up.fileno()
        while True:
            wait_s = max(0.0, self._on_way[0][0] - time.monotonic()) if self._on_way else None
            readable, _, _ = select.select([down_fd, up_fd, control_fd], [], [], wait_s)
            began_s = time.monotonic()
            if control_fd in readable:
                return
            if down_fd in readable:
                self._read_clients()
            if up_fd in readable:
                self._read_server()
            self._forward_due()
            self.busy_s += time.monotonic() - began_s

    def _read_clients(self) -> None:
        for _ in range(_BATCH):
            try:
                datagram, (host, port) = self._down.recvfrom(65536)
            except BlockingIOError:
                return
            client = socket.inet_aton(host)
            self._ports[client] = port
            self._accept(True, client, datagram)

    def _read_server(self) -> None:
        for _ in range(_BATCH):
            try:
                datagram, control, _, peer = self._up.recvmsg(65536, 64)
            except BlockingIOError:
                return
            mask = control[0][2][8:12]  # ipi_addr: the address that the server answered
            client = mask[:1] + bytes([mask[1] - _SHIFT]) + mask[2:]
            self._tids[client] = peer
            self._count_repeated(client, datagram)
            self._accept(False, client, datagram)

    def _count_repeated(self, client: bytes, datagram: bytes) -> None:
        """DATA that the server sends again: not beyond the newest block of its transfer (modulo 2^16)."""
        if datagram[1:2] != _DATA:
            return
        block, newest = int.from_bytes(datagram[2:4], "big"), self._newest.get(client, 0)
        if 0 < (block - newest) & 0xFFFF < 0x8000:
            self._newest[client] = block
        else:
            self.repeated += 1

    def _accept(self, is_up: bool, client: bytes, datagram: bytes) -> None:
        if self._rngs[is_up].random() < self._loss:
            self.lost += 1
            return
        self._on_way.append((time.monotonic() + self._delay_s, is_up, client, datagram))

    def _forward_due(self) -> None:
        now_s = time.monotonic()
        while self._on_way and self._on_way[0][0] <= now_s:
            _, is_up, client, datagram = self._on_way.popleft()
            try:
                if is_up:
                    self._send_up(client, datagram)
                else:
                    self._down.sendto(datagram, (socket.inet_ntoa(client), self._ports[client]))
                self.forwarded += 1
            except BlockingIOError:
                self.overflowed += 1

    def _send_up(self, client: bytes, datagram: bytes) -> None:
        is_request = len(datagram) > 1 and datagram[1] in _REQUEST_OPCODES
        to = self._server if is_request else self._tids.get(client, self._server)
        mask = client[:1] + bytes([client[1] + _SHIFT]) + client[2:]
        info = bytes(4) + mask + bytes(4)  # in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr
        self._up.sendmsg([datagram], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, to)


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        enlarge(sock, option, _BUFFER_BYTES)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def main(arguments: list[str]) -> None:
    """The process; its argument is one JSON object."""
    asked: dict[str, Any] = json.loads(arguments[0])
    if asked["core"] is not None:
        os.sched_setaffinity(0, {asked["core"]})
    relay = _Relay((asked["host"], asked["port"]), asked["rtt_ms"], asked["loss_percent"], asked["seed"])
    print(json.dumps({"port": relay.port}), flush=True)
    began_s = time.monotonic()
    relay.run(sys.stdin.fileno())
    said = {
        "forwarded": relay.forwarded,
        "lost": relay.lost,
        "repeated_by_server": relay.repeated,
        "overflowed": relay.overflowed,
        "busy_share": relay.busy_s / max(1e-9, time.monotonic() - began_s),
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
