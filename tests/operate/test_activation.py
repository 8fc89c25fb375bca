"""Sockets that a service manager has bound: used instead of `bind_addr`, or refused with a word about them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.support.boot import BOOT
from tests.support.client import Client
from tests.support.ipv6 import needs_ipv6
from tests.support.server import DEADLINE_S, ServerProcess, _read_ready_lines, command_line, wait_for

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.activation import take_given_sockets
from snow_owl_tftp.protocol.packets import build_ack

# What a service manager does between fork and exec: descriptors to their places from 3 on, then the variables.
HAND_OVER = """
import fcntl, os, sys
pid, *fds = sys.argv[1].split(",")
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds]
for place, fd in enumerate(high, 3):
    os.dup2(fd, place)
os.closerange(3 + len(high), 200)
os.environ.update(LISTEN_PID=pid or str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES="tftp")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def udp(host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = False) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


def handing_over(given: Sequence[socket.socket], *arguments: str, pid: str = "") -> list[str]:
    fds = ",".join([pid, *(str(sock.fileno()) for sock in given)])
    return [sys.executable, "-c", HAND_OVER, fds, *command_line(*arguments)[1:]]


@contextmanager
def activated(
    root: Path, given: Sequence[socket.socket], *flags: str, lines: int = 1, pid: str = ""
) -> Iterator[ServerProcess]:
    """The command, to which these sockets are handed over; ours are closed then, as those of a manager would not be."""
    stderr_path = root.parent / "activated.stderr"
    command = handing_over(given, str(root), "--bind", "127.0.0.1:0", *flags, pid=pid)
    with stderr_path.open("wb") as stderr:
        fds = [sock.fileno() for sock in given]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, pass_fds=fds)
    try:
        for sock in given:
            sock.close()
        yield ServerProcess(process, _read_ready_lines(process, lines, stderr_path), 0.0, stderr_path)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0, stderr_path.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout
        process.stdout.close()


def test_given_socket_is_served_instead_of_the_bound_address(root: Path) -> None:
    given = udp()
    address = given.getsockname()
    with activated(root, [given]) as server:
        assert server.addresses == [address]
        with Client(address) as client:
            assert client.get("boot.img").payload == BOOT
        wait_for(lambda: "handed over" in server.log, "a line that says so")


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=needs_ipv6)])
def test_request_that_came_before_the_server_is_answered(root: Path, host: str) -> None:
    """A service manager starts the server because of it."""
    given = udp(host)
    with Client(("127.0.0.1", given.getsockname()[1]), timeout_s=DEADLINE_S) as client:
        client.request("small")
        with activated(root, [given]):
            datagram, sender = client.receive()
            assert datagram[4:] == b"ten bytes."
            assert sender[0] == "127.0.0.1"
            client.send(build_ack(1), sender)


@needs_ipv6
def test_several_sockets_are_several_addresses(root: Path) -> None:
    given = [udp(), udp("127.0.0.2"), udp("::1")]
    addresses = [sock.getsockname()[:2] for sock in given]
    with activated(root, given, lines=3) as server:
        assert server.addresses == addresses
        for address in addresses:
            with Client(address) as client:
                assert client.get("small").payload == b"ten bytes."


def test_sockets_of_one_address_are_for_as_many_workers(root: Path) -> None:
    first = udp(reuse_port=True)
    given = [first, udp(port=first.getsockname()[1], reuse_port=True)]
    with activated(root, given, "--workers", "2") as server:
        for _ in range(8):  # two sockets behind one port: some reach either
            with Client(server.address) as client:
                assert client.get("small").payload == b"ten bytes."
        assert "only some workers" not in server.log


def test_single_port_answers_from_the_given_socket(root: Path) -> None:
    given = udp()
    address = given.getsockname()
    with activated(root, [given], "--single-port"), Client(address) as client:
        assert client.get("small").peer == address


def test_more_workers_than_sockets_share_the_port_where_that_is_allowed(root: Path) -> None:
    with activated(root, [udp()], "--workers", "3") as server:
        for _ in range(8):
            with Client(server.address) as client:
                assert client.get("small").payload == b"ten bytes."


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to bind as one user and serve as another")
def test_socket_of_another_user_serves_with_one_worker_and_a_warning(root: Path) -> None:
    os.seteuid(65534)
    try:
        given = udp()
    finally:
        os.seteuid(0)
    with activated(root, [given], "--workers", "2") as server:
        for _ in range(8):
            with Client(server.address) as client:
                assert client.get("small").payload == b"ten bytes."
        assert "only some workers can listen" in server.log


def test_what_is_for_another_process_is_left_alone(root: Path) -> None:
    given = udp()
    address = given.getsockname()
    with activated(root, [given], pid="1") as server:
        assert server.addresses[0] != address


def refused_complaint(root: Path, given: Sequence[socket.socket], *flags: str) -> str:
    done = subprocess.run(
        handing_over(given, str(root), "--bind", "127.0.0.1:0", *flags),
        pass_fds=[sock.fileno() for sock in given],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["stream", "unix", "unbound", "connected"])
def test_other_sockets_are_refused_by_name(root: Path, kind: str) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(udp())
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        wrong = stack.enter_context(
            socket.socket(family, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM)
        )
        if kind == "connected":
            wrong.connect(first.getsockname())
        assert "descriptor 4" in refused_complaint(root, [first, wrong])


def test_more_sockets_of_one_address_than_workers_are_refused(root: Path) -> None:
    with udp(reuse_port=True) as first, udp(port=first.getsockname()[1], reuse_port=True) as second:
        assert "set workers" in refused_complaint(root, [first, second])


@pytest.mark.parametrize("count", ["", "x", "-1", "9999999", "٣"])
def test_count_that_is_none_is_the_operators_error(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "OTHER": "stays"}
    with pytest.raises(ConfigError, match=r"^LISTEN_FDS: expected a number"):
        take_given_sockets(environ)
    assert environ == {"OTHER": "stays"}


@pytest.mark.parametrize("pid", ["", "1", str(os.getppid())])
def test_variables_of_others_are_taken_away_too(pid: str) -> None:
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tftp"}
    assert take_given_sockets(environ) == []
    assert environ == {}
