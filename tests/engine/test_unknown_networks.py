"""What a network is sent whose clients have not shown yet that they hear it: a forger gets a share, clients lose none.

The forger is played by the victim's own socket, as in test_forged_proof.py. Its guesses are right and it knows each
TID; but it acknowledges by the clock, since a forger does not see what its victim is sent.
"""

import random
import select
import socket
import time

import pytest
from tests.support.client import Client, lose_randomly

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Oack, build_ack, build_error, build_request

SHARE_BYTES = 512 * 1024
REFILL_BYTES_PER_S = 1 << 20  # a minute's, so more than a second's
CONTENT = bytes(i * 7 & 0xFF for i in range(251)) * 32_000
ANSWER_S = 0.1
ROUNDS = 7  # so many until the engine knows a client that acknowledges within the window
TOO_EARLY = b"an ACK came before its block was sent"
MODES = pytest.mark.parametrize("tids", [4, 0], ids=["tids", "single port"])
pytestmark = [
    pytest.mark.alone("a client that its machine lets wait looks erratic, and whoever looks so is held back"),
    pytest.mark.usefixtures("ahead"),
]


@pytest.fixture(autouse=True)
def file(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)


class Forger:
    """Asks in a victim's name; `acknowledge` says something in it and counts what the victim was sent meanwhile."""

    def __init__(self, client, windowsize, blksize=1000):
        self.client = client
        self.heard_bytes = 0
        client.request("file", options={"blksize": blksize, "windowsize": windowsize})
        packet, self.tid = client.receive_packet()
        assert isinstance(packet, Oack)

    def acknowledge(self, block, pace_s):
        self.client.send(build_ack(block & 0xFFFF), self.tid)
        until = time.monotonic() + pace_s
        while (left_s := until - time.monotonic()) > 0:
            if select.select([self.client.socket], [], [], left_s)[0]:
                self.heard_bytes += len(self.client.socket.recv(65536))


@MODES
@pytest.mark.parametrize("windowsize", [1, 8, 64])
@pytest.mark.parametrize("pace_s", [0.0005, 0.004])
def test_acks_by_the_clock_are_found_out(serve, tids, windowsize, pace_s):
    served = serve(tids=tids, network_bytes=SHARE_BYTES)
    blocks = len(CONTENT) // 1000
    with Client(served.address) as client:
        forger = Forger(client, windowsize)
        block = 0
        while not served.completions and block < blocks:
            forger.acknowledge(block, pace_s)
            block += windowsize
        completion = served.completion()
    assert (completion.outcome, completion.text) == (Outcome.ABORTED, TOO_EARLY)
    assert forger.heard_bytes <= SHARE_BYTES + windowsize * 1004
    assert served.counter("acks_too_early") == 1
    assert served.counter("networks_proven") == 0


@MODES
def test_acks_that_cannot_be_too_early_get_no_more_than_the_share(serve, tids):
    """Each but the last block of a window: there is always a block behind it that was sent."""
    served = serve(tids=tids, network_bytes=SHARE_BYTES)
    began = time.monotonic()
    with Client(served.address) as client:
        forger = Forger(client, 8)
        for block in range(0, len(CONTENT) // 1000, 7):
            forger.acknowledge(block, 0.002)
            if served.completions:
                break
    took_s = time.monotonic() - began
    assert forger.heard_bytes <= SHARE_BYTES + 8 * 1004 + REFILL_BYTES_PER_S / 60 * (took_s + 1)
    assert served.counter("networks_proven") == 0
    assert served.counter("sends_capped") + served.counter("acks_too_early") > 0


def test_a_wrong_guess_takes_the_share_of_the_whole_network(serve):
    served = serve(network_bytes=SHARE_BYTES)
    began = time.monotonic()
    with Client(served.address, source="127.0.9.1") as client:
        client.request("file", options={"blksize": 1000})
        _, tid = client.receive_packet()
        client.send(build_ack(0), ("127.0.0.1", next(port for port in served.tid_ports if port != tid[1])))
        served.completion()
    with Client(served.address, source="127.0.9.2") as client:
        forger = Forger(client, 8)
        forger.acknowledge(0, 0.1)
        forger.acknowledge(8, 0.1)
        # A window may overdraw what a moment has filled up; the next one waits until that is made up for.
        assert forger.heard_bytes <= 8 * 1004 + (time.monotonic() - began) * REFILL_BYTES_PER_S / 60
        assert served.counter("sends_capped") >= 1


@pytest.mark.once
@MODES
@pytest.mark.parametrize("options", [{}, {"blksize": 1428, "windowsize": 16}, {"blksize": 512, "windowsize": 512}])
def test_a_client_shows_that_it_hears_and_is_not_held_up(serve, tids, options):
    """Alone, for the first time, a file larger than the share, which holds eight windows of any client."""
    window_bytes = int(options.get("windowsize", 1)) * int(options.get("blksize", 512))
    served = serve(tids=tids, network_bytes=max(SHARE_BYTES, 8 * window_bytes))
    for network in range(10, 30):
        with Client(served.address, source=f"127.0.{network}.1") as client:
            if not fetch_without_a_wait(client, options):
                continue  # the machine let the client wait: that is what an erratic one looks like
            tried = served.counter("sends_tried")
            assert served.counter("networks_proven") == 1
            assert tried >= 10
            assert client.get("file", options=options).payload == CONTENT
        break
    else:
        pytest.fail("twenty clients of as many networks were held up")
    assert served.counter("sends_tried") == tried
    assert served.counter("acks_too_early") == 0
    served.wait(lambda: served.outcomes()["OK"] == 2)


def fetch_without_a_wait(client, options):
    """Whether the file came at once, and not as the share of an erratic client does, in minutes."""
    deadline = time.monotonic() + 5
    try:
        got = client.get("file", options=options, on_block=lambda _: give_up_after(deadline))
    except TimeoutError:
        client.send(build_error(0, "enough"), client.last_sender)
        return False
    assert got.payload == CONTENT
    return True


def give_up_after(deadline):
    if time.monotonic() > deadline:
        raise TimeoutError


@pytest.mark.once
@MODES
def test_a_client_that_acknowledges_within_the_window_shows_that_it_hears(serve, tids):
    served = serve(tids=tids, network_bytes=SHARE_BYTES)
    with Client(served.address) as client:
        client.request("file", options={"blksize": 1000, "windowsize": 16})
        _, tid = client.receive_packet()
        client.send(build_ack(0), tid)
        expected = 1
        while expected <= len(CONTENT) // 1000 + 1:
            datagram, _ = client.receive()
            if int.from_bytes(datagram[2:4], "big") == expected & 0xFFFF:
                client.send(build_ack(expected & 0xFFFF), tid)
                expected += 1
    assert served.completion().outcome == Outcome.OK
    assert served.counter("networks_proven") == 1
    assert served.counter("sends_capped") == 0


def hear_until(client, block):
    while client.receive_packet()[0].block != block:
        pass


@pytest.mark.once
def test_a_doubled_ack_does_not_shorten_how_long_its_transfer_is_held_back(serve, tmp_path):
    """Once a quarter of the share is spent, a client that acknowledges half windows is to acknowledge all that was sent
    before more is: it has eight usual answers for that. Its second ACK says nothing new."""
    options = {"blksize": 1000, "windowsize": 64}
    share_bytes = 64 * 64 * 1004
    (tmp_path / "a part").write_bytes(bytes(share_bytes // 4 - (64 * (ROUNDS + 1) + 16) * 1004))
    served = serve(network_bytes=share_bytes)
    for network in range(10, 20):
        with Client(served.address, source=f"127.0.{network}.1") as other:
            other.get("a part", options=options)
        with Client(served.address, source=f"127.0.{network}.2") as client:
            held_s = held_behind_half_a_window(client, options)
        if held_s:
            break  # else the machine was so slow that the share was filled up, or that an ACK was the report of a loss
    assert held_s >= 8 * 1.5 * ANSWER_S


def held_behind_half_a_window(client, options):
    """Seconds until what follows a doubled ACK; 0 if the server has not held it back."""
    client.request("file", options=options)
    _, tid = client.receive_packet()

    def acknowledge(block, last):
        client.send(build_ack(block), tid)
        while client.receive_packet()[0].block != last:
            pass

    time.sleep(ANSWER_S)
    acknowledge(0, 64)
    for half in range(32, 32 + 64 * ROUNDS, 64):
        time.sleep(ANSWER_S)  # which is what the server takes for usual, and for a round trip
        acknowledge(half, half + 64)
        acknowledge(half + 32, half + 96)  # so soon that it can be no report of a loss
    time.sleep(ANSWER_S)
    acknowledge(half + 64, half + 128)
    began = time.monotonic()
    for _ in range(2):
        client.send(build_ack(half + 96), tid)
    is_next = client.receive_packet()[0].block == half + 129
    took_s = time.monotonic() - began
    client.send(build_error(0, "enough"), tid)
    return took_s if is_next and took_s > ANSWER_S else 0


@pytest.mark.once
@MODES
@pytest.mark.parametrize("windowsize", [1, 16])
def test_a_client_whose_way_loses_shows_that_it_hears(serve, tids, windowsize):
    """A lost window is no evidence, for nor against."""
    served = serve(tids=tids, network_bytes=2 << 20)
    lose = lose_randomly(random.Random(windowsize), 0.01)
    with Client(served.address, hear=lose) as client:
        assert client.get("file", options={"blksize": 1428, "windowsize": windowsize}).payload == CONTENT
    assert served.counter("networks_proven") == 1
    assert served.counter("sends_capped") == served.counter("acks_too_early") == 0


@pytest.mark.once
@pytest.mark.parametrize("windowsize", [1, 64, 256, 700])
def test_a_rack_of_large_windows_does_not_spend_its_share_untried(serve, tmp_path, windowsize):
    """All of a single port, none known: 254 first windows are up to 15 times the share."""
    (tmp_path / "rack").write_bytes(CONTENT[: 1000 * 1000])
    served = serve(tids=0, network_bytes=16 << 20)
    rack = Rack(served.address, 254, windowsize)
    rack.run(100)
    assert rack.done == 254
    assert served.counter("networks_proven") == 1


def test_small_files_never_wait(serve, tmp_path):
    (tmp_path / "small").write_bytes(CONTENT[:700])
    served = serve(tids=0, network_bytes=SHARE_BYTES)
    with Client(served.address) as client:
        for _ in range(1000):
            client.get("small", options={"blksize": 1000})
    assert served.counter("sends_tried") == served.counter("sends_capped") == 0


def test_without_a_share_nobody_is_doubted(serve):
    served = serve(tids=0, network_bytes=0)
    with Client(served.address) as client:
        assert client.get("file", options={"blksize": 1428}).payload == CONTENT
    assert served.counter("sends_tried") == served.counter("networks_proven") == 0


class Rack:
    """Clients of one /24 that boot at the same moment, each from an address of its own."""

    def __init__(self, server, machines, windowsize):
        self.windowsize = windowsize
        self.got = {}
        self.done = 0
        for host in range(1, machines + 1):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            one.bind((f"127.0.44.{host}", 0))
            one.sendto(
                build_request(Opcode.RRQ, "rack", "octet", [("blksize", "1428"), ("windowsize", str(windowsize))]),
                server,
            )
            self.got[one] = 0

    def hear(self, one):
        datagram, tid = one.recvfrom(2048)
        if datagram[1] == Opcode.OACK:
            one.sendto(build_ack(0), tid)
        elif int.from_bytes(datagram[2:4], "big") == self.got[one] + 1 & 0xFFFF:
            self.got[one] += 1
            is_last = len(datagram) < 1432
            self.done += is_last
            if is_last or self.got[one] % self.windowsize == 0:
                one.sendto(build_ack(self.got[one]), tid)

    def run(self, patience_s):
        poll = select.epoll()
        by_fd = {one.fileno(): one for one in self.got}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        deadline = time.monotonic() + patience_s
        while self.done < len(self.got) and time.monotonic() < deadline:
            for fd, _ in poll.poll(0.5):
                self.hear(by_fd[fd])
        for one in self.got:
            one.close()
        poll.close()


@pytest.mark.once
@MODES
def test_a_rack_that_boots_for_the_first_time_is_known_at_once(serve, tmp_path, tids):
    (tmp_path / "rack").write_bytes(CONTENT[: 300 * 1000])
    served = serve(tids=tids, network_bytes=8 << 20)
    rack = Rack(served.address, 254, 16)
    rack.run(100)
    assert rack.done == 254
    served.completion(total=254)
    assert served.outcomes() == {"OK": 254}
    assert served.counter("networks_proven") == 1
    assert served.counter("acks_too_early") == 0
    if tids:
        assert served.counter("sends_tried") == 0, "254 right answers to random TIDs are proof enough"
