"""How often a client, a network and all may ask; what is told beyond; and what strangers are answered at most."""

import contextlib
import itertools
import socket
import struct
import time

import pytest
from tests.support.client import Client, Silence

from snow_owl_tftp._engine.engine import Engine
from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import Data, Error, Oack

NAME = "a-file-whose-name-is-long-enough-for-the-whole-text"
BUSY = "Too many requests, try again later"
A_SECOND = 1.0


@pytest.fixture
def file(tmp_path):
    for name in (NAME, "f", "file"):
        (tmp_path / name).write_bytes(bytes(100))
    (tmp_path / "long").write_bytes(bytes(700))


def limited(serve, **limits):
    served = serve(half_open_give_up_ns=600 * 10**9, initial_ns=60 * 10**9, ceiling_ns=60 * 10**9)
    served.engine.set_limits(**limits)
    return served


def ask(served, number, name=NAME, **client):
    """One request from a port of its own; what is answered, None: nothing."""
    with Client(served.address, **client) as asking:
        asking.request(name)
        try:
            return asking.receive_packet(0.5)[0]
        except Silence:
            return None


def source(network, host):
    return f"127.7.{network}.{host}"


@pytest.mark.parametrize(
    ("limit", "counter", "others"),
    [
        ("max_requests_per_s_per_client", "refused_client_requests", [source(1, 2), source(2, 1)]),
        ("max_requests_per_s_per_network", "refused_network_requests", [source(2, 1)]),
        ("max_requests_per_s", "refused_requests", []),
    ],
)
def test_beyond_a_rate_requests_are_refused_told_and_counted(serve, file, limit, counter, others):
    # Of all, strangers get half.
    served = limited(serve, **{limit: 6 if others else 12})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(served.address, source=source(1, 1))) for _ in range(10)]
        for client in clients:  # at once: a bucket fills while one waits
            client.request(NAME)
        answers = [client.receive_packet()[0] for client in clients]
    assert all(isinstance(answer, Data) for answer in answers[:6])
    refused = [answer for answer in answers if isinstance(answer, Error)]
    assert len(refused) >= 3
    assert {(answer.code, answer.text) for answer in refused} == {(ErrorCode.NOT_DEFINED, BUSY)}
    for other in others:
        assert isinstance(ask(served, 0, source=other), Data), other
    served.wait(lambda: sum(told.count for told in served.refusals) == len(refused), "all of them told")
    assert {told.limit for told in served.refusals} == {limit}
    assert served.counter(counter) == served.counter("requests_refused_busy") == len(refused)


def test_a_second_later_there_are_tokens_again(serve, file):
    served = limited(serve, max_requests_per_s_per_client=2)
    assert [type(ask(served, number)) for number in range(3)] == [Data, Data, Error]
    time.sleep(A_SECOND)  # what passes is the subject
    assert isinstance(ask(served, 3), Data)


@pytest.mark.parametrize(
    ("name", "text"),
    [(NAME, BUSY), ("file-of-16-bytes", "Too many requests"), ("f", "Busy")],
)
def test_no_refusal_is_longer_than_its_request(serve, file, name, text):
    served = limited(serve, max_requests_per_s_per_client=1)
    ask(served, 0)
    with Client(served.address) as client:
        client.request(name)
        datagram, _ = client.receive()
    assert len(datagram) <= len(name) + len("..octet.") + 1
    assert datagram[4:-1].decode() == text


def test_the_same_request_again_takes_a_token_and_without_one_hears_nothing(serve, file):
    served = limited(serve, max_requests_per_s_per_client=3)
    with Client(served.address) as client:
        client.request("long")
        packets = [client.receive_packet()[0]]
        for _ in range(5):
            client.request("long")
        with contextlib.suppress(Silence):
            while True:
                packets.append(client.receive_packet(0.3)[0])
    assert packets
    assert all(isinstance(packet, Data) for packet in packets), "an ERROR would end what it had begun"
    assert len(packets) == 3
    assert served.counter("answers_withheld") == 3
    assert served.counter("requests_repeated") == 5


def test_whose_network_was_served_has_the_half_that_strangers_do_not_get(serve, file):
    served = limited(serve, max_requests_per_s=8)
    with Client(served.address, source=source(9, 1)) as client:
        assert client.get("file").payload == bytes(100)
    served.completion()
    strangers = [ask(served, number, source=source(number % 5, 1)) for number in range(8)]
    assert sum(isinstance(answer, Data) for answer in strangers) >= 3
    assert any(isinstance(answer, Error) for answer in strangers)
    assert isinstance(ask(served, 0, source=source(9, 7)), Data)


def test_limits_change_while_it_runs(serve, file):
    served = limited(serve)
    for number in range(20):
        assert isinstance(ask(served, number), Data)
    served.engine.set_limits(max_requests_per_s_per_client=1)
    answers = [type(ask(served, number)) for number in range(3)]
    assert answers.count(Error) >= 1
    served.engine.set_limits()
    for number in range(20):
        assert isinstance(ask(served, number), Data)


@pytest.mark.parametrize("limit", ["max_requests_per_s", "max_bytes_per_s", "max_unproven_bytes_per_s"])
def test_a_rate_beyond_the_range_is_refused_and_changes_nothing(limit):
    engine = Engine()
    engine.set_limits(**{limit: 10**10})
    with pytest.raises(ValueError, match="rate"):
        engine.set_limits(**{limit: 10**10 + 1})


def test_all_workers_share_what_all_may_ask(serve, file):
    served = serve(workers=2, own_ports=True)
    served.engine.set_limits(max_requests_per_s=20)
    answers = []
    for number, address in zip(range(24), itertools.cycle(served.addresses), strict=False):
        with Client(address, source=source(number, 1)) as client:
            client.request(NAME)
            answers.append(client.receive_packet()[0])
    got = sum(isinstance(answer, Data) for answer in answers)
    assert 10 <= got < 20, "half of 20, however the requests fall on workers, and what came with the time"


# --- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "counter"),
    [
        ("max_transfers_per_network", "refused_network_transfers"),
        ("max_half_open_per_network", "refused_network_half_open"),
    ],
)
def test_a_network_holds_no_more_than_its_limit_and_others_have_theirs(serve, file, limit, counter):
    served = serve()
    served.on_request = lambda event, request: None  # undecided: nobody gives way
    served.engine.set_limits(**{limit: 3})
    with contextlib.ExitStack() as stack:
        for host in range(1, 4):
            stack.enter_context(Client(served.address, source=source(1, host))).request(NAME)
        client = stack.enter_context(Client(served.address, source=source(1, 9)))
        client.request(NAME)
        packet, _ = client.receive_packet()
        assert isinstance(packet, Error)
        assert "network" in packet.text
        other = stack.enter_context(Client(served.address, source=source(2, 1)))
        other.request(NAME)
        with pytest.raises(Silence):
            other.receive(0.2)
    assert served.counter(counter) == served.counter("requests_refused_busy") == 1


@pytest.mark.parametrize("limit", ["max_transfers_per_network", "max_half_open_per_network"])
def test_in_a_full_network_the_oldest_that_has_answered_nothing_gives_way(serve, file, limit):
    served = limited(serve, **{limit: 2})
    other = ask(served, 0, source=source(2, 1))
    assert isinstance(other, Data)
    for host in range(1, 7):
        assert isinstance(ask(served, 0, source=source(1, host)), Data)
        served.wait(lambda: len(served.completions) == max(host - 2, 0), "room for the next")  # noqa: B023
    assert [completion.peer[0] for completion in served.completions] == [source(1, host) for host in range(1, 5)]
    assert served.counter("transfers_gave_way") == 4


def test_what_a_network_held_before_the_limit_counts_for_nobody(serve, file):
    served = limited(serve)
    for host in range(1, 5):
        ask(served, 0, source=source(1, host))
    served.engine.set_limits(max_transfers_per_network=2)
    for host in range(5, 9):
        assert isinstance(ask(served, 0, source=source(1, host)), Data)
    served.engine.set_limits()
    for host in range(9, 12):
        assert isinstance(ask(served, 0, source=source(1, host)), Data)
    assert served.counter("transfers_gave_way") == 2


# --- who has shown nothing --------------------------------------------------------------------------------------


def forged(served, requests, name=NAME):
    """That many, each from another address and network; how many bytes were answered within a second or so."""
    answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("0.0.0.0", 0))
        sock.settimeout(0.3)
        for number in range(requests):
            address = socket.inet_aton(f"127.200.{number % 250}.{1 + number // 250}")
            sock.sendmsg(
                [b"\0\1" + name.encode() + b"\0octet\0"],
                [(socket.IPPROTO_IP, 8, struct.pack("=i4s4s", 0, address, bytes(4)))],
                0,
                served.address,
            )
        end_s = time.monotonic() + A_SECOND
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end_s:
                answered += len(sock.recv(70_000))
    return answered


def test_strangers_are_answered_so_many_bytes_a_second_and_no_more(serve, file):
    served = limited(serve, max_unproven_bytes_per_s=5_000)
    began_s = time.monotonic()
    answered = forged(served, 200) + forged(served, 200)
    assert 4_000 <= answered <= 5_000 * (1 + time.monotonic() - began_s)
    # Who was with Python before the first answers left gets none; who came behind them does not get that far.
    assert served.counter("answers_withheld") + served.counter("refused_unproven") > 100
    assert served.counter("refused_unproven") > 0
    served.wait(lambda: {told.limit for told in served.refusals} == {"max_unproven_bytes_per_s"}, "told")


def test_errors_count_as_answers_to_strangers(serve, tmp_path):
    served = limited(serve, max_unproven_bytes_per_s=1_000)
    began_s = time.monotonic()
    assert 500 <= forged(served, 300, "nothing") <= 1_000 * (1 + time.monotonic() - began_s)


def test_whose_network_was_served_lately_is_no_stranger(serve, file):
    served = limited(serve, max_unproven_bytes_per_s=1_000)
    with Client(served.address) as client:
        assert client.get("file").payload == bytes(100)
    served.completion()
    forged(served, 100)
    for number in range(20):
        assert isinstance(ask(served, number, source=f"127.0.0.{number + 2}"), Data)


def test_what_is_withheld_is_sent_to_who_asks_again(serve, file):
    served = limited(serve, max_unproven_bytes_per_s=600)
    with Client(served.address) as first, Client(served.address, source=source(1, 1)) as second:
        first.request("long")
        second.request("long")
        answered, asked = set(), 2
        end_s = time.monotonic() + 10
        while len(answered) < 2 and time.monotonic() < end_s:
            for client in {first, second} - answered:
                try:
                    assert isinstance(client.receive_packet(0.3)[0], Data)
                    answered.add(client)
                except Silence:
                    client.request("long")
                    asked += 1
    assert len(answered) == 2
    assert asked > 2
    assert served.counter("answers_withheld") + served.counter("refused_unproven") > 0


def test_first_packets_with_options_count_too(serve, file):
    served = limited(serve, max_unproven_bytes_per_s=100)
    answers = []
    with contextlib.ExitStack() as stack:
        for number in range(20):
            client = stack.enter_context(Client(served.address, source=source(number, 1)))
            client.request(NAME, options={"blksize": 1024})
            with contextlib.suppress(Silence):
                answers.append(client.receive_packet(0.05)[0])
    assert answers
    assert all(isinstance(answer, Oack) for answer in answers)
    assert len(answers) < 20


def test_who_is_answered_no_more_is_forgotten_in_time_and_in_silence(serve, file):
    served = serve(half_open_give_up_ns=10**9, initial_ns=200 * 10**6, ceiling_ns=200 * 10**6)
    served.engine.set_limits(max_unproven_bytes_per_s=10**9)
    with Client(served.address) as client:
        client.request("long")
        assert isinstance(client.receive_packet()[0], Data)
        served.engine.set_limits(max_unproven_bytes_per_s=1)
        completion = served.completion()
        assert completion.outcome == Outcome.TIMED_OUT
        assert completion.text == b"timed out: strangers had their share of answers"
        heard = []
        with contextlib.suppress(Silence):
            while True:
                heard.append(client.receive_packet(0.1)[0])
    assert len(heard) <= 1, "a full bucket, and then nothing"
    assert all(isinstance(packet, Data) for packet in heard)
    assert served.counter("answers_withheld") >= 2


def test_an_answer_that_waits_for_its_file_is_counted_once(serve, tmp_path):
    """A new file is not in memory yet: its transfer is pumped again when it is."""
    served = limited(serve, max_unproven_bytes_per_s=600)
    for number in range(3):
        (tmp_path / f"new-{number}").write_bytes(bytes(500))
        assert isinstance(ask(served, number, f"new-{number}", source=source(number, 1)), Data)
        time.sleep(A_SECOND)
    assert served.counter("answers_withheld") == 0
