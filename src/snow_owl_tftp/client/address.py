"""Where the server is, how much a datagram to it may carry, and the socket for one transfer.

May know: sockets and the routing table. Must not know: packets or transfers.
Invariants: a socket returned is non-blocking and its caller's to close; nothing is remembered between calls.
"""

import errno
import random
import re
import resource
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.linux.routes import route_mtu
from snow_owl_tftp.linux.sockopts import enlarge, join_datagrams
from snow_owl_tftp.protocol.constants import DEFAULT_BLKSIZE_BYTES, HEADER_BYTES, MAX_BLKSIZE_BYTES

__all__ = [
    "ServerAddress",
    "free_descriptors",
    "is_literal",
    "is_no_descriptor",
    "open_socket",
    "resolve",
    "route_blksize",
]

_LINK_LOCAL = re.compile(r"fe[89ab][0-9a-f]:", re.IGNORECASE)
"""fe80::/10 (RFC 4291 section 2.4)."""
_V4_HEADERS_BYTES = 28
_V6_HEADERS_BYTES = 48
_RECEIVE_BUFFER_BYTES = 4 << 20
"""A window of 64 blocks of 64 KiB is 4 MiB; the kernel takes memory for what is queued, not for what may be."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One address of a server.

    Attributes:
        family: AF_INET or AF_INET6.
        sockaddr: As the socket module writes it.
    """

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    @property
    def packed(self) -> bytes:
        """The sockaddr_in or sockaddr_in6 as the kernel lays it out."""
        host, port = self.sockaddr[:2]
        head = struct.pack("=H", self.family) + struct.pack("!H", port)
        if self.family == socket.AF_INET:
            return head + socket.inet_pton(socket.AF_INET, host) + bytes(8)
        scope_id = self.sockaddr[3] if len(self.sockaddr) == 4 else 0
        address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return head + bytes(4) + address + struct.pack("=I", scope_id)

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_literal(host: str) -> bool:
    """Whether `host` is an address, so that resolving it asks nobody and cannot block."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def resolve(host: str, port: int, bind: str | None = None) -> list[ServerAddress]:
    """The addresses of a server, in the order of RFC 6724.

    Args:
        host: A name or an address; a link-local one with its interface, as `fe80::1%eth0`.
        port: UDP port, 1..65535.
        bind: Only addresses of this local address' family can be reached from it.

    Raises:
        OSError: The name is not known (socket.gaierror), none of its addresses can be reached from `bind`, or it is a
            link-local address without its interface.
    """
    if _LINK_LOCAL.match(host) and "%" not in host:
        raise OSError(errno.EINVAL, f"a link-local address needs its interface: {host}%eth0")
    family = socket.AF_UNSPEC
    if bind is not None:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    return [ServerAddress(info[0], info[4]) for info in found]  # type: ignore[arg-type]


def route_blksize(address: ServerAddress) -> int:
    """The largest blksize, in bytes, that travels to `address` without fragments, as far as this host knows.

    The MTU of the route, less the headers of IP, UDP and TFTP: 1468 on Ethernet, 1448 with IPv6.

    Raises:
        OSError: There is no route.
    """
    headers_bytes = _V6_HEADERS_BYTES if address.family == socket.AF_INET6 else _V4_HEADERS_BYTES
    room_bytes = route_mtu(address.family, address.sockaddr) - headers_bytes - HEADER_BYTES
    return max(DEFAULT_BLKSIZE_BYTES, min(room_bytes, MAX_BLKSIZE_BYTES))


def open_socket(address: ServerAddress, settings: ClientSettings, *, receives: bool) -> tuple[int, bool]:
    """A non-blocking UDP socket for one transfer with `address`.

    Args:
        address: The server.
        settings: `bind` and `port_range` are read.
        receives: It is for a download: a large buffer, and UDP_GRO.

    Returns:
        The descriptor, and whether UDP_GRO is on.

    Raises:
        OSError: No descriptor is left, `bind` is not an address of ours, or the port range is used up (EADDRINUSE).
    """
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(address.family, kind)
    try:
        _bind(sock, address.family, settings)
        if receives:
            enlarge(sock, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        gro = receives and join_datagrams(sock)
    except BaseException:
        sock.close()
        raise
    return sock.detach(), gro


def _bind(sock: socket.socket, family: int, settings: ClientSettings) -> None:
    """Without `bind` and `port_range` the kernel chooses a random port at the first send (RFC 1350 section 4)."""
    if settings.bind is None and settings.port_range is None:
        return
    host = settings.bind or ("::" if family == socket.AF_INET6 else "0.0.0.0")
    sockaddr = socket.getaddrinfo(host, 0, family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0][4]
    low, high = settings.port_range or (0, 0)
    first = random.randrange(high - low + 1)
    for i in range(high - low + 1):
        port = low + (first + i) % (high - low + 1)
        try:
            sock.bind((sockaddr[0], port, *sockaddr[2:]))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return
    raise OSError(errno.EADDRINUSE, f"every UDP port of {low}-{high} is in use")


def is_no_descriptor(error: OSError) -> bool:
    """Whether the limit of open files was met; somebody may close one."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def free_descriptors() -> int:
    """How many files this process may still open, by its limit; at least 8."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, soft - sum(1 for _ in Path("/proc/self/fd").iterdir()))
