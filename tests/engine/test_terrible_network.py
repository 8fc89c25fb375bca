"""Sender and receiver across a network that loses, doubles and overtakes, with a virtual clock: it ends well, and soon.

Every pairing of the readable model and the engine's machine plays; the clock is virtual, so minutes pass in no time.

Bounds, and why they hold:
- Content is equal, always.
- Retransmissions: a damaged datagram (lost or overtaken) makes half a window be sent again on average, as measured:
  the restart comes somewhere in the window. Bound: a window and a probe, about twice that. Doubled ones cost nothing.
  At 20 % loss most of a window's damage is mended by one restart: 4.3 blocks a damage with 64, and 12 are allowed.
- Time: without damage a window takes one round trip. A damaged datagram costs at most one timeout, and timeouts end
  at 8 s only while the peer is dead; with 1 and 5 % loss two in a row are rare, so 0.25 s a damage is generous.
  At 20 % each way a third of all round trips fail: then only the end within the hour is asked for.
"""

import random
from dataclasses import dataclass

import pytest
from tests.support.network import Network, Weather

from snow_owl_tftp.protocol.transfer import Receiver, Sender, Terms

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine.probe import FlightProbe

BLOCKS = 400
BLKSIZE = 32
OACK = b"\0\6windowsize\0" + b"4\0"
ROUND_TRIP_NS = 2_200_000
FIRST_RTO_NS = 1_000_000_000
HOUR_NS = 3600 * 10**9


class Committing:
    """A receiver whose file is safe as soon as it is there; hears the OACK and answers as the requesting side."""

    def __init__(self, machine):
        self.machine = machine

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def start(self, now_ns):
        self.machine.start(now_ns)
        return []  # its ACK 0 answers the OACK, which is still to come

    def receive(self, datagram, now_ns):
        answers = self.machine.receive(datagram, now_ns)
        if self.machine.received and self.machine.outcome is None:
            answers = self.machine.commit(now_ns)
        return answers


@dataclass
class Played:
    took_ns: int
    damaged: int
    retransmits: int
    whole: bool
    outcome: str


def play(engine_sends, engine_receives, windowsize, weather, seed):
    content = random.Random(seed).randbytes(BLOCKS * BLKSIZE - 5)
    sending = Terms(OACK, BLKSIZE, windowsize)
    receiving = Terms(b"", BLKSIZE, windowsize, proven=True)
    sender = FlightProbe(0, sending, content) if engine_sends else Sender(content, sending)
    machine = FlightProbe(1, receiving, b"", False) if engine_receives else Receiver(receiving, opening=False)
    network = Network(weather, random.Random(seed))
    took_ns = network.run((sender, Committing(machine)), HOUR_NS)
    damaged = sum(network.lost) + sum(network.duplicated) + sum(network.late)
    return Played(took_ns, damaged, sender.retransmits, machine.delivered == content, sender.outcome)


PAIRINGS = [(False, False), (True, False), (False, True), (True, True)]
WINDOWS = [1, 4, 16, 64]
# Removed with the rule that causes it: every progress puts the RTO back to the round trip of before.


def check(played, windowsize, seconds_a_damage):
    assert played.whole
    assert played.outcome == "OK"
    assert played.retransmits <= played.damaged * (windowsize + 1)
    clean_ns = (BLOCKS // windowsize + 4) * ROUND_TRIP_NS + 5 * 10**9  # and the receiver dallies
    assert played.took_ns <= clean_ns + FIRST_RTO_NS * 3 + played.damaged * seconds_a_damage * 10**9


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("windowsize", WINDOWS)
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
def test_loss_costs_a_bounded_number_of_retransmissions_and_a_bounded_time(pairing, windowsize, loss):
    for seed in range(4):
        check(play(*pairing, windowsize, Weather(loss=loss, jitter_ns=100_000), seed), windowsize, 0.25)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("windowsize", WINDOWS)
@pytest.mark.parametrize("weather", [Weather(duplicate=0.01), Weather(late=0.01, late_ns=150_000)], ids=["2x", "late"])
def test_duplicates_and_overtaking_make_no_storm(pairing, windowsize, weather):
    for seed in range(4):
        played = play(*pairing, windowsize, weather, seed)
        check(played, windowsize, 0.25)
        assert weather.late or played.retransmits == 0


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("windowsize", WINDOWS)
@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_everything_at_once(pairing, windowsize, loss):
    weather = Weather(loss=loss, duplicate=0.01, late=0.01, jitter_ns=100_000, late_ns=5_000_000)
    for seed in range(4):
        check(play(*pairing, windowsize, weather, seed), windowsize, 0.25)


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("windowsize", WINDOWS)
def test_at_20_percent_loss_it_still_ends_well(pairing, windowsize):
    weather = Weather(loss=0.2, duplicate=0.01, late=0.01, jitter_ns=100_000)
    for seed in range(4):
        played = play(*pairing, windowsize, weather, seed)
        assert played.whole
        # At this loss the last ACK may be lost until the receiver has stopped repeating it (RFC 1350 section 6):
        # then the sender cannot know that all went well, and says so.
        assert played.outcome in ("OK", "TIMED_OUT")
        assert played.retransmits <= played.damaged * min(windowsize + 1, 12)


@pytest.mark.parametrize("engine_sends", [False, True])
@pytest.mark.parametrize("windowsize", WINDOWS)
def test_a_round_trip_that_grows_a_hundredfold_is_learned(engine_sends, windowsize):
    """A queue fills, as in a boot storm: who keeps to the old RTO sends everything several times just then.

    Karn's back-off ends this within a few windows, since a backed-off RTO that outlasts the round trip yields a sample.
    """
    blocks = 100 * windowsize
    content = bytes(blocks * BLKSIZE)
    sending = Terms(OACK, BLKSIZE, windowsize)
    sender = FlightProbe(0, sending, content) if engine_sends else Sender(content, sending)
    receiver = Receiver(Terms(b"", BLKSIZE, windowsize, proven=True), opening=False)
    network = Network(Weather(delay_ns=1_500_000), random.Random(1))
    ends = (sender, Committing(receiver))
    network.post(0, sender.start(network.now_ns))
    ends[1].start(network.now_ns)
    while receiver.next <= blocks // 2:
        assert network.step(ends)
    assert sender.retransmits == 0
    network.weather = Weather(delay_ns=150_000_000)
    while not sender.done:
        assert network.step(ends)
    assert receiver.delivered == content
    assert sender.retransmits <= 12 * windowsize
