"""What strangers and sick machines do to a server, each as a rate that a small machine can keep up beside it.

    python -m tests.support.attacks NAME PORT PID FOLDER      runs one until it is ended

An `Attack` names the settings of the server it is for, how its folder is made ready, and what it does. FOLDER/root is
served; FOLDER/sick may be mounted below it and be ill.

May know: TFTP as a stranger does, and the process it attacks. Must not: know how the server is built.
Invariants: traffic goes to 127.0.0.1 only; every attack has a rate, prints how much it has done when it is ended, and
keeps nothing behind. Names, addresses and bytes come from a seed.
"""

import itertools
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.client import Client, Refused, Silence

from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error, build_request

IP_PKTINFO: Final = 8  # linux/in.h; the socket module of Python 3.11 does not name it
ADDRESSES: Final = 60_000
FIRST_ADDRESS: Final = 0x7F800001  # 127.128.0.1, far from those of the good clients
TURN_S: Final = 0.01
WRITE_ALL: Final = '[write_config]\nenabled = true\nallowed_patterns = ["**"]\non_existing = "replace"\nfsync = false\n'
QUIET: Final = "[logging]\nlevel = 'error'\n"


@dataclass(frozen=True, slots=True)
class Target:
    """Who is attacked."""

    port: int
    pid: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to misuse a server.

    Attributes:
        run: Called with the target; goes on until it is ended, and yields once for each thing done.
        rate: Of those a second.
        why: What it did to servers.
        config: TOML of the server.
        prepare: Called with the folder before the server starts.
        ill: Operations of the file system below root/sick that hang while it runs.
        max_files: RLIMIT_NOFILE of the server; 0: as it is.
        is_log_stuck: The server's standard error is a pipe that nobody reads.
    """

    run: Callable[[Target], Iterator[None]]
    rate: int
    why: str
    config: str = QUIET
    prepare: Callable[[Path], None] = lambda folder: None
    ill: tuple[str, ...] = ()
    max_files: int = 0
    is_log_stuck: bool = False

    def limit(self) -> None:
        """Called in the server's process before it starts."""
        if self.max_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.max_files, self.max_files))


ATTACKS: dict[str, Attack] = {}


def attack(rate: int, why: str, **more: Any) -> Callable[[Callable[[Target], Iterator[None]]], None]:
    def keep(run: Callable[[Target], Iterator[None]]) -> None:
        ATTACKS[run.__name__.replace("_", "-")] = Attack(run, rate, why, **more)

    return keep


@dataclass(slots=True)
class Forger:
    """Sends from any loopback address, by IP_PKTINFO; hears what is answered if it wants to."""

    port: int
    sock: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.sock.bind(("0.0.0.0", 0))

    def send(self, datagram: bytes, number: int | None = None, port: int | None = None) -> None:
        """From the address of that number, else from a random one."""
        number = self.chance.randrange(ADDRESSES) if number is None else number % ADDRESSES
        source = (FIRST_ADDRESS + number).to_bytes(4, "big")
        info = struct.pack("=i4s4s", 0, source, bytes(4))
        self.sock.sendmsg(
            [datagram], [(socket.IPPROTO_IP, IP_PKTINFO, info)], socket.MSG_DONTWAIT, ("127.0.0.1", port or self.port)
        )

    def receive(self, timeout_s: float = 5) -> bytes:
        """What was answered to any of them."""
        self.sock.settimeout(timeout_s)
        return self.sock.recv(70_000)

    def close(self) -> None:
        self.sock.close()


def rrq(name: str, mode: str = "octet", **options: int) -> bytes:
    return build_request(Opcode.RRQ, name, mode, tuple((key, str(value)) for key, value in options.items()))


def wrq(name: str, **options: int) -> bytes:
    return build_request(Opcode.WRQ, name, "octet", tuple((key, str(value)) for key, value in options.items()))


def forged(make: Callable[[int], bytes], target: Target) -> Iterator[None]:
    """A request from another address each time."""
    forger = Forger(target.port)
    for number in itertools.count():
        forger.send(make(number), number)
        yield


# --- logs ------------------------------------------------------------------------------------------------------


@attack(2000, "a log collector that stopped reading holds up write(2)", config="", is_log_stuck=True)
def stuck_log_reader(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"nothing-{number}"), target)


@attack(20_000, "names of control characters cost ten times as much, in the loop and in the log", config="")
def control_characters(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq("\x01\x02\x1b" * 120 + str(number)), target)


@attack(20_000, "a name that nobody has looked up yet takes a thread, each time from another address", config="")
def unknown_names(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"nothing-{number}"), target)


@attack(20_000, "one address asks without end for what does not exist", config="")
def one_address(target: Target) -> Iterator[None]:
    forger = Forger(target.port)
    for number in itertools.count():
        forger.send(rrq(f"nothing-{number}"), 1)
        yield


# --- disks -----------------------------------------------------------------------------------------------------


@attack(300, "look-ups on a file server that has died take every thread", ill=("lookup",))
def hung_lookups(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"sick/{number % 400}"), target)


@attack(300, "reads on a file server that has died take every thread", ill=("read",))
def hung_reads(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"sick/{number % 400}"), target)


@attack(300, "opens on a file server that has died take every thread", ill=("open",))
def hung_opens(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"sick/{number % 400}", "netascii"), target)


@attack(300, "closes on a file server that has died wait for its answer", ill=("flush",))
def hung_closes(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"sick/{number % 400}"), target)


def many_small(folder: Path) -> None:
    for number in range(2000):
        (folder / "root" / f"small-{number}").write_bytes(b"%d" % number)


@attack(1000, "a descriptor of each file, until none is left", prepare=many_small, max_files=600)
def many_files(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"small-{number % 2000}"), target)


def large_sparse(folder: Path) -> None:
    with (folder / "root" / "sparse").open("wb") as file:
        file.truncate(4 << 30)


@attack(5000, "a sparse file is allocated by being served", prepare=large_sparse)
def sparse_file(target: Target) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        while True:
            sock.sendto(rrq("sparse"), ("127.0.0.1", target.port))
            yield from acknowledge(sock)
            yield  # also where nobody answers, or nobody could end it


def acknowledge(sock: socket.socket) -> Iterator[None]:
    """Acknowledges each DATA for as long as any comes."""
    while True:
        try:
            datagram, peer = sock.recvfrom(70_000)
        except TimeoutError:
            return
        if datagram[:2] != Opcode.DATA.to_bytes(2, "big"):
            return
        sock.sendto(build_ack(int.from_bytes(datagram[2:4], "big")), peer)
        yield


# --- made content ----------------------------------------------------------------------------------------------


def large_texts(folder: Path) -> None:
    for name in "ab":
        with (folder / "root" / f"text-{name}").open("wb") as file:
            for _ in range(100):
                file.write(b"a line of text, as they come\n" * 36158)  # 1 MiB
            os.fsync(file.fileno())  # or the disk is at it while others are measured


@attack(60, "two large texts in turns throw one another out of the cache", prepare=large_texts)
def netascii_in_turns(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq(f"text-{'ab'[number % 2]}", "netascii", timeout=255), target)


# --- tables ----------------------------------------------------------------------------------------------------


@attack(5000, "a half-open transfer lived three times the timeout it had asked for")
def half_open(target: Target) -> Iterator[None]:
    return forged(lambda number: rrq("good", timeout=255, tsize=0), target)


@attack(2000, "silent uploads hold a file each", config=QUIET + WRITE_ALL)
def silent_uploads(target: Target) -> Iterator[None]:
    return forged(lambda number: wrq(f"up-{number}", timeout=255), target)


@attack(20_000, "stray ACK, DATA, ERROR and noise, to the request port and to those of transfers")
def strays(target: Target) -> Iterator[None]:
    forger = Forger(target.port)
    kinds = (build_ack(1), build_data(1, b"x" * 512), build_error(0, "x"), b"", b"\0", bytes(600), b"\0\x05")
    ports = [target.port, *udp_ports(target.pid)]
    for number in itertools.count():
        forger.send(kinds[number % len(kinds)], port=ports[number % len(ports)])
        yield


def udp_ports(pid: int) -> list[int]:
    """Of a process, from /proc/PID/net/udp and its descriptors."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        name = str(link.readlink())
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    rows = (line.split() for line in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:])
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes]


# --- patterns, signals, uploads ------------------------------------------------------------------------------------

DASHES = '[write_config]\nenabled = true\nallowed_patterns = ["*-*-*-*-*-*.cfg"]\n'


@attack(2000, "a name of dashes against a pattern of stars", config=QUIET + DASHES)
def dashes(target: Target) -> Iterator[None]:
    return forged(lambda number: wrq("-" * 480 + str(number)), target)


@attack(200, "a signal storm rereads the configuration each time")
def reload_storm(target: Target) -> Iterator[None]:
    while True:
        os.kill(target.pid, signal.SIGHUP)
        yield


@attack(50, "uploads until there is no room", config=QUIET + WRITE_ALL + "max_total_bytes = 4000000\n")
def full_disk(target: Target) -> Iterator[None]:
    for number in itertools.count():
        try:
            with Client(("127.0.0.1", target.port), give_up_s=2) as client:
                client.put(f"up-{number}", bytes(300_000), options={"blksize": 1428, "windowsize": 16})
        except (Refused, Silence):
            pass
        yield


def main() -> None:
    name, port, pid, folder = sys.argv[1:]
    chosen, target = ATTACKS[name], Target(int(port), int(pid), Path(folder))
    is_over = False

    def end(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, end)
    done, began_s = 0, time.monotonic()
    for _ in chosen.run(target):
        done += 1
        if is_over:
            break
        while not is_over and done > (time.monotonic() - began_s + TURN_S) * chosen.rate:
            time.sleep(TURN_S)
    print(f"{done} {time.monotonic() - began_s:.3f}")


if __name__ == "__main__":
    main()
