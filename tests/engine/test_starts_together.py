"""Plans that are handed over together: a worker hears of them by one wake(), and by whatever else wakes it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Data, build_ack, build_error, build_request

CONTENT = b"the same for all"


@pytest.fixture
def held(serve, tmp_path):
    """An engine whose requests are kept by the test."""
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(flows=False)
    served.asked = []
    served.on_request = lambda event, request: served.asked.append((event, request))
    return served


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on a file system whose files are closed without asking anybody."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def asked(served, clients):
    for client in clients:
        client.send(build_request(Opcode.RRQ, "file"))
    served.wait(lambda: len(served.asked) == len(clients), "every request")


def start_all(served, **how):
    for event, request in served.asked:
        served.engine.start(served.send_plan(event, request), **how)
        served.started[event.transfer_id] += 1


def finish(client):
    packet, peer = client.receive_packet()
    assert packet == Data(1, CONTENT)
    client.send(build_ack(1), peer)


def test_what_is_started_without_waking_begins_with_the_next_wake(held):
    with Client(held.address) as one, Client(held.address) as two:
        asked(held, [one, two])
        start_all(held, wake=False)
        with pytest.raises(Silence):
            one.receive_packet(0.3)
        held.engine.wake()
        finish(one)
        finish(two)
        held.completion(total=2)


@pytest.mark.parametrize("what", ["refuse", "refuse_all", "abort", "drain", "forget_flows", "start"])
def test_whatever_wakes_a_worker_begins_what_it_was_not_told_of(held, what):
    with Client(held.address) as one, Client(held.address) as two:
        asked(held, [one, two])
        (event, _), last = held.asked[0], held.asked.pop()
        start_all(held, wake=False)
        calls = {
            "refuse": lambda: held.engine.refuse(last[0].transfer_id, build_error(0, "no")),
            "refuse_all": lambda: held.engine.refuse_all([(last[0].transfer_id, build_error(0, "no"))]),
            "abort": lambda: held.engine.abort(event.transfer_id ^ 1 << 40),
            "drain": held.engine.drain,
            "forget_flows": held.engine.forget_flows,
            "start": lambda: (held.asked.clear(), held.asked.append(last), start_all(held)),
        }
        calls[what]()
        finish(one)
        held.completion()


def test_what_was_started_without_waking_ends_when_the_engine_stops(held):
    with Client(held.address) as client:
        asked(held, [client])
        start_all(held, wake=False)
        held.engine.stop()
        held.completion()
        assert held.outcomes() == {"ABORTED": 1}


def test_last_blocks_leave_by_one_call_a_socket(serve, tmp_path):
    """Transfers are spread over TID sockets at random, and a call sends from one."""
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(flows=False, tids=4)
    served.asked = []
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Client(served.address)) for _ in range(32)]
        clients[0].get("file")  # resident from now on: a plan's first block is sent in the turn that it begins in
        served.completion()
        served.on_request = lambda event, request: served.asked.append((event, request))
        asked(served, clients)
        before = served.engine.counters()
        start_all(served, wake=False)
        served.engine.wake()
        packets = [client.receive_packet() for client in clients]
        served.wait(lambda: served.counter("datagrams_sent") - before["datagrams_sent"] == 32, "every block counted")
        calls = served.counter("sendmmsg_calls") - before["sendmmsg_calls"]
        for client, (packet, peer) in zip(clients, packets, strict=True):
            assert packet == Data(1, CONTENT)
            client.send(build_ack(1), peer)
        served.completion(total=33)
    assert 1 <= calls <= 4


def test_a_second_descriptor_of_a_file_in_memory_is_closed_at_once(serve, in_memory):
    (in_memory / "file").write_bytes(CONTENT)
    served = serve(in_memory, flows=False)
    open_after_start = []

    def plan(event, request):
        made = served.send_plan(event, request)
        served.start(made)
        open_after_start.append(is_open(made.fd))

    with Client(served.address) as client:
        client.get("file")  # opened and mapped
        served.completion()
        served.on_request = plan
        for _ in range(3):
            assert client.get("file").payload == CONTENT
        served.completion(total=4)
    assert open_after_start == [False] * 3


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
