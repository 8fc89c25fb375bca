"""Options of UDP sockets that the socket module of Python 3.11 does not name, and what each is for.

May know: sockets. Must not know what travels through them.
"""

import socket
from typing import Final

__all__ = ["IP_PKTINFO", "SO_RCVBUFFORCE", "SO_SNDBUFFORCE", "enlarge", "join_datagrams", "tell_local_address"]

# include/uapi/asm-generic/socket.h
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
# include/uapi/linux/in.h
IP_PKTINFO: Final = 8
# include/uapi/linux/udp.h
_UDP_GRO: Final = 104

_FORCED: Final = {socket.SO_RCVBUF: SO_RCVBUFFORCE, socket.SO_SNDBUF: SO_SNDBUFFORCE}


def enlarge(sock: socket.socket, option: int, size_bytes: int) -> None:
    """Ask for a buffer of `size_bytes`; the kernel may grant less, and tells nobody.

    The forced option needs CAP_NET_ADMIN and passes the sysctl's maximum (net.core.rmem_max, wmem_max); without it the
    plain one stops there.

    Args:
        sock: Any.
        option: SO_RCVBUF or SO_SNDBUF.
        size_bytes: Up to 2^30 - 1: the kernel doubles it and keeps it in an int (net/core/sock.c).

    Raises:
        OSError: It is no socket that has buffers.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _FORCED[option], size_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, size_bytes)


def join_datagrams(sock: socket.socket) -> bool:
    """UDP_GRO: one receive brings a whole train of datagrams. False before Linux 5.0, where they come one by one."""
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def tell_local_address(sock: socket.socket) -> None:
    """Have every datagram come with the address that it was sent to (IP_PKTINFO)."""
    if sock.family == socket.AF_INET6:
        # A dual-stack socket reports IPv4 through this option too, as a mapped address.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
