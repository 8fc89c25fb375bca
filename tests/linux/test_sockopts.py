"""Options of sockets: what the kernel then does, with the privilege and without."""

import errno
import os
import socket

import pytest

from snow_owl_tftp.linux.routes import route_mtu
from snow_owl_tftp.linux.sockopts import (
    IP_PKTINFO,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    enlarge,
    join_datagrams,
    tell_local_address,
)


@pytest.fixture
def sock():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


class Unprivileged:
    """A socket of somebody without CAP_NET_ADMIN."""

    def __init__(self, sock):
        self.sock = sock

    def setsockopt(self, level, option, value):
        if option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        self.sock.setsockopt(level, option, value)


@pytest.mark.parametrize("option", [socket.SO_RCVBUF, socket.SO_SNDBUF])
@pytest.mark.parametrize("wrap", [lambda sock: sock, Unprivileged], ids=["as we are", "unprivileged"])
def test_buffer_is_as_large_as_asked(sock, option, wrap):
    enlarge(wrap(sock), option, 8192)
    assert sock.getsockopt(socket.SOL_SOCKET, option) == 2 * 8192  # the kernel reserves the double (socket(7))


def test_other_failures_are_raised(sock):
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        enlarge(sock, socket.SO_RCVBUF, 8192)


def test_datagram_comes_with_the_address_it_was_sent_to(sock):
    tell_local_address(sock)
    sock.sendto(b"x", sock.getsockname())
    _, [(level, kind, info)], _, _ = sock.recvmsg(10, 64)
    assert (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO)
    assert info[8:12] == socket.inet_aton("127.0.0.1")


def test_train_is_joined(sock):
    if not join_datagrams(sock):
        pytest.skip("this kernel knows no UDP_GRO (Linux 5.0)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, 103, 100)  # UDP_SEGMENT: datagrams of 100 bytes
        sender.sendto(bytes(300), sock.getsockname())
    assert len(sock.recv(1000)) == 300


def test_socket_that_cannot_join_says_so():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        assert not join_datagrams(ours)


def test_route_to_ourselves_carries_large_datagrams():
    assert route_mtu(socket.AF_INET, ("127.0.0.1", 9)) >= 1500
