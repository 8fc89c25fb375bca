"""Who forges an address must guess its TID: TIDs are spread so that none can be foretold, and wrong guesses count.

The forger is played by the victim's own socket: what it sends, a forger sends in its name; what it receives, the victim
receives, and it must not be more than first packets.
"""

import contextlib
import time

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, Error, Oack, build_ack, build_data, build_error

PATIENT = {"initial_ns": 60 * 10**9, "ceiling_ns": 60 * 10**9, "half_open_give_up_ns": 600 * 10**9}
OPTIONS = {"blksize": 1000, "windowsize": 8}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(20_000))
    (tmp_path / "small").write_bytes(b"small")


def ask(client, filename="file", options=OPTIONS):
    """Returns the TID that answered with the first packet."""
    client.request(filename, options=options)
    packet, tid = client.receive_packet()
    assert isinstance(packet, (Oack, Data)), packet
    return tid


def other_tids(served, tid):
    return [("127.0.0.1", port) for port in served.tid_ports if port != tid[1]]


def hears_no_data(client):
    """Whether nothing came of what was sent but an ERROR."""
    while True:
        try:
            packet, _ = client.receive_packet(0.2)
        except Silence:
            return True
        if not isinstance(packet, Error):
            return False


def test_a_lone_transfer_may_have_any_tid(serve, file):
    served = serve(tids=8, **PATIENT)
    seen = set()
    deadline = time.monotonic() + 20
    while seen != set(served.tid_ports):
        assert time.monotonic() < deadline, f"only {len(seen)} of 8 TIDs in use"
        with Client(served.address) as client:
            tid = ask(client)
            seen.add(tid[1])
            client.send(build_error(0, "enough"), tid)


def test_many_transfers_share_few_tids_so_that_there_is_something_to_batch(serve, file):
    served = serve(tids=16, **PATIENT)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(served.address)) for _ in range(44)]
        tids = [ask(client) for client in clients]
    # Two at a time; two others if ten seconds were over meanwhile.
    assert len(set(tids[1:])) <= 4


@pytest.mark.parametrize("answer", [build_ack(0), build_data(1, b"x"), build_error(0, "x")])
def test_an_answer_to_another_tid_ends_the_request_that_was_not_answered(serve, file, answer):
    served = serve(**PATIENT)
    with Client(served.address) as client:
        tid = ask(client)
        client.send(answer, other_tids(served, tid)[0])
        completion = served.completion()
        assert (completion.outcome, completion.text) == (Outcome.ABORTED, b"an answer came to another TID")
        client.send(build_ack(0), tid)
        assert hears_no_data(client)
    assert served.counter("wrong_guesses") >= 1
    assert served.counter("half_open_transfers") == 0


def test_an_upload_is_not_begun_by_a_guess_either(serve):
    served = serve(**PATIENT)
    with Client(served.address) as client:
        client.request("up", kind=Opcode.WRQ)
        packet, tid = client.receive_packet()
        assert packet == Ack(0)
        client.send(build_data(1, b"forged"), other_tids(served, tid)[0])
        assert served.completion().outcome == Outcome.ABORTED


def test_a_guess_before_the_server_has_answered_ends_the_request(serve, file):
    served = serve(**PATIENT)
    asked = []
    served.on_request = lambda event, request: asked.append((event, request))
    with Client(served.address) as client:
        client.request("file", options=OPTIONS)
        served.wait(lambda: asked)
        client.send(build_ack(0), ("127.0.0.1", served.tid_ports[0]))
        served.wait(lambda: served.counter("half_open_transfers") == 0)
        served.start(served.send_plan(*asked[0]))
        assert served.completion().outcome == Outcome.ABORTED
        assert hears_no_data(client)


def test_a_tid_that_was_tried_before_is_as_wrong_as_any(serve, file):
    """A stranger is told ERROR 5 once and then met with silence; that must not make its guesses free."""
    served = serve(tids=2, **PATIENT)
    with Client(served.address) as client:
        for port in served.tid_ports:
            client.send(build_ack(0), ("127.0.0.1", port))
            assert isinstance(client.receive_packet()[0], Error)
        tid = ask(client)
        client.send(build_ack(0), other_tids(served, tid)[0])
        assert served.completion().text == b"an answer came to another TID"


def test_many_requests_at_once_are_not_as_many_chances(serve, file):
    """A wrong guess undoes every request of the address that is not answered: none can be hit by the next guess."""
    served = serve(tids=8, **PATIENT)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(served.address)) for _ in range(6)]
        tids = [ask(client) for client in clients]
        clients[0].send(build_ack(0), other_tids(served, tids[0])[0])
        served.completion()
        for client, tid in list(zip(clients, tids, strict=True))[1:]:
            client.send(build_ack(0), tid)
        served.completion(total=6)
        assert all(hears_no_data(client) for client in clients)
        # Who really asked asks again.
        tid = ask(clients[5])
        clients[5].send(build_ack(0), tid)
        assert isinstance(clients[5].receive_packet()[0], Data)


def test_a_request_that_another_one_followed_is_no_further_chance(serve, file):
    served = serve(**PATIENT)
    with Client(served.address) as client:
        first = ask(client)
        second = ask(client, options={"blksize": 999})
        assert first != second
        client.send(build_ack(0), first)
        served.completion(total=2)
        client.send(build_ack(0), second)
        assert hears_no_data(client)


def test_one_block_may_be_acknowledged_after_the_next_request(serve, file):
    served = serve(**PATIENT)
    with Client(served.address) as client:
        first = ask(client, "small", options={})
        second = ask(client)
        client.send(build_ack(1), first)
        assert served.completion().outcome == Outcome.OK
        client.send(build_ack(0), second)
        assert isinstance(client.receive_packet()[0], Data)


def test_a_late_echo_of_an_ended_transfer_is_no_guess(serve, file):
    served = serve(**PATIENT)
    with Client(served.address) as client:
        done = client.get("small")
        tid = ask(client)
        client.send(build_ack(1), done.peer)
        client.send(build_ack(0), tid)
        assert isinstance(client.receive_packet()[0], Data)
    assert served.counter("wrong_guesses") == 0


def test_an_address_with_many_wrong_guesses_is_not_served_and_the_others_are(serve, file):
    served = serve(**PATIENT)
    for _ in range(3):
        with Client(served.address, source="127.0.0.9") as client:
            tid = ask(client)
            client.send(build_ack(0), other_tids(served, tid)[0])
            assert isinstance(client.receive_packet()[0], Error)
    served.completion(total=3)
    with Client(served.address, source="127.0.0.9") as client:
        client.request("file")
        with pytest.raises(Silence):
            client.receive(0.3)
    served.wait(lambda: served.refusals)
    assert (served.refusals[0].limit, served.refusals[0].peer[0]) == ("wrong_guesses", "127.0.0.9")
    assert served.counter("refused_guesses") == 1
    with Client(served.address, source="127.0.0.8") as client:
        assert client.get("small").payload == b"small"


@pytest.mark.parametrize("windowsize", [64, 300])
def test_who_acknowledges_no_block_is_not_sent_window_after_window(serve, tmp_path, windowsize):
    """Somebody guessed right: the stranger who gets the window stays silent."""
    (tmp_path / "long").write_bytes(bytes(8 * 1000))
    served = serve(initial_ns=50_000_000, ceiling_ns=50_000_000, give_up_ns=10**9)
    with Client(served.address) as client:
        tid = ask(client, "long", {"blksize": 8, "windowsize": windowsize})
        client.send(build_ack(0), tid)
        completion = served.completion()
    assert completion.outcome == Outcome.TIMED_OUT
    timeouts = served.counter("timeouts")
    assert timeouts > 4
    assert windowsize < completion.datagrams_out <= 1 + 2 * windowsize + 8 * timeouts
