"""A network made of namespaces: two hosts, and a link in the middle that carries less than they think.

    with narrow_path(600) as hosts:                   # host, router, router, host
        hosts[0].run(make_server)                     # in its network, by a thread that lives there

    with own_loopback(): ...                          # nobody else speaks here

May know: the `ip` command, unshare(2). Must not: know TFTP.
Invariants: nothing of the network outlives the `with`; a namespace goes with the last thread and socket in it. What is
called by `Host.run` must not start threads that shall be elsewhere: they are born in that network too.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
MIN_V6_MTU = 1280  # RFC 8200 section 5: a link with less carries no IPv6
ROUTER_SETTINGS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # include/uapi/linux/sockios.h, if.h
T = TypeVar("T")
_left: list[int] = []


def is_alone() -> bool:
    """Whether this process has its loopback for itself."""
    return bool(_left)


def enter(network: int) -> None:
    """Moves the calling thread, and all that it starts from now on, to another network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def own_loopback() -> Iterator[int | None]:
    """Moves the calling thread, and all that it starts meanwhile, to a network that is nothing but 127.0.0.0/8 and ::1.

    Yields:
        A descriptor of the network that was left; None: a new one is not allowed (it takes root), and nothing changes.
    """
    network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            yield None
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
            _left.append(network)
            yield network
        finally:
            _left.clear()
            enter(network)
    finally:
        os.close(network)


class Host:
    """One network namespace, and the thread that lives in it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.pid_path = self.run(self._leave_home)

    @staticmethod
    def _leave_home() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespaces here: {os.strerror(ctypes.get_errno())}")
        return f"/proc/{os.getpid()}/task/{ctypes.CDLL(None).gettid()}/ns/net"

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls `function` in this network."""
        return self._thread.submit(function, *arguments).result()

    def ip(self, *words: str) -> str:
        """Runs the `ip` command in this network."""
        done = self.run(lambda: subprocess.run(["ip", *words], capture_output=True, text=True, check=False))
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def set(self, name: str, value: str) -> None:
        """Writes a file of /proc/sys/net, as this network sees it."""

        def write() -> None:
            Path(f"/proc/sys/net/{name}").write_text(value, encoding="ascii")

        self.run(write)

    def forward(self) -> None:
        """Be a router."""
        for setting in ROUTER_SETTINGS:
            self.set(setting, "1")

    def say_nothing(self) -> None:
        """Be a router that sends no ICMP, as many a firewall is: what it would say itself finds no way out."""
        for family in ("-4", "-6"):
            self.ip(family, "rule", "add", "pref", "1", "iif", "lo", "blackhole")

    def close(self) -> None:
        self._thread.shutdown()


def _connect(left: Host, right: Host, number: int, mtu: int) -> None:
    """One link: 10.9.N.1 and fd09:N::1 on the left, .2 and ::2 on the right."""
    left.ip("link", "add", f"r{number}", "mtu", str(mtu), "type", "veth", "peer", "name", f"l{number}")
    target = os.open(right.pid_path, os.O_RDONLY)
    try:
        left.ip("link", "set", f"l{number}", "netns", f"/proc/{os.getpid()}/fd/{target}")
    finally:
        os.close(target)
    for host, name, last in ((left, f"r{number}", 1), (right, f"l{number}", 2)):
        host.ip("link", "set", name, "mtu", str(mtu), "up")
        host.ip("addr", "add", f"10.9.{number}.{last}/24", "dev", name)
        if mtu >= MIN_V6_MTU:
            host.ip("-6", "addr", "add", f"fd09:{number}::{last}/64", "dev", name, "nodad")


@contextmanager
def narrow_path(middle_mtu: int) -> Iterator[list[Host]]:
    """Two hosts and two routers between them; only the routers know that their link carries less than 1500 bytes.

    host 10.9.0.1, fd09:0::1 ── router ══ middle_mtu ══ router ── host 10.9.2.2, fd09:2::2
    """
    if shutil.which("ip") is None:
        pytest.skip("no network of several hosts: ip is not installed")
    with ExitStack() as stack:
        hosts = []
        for _ in range(4):
            host = Host()
            stack.callback(host.close)
            host.ip("link", "set", "lo", "up")
            hosts.append(host)
        for router in hosts[1:3]:
            router.forward()
        for number, mtu in enumerate((1500, middle_mtu, 1500)):
            _connect(hosts[number], hosts[number + 1], number, mtu)
        for at, net, by, last in ((0, 2, 0, 2), (1, 2, 1, 2), (2, 0, 1, 1), (3, 0, 2, 1)):
            hosts[at].ip("route", "add", f"10.9.{net}.0/24", "via", f"10.9.{by}.{last}")
            if middle_mtu >= MIN_V6_MTU:
                hosts[at].ip("-6", "route", "add", f"fd09:{net}::/64", "via", f"fd09:{by}::{last}")
        yield hosts


@contextmanager
def one_link() -> Iterator[tuple[Host, Host]]:
    """Two hosts on one link: 10.9.0.1 and fd09:0::1 on `r0` of the first, .2 and ::2 on `l0` of the second."""
    if shutil.which("ip") is None:
        pytest.skip("no network of several hosts: ip is not installed")
    with ExitStack() as stack:
        hosts = Host(), Host()
        for host in hosts:
            stack.callback(host.close)
            host.ip("link", "set", "lo", "up")
        _connect(*hosts, 0, 1500)
        yield hosts
