"""Stacks older than RFC 2347 drop a request with options without a word; the client asks them as RFC 1350 has it."""

import asyncio
import errno
import os
import socket
import time
from types import SimpleNamespace

import pytest
from tests.support.fake_server import Silence, Talk, drop_options, fake_server

from snow_owl_tftp import AsyncClient, Client, get
from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.client.attempt import Attempt, Remembered, attempts_at, patience_s
from snow_owl_tftp.client.endings import attempts_after, error_of_completion
from snow_owl_tftp.client.settings import ClientSettings
from snow_owl_tftp.client.transfer import State, Step, Transfer
from snow_owl_tftp.errors import ConfigError, TransferRefused, TransferTimedOut, TransferUnreachable
from snow_owl_tftp.plan.transfer import Outcome, Role

CONTENT = os.urandom(5_000)
QUICK = {"timeout": 0.05}
HERE = ServerAddress(socket.AF_INET, ("127.0.0.1", 69))
THERE = ServerAddress(socket.AF_INET, ("127.0.0.9", 69))


def serve(talk: Talk) -> None:
    talk.serve(CONTENT)


def had_options(server) -> list[bool]:
    return [bool(request.options) for request in server.requests]


def test_file_comes_within_seconds_by_default():
    with fake_server(drop_options(serve)) as server:
        began = time.monotonic()
        assert get(server.url("x")) == CONTENT
        assert 3 <= time.monotonic() - began < 20
    assert had_options(server) == [True, False]


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_one_try_without_options_is_left_however_few_there_are(retries):
    with fake_server(drop_options(serve)) as server:
        assert get(server.url("x"), retries=retries, **QUICK) == CONTENT


def test_upload_is_asked_without_options_too():
    taken = []

    def script(talk: Talk) -> None:
        talk.ack(0)
        for block in range(1, 11):
            taken.append(talk.hear()[4:])
            talk.ack(block)

    with fake_server(drop_options(script)) as server, Client(**QUICK) as client:
        client.put(server.url("x"), CONTENT)
    assert b"".join(taken) == CONTENT


def test_silent_server_is_remembered():
    with fake_server(drop_options(serve)) as server, Client(**QUICK) as client:
        for _ in range(3):
            assert client.get(server.url("x")) == CONTENT
    assert had_options(server) == [True, False, False, False]


def test_refusal_tells_as_much_as_a_file():
    with fake_server(drop_options(lambda talk: talk.error(1, "no"))) as server, Client(**QUICK) as client:
        for _ in range(2):
            with pytest.raises(TransferRefused):
                client.get(server.url("x"))
    assert had_options(server) == [True, False, False]


def test_server_that_once_answered_options_is_only_slow_when_it_is_silent():
    """On a lossy path, too, two tries get lost; a server that is known to hear them keeps its windows."""

    def script(talk: Talk) -> None:
        if talk.number > 1:
            with pytest.raises(Silence):
                talk.hear(0.5)
        talk.oack(blksize=512)
        talk.hear_ack(0)
        talk.serve(CONTENT)

    with fake_server(script) as server, Client(timeout=0.05, retries=100) as client:
        for _ in range(2):
            assert client.get(server.url("x")) == CONTENT
    assert had_options(server) == [True, True]


def test_dead_server_is_asked_without_options_before_it_has_timed_out():
    with fake_server(lambda talk: None) as server:
        began = time.monotonic()
        with pytest.raises(TransferTimedOut, match=r"timed out: no answer from 127\.0\.0\.1:\d+$"):
            get(server.url("x"), timeout=0.1, retries=9)
        assert time.monotonic() - began >= 1
    assert had_options(server) == [True, False]


def test_no_options_asks_for_none():
    with fake_server(serve) as server:
        assert get(server.url("x"), no_options=True) == CONTENT
    assert had_options(server) == [False]


def test_no_options_leaves_no_blksize_to_ask_for():
    with pytest.raises(ConfigError, match="blksize is an option"):
        Client(no_options=True, blksize=1428)


def test_request_without_options_is_not_asked_twice():
    """There is nothing to leave out."""
    with fake_server(lambda talk: None) as server, pytest.raises(TransferTimedOut):
        get(server.url("x"), mode="netascii", blksize=512, windowsize=1, timeout=0.1, retries=3)
    assert had_options(server) == [False]


@pytest.mark.parametrize(("content", "size"), [(CONTENT, None), (CONTENT[:300], 300)])
def test_size_is_what_a_server_without_options_lets_us_know(content, size):
    def script(talk: Talk) -> None:
        talk.data(1, content[:512])
        talk.hear()

    with fake_server(drop_options(script)) as server, Client(**QUICK) as client:
        assert client.size(server.url("x")) == size


def test_name_that_leaves_no_room_for_options_is_asked_for_without():
    name = "n" * 490
    with fake_server(serve) as server:
        assert get(server.url(name)) == CONTENT
        with pytest.raises(ValueError, match="exceeds 512"):
            get(server.url(name + "n" * 20))
    assert [request.filename for request in server.requests] == [name]


# --- who hears of it


class Hearing:
    """A progress callback that hears of silence."""

    def __init__(self):
        self.silence = []
        self.progress = []

    def __call__(self, done_bytes, size_bytes):
        self.progress.append((done_bytes, size_bytes))

    def unanswered(self, server, asked):
        self.silence.append((server, asked))


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_progress_that_hears_of_silence_is_told_who_and_how_often(face):
    hearing = Hearing()
    with fake_server(drop_options(serve)) as server:
        address = server.url("").removeprefix("tftp://").rstrip("/")
        if face == "blocking":
            with Client(timeout=0.5) as client:
                client.get(server.url("x"), progress=hearing)
        else:
            asyncio.run(get_in_loop(server.url("x"), hearing))
    assert {told for told, _ in hearing.silence} == {address}
    asked = [asked for _, asked in hearing.silence]
    assert asked == sorted(asked)
    assert asked[-1] >= 2
    assert hearing.progress[-1] == (len(CONTENT), None)
    assert hearing.progress[0][0] > 0  # instead, not besides


async def get_in_loop(url, progress):
    async with AsyncClient(timeout=0.5) as client:
        await client.get(url, progress=progress)


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_plain_progress_callback_hears_of_no_bytes(face):
    told = []
    with fake_server(drop_options(serve)) as server:
        if face == "blocking":
            with Client(timeout=0.3) as client:
                client.get(server.url("x"), progress=lambda *numbers: told.append(numbers))
        else:
            asyncio.run(get_in_loop(server.url("x"), lambda *numbers: told.append(numbers)))
    assert told[0] == (0, None)
    assert told[-1] == (len(CONTENT), None)


def test_callback_that_raises_at_silence_ends_the_transfer():
    class Raising(Hearing):
        def unanswered(self, server, asked):
            raise RuntimeError("enough")

    with fake_server(lambda talk: None) as server, pytest.raises(RuntimeError, match="enough"):
        get(server.url("x"), progress=Raising())


# --- what is tried, in which order


def test_every_address_is_tried_with_options_first():
    nothing = Remembered(10)
    tries = [Attempt(HERE), Attempt(THERE), Attempt(HERE, plain=True), Attempt(THERE, plain=True)]
    assert attempts_at([HERE, THERE], nothing, no_options=False) == tries
    assert attempts_at([HERE, THERE], nothing, no_options=True) == tries[2:]


def test_what_is_known_of_an_address_leaves_one_way():
    known = Remembered(10)
    known.put(HERE, True)
    known.put(THERE, False)
    assert attempts_at([HERE, THERE], known, no_options=False) == [Attempt(HERE), Attempt(THERE, plain=True)]


@pytest.mark.parametrize(
    ("settings", "spent_s", "tries", "expected_s"),
    [
        ({}, 0, [Attempt(HERE), Attempt(HERE, plain=True)], 1 + 2),
        ({}, 3, [Attempt(HERE, plain=True)], 4 + 8 + 8 + 8),  # with the three seconds before: five repetitions
        ({}, 0, [Attempt(HERE)], 1 + 2 + 4 + 8 + 8 + 8),
        ({}, 0, [Attempt(HERE), Attempt(THERE)], 2),
        ({"timeout": 5}, 0, [Attempt(HERE), Attempt(THERE)], 5),
        ({"timeout": 5}, 10, [Attempt(HERE, plain=True)], 20),
        ({"retries": 1}, 3, [Attempt(HERE, plain=True)], 1 + 2),
        ({"retries": 0}, 1, [Attempt(HERE, plain=True)], 1),
    ],
)
def test_a_dead_server_takes_no_longer_for_being_asked_in_several_ways(settings, spent_s, tries, expected_s):
    assert patience_s(tries, ClientSettings(**settings), spent_s=spent_s) == expected_s


UNREACHABLE = 6
"""As the engine numbers it; what the client reads is the errno."""


def completion(outcome: int, datagrams_in: int = 0, error: int = 0, payload_bytes: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        outcome=outcome, datagrams_in=datagrams_in, error=error, payload_bytes=payload_bytes, text=b"", peer=("", 0)
    )


@pytest.mark.parametrize(
    ("state", "end", "left"),
    [
        (State.ASKED, completion(Outcome.TIMED_OUT), [Attempt(HERE, plain=True)]),
        (State.LEFT, completion(Outcome.ABORTED), [Attempt(HERE, plain=True)]),
        (State.LEFT, completion(Outcome.ABORTED, datagrams_in=1), [Attempt(HERE)]),  # it spoke as it was left
        (State.ASKED, completion(Outcome.TIMED_OUT, datagrams_in=1), []),
        (State.ANSWERED, completion(Outcome.ABORTED, datagrams_in=1), []),
        (State.ASKED, completion(Outcome.PEER_ERROR, datagrams_in=1), [Attempt(HERE, plain=True)]),
        (State.ANSWERED, completion(Outcome.PEER_ERROR, datagrams_in=1), []),
        (State.MISANSWERED, completion(Outcome.ABORTED, datagrams_in=1), [Attempt(HERE, plain=True)]),
        (State.ASKED, completion(Outcome.LOCAL_IO_ERROR), []),
        (State.ASKED, completion(UNREACHABLE, error=errno.ECONNREFUSED), []),  # nobody is there to ask again
    ],
)
def test_what_is_left_after_an_attempt(state, end, left):
    transfer = Transfer(Role.RECEIVER, "x", "octet", [HERE], asked=(("tsize", "0"),), state=state)
    transfer.attempts = [Attempt(HERE), Attempt(HERE, plain=True)]
    assert attempts_after(transfer, end) == left
    assert transfer.move(Step.CANCEL)
    assert attempts_after(transfer, end) == []


@pytest.mark.parametrize("outcome", [UNREACHABLE, Outcome.LOCAL_IO_ERROR])
def test_host_without_a_server_is_left_for_the_next_address_at_once(outcome):
    transfer = Transfer(Role.RECEIVER, "x", "octet", [HERE, THERE], asked=(("tsize", "0"),), state=State.ASKED)
    transfer.attempts = attempts_at([HERE, THERE], Remembered(10), no_options=False)
    end = completion(outcome, error=errno.ECONNREFUSED)
    assert attempts_after(transfer, end) == [Attempt(THERE), Attempt(THERE, plain=True)]


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (completion(UNREACHABLE, error=errno.ECONNREFUSED), "unreachable: nothing listens on 127.0.0.1:69"),
        (
            completion(UNREACHABLE, datagrams_in=3, error=errno.ECONNREFUSED, payload_bytes=1024),
            "unreachable: the server went away after 1024 bytes",
        ),
    ],
)
def test_absence_is_told_in_words(end, text):
    transfer = Transfer(Role.RECEIVER, "x", "octet", [HERE], attempts=[Attempt(HERE)])
    error = error_of_completion(transfer, end)
    assert isinstance(error, TransferUnreachable)
    assert isinstance(error, ConnectionRefusedError)
    assert str(error) == text
    assert not isinstance(error_of_completion(transfer, completion(Outcome.PEER_ERROR, error=111)), TransferUnreachable)


# --- what is remembered


def test_memory_ends_after_its_time():
    now = [100.0]
    memory = Remembered(10, clock=lambda: now[0])
    memory.put(HERE, False)
    now[0] += 9.9
    assert memory.get(HERE) is False
    now[0] += 0.1
    assert memory.get(HERE) is None


def test_memory_is_bounded_and_forgets_the_oldest():
    memory = Remembered(10)
    addresses = [ServerAddress(socket.AF_INET, ("127.0.0.1", port)) for port in range(1, 1027)]
    for address in addresses[:1024]:
        memory.put(address, True)
    memory.put(addresses[0], True)
    for address in addresses[1024:]:
        memory.put(address, True)
    assert [address for address in addresses if memory.get(address) is None] == addresses[1:3]
