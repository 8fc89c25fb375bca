"""Limits of the engine: divided among its workers, told when they are reached, and used up by transfers alone."""

import contextlib
from collections import Counter

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp._engine.engine import LIMITS
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, Error, build_ack, build_data


def undecided(serve, **limits):
    """An engine whose Python thinks for ever: nobody gives way, and what is not refused hears nothing."""
    served = serve(**limits)
    served.on_request = lambda event, request: None
    return served


def granted(address, requests):
    """How many of so many requests, each of a client of its own, are not refused; and what the last one is told."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(requests)]
        for client in clients:
            client.request("file")
        packet, _ = clients[-1].receive_packet()
        assert isinstance(packet, Error)
        refused = 1 + sum(client.has_heard() for client in clients[:-1])
    return requests - refused, packet.text


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("max_transfers", "server busy: too many transfers"),
        ("max_half_open", "server busy: too many unanswered requests"),
        ("max_pending_requests", "server busy: requests are queueing"),
    ],
)
@pytest.mark.parametrize(("workers", "total", "part"), [(1, 4, 4), (2, 4, 2), (2, 5, 3), (3, 4, 2)])
def test_a_limit_is_divided_among_workers(serve, limit, told, workers, total, part):
    served = undecided(serve, workers=workers, own_ports=True, **{limit: total})
    for address in served.addresses:
        # One too many: the answer to it shows that the worker has seen all before it.
        given, text = granted(address, part + 1)
        assert given == part
        assert text.startswith(told)


@pytest.mark.parametrize(
    ("limit", "counter"),
    [
        ("max_transfers", "refused_transfers"),
        ("max_half_open", "refused_half_open"),
        ("max_transfers_per_client", "refused_client_transfers"),
        ("max_half_open_per_client", "refused_client_half_open"),
        ("max_pending_requests", "refused_pending"),
    ],
)
def test_a_reached_limit_is_counted_and_told_by_its_name(serve, limit, counter):
    served = undecided(serve, **{limit: 1})
    granted(served.address, 6)
    served.wait(lambda: sum(told.count for told in served.refusals) == 5, "all of them told")
    assert {told.limit for told in served.refusals} == {limit}
    assert served.refusals[0].peer[0] == "127.0.0.1"
    assert served.counter(counter) == served.counter("requests_refused_busy") == 5


def test_a_flood_of_refusals_is_told_once_a_second_and_not_one_is_lost(serve):
    served = undecided(serve, max_transfers=1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Client(served.address)).request("file")
        for _ in range(299):
            client = stack.enter_context(Client(served.address))
            client.request("file")
            assert isinstance(client.receive_packet()[0], Error)
    served.wait(lambda: sum(told.count for told in served.refusals) == 299, "all of them told")
    assert served.refusals[0].count < 299, "the first one is told at once"
    # Each later event comes a second after the one before it.
    assert len(served.refusals) < 20


def test_what_was_not_told_yet_comes_when_the_engine_stops(serve):
    served = undecided(serve, max_transfers=1, max_half_open=1)
    granted(served.address, 50)
    served.engine.stop()
    served.wait(lambda: sum(told.count for told in served.refusals) == 49, "all of them told")


def test_every_limit_has_a_counter():
    assert len(LIMITS) == len(set(LIMITS)) == 19


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
    served.wait(lambda: served.counter("live_transfers") == 0, "the end of the last one, a moment after its Completion")


def test_the_oldest_upload_that_only_repeats_its_ack_gives_way(serve):
    served = serve(max_transfers=3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(served.address)) for _ in range(5)]
        tids = []
        for number, client in enumerate(clients):
            tids.append(upload(client, f"up{number}"))
            served.completion(total=number + 1)
        served.wait(lambda: served.counter("dallying_transfers") == 3, "the last one to dally")
        for client, tid in list(zip(clients, tids, strict=True))[2:]:
            client.send(build_data(1, b"end"), tid)
            assert client.receive_packet()[0] == Ack(1), "still repeated"
        clients[0].send(build_data(1, b"end"), tids[0])
        with pytest.raises(Silence):
            clients[0].receive(0.2)


# --- who has answered nothing gives way ------------------------------------------------------------------------

TABLES = ["max_transfers", "max_half_open", "max_transfers_per_client", "max_half_open_per_client"]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(700))


def begin(client):
    """A transfer of two blocks begins; returns its TID."""
    client.request("file")
    packet, tid = client.receive_packet()
    assert isinstance(packet, Data), packet
    return tid


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("places", [1, 2])
def test_in_a_full_table_the_oldest_that_has_answered_nothing_gives_way_in_silence(serve, file, table, places):
    served = serve(initial_ns=60 * 10**9, ceiling_ns=60 * 10**9, half_open_give_up_ns=600 * 10**9, **{table: places})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(served.address)) for _ in range(places + 2)]
        tids = []
        for number, client in enumerate(clients):
            tids.append(begin(client))
            served.wait(lambda: len(served.completions) == max(number - places + 1, 0), "room for the next")  # noqa: B023
        assert [served.completions[number].peer[1] for number in (0, 1)] == [client.port for client in clients[:2]]
        for completion in served.completions:
            assert (completion.outcome, completion.datagrams_in) == (Outcome.ABORTED, 0)
            assert completion.text == f"gave way to another ({table}): its client had answered nothing".encode()
        for block in (1, 2):
            clients[-1].send(build_ack(block), tids[-1])
            assert block == 2 or clients[-1].receive_packet()[0].block == 2
        assert served.completion(total=3).outcome == Outcome.OK
        assert not any(client.has_heard() for client in clients[:2]), "who gives way is told nothing"
    assert served.counter("transfers_gave_way") == 2
    assert served.counter("requests_refused_busy") == 0


@pytest.mark.parametrize("table", ["max_transfers", "max_transfers_per_client"])
def test_who_has_answered_gives_way_to_nobody(serve, file, table):
    served = serve(**{table: 2})
    with Client(served.address) as first, Client(served.address) as second, Client(served.address) as third:
        for client in (first, second):
            client.send(build_ack(1), begin(client))
            assert client.receive_packet()[0].block == 2
        third.request("file")
        assert isinstance(third.receive_packet()[0], Error)
    assert served.counter("transfers_gave_way") == 0


@pytest.mark.parametrize("table", ["max_transfers_per_client", "max_half_open_per_client"])
def test_for_a_client_none_of_another_gives_way(serve, file, table):
    served = serve(**{table: 1})
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(Client(served.address, source="127.0.0.2"))
        tid = begin(other)
        for number in range(5):
            begin(stack.enter_context(Client(served.address)))
            served.wait(lambda: len(served.completions) == number, "room for the next")  # noqa: B023
        other.send(build_ack(1), tid)
        assert other.receive_packet()[0].block == 2
    assert served.counter("transfers_gave_way") == 4


def test_no_burst_of_silent_requests_locks_a_client_out(serve, file):
    """From many addresses, into every table at once; between them somebody is served, each time."""
    served = serve(max_half_open=20, max_transfers_per_client=3, max_half_open_per_client=2)
    with contextlib.ExitStack() as stack:
        for turn in range(10):
            for number in range(60):
                begin(stack.enter_context(Client(served.address, source=f"127.0.0.{2 + turn + number % 11}")))
            with Client(served.address) as client:
                assert client.get("file").payload == bytes(700)
    served.wait(lambda: served.outcomes()["OK"] == 10, "ten good ends")
    assert served.counter("requests_refused_busy") == 0
    assert served.counter("transfers_gave_way") >= 600 - 20
    assert served.outcomes()["ABORTED"] == served.counter("transfers_gave_way")
