"""A server with several addresses: the first that answers serves."""

import os
import socket
import time
from contextlib import contextmanager

import pytest
from tests.support.fake_server import Talk, fake_server

from snow_owl_tftp import get, put
from snow_owl_tftp.client import attempt, calls
from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.errors import TransferTimedOut
from snow_owl_tftp.protocol.packets import build_data

CONTENT = os.urandom(5_000)


@pytest.fixture
def addresses(monkeypatch):
    """What every name resolves to; patience with the first of several is a tenth of a second."""
    found: list[ServerAddress] = []
    monkeypatch.setattr(calls, "resolve", lambda *_: list(found))
    monkeypatch.setattr(attempt, "_NEXT_ADDRESS_S", 0.1)
    return found


@pytest.fixture
def silent():
    """An address where everything is received and nothing answered."""
    with silence_at("127.0.0.9") as address:
        yield address


@contextmanager
def silence_at(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        yield ServerAddress(socket.AF_INET, sock.getsockname())


def test_silent_address_is_left_long_before_it_times_out(addresses, silent):
    with fake_server(lambda talk: talk.serve(CONTENT)) as server:
        addresses += [silent, ServerAddress(socket.AF_INET, server.address)]
        began = time.monotonic()
        assert get("tftp://both/file") == CONTENT
        assert time.monotonic() - began < 5


def test_last_address_has_all_the_time_there_is(addresses, silent):
    with silence_at("127.0.0.10") as other:
        addresses += [silent, other]
        with pytest.raises(TransferTimedOut, match=f"no answer from {silent}, {other}$"):
            get("tftp://both/file", timeout=0.2, retries=1)


def test_address_where_nobody_listens_is_left_at_once(addresses, monkeypatch):
    monkeypatch.setattr(attempt, "_NEXT_ADDRESS_S", 3600.0)
    with fake_server(lambda talk: talk.serve(CONTENT)) as server:
        addresses += [ServerAddress(socket.AF_INET, ("127.0.0.9", 9)), ServerAddress(socket.AF_INET, server.address)]
        assert get("tftp://both/file", timeout=10) == CONTENT


@pytest.mark.parametrize("begin", [lambda talk: talk.oack(blksize=512), lambda talk: talk.data(1, CONTENT[:512])])
def test_address_that_answers_is_kept_however_slow_it_is(addresses, silent, begin):
    def script(talk: Talk) -> None:
        begin(talk)
        block = int.from_bytes(talk.hear()[2:4], "big")
        with pytest.raises(BlockingIOError):
            hear_nothing_for_three_patiences(talk)
        for number in range(block + 1, 11):
            talk.data(number, CONTENT[(number - 1) * 512 : number * 512])
            talk.hear_ack(number)

    def hear_nothing_for_three_patiences(talk: Talk) -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            assert talk.hear(5)[:2] == b"\0\4"
        raise BlockingIOError

    with fake_server(script) as server:
        addresses += [ServerAddress(socket.AF_INET, server.address), silent]
        assert get("tftp://both/file", timeout=0.05, retries=20) == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_bare_ack_of_the_request_is_an_answer(addresses, silent, others):
    """A boot loader of RFC 1350 erases its flash between ACK 0 and ACK 1: to ask anew would interrupt it."""
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        deaf_until = time.monotonic() + 0.5
        while (datagram := talk.hear())[2:4] == b"\0\1" and time.monotonic() < deaf_until:
            pass
        for block in range(1, 11):
            while datagram[:4] != build_data(block, b""):
                datagram = talk.hear()
            taken.append(datagram[4:])
            talk.ack(block)

    with fake_server(script) as server:
        addresses += [ServerAddress(socket.AF_INET, server.address), silent][: 1 + others]
        put("tftp://both/file", CONTENT, timeout=0.05, retries=20)
    assert b"".join(taken) == CONTENT
    assert len(server.requests) == 1
