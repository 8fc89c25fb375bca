"""A server with several addresses: the first that answers serves."""

import os
import socket
import time

import pytest
from tests.support.fake_server import Talk, fake_server

from snow_owl_tftp import get, put
from snow_owl_tftp.client import core, faces
from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.errors import TransferTimedOut

CONTENT = os.urandom(5_000)


@pytest.fixture
def addresses(monkeypatch):
    """What every name resolves to; patience with the first of several is a tenth of a second."""
    found: list[ServerAddress] = []
    monkeypatch.setattr(faces, "resolve", lambda *_: list(found))
    monkeypatch.setattr(core, "_NEXT_ADDRESS_S", 0.1)
    return found


@pytest.fixture
def silent():
    """An address where everything is received and nothing answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.9", 0))
        yield ServerAddress(socket.AF_INET, sock.getsockname())


def test_silent_address_is_left_long_before_it_times_out(addresses, silent):
    with fake_server(lambda talk: talk.serve(CONTENT)) as server:
        addresses += [silent, ServerAddress(socket.AF_INET, server.address)]
        began = time.monotonic()
        assert get("tftp://both/file") == CONTENT
        assert time.monotonic() - began < 5


def test_last_address_has_all_the_time_there_is(addresses, silent):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as also_silent:
        also_silent.bind(("127.0.0.10", 0))
        addresses += [silent, ServerAddress(socket.AF_INET, also_silent.getsockname())]
        with pytest.raises(TransferTimedOut, match=r"no answer from 127\.0\.0\.10"):
            get("tftp://both/file", timeout=0.2, retries=1)


def test_address_where_nobody_listens_is_left_at_once(addresses, monkeypatch):
    monkeypatch.setattr(core, "_NEXT_ADDRESS_S", 3600.0)
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


def test_address_that_speaks_as_it_is_left_is_asked_again(addresses, silent):
    """ACK 0 says nothing of the file: a server of RFC 1350 that is slow then cannot be told from none."""
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        if talk.number == 1:
            talk.hear_error()
            return
        for block in range(1, 11):
            taken.append(talk.hear()[4:])
            talk.ack(block)

    with fake_server(script) as server:
        addresses += [ServerAddress(socket.AF_INET, server.address), silent]
        put("tftp://both/file", CONTENT)
    assert b"".join(taken) == CONTENT
    assert len(server.requests) == 2
