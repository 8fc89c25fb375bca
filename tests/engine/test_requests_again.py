"""A request that comes again from the same port: a copy that was long under way, or a client that was reset."""

import time

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import Data, Oack, build_ack, build_error, build_request

CONTENT = bytes(i * 7 & 0xFF for i in range(9000))
PATIENT = {"initial_ns": 20 * 10**9, "floor_ns": 20 * 10**9, "ceiling_ns": 20 * 10**9}  # no timer repeats anything


@pytest.fixture(params=[{}, {"windowsize": "4"}, {"timeout": "9"}], ids=str)
def begun(request, serve, tmp_path):
    """(served, client, its request, the TID of the transfer, windowsize, the last block that it received)."""
    (tmp_path / "file").write_bytes(CONTENT)
    served = serve(**PATIENT)
    rrq = build_request(Opcode.RRQ, "file", options=[("blksize", "1000"), *request.param.items()])
    with Client(served.address) as client:
        windowsize = int(request.param.get("windowsize", "1"))
        tid, received = begin(client, rrq, windowsize)
        yield served, client, rrq, tid, windowsize, received


def begin(client, rrq, windowsize):
    client.send(rrq)
    packet, tid = client.receive_packet()
    assert isinstance(packet, Oack), packet
    client.send(build_ack(0), tid)
    for _ in range(3 if windowsize == 1 else 1):
        for _ in range(windowsize):
            block, sender = client.receive_packet()
            assert isinstance(block, Data)
            assert sender == tid
        last = block.block
        if windowsize == 1:
            client.send(build_ack(last), tid)
    if windowsize == 1:
        last = client.receive_packet()[0].block
    return tid, last


def finish(client, tid, windowsize, received):
    """Acknowledges what was received, and all that follows."""
    final = len(CONTENT) // 1000 + 1
    client.send(build_ack(received), tid)
    while received < final:
        packet, sender = client.receive_packet()
        assert isinstance(packet, Data), packet
        assert (sender, packet.block) == (tid, received + 1)
        received += 1
        if received % windowsize == 0 or received == final:
            client.send(build_ack(received), tid)


def test_a_late_copy_changes_nothing_while_the_client_pauses(begun):
    served, client, rrq, tid, windowsize, received = begun
    client.send(rrq)
    client.send(rrq)
    with pytest.raises(Silence):
        client.receive(0.3)
    finish(client, tid, windowsize, received)
    done = served.completion()
    assert (done.outcome, done.retransmits) == (Outcome.OK, 0)
    assert served.counter("requests_repeated") == 2
    assert served.counter("transfers_started") == 1


def test_a_client_that_was_reset_is_served_within_a_second_whatever_its_timeout(begun):
    served, client, rrq, tid, _windowsize, _received = begun
    began = time.monotonic()
    client.send(rrq)
    packet, new = client.receive_packet()
    assert time.monotonic() - began < 5, "a second, and what a busy machine adds: timeouts are nine and twenty"
    assert isinstance(packet, Oack)
    assert new != tid
    client.send(build_ack(0), new)
    packet, sender = client.receive_packet()
    assert (packet.block, sender) == (1, new)
    ended = served.completion()
    assert (ended.outcome, ended.text) == (Outcome.ABORTED, b"the client sent another request")
    client.send(build_error(0, "enough"), new)
    assert served.completion(total=2).outcome == Outcome.PEER_ERROR


def test_a_client_that_paused_for_long_goes_on_with_what_it_has(begun):
    """The new transfer's OACK comes from a TID that it does not know: RFC 1350 section 4 has it say so."""
    served, client, rrq, tid, windowsize, received = begun
    client.send(rrq)
    packet, stranger = client.receive_packet()
    assert isinstance(packet, Oack)
    client.send(build_error(ErrorCode.UNKNOWN_TID, "unknown TID"), stranger)
    finish(client, tid, windowsize, received)
    served.completion(total=2)
    assert sorted(served.outcomes()) == ["OK", "PEER_ERROR"]


def test_a_client_that_ignores_the_strange_oack_goes_on_with_what_it_has(begun):
    served, client, rrq, tid, windowsize, received = begun
    client.send(rrq)
    packet, _stranger = client.receive_packet()
    assert isinstance(packet, Oack)
    finish(client, tid, windowsize, received)
    served.completion(total=2)
    assert sorted(served.outcomes()) == ["ABORTED", "OK"]


def test_the_file_is_asked_for_again_before_its_last_ack_arrives(serve, tmp_path):
    """A boot ROM keeps its port, and the network may overtake: the old transfer ends well, the new one goes on."""
    (tmp_path / "file").write_bytes(CONTENT[:2500])
    served = serve()
    rrq = build_request(Opcode.RRQ, "file", options=[("blksize", "1000"), ("windowsize", "4")])
    with Client(served.address) as client:
        client.send(rrq)
        _oack, old = client.receive_packet()
        client.send(build_ack(0), old)
        for _ in range(3):
            client.receive_packet()
        client.send(rrq)
        packet, new = client.receive_packet()
        assert isinstance(packet, Oack)
        client.send(build_ack(3), old)
        assert served.completion().outcome == Outcome.OK
        client.send(build_ack(0), new)
        assert [client.receive_packet()[0].block for _ in range(3)] == [1, 2, 3]
        client.send(build_ack(3), new)
        assert served.completion(total=2).outcome == Outcome.OK


def test_copies_that_wait_are_given_back_when_the_engine_stops(begun):
    served, client, rrq, *_ = begun
    client.send(rrq)
    served.wait(lambda: served.counter("requests_repeated") == 1)
