"""Limits of the engine: divided among its workers, told when they are reached, and used up by transfers alone."""

import contextlib
from collections import Counter

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp._engine.engine import LIMITS
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Error, build_data


def granted(address, requests, answers):
    """How many of so many requests, each of a client of its own, are not refused; and what the others are told."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(requests)]
        refusals = []
        for client in clients:
            client.request("file")
            if answers or client is clients[-1]:
                packet, _ = client.receive_packet()
                refusals += [packet.text] if isinstance(packet, Error) else []
        if not answers:
            refusals += [None for client in clients[:-1] if client.has_heard()]
    return requests - len(refusals), refusals


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("max_transfers", "server busy: too many transfers"),
        ("max_half_open", "server busy: too many unanswered requests"),
        ("max_pending_requests", "server busy: requests are queueing"),
    ],
)
@pytest.mark.parametrize(("workers", "total", "part"), [(1, 4, 4), (2, 4, 2), (2, 5, 3), (3, 4, 2)])
def test_a_limit_is_divided_among_workers(serve, tmp_path, limit, told, workers, total, part):
    (tmp_path / "file").write_bytes(bytes(2000))
    served = serve(workers=workers, own_ports=True, **{limit: total})
    is_decided = limit != "max_pending_requests"
    if not is_decided:
        served.on_request = lambda event, request: None  # Python is still thinking
    for address in served.addresses:
        # One too many: the answer to it shows that the worker has seen all before it.
        given, refusals = granted(address, part + 1, is_decided)
        assert given == part
        assert refusals[0].startswith(told)


@pytest.mark.parametrize(
    ("limit", "counter"),
    [
        ("max_transfers", "refused_transfers"),
        ("max_half_open", "refused_half_open"),
        ("max_transfers_per_client", "refused_client_transfers"),
        ("max_half_open_per_client", "refused_client_half_open"),
    ],
)
def test_a_reached_limit_is_counted_and_told_by_its_name(serve, tmp_path, limit, counter):
    (tmp_path / "file").write_bytes(bytes(2000))
    served = serve(**{limit: 1})
    granted(served.address, 6, answers=True)
    served.wait(lambda: sum(told.count for told in served.refusals) == 5, "all of them told")
    assert {told.limit for told in served.refusals} == {limit}
    assert served.refusals[0].peer[0] == "127.0.0.1"
    assert served.counter(counter) == served.counter("requests_refused_busy") == 5


def test_a_flood_of_refusals_is_told_once_a_second_and_not_one_is_lost(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(2000))
    served = serve(max_transfers=1)
    granted(served.address, 300, answers=True)
    served.wait(lambda: sum(told.count for told in served.refusals) == 299, "all of them told")
    assert served.refusals[0].count < 299, "the first one is told at once"
    # Each later event comes a second after the one before it.
    assert len(served.refusals) < 20


def test_what_was_not_told_yet_comes_when_the_engine_stops(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(2000))
    served = serve(max_transfers=1, max_half_open=1)
    granted(served.address, 50, answers=True)
    served.engine.stop()
    served.wait(lambda: sum(told.count for told in served.refusals) == 49, "all of them told")


def test_every_limit_has_a_counter():
    assert len(LIMITS) == len(set(LIMITS)) == 7


def upload(client, filename):
    """One small file; returns the server's TID, with its last ACK received."""
    client.request(filename, kind=Opcode.WRQ)
    packet, tid = client.receive_packet()
    assert packet == Ack(0), packet
    client.send(build_data(1, b"end"), tid)
    assert client.receive_packet()[0] == Ack(1)
    return tid


@pytest.mark.parametrize("limit", ["max_transfers", "max_transfers_per_client"])
def test_an_upload_that_has_ended_uses_up_no_limit(serve, limit):
    served = serve(**{limit: 2})
    with contextlib.ExitStack() as stack:
        for number in range(20):
            upload(stack.enter_context(Client(served.address)), f"up{number}")
            served.completion(total=number + 1)  # one that Python has not heard of counts still
    assert served.outcomes() == Counter({"OK": 20})
    assert served.counter("requests_refused_busy") == 0
    assert served.counter("live_transfers") == 0


def test_the_oldest_upload_that_only_repeats_its_ack_gives_way(serve):
    served = serve(max_transfers=3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(served.address)) for _ in range(5)]
        tids = []
        for number, client in enumerate(clients):
            tids.append(upload(client, f"up{number}"))
            served.completion(total=number + 1)
        assert served.counter("dallying_transfers") == 3
        for client, tid in list(zip(clients, tids, strict=True))[2:]:
            client.send(build_data(1, b"end"), tid)
            assert client.receive_packet()[0] == Ack(1), "still repeated"
        clients[0].send(build_data(1, b"end"), tids[0])
        with pytest.raises(Silence):
            clients[0].receive(0.2)
