"""The accounts of an attack are exact whatever else happens: others' datagrams, and a kernel that drops some."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fuzz.attack import CONTENT, Victim, make_root
from tests.support.client import Client
from tests.support.namespaces import enter

SILENT = b"\0\4\0\1"
"""An ACK on the request port means nothing to anybody."""


@pytest.fixture
def victim(tmp_path, single_port):
    overrides = {"workers": 1, "single_port": single_port, "performance.platform.socket.recv_buffer_kb": 64}
    with Victim(make_root(tmp_path), tmp_path, Path(), overrides) as running:
        yield running


def send(victim: Victim, host: str, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(count):
            sock.sendto(SILENT, (host, victim.ports[number % len(victim.ports)]))
    if host == victim.host:
        victim.fuzzed += count


def ask(victim: Victim) -> None:
    said = []
    with Client(victim.address, say=lambda datagram: said.append(datagram) or [datagram]) as client:
        assert client.get("honest/small").payload == CONTENT[:400]
    victim.honest_said.append(len(said))


@pytest.mark.parametrize("single_port", [True, False])
def test_what_is_said_to_an_earlier_owner_of_the_port_is_not_counted(victim):
    send(victim, "127.0.0.1", 20)  # as servers of other tests repeat DATA for a client that has ended
    ask(victim)
    assert victim.check_quiet()["counts"]["datagrams_received"] == victim.honest_said[0]
    victim.check_end()


@pytest.mark.parametrize("single_port", [True, False])
def test_others_on_this_machine_are_not_heard(victim, home):
    if home is None:
        pytest.skip("a network of its own takes root")

    def speak() -> None:
        enter(home)
        send(victim, victim.host, 20)

    with ThreadPoolExecutor(1) as another:
        another.submit(speak).result()
    victim.fuzzed -= 20
    ask(victim)
    assert victim.check_quiet()["counts"]["datagrams_received"] == victim.honest_said[0]
    victim.check_end()


@pytest.mark.parametrize("single_port", [True])
def test_what_the_kernel_drops_is_counted(victim):
    victim.process.send_signal(signal.SIGSTOP)
    try:
        send(victim, victim.host, 5000)
    finally:
        victim.process.send_signal(signal.SIGCONT)
    ask(victim)
    report = victim.check_quiet()
    assert 0 < report["kernel"]["dropped"] < 5000
    victim.check_end()
