"""What the kernel knows of the way to a peer: how large a datagram may be that is not cut into fragments.

May know: sockets. Must not know TFTP, settings or the engine. It sends nothing and waits for nothing: connect(2) of a
UDP socket only looks up the route.
"""

import socket
from typing import Final

__all__ = ["route_mtu", "route_mtu_bytes"]

USUAL_MTU_BYTES: Final = 1500
_LARGEST_MTU_BYTES: Final = 9000
"""Of any wire; loopback's 65,536 fragments nothing either, but its sockets hold no more of such datagrams."""
# include/uapi/linux/in.h, in6.h; the socket module has no names for them.
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
_MAPPED: Final = "::ffff:"
_ANY_PORT: Final = 9


def route_mtu_bytes(host: str) -> int:
    """Return the MTU of the route to a client, with what path MTU discovery has learned; 9000 at most.

    Args:
        host: Its address, as the engine spells it; 1500 is the answer where nothing leads to it.
    """
    host = host.removeprefix(_MAPPED)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return min(route_mtu(family, (host, _ANY_PORT)), _LARGEST_MTU_BYTES)
    except OSError:
        return USUAL_MTU_BYTES


def route_mtu(family: int, sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> int:
    """Return the MTU of the route to an address, in bytes, with what path MTU discovery has learned (ip(7), IP_MTU).

    Args:
        family: AF_INET or AF_INET6.
        sockaddr: As the socket module writes it, with any port.

    Raises:
        OSError: There is no route, or no descriptor is left.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(sockaddr)
        if family == socket.AF_INET6:
            return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
