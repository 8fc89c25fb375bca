"""The kernel's neighbour table by netlink (rtnetlink(7)): which MAC has which address on our own links.

    NeighbourSocket ─ask()─► kernel ─all of them, and from then on each change─► read() ─► [Neighbour | ALL_TOLD]

May know: netlink's bytes. Must not know what the addresses are wanted for. Nothing here waits: the socket is
non-blocking, and an answer is read when it is there.

Kernel facts: a dump comes in several datagrams and ends with NLMSG_DONE. Changes (RTMGRP_NEIGH) come on the same
socket, asked for or not, with those of bridges (family 7) among them. A full socket loses changes, and then one read
fails with ENOBUFS: whoever reads must ask anew. A dump during which the table changed has NLM_F_DUMP_INTR.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

__all__ = ["ALL_TOLD", "AllTold", "Neighbour", "NeighbourSocket", "neighbours_in"]

# include/uapi/linux/netlink.h, rtnetlink.h, neighbour.h
_RTMGRP_NEIGH: Final = 4
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLM_F_DUMP_INTR: Final = 0x10
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_RTM_NEWNEIGH: Final = 28
_RTM_DELNEIGH: Final = 29
_RTM_GETNEIGH: Final = 30
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_KNOWN: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
"""NUD_REACHABLE, STALE, DELAY, PROBE and PERMANENT: in these states the kernel has an address to send to."""
_HEADER: Final = struct.Struct("=IHHII")
"""nlmsghdr: length with this header, type, flags, sequence number, port."""
_NDMSG: Final = struct.Struct("=BxxxiHBB")
"""ndmsg: family, interface, state, flags, type."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""rtattr: length with this header, type."""
_MAC_BYTES: Final = 6
_DATAGRAM_BYTES: Final = 65_536
"""The kernel makes none larger than 32 KiB."""
_BUFFER_BYTES: Final = 1 << 20
"""Asked of the kernel: some 2,000 changes between two reads."""


class Neighbour(NamedTuple):
    """One address of the table.

    Attributes:
        address: As inet_ntop writes it; link-local ones with their interface's number, as "fe80::1%2".
        mac: Lower case with colons; None: the kernel does not know it, or no more.
    """

    address: str
    mac: str | None


class AllTold(NamedTuple):
    """All that a dump had has come.

    Attributes:
        is_consistent: Nothing changed meanwhile.
    """

    is_consistent: bool = True


ALL_TOLD: Final = AllTold()


class NeighbourSocket:
    """A socket that hears of the table of the network namespace in which it was made."""

    def __init__(self) -> None:
        """Open it; nothing is asked for yet.

        Raises:
            OSError: No descriptor is left, or netlink is forbidden here.
        """
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            with suppress(OSError):  # net.core.rmem_max is the bound without CAP_NET_ADMIN
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, _RTMGRP_NEIGH))
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear nothing any more."""
        self._socket.close()

    def ask(self) -> bool:
        """Ask for the whole table; returns whether the kernel took that (it does not while it answers the last one)."""
        request = _NDMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        header = _HEADER.pack(_HEADER.size + len(request), _RTM_GETNEIGH, _NLM_F_REQUEST_DUMP, 1, 0)
        try:
            self._socket.sendto(header + request, (0, 0))
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EAGAIN, errno.ENOBUFS):
                return False
            raise
        return True

    def has_news(self) -> bool:
        """Whether there is anything to read, for a tenth of what it costs to find nothing; for one thread at a time."""
        return bool(self._poll.poll(0))

    def read(self) -> list[Neighbour | AllTold] | None:
        """Return what one datagram says; None: none is there.

        Raises:
            OSError: ENOBUFS: changes were lost; ask for all.
        """
        try:
            datagram, (sender, _) = self._socket.recvfrom(_DATAGRAM_BYTES)
        except BlockingIOError:
            return None
        return list(neighbours_in(datagram)) if sender == 0 else []  # another process may write to us too


def neighbours_in(datagram: bytes) -> Iterator[Neighbour | AllTold]:
    """Yield what the messages of one datagram say; what is no such message is passed over.

    Raises:
        OSError: The kernel refused what was asked.
    """
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, flags, _, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size or at + length > len(datagram):
            return
        body = datagram[at + _HEADER.size : at + length]
        if kind in (_RTM_NEWNEIGH, _RTM_DELNEIGH):
            neighbour = _neighbour_of(body, is_gone=kind == _RTM_DELNEIGH)
            if neighbour is not None:
                yield neighbour
        elif kind == _NLMSG_DONE:
            yield AllTold(not flags & _NLM_F_DUMP_INTR)
        elif kind == _NLMSG_ERROR and len(body) >= 4:
            (code,) = struct.unpack_from("=i", body)
            if code:
                raise OSError(-code, os.strerror(-code))
        at += (length + 3) & ~3


def _neighbour_of(body: bytes, *, is_gone: bool) -> Neighbour | None:
    if len(body) < _NDMSG.size:
        return None
    family, interface, state, _, _ = _NDMSG.unpack_from(body)
    size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family)
    attributes = dict(_attributes(body[_NDMSG.size :]))
    raw, mac = attributes.get(_NDA_DST, b""), attributes.get(_NDA_LLADDR, b"")
    if size is None or len(raw) != size:
        return None
    address = socket.inet_ntop(family, raw)
    if size == 16 and raw[0] == 0xFE and raw[1] & 0xC0 == 0x80:
        address = f"{address}%{interface}"
    is_known = not is_gone and state & _KNOWN and len(mac) == _MAC_BYTES
    return Neighbour(address, mac.hex(":") if is_known else None)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
