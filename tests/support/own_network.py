"""A loopback for each of the processes that play tests at the same time (`pytest -n 4`).

May know: unshare(2), and that pytest-xdist tells a worker what it is. Must not: be needed; who may not make a network
namespace plays in the machine's network.
Why: a port that one test has given back may be the next one's of another process, which then hears late datagrams that
were never meant for it; and a sniffer, or a server on port 69, would meet those of others.
"""

import ctypes
import fcntl
import socket
import struct

import pytest

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h
SIOCSIFADDR, SIOCSIFNETMASK = 0x8916, 0x891C
# RFC 2544 keeps it out of every network. With 127.0.0.1 alone AI_ADDRCONFIG, and so tftpd-hpa, sees no IPv4.
ADDRESS = "198.18.77.1"


def enter_own_network() -> bool:
    """This thread, and what it starts from now on; returns whether that was allowed."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16s24x", b"lo")), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))
        for call, address in ((SIOCSIFADDR, ADDRESS), (SIOCSIFNETMASK, "255.255.255.255")):
            sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, call, struct.pack("16s16s8x", b"lo:1", sockaddr))
    return True


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        enter_own_network()
