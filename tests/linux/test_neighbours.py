"""The neighbour table by netlink: recorded messages, broken ones, and a kernel in a network of its own."""

import errno
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from tests.support.namespaces import Host, one_link

from snow_owl_tftp.linux.neighbours import ALL_TOLD, AllTold, Neighbour, NeighbourSocket, neighbours_in

MAC = "52:54:00:12:34:56"
NEW, DEL, DONE, ERROR = 28, 29, 3, 2
REACHABLE, STALE, INCOMPLETE, FAILED, NOARP, PERMANENT = 0x02, 0x04, 0x01, 0x20, 0x40, 0x80
# `ip neigh add 10.9.0.7 lladdr 52:54:00:12:34:56 dev d0 nud stale`, as Linux 6.18 told of it.
RECORDED = bytes.fromhex(
    "4c0000001c00000000000000246e0000020000000300000004000001080001000a0900070a00020052540012345600000800040000000000"
    "1400030070170000000000000000000001000000"
)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body + bytes(-len(body) % 4)


def neighbour(address: str, mac: str | None, state: int = REACHABLE, kind: int = NEW, interface: int = 2) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    body = struct.pack("=BxxxiHBB", family, interface, state, 0, 1) + attribute(1, socket.inet_pton(family, address))
    if mac is not None:
        body += attribute(2, bytes.fromhex(mac.replace(":", "")))
    return message(kind, body)


def said(datagram: bytes) -> list[Neighbour | AllTold]:
    return list(neighbours_in(datagram))


def test_recorded_message_is_read() -> None:
    assert len(RECORDED) == 0x4C
    assert said(RECORDED) == [Neighbour("10.9.0.7", MAC)]


def test_both_families_are_read_and_link_local_ones_have_their_interface() -> None:
    datagram = neighbour("192.0.2.7", MAC) + neighbour("2001:db8::7", MAC) + neighbour("fe80::7", MAC, interface=3)
    assert said(datagram) == [Neighbour("192.0.2.7", MAC), Neighbour("2001:db8::7", MAC), Neighbour("fe80::7%3", MAC)]


@pytest.mark.parametrize("state", [REACHABLE, STALE, 0x08, 0x10, PERMANENT])
def test_state_in_which_the_kernel_sends_to_a_mac_makes_it_known(state: int) -> None:
    assert said(neighbour("192.0.2.7", MAC, state)) == [Neighbour("192.0.2.7", MAC)]


@pytest.mark.parametrize("state", [0, INCOMPLETE, FAILED, NOARP])
def test_state_without_a_mac_makes_it_unknown(state: int) -> None:
    assert said(neighbour("192.0.2.7", MAC, state)) == [Neighbour("192.0.2.7", None)]


def test_neighbour_that_is_gone_has_no_mac() -> None:
    assert said(neighbour("192.0.2.7", MAC, kind=DEL)) == [Neighbour("192.0.2.7", None)]
    assert said(neighbour("192.0.2.7", None)) == [Neighbour("192.0.2.7", None)]
    infiniband = ":".join(["52"] * 20)
    assert said(neighbour("192.0.2.7", infiniband)) == [Neighbour("192.0.2.7", None)]


def test_what_bridges_and_others_say_is_passed_over() -> None:
    of_a_bridge = message(NEW, struct.pack("=BxxxiHBB", 7, 2, REACHABLE, 0, 0) + attribute(2, bytes(6)))
    assert said(of_a_bridge + message(16, b"link") + neighbour("192.0.2.7", MAC)) == [Neighbour("192.0.2.7", MAC)]


def test_end_of_a_dump_says_whether_it_was_disturbed() -> None:
    assert said(message(DONE, bytes(4))) == [ALL_TOLD]
    assert said(message(DONE, bytes(4), flags=0x10)) == [AllTold(is_consistent=False)]


def test_refusal_of_the_kernel_is_an_error() -> None:
    assert said(message(ERROR, struct.pack("=i", 0) + bytes(16))) == []
    with pytest.raises(PermissionError):
        said(message(ERROR, struct.pack("=i", -errno.EPERM) + bytes(16)))


def test_broken_messages_end_the_datagram_and_nothing_else(rng: random.Random) -> None:
    whole = neighbour("192.0.2.7", MAC) + neighbour("2001:db8::7", MAC)
    for end in range(len(whole)):
        assert all(what in said(whole) for what in said(whole[:end]))
    for _ in range(3000):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with suppress(OSError):  # its type became that of a refusal
            said(bytes(broken))


# ---- a kernel


@pytest.fixture
def host() -> Iterator[Host]:
    with one_link() as (host, _):
        yield host


def add(host: Host, address: str, mac: str, state: str = "stale") -> None:
    host.ip("neigh", "replace", address, "lladdr", mac, "dev", "r0", "nud", state)


def hear(sock: NeighbourSocket, until: Callable[[list[Neighbour | AllTold]], bool]) -> list[Neighbour | AllTold]:
    heard: list[Neighbour | AllTold] = []
    end_s = time.monotonic() + 10
    while not until(heard):
        assert time.monotonic() < end_s, heard
        news = sock.read()
        if news is None:
            time.sleep(0.001)
        else:
            heard += news
    return heard


def read_all(sock: NeighbourSocket) -> None:
    while sock.read() is not None:
        pass


def test_kernel_tells_all_that_it_knows_and_then_each_change(host: Host) -> None:
    add(host, "10.9.0.7", MAC)
    add(host, "fd09::7", MAC, "reachable")
    sock = host.run(NeighbourSocket)
    try:
        assert sock.read() is None
        assert sock.ask()
        heard = hear(sock, lambda heard: ALL_TOLD in heard)
        assert Neighbour("10.9.0.7", MAC) in heard
        assert Neighbour("fd09::7", MAC) in heard
        add(host, "10.9.0.8", "52:54:00:12:34:57")
        hear(sock, lambda heard: Neighbour("10.9.0.8", "52:54:00:12:34:57") in heard)
        add(host, "10.9.0.8", "52:54:00:12:34:58")
        hear(sock, lambda heard: Neighbour("10.9.0.8", "52:54:00:12:34:58") in heard)
        host.ip("neigh", "del", "10.9.0.8", "dev", "r0")
        hear(sock, lambda heard: Neighbour("10.9.0.8", None) in heard)
    finally:
        sock.close()


def test_changes_that_were_lost_are_an_error_and_what_is_left_can_be_asked_for(host: Host) -> None:
    sock = host.run(NeighbourSocket)
    try:
        sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for last in range(100):
            add(host, "10.9.0.7", f"52:54:00:00:00:{last:02x}")
        with pytest.raises(OSError, match="No buffer space"):
            read_all(sock)
        read_all(sock)
        assert sock.ask()
        heard = hear(sock, lambda heard: ALL_TOLD in heard)
        assert Neighbour("10.9.0.7", "52:54:00:00:00:63") in heard
    finally:
        sock.close()
