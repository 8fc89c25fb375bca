"""A server that takes uploads may do what it likes: it has the whole file, or the caller has an error."""

import socket

import pytest
from tests.support.fake_server import Silence, Talk, fake_server

from snow_owl_tftp.client.api import put
from snow_owl_tftp.errors import TransferError, TransferRefused, TransferTimedOut
from snow_owl_tftp.protocol.packets import build_ack

QUICK = {"timeout": 0.1, "retries": 3}
CONTENT = bytes(range(256)) * 11 + b"tail"
BLOCKS = len(CONTENT) // 512 + 1


def hear_data(talk: Talk, block: int) -> bytes:
    """The payload of the next datagram, which has to be this block."""
    datagram = talk.hear()
    assert datagram[:4] == b"\0\3" + block.to_bytes(2, "big")
    return datagram[4:]


def take(talk: Talk, blksize: int = 512) -> bytes:
    """All blocks in order, each acknowledged once."""
    received, block = bytearray(), 0
    while len(received) == block * blksize:
        block += 1
        received += hear_data(talk, block)
        talk.ack(block)
    return bytes(received)


def test_options_that_are_ignored_mean_512_bytes_in_lock_step():
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        taken.append(take(talk))

    with fake_server(script) as server:
        result = put(server.url("x"), CONTENT)
    assert taken == [CONTENT]
    assert (result.blksize, result.windowsize, result.options) == (512, 1, {})
    assert dict(server.requests[0].options)["tsize"] == str(len(CONTENT))


def test_smaller_grant_is_kept():
    taken = []

    def script(talk: Talk) -> None:
        talk.oack(blksize=100, windowsize=1)
        taken.append(take(talk, blksize=100))

    with fake_server(script) as server:
        put(server.url("x"), CONTENT)
    assert taken == [CONTENT]


@pytest.mark.parametrize(
    "options", [{"blksize": 65465}, {"blksize": 7}, {"windowsize": 65}, {"windowsize": 0}, {"multicast": "x"}]
)
def test_bad_oack_is_answered_with_error_8_and_raises(options):
    def script(talk: Talk) -> None:
        talk.oack(**options)
        assert talk.hear_error() == 8

    with fake_server(script) as server, pytest.raises(TransferError, match="OACK breaks the rules"):
        put(server.url("x"), CONTENT)


def test_error_in_the_middle_is_a_refusal():
    def script(talk: Talk) -> None:
        talk.ack(0)
        hear_data(talk, 1)
        talk.ack(1)
        hear_data(talk, 2)
        talk.error(3, "disk full")
        with pytest.raises(Silence):  # an ERROR is not answered
            talk.hear(0.2)

    with fake_server(script) as server, pytest.raises(TransferRefused) as refused:
        put(server.url("x"), CONTENT)
    assert (refused.value.code, refused.value.server_text) == (3, "disk full")
    assert len(server.requests) == 1


def test_silence_times_out():
    with fake_server(lambda talk: None) as server, pytest.raises(TransferTimedOut, match="no answer from"):
        put(server.url("x"), CONTENT, **QUICK)


def test_silence_in_the_middle_times_out_and_tells_how_far_it_came():
    def script(talk: Talk) -> None:
        talk.ack(0)
        hear_data(talk, 1)
        talk.ack(1)
        assert talk.hear_error() == 0

    with fake_server(script) as server, pytest.raises(TransferTimedOut, match="fell silent after 512 bytes"):
        put(server.url("x"), CONTENT, **QUICK)


def test_missing_last_ack_is_no_success():
    def script(talk: Talk) -> None:
        talk.ack(0)
        for block in range(1, BLOCKS):
            hear_data(talk, block)
            talk.ack(block)
        assert len(hear_data(talk, BLOCKS)) == len(CONTENT) % 512
        talk.hear_error()

    with fake_server(script) as server, pytest.raises(TransferTimedOut):
        put(server.url("x"), CONTENT, **QUICK)


def test_lost_data_is_sent_again():
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        first = hear_data(talk, 1)
        assert hear_data(talk, 1) == first
        talk.ack(1)
        hear_data(talk, 2)
        talk.ack(1)  # stale: no reason to send anything, the timer is
        hear_data(talk, 2)
        talk.ack(2)
        taken.extend(hear_and_ack(talk, block) for block in range(3, BLOCKS + 1))

    with fake_server(script) as server:
        result = put(server.url("x"), CONTENT, timeout=0.1)
    assert b"".join(taken) == CONTENT[1024:]
    assert result.retransmits >= 2


def hear_and_ack(talk: Talk, block: int) -> bytes:
    payload = hear_data(talk, block)
    talk.ack(block)
    return payload


def test_another_tid_is_told_error_5_and_changes_nothing():
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        first = hear_data(talk, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.sendto(build_ack(1), talk.peer)
            other.settimeout(5)
            assert other.recv(100)[:4] == b"\0\5\0\5"
        talk.ack(1)
        taken.append(first + b"".join(hear_and_ack(talk, block) for block in range(2, BLOCKS + 1)))

    with fake_server(script) as server:
        put(server.url("x"), CONTENT)
    assert taken == [CONTENT]


def test_doubled_acks_double_nothing():
    """RFC 1123 section 4.2.3.1: a repeated ACK must not be answered with DATA."""
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        talk.ack(0)
        for block in range(1, BLOCKS + 1):
            taken.append(hear_data(talk, block))
            talk.ack(block)
            talk.ack(block)
        with pytest.raises(Silence):
            talk.hear(0.2)

    with fake_server(script) as server:
        result = put(server.url("x"), CONTENT)
    assert b"".join(taken) == CONTENT
    assert result.retransmits == 0


@pytest.mark.parametrize("windowsize", [1, 4])
def test_acks_of_what_was_not_sent_are_ignored(windowsize):
    taken = []

    def script(talk: Talk) -> None:
        talk.oack(blksize=512, windowsize=windowsize)
        block = 1
        while block <= BLOCKS:
            window = range(block, min(block + windowsize, BLOCKS + 1))
            taken.extend(hear_data(talk, block) for block in window)
            talk.ack(window[-1] + 1)
            talk.ack(40000)
            talk.ack(window[-1])
            block = window[-1] + 1

    with fake_server(script) as server:
        put(server.url("x"), CONTENT)
    assert b"".join(taken) == CONTENT
