"""Lost packets, strangers, impatient and silent peers: the engine on real sockets, one misfortune a test."""

import itertools
import time

import pytest
from tests.support.client import Client, Silence, drop_nth

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import (
    Data,
    Error,
    Oack,
    build_ack,
    build_error,
    build_request,
)

CONTENT = bytes(i * 7 & 0xFF for i in range(5000))
QUICK = {"initial_ns": 100_000_000, "give_up_ns": 600_000_000, "half_open_give_up_ns": 800_000_000}
pytestmark = pytest.mark.usefixtures("ahead")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def next_packet(client, kind, timeout_s=3.0):
    packet, sender = client.receive_packet(timeout_s)
    assert isinstance(packet, kind), packet
    return packet, sender


def nothing_for(client, seconds):
    with pytest.raises(Silence):
        client.receive(seconds)


# --- silence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Opcode.RRQ, Opcode.WRQ])
def test_who_has_answered_nothing_is_given_up_in_time_whatever_timeout_it_asked_for(serve, file, kind):
    served = serve(**QUICK)
    with Client(served.address) as client:
        client.request("file" if kind == Opcode.RRQ else "up", options={"timeout": 255}, kind=kind)
        next_packet(client, Oack)
        completion = served.completion()
    assert completion.outcome == Outcome.TIMED_OUT
    assert completion.duration_ns >= QUICK["half_open_give_up_ns"]
    assert completion.datagrams_out == 1
    # The Completion goes up a moment before the slot is free.
    served.wait(lambda: served.counter("half_open_transfers") == 0, "the end of the last half-open one")


# --- repetition ------------------------------------------------------------------------------------------


def test_the_oack_is_repeated_when_it_or_its_ack_is_lost(serve, file):
    served = serve(**QUICK)
    with Client(served.address) as client:
        client.request("file", options={"blksize": 1000})
        first, sender = client.receive()
        again, same = client.receive()
        assert (again, same) == (first, sender)
        client.send(build_ack(0), sender)
        packet, _ = next_packet(client, Data)
        assert packet.block == 1
        client.send(build_error(0, "thanks"), sender)
    assert served.completion().retransmits == 1


@pytest.mark.parametrize("lost", [1, 2, 6])
def test_data_is_repeated_by_the_server_alone(serve, file, lost):
    """The client stays silent until the block comes again; the sixth is the final one."""
    served = serve(**QUICK)
    with Client(served.address, timeout_s=60, hear=drop_nth(1 + lost)) as client:
        assert client.get("file", options={"blksize": 999}).payload == CONTENT
    assert served.completion().retransmits == 1
    assert served.completion().outcome == Outcome.OK


def test_the_final_block_is_repeated_until_its_ack_comes(serve, file):
    served = serve(**QUICK)
    with Client(served.address, timeout_s=60, say=drop_nth(8, 9)) as client:
        got = client.get("file", options={"blksize": 999})  # its last ACK, number 8 after RRQ and ACK 0, is lost
        assert got.payload == CONTENT
        packet, sender = next_packet(client, Data)
        assert packet.block == 6
        client.send(build_ack(6), sender)  # number 9: lost as well
        next_packet(client, Data)
        client.send(build_ack(6), sender)
    assert served.completion().outcome == Outcome.OK
    assert served.completion().retransmits == 2


def test_a_repeated_ack_in_lock_step_sends_nothing(serve, file):
    served = serve(floor_ns=2_000_000_000)
    with Client(served.address) as client:
        client.request("file")
        _, sender = next_packet(client, Data)
        for _ in range(20):
            client.send(build_ack(0), sender)
        client.send(build_ack(1), sender)
        for _ in range(20):
            client.send(build_ack(1), sender)
        packet, _ = next_packet(client, Data)
        assert packet.block == 2
        nothing_for(client, 0.1)
        client.send(build_error(0, "enough"), sender)
    assert served.completion().duplicate_acks == 40


def test_an_ack_of_a_block_never_sent_is_no_progress(serve, file):
    served = serve()
    with Client(served.address) as client:
        client.request("file", options={"blksize": 100, "windowsize": 4})
        _, sender = next_packet(client, Oack)
        client.send(build_ack(0), sender)
        assert [next_packet(client, Data)[0].block for _ in range(4)] == [1, 2, 3, 4]
        for never in (5, 6, 50, 65535):
            client.send(build_ack(never), sender)
        client.send(build_ack(4), sender)
        assert next_packet(client, Data)[0].block == 5
        client.send(build_error(0, "enough"), sender)
    served.completion()


def test_the_same_request_again_is_answered_with_the_same_oack_and_asks_python_once(serve, file):
    served = serve()
    with Client(served.address) as client:
        request = build_request(Opcode.RRQ, "file", options=[("blksize", "1000")])
        client.send(request)
        first, sender = client.receive()
        client.send(request)
        assert client.receive() == (first, sender)
        client.send(build_error(0, "enough"), sender)
    served.completion()
    assert served.requests == 1
    assert served.counter("requests_repeated") == 1


# --- giving up -------------------------------------------------------------------------------------------


def test_a_peer_that_never_answers_gets_three_datagrams_and_an_error(serve, file):
    served = serve(**{**QUICK, "half_open_give_up_ns": 2 * 10**9})  # far behind the three, on a busy machine too
    with Client(served.address) as client:
        client.request("file")
        heard = []
        while True:
            packet, _ = client.receive_packet(10)
            heard.append(packet)
            if isinstance(packet, Error):
                break
        nothing_for(client, 0.2)
    assert [type(packet) for packet in heard] == [Data, Data, Data, Error]
    assert (heard[-1].code, heard[-1].text) == (0, "timed out: no answer")
    assert served.completion().outcome == Outcome.TIMED_OUT


def test_a_peer_that_falls_silent_gets_an_error_after_the_give_up_time(serve, file):
    served = serve(**QUICK)
    with Client(served.address) as client:
        client.request("file")
        _, sender = next_packet(client, Data)
        began = time.monotonic()
        client.send(build_ack(1), sender)
        packet = None
        while not isinstance(packet, Error):
            packet, _ = client.receive_packet()
        assert time.monotonic() - began >= QUICK["give_up_ns"] / 1e9
    completion = served.completion()
    assert (completion.outcome, completion.blocks) == (Outcome.TIMED_OUT, 1)
    assert completion.retransmits >= 3


# --- ends ------------------------------------------------------------------------------------------------


def test_a_peers_error_ends_the_transfer_at_once_and_gets_no_answer(serve, file):
    served = serve()
    with Client(served.address) as client:
        client.request("file")
        _, sender = next_packet(client, Data)
        client.send(build_error(3, "disk full here"), sender)
        completion = served.completion()
        assert (completion.outcome, completion.error) == (Outcome.PEER_ERROR, 3)
        assert completion.text == b"disk full here"
        assert completion.peer == ("127.0.0.1", client.port)
        nothing_for(client, 0.1)
        client.send(build_ack(1), sender)
        nothing_for(client, 0.1)  # an echo of a transfer that just ended is no stranger's


def test_stopping_the_engine_ends_every_transfer_with_an_error(serve, file):
    served = serve()
    with Client(served.address) as one, Client(served.address) as two:
        for client in (one, two):
            client.request("file")
            next_packet(client, Data)
        served.engine.stop()
        for client in (one, two):
            assert next_packet(client, Error)[0].text == "server is shutting down"
    served.completion(total=2)
    assert served.outcomes() == {"ABORTED": 2}


# --- TIDs: RFC 1350 section 4 ----------------------------------------------------------------------------


def test_a_strangers_datagram_gets_error_5_once_and_disturbs_nobody(serve, file):
    served = serve()
    with Client(served.address) as client, Client(served.address) as stranger:
        client.request("file")
        _, sender = next_packet(client, Data)
        for _ in range(5):
            stranger.send(build_ack(1), sender)
        packet, answered_from = next_packet(stranger, Error)
        assert (packet.code, answered_from) == (5, sender)
        nothing_for(stranger, 0.1)
        stranger.send(build_error(0, "die"), sender)  # an ERROR is never answered, and not from the peer: no effect
        nothing_for(stranger, 0.05)
        nothing_for(client, 0.0)
        client.send(build_ack(1), sender)
        assert next_packet(client, Data)[0].block == 2
        client.send(build_error(0, "enough"), sender)
    assert served.completion().datagrams_in == 2
    assert served.counter("strays_answered") == 1


def test_the_next_transfer_of_a_peer_uses_another_socket(serve, file):
    served = serve(tids=3)
    with Client(served.address) as client:
        peers = [client.get("file", options={"blksize": 5001}).peer for _ in range(6)]
    assert all(a != b for a, b in itertools.pairwise(peers))
    assert {port for _, port in peers} <= set(served.tid_ports)
    served.completion(total=6)


def test_answers_sent_to_the_request_port_are_never_answered(serve, file):
    """Or one forged datagram would set two servers on each other for ever."""
    served = serve()
    with Client(served.address) as client:
        for datagram in (build_ack(0), build_error(0, "x"), b"\0\3\0\1data", b"\0\6blksize\0008\0", b"", b"\0"):
            client.send(datagram)
        nothing_for(client, 0.1)
    assert served.counter("requests_dropped") == 6
    assert served.requests == 0


def test_a_request_that_is_none_is_refused_by_python(serve):
    served = serve()
    with Client(served.address) as client:
        packet, _ = client.exchange(b"\0\1no mode\0")
        assert (packet.code, served.requests) == (4, 1)


def test_a_superseded_transfer_goes_soon_whatever_timeout_was_negotiated(serve, file):
    served = serve(ceiling_ns=300_000_000, initial_ns=100_000_000)
    with Client(served.address) as client:
        client.request("file", options={"timeout": 254, "blksize": 100})
        _, sender = next_packet(client, Oack)
        client.send(build_ack(0), sender)
        next_packet(client, Data)
        client.request("file", options={"blksize": 200})
        _, sender = next_packet(client, Oack)
        ended = served.completion()
        assert (ended.outcome, ended.text) == (Outcome.ABORTED, b"the client sent another request")
        assert ended.duration_ns < 5 * 10**9
        client.send(build_error(0, "enough"), sender)
        served.completion(total=2)
