"""The engine's state machine against its readable model: the same packets at the same times, every answer compared.

Scripts are drawn from the test's seeded generator, and lean towards what is interesting: the edges of the window,
repeated and stale ACKs, blocks around a rollover, timers a nanosecond early. After every single step the datagrams,
the deadline, and all that the two machines remember must be equal.
"""

import random
from dataclasses import dataclass, field, replace

import pytest
from tests.support.pairs import pairs
from tests.support.twins import of_engine, of_model, of_other_role

from snow_owl_tftp.protocol import transfer
from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error
from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.rtt import RetransmitPolicy, RoundTrip
from snow_owl_tftp.protocol.seq import Rollover, block_of
from snow_owl_tftp.protocol.transfer import Receiver, Sender, Terms

pytest.importorskip("snow_owl_tftp._engine.probe", reason="a release build without the probe")
from snow_owl_tftp._engine.probe import FlightProbe, RttProbe

SENDER, RECEIVER = 0, 1
OACK = b"\0\6blksize\0008\0"
START_NS = 10**12
WINDOWS = [1, 4, 16, 65535]
HASTY = RetransmitPolicy(half_open_datagrams=2, min_retries=2, give_up_ns=10**9, half_open_give_up_ns=2 * 10**9)


@dataclass
class Pair:
    """The model and the engine's machine, given the same of everything."""

    model: Sender | Receiver
    probe: FlightProbe
    now_ns: int = START_NS
    steps: int = 0
    beside: dict[str, object] = field(default_factory=dict)
    """What the engine holds for the other role, as it began."""

    def both(self, what: str, *args: object) -> list[bytes]:
        mine = getattr(self.model, what)(*args, self.now_ns)
        theirs = getattr(self.probe, what)(*args, self.now_ns)
        self.steps += 1
        context = f"step {self.steps}: {what} {args}"
        assert theirs == mine, context
        self.compare(context)
        return mine

    def compare(self, context: str) -> None:
        """All that both remember, and what follows from it."""
        held = of_engine(self.probe)
        if not self.beside:
            self.beside = {name: held.get(name) for name in of_other_role(self.model)}
        assert held == of_model(self.model) | self.beside, context
        assert self.probe.rto_ns == self.model.rto_ns, context
        assert self.probe.pausing == (isinstance(self.model, Sender) and self.model.pausing), context
        assert self.probe.received == (isinstance(self.model, Receiver) and self.model.received), context

    def to_deadline(self) -> None:
        self.now_ns = max(self.now_ns, self.model.deadline_ns)

    def tick(self) -> None:
        """The timer, sometimes a nanosecond early, sometimes late."""
        if self.model.deadline_ns is not None:
            self.now_ns = max(self.now_ns, self.model.deadline_ns + self.model.retries % 3 - 1)
            self.both("tick")


def sender_pair(size: int, terms: Terms) -> Pair:
    source = random.Random(size).randbytes(size)
    return Pair(Sender(source, terms), FlightProbe(SENDER, terms, source))


def receiver_pair(terms: Terms, opening: bool = True) -> Pair:
    return Pair(Receiver(terms, opening=opening), FlightProbe(RECEIVER, terms, b"", opening))


def random_terms(rng: random.Random, windowsize: int, blksize: int = 8) -> Terms:
    return Terms(
        first_packet=rng.choice([b"", OACK]),
        blksize_bytes=blksize,
        windowsize_blocks=windowsize,
        timeout_ns=rng.choice([0, 0, 5 * 10**7, 10**9, 20 * 10**9]),
        proven=rng.random() < 0.3,
        policy=rng.choice([RetransmitPolicy(), HASTY]),
        patience=rng.choice([None, remembered(rng)]),
    )


def remembered(rng: random.Random) -> Patience:
    """Of a client that was here before."""
    return Patience(
        loses=rng.random() < 0.7,
        pause_ns=rng.choice([0, 30_000_000, 2 * 10**9]),
        srtt_ns=rng.choice([0, 1, rng.randrange(10**8)]),
        rttvar_ns=rng.randrange(10**7),
        burst_blocks=rng.choice([0, 1, 3, 9]),
        silence=rng.choice([0, 40, 120, 255]),
    )


def sizes(blksize: int, windowsize: int) -> list[int]:
    window = blksize * min(windowsize, 100)
    return [0, 1, blksize - 1, blksize, blksize + 1, window - 1, window, window + 1, 7 * window + 3]


def stray(rng: random.Random) -> bytes:
    """What no transfer expects, or not now."""
    block = rng.randrange(65536)
    wrong = [b"", b"\0", b"\0\4\0", b"\1\4\0\0", b"\0\7\0\0", OACK, b"\0\1x\0octet\0"]
    return rng.choice([*wrong, build_ack(block), build_data(block, bytes(rng.randrange(9)))])


# --- the sender ------------------------------------------------------------------------------------------


def acks_of_interest(rng: random.Random, sender: Sender) -> bytes:
    index = rng.choice(
        [
            sender.sent_end - 1,
            sender.sent_end - 1,
            sender.sent_end - 1,
            sender.window_base,
            sender.window_base - 1,
            sender.window_base - 2,
            sender.sent_end,
            rng.randint(sender.window_base - 1, sender.sent_end),
        ]
    )
    return build_ack(block_of(max(index, 0), sender.terms.rollover))


def play_sender(rng: random.Random, pair: Pair, steps: int) -> None:
    pair.both("start")
    for _ in range(steps):
        if pair.model.done:
            break
        pair.now_ns += rng.choice([0, 1, 1000, rng.randrange(3_000_000), rng.randrange(50_000_000)])
        chance = rng.random()
        if chance < 0.15:
            pair.tick()
        elif chance < 0.2:
            pair.both("receive", stray(rng))
        elif chance < 0.202:
            pair.both("receive", build_error(rng.randrange(9), "enough"))
        elif chance < 0.22:
            pair.both("restart_clocks")
        else:
            pair.both("receive", acks_of_interest(rng, pair.model))


@pytest.mark.parametrize("windowsize", WINDOWS)
@pytest.mark.parametrize("which", range(9))
def test_senders_agree_on_every_datagram_and_deadline(windowsize, which, rng):
    blksize = 8
    for _ in range(12):
        pair = sender_pair(sizes(blksize, windowsize)[which], random_terms(rng, windowsize, blksize))
        play_sender(rng, pair, 150)


@pytest.mark.parametrize("windowsize", [16, 64])
def test_senders_agree_on_losses_that_only_a_timeout_brought_to_light(windowsize, rng):
    for _ in range(10):
        pair = sender_pair(8 * 1000 - 3, replace(random_terms(rng, windowsize), timeout_ns=0, proven=True))
        pair.both("start")
        pair.now_ns += 5_000_000
        pair.both("receive", build_ack(0))
        while not pair.model.done and pair.steps < 300:
            for _ in range(rng.choice([1, 2, 2, 4])):
                if pair.model.deadline_ns is not None:
                    pair.to_deadline()
                    pair.both("tick")
            pair.now_ns += rng.choice([1, 100_000, 5_000_000, 30_000_000])
            acked = min(pair.model.window_base + rng.choice([8, 8, 8, 9, 12, 2]), pair.model.sent_end - 1)
            pair.both("receive", build_ack(block_of(acked)))


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_senders_agree_on_a_client_that_acknowledges_more_often_than_it_agreed_to(stride):
    """What it acknowledges looks like losses, until that is its habit; and a silence makes it doubtful again."""
    pair = sender_pair(8 * 1000 - 3, Terms(OACK, blksize_bytes=8, windowsize_blocks=16, proven=True))
    pair.both("start")
    for acked in range(0, 12 * stride, stride):
        pair.now_ns += 5_000_000 if acked <= stride else 10_000
        pair.both("receive", build_ack(acked))
    assert pair.probe.flight()["stride"] == stride
    while not pair.model.retries:
        pair.to_deadline()
        pair.both("tick")
    assert pair.probe.flight()["stride"] == 16
    pair.both("receive", build_ack(pair.model.window_base))


def test_senders_agree_on_a_client_that_answers_no_probe_but_reports_what_it_misses():
    pair = sender_pair(8 * 1000 - 3, Terms(OACK, blksize_bytes=8, windowsize_blocks=16, proven=True))
    pair.both("start")
    for acked in (0, 16):
        pair.now_ns += 5_000_000
        pair.both("receive", build_ack(acked))
    while pair.model.retries < 2:
        pair.to_deadline()
        pair.both("tick")
    pair.now_ns += 5_000_000
    pair.both("receive", build_ack(24))
    assert pair.probe.flight()["deaf"] == 1
    for _ in range(3):  # two of them may be echoes
        pair.now_ns += 5_000_000
        pair.both("receive", build_ack(24))
    assert pair.probe.flight()["deaf"] == 0


@pytest.mark.parametrize("windowsize", WINDOWS)
def test_senders_agree_on_a_client_that_is_silent_behind_ack_0(windowsize):
    """It is given up; before that it is sent its window in parts, for that ACK may be forged."""
    pair = sender_pair(8 * 1000 - 3, Terms(OACK, blksize_bytes=8, windowsize_blocks=windowsize))
    pair.both("start")
    pair.now_ns += 5_000_000
    pair.both("receive", build_ack(0))
    while not pair.model.done:
        pair.to_deadline()
        pair.both("tick")
    assert pair.model.outcome == "TIMED_OUT"


@pytest.mark.parametrize("blksize", [9, 512, 1428, 65464])
def test_senders_agree_at_every_block_size(blksize, rng):
    for size in sizes(blksize, 3):
        play_sender(rng, sender_pair(size, random_terms(rng, 3, blksize)), 80)


# Each case plays 65,500 blocks of the readable model before the rollover; `make soak` plays the whole product.
@pytest.mark.parametrize(
    ("windowsize", "blocks", "rollover"), pairs(WINDOWS, [65534, 65535, 65536, 65537], list(Rollover))
)
def test_senders_agree_across_a_rollover(windowsize, blocks, rollover, rng):
    """Straight to 40 blocks before the rollover, then a script; the file ends at `blocks`."""
    windowsize -= rollover if windowsize == 65535 else 0
    terms = Terms(OACK, blksize_bytes=8, windowsize_blocks=windowsize, rollover=rollover)
    pair = sender_pair(8 * blocks - 3, terms)
    pair.both("start")
    pair.both("receive", build_ack(0))
    while pair.model.window_base < min(65500, pair.model.last):
        pair.now_ns += 1_000_000
        target = min(pair.model.sent_end - 1, 65499)
        # Not compared step by step: this only brings both there.
        datagram = build_ack(block_of(target))
        assert pair.model.receive(datagram, pair.now_ns) == pair.probe.receive(datagram, pair.now_ns)
    for _ in range(40 if windowsize > 65000 else 400):
        if pair.model.done:
            break
        pair.now_ns += rng.randrange(2_000_000)
        pair.tick() if rng.random() < 0.1 else pair.both("receive", acks_of_interest(rng, pair.model))
    else:
        pair.both("receive", build_ack(block_of(pair.model.sent_end - 1, rollover)))


@pytest.mark.parametrize("blksize", [8, 512, 1428, 65464])
def test_offsets_go_on_past_4_gib(blksize):
    """The soak test sends such a file; this is the arithmetic that the worker sends by."""
    pair = sender_pair(1, Terms(OACK, blksize_bytes=blksize, windowsize_blocks=64))
    pair.both("start")
    edges = [(1 << bits) // blksize + off for bits in (31, 32, 33, 45) for off in (-1, 0, 1, 2)]
    for block_index in [1, 2, 65535, 65536, 65537, *edges]:
        assert pair.probe.offset(block_index) == (block_index - 1) * blksize


# --- the receiver ----------------------------------------------------------------------------------------


def data_of_interest(rng: random.Random, receiver: Receiver, final_at: int, follows: Rollover | None) -> bytes:
    ahead = rng.choice([0, 0, 0, 0, 0, 0, -1, 1, 2, -2, rng.randint(-20, 20), receiver.terms.windowsize_blocks])
    index = max(receiver.next + ahead, 0)
    rollover = rng.choice([receiver.rollover if follows is None else follows] * 9 + list(Rollover))
    size = receiver.terms.blksize_bytes if index != final_at else rng.randrange(receiver.terms.blksize_bytes)
    if rng.random() < 0.002:
        size = receiver.terms.blksize_bytes + 1
    return build_data(block_of(index, rollover), rng.randbytes(size))


def play_receiver(rng: random.Random, pair: Pair, steps: int, final_at: int, follows: Rollover | None = None) -> None:
    """`follows`: how its sender rolls over, None: as the receiver believes."""
    for _ in range(steps):
        if pair.model.done:
            break
        pair.now_ns += rng.choice([0, 1, 1000, rng.randrange(3_000_000), rng.randrange(50_000_000)])
        chance = rng.random()
        if pair.model.received and pair.model.outcome is None and chance < 0.3:
            pair.both("commit")
        elif chance < 0.08:
            pair.tick()
        elif chance < 0.12:
            pair.both("receive", stray(rng))
        elif chance < 0.122:
            pair.both("receive", build_error(rng.randrange(9), "enough"))
        else:
            pair.both("receive", data_of_interest(rng, pair.model, final_at, follows))


@pytest.mark.parametrize("windowsize", WINDOWS)
@pytest.mark.parametrize("opening", [True, False])
def test_receivers_agree_on_every_datagram_and_deadline(windowsize, opening, rng):
    for final_at in (1, 2, 4, 5, 16, 17, 60, 10**9):
        for _ in range(8):
            terms = random_terms(rng, windowsize)
            pair = receiver_pair(terms if opening else replace(terms, proven=True), opening)
            pair.both("start")
            play_receiver(rng, pair, 200, final_at)


@pytest.mark.parametrize(("windowsize", "rollover", "laps"), pairs(WINDOWS, list(Rollover), [1, 2]))
def test_receivers_agree_across_a_rollover(windowsize, rollover, laps, rng):
    """A sender that goes on with 0, and one that goes on with 1, which only a lock-step receiver can follow."""
    pair = receiver_pair(Terms(OACK, blksize_bytes=8, windowsize_blocks=windowsize))
    pair.both("start")
    follows = rollover if windowsize == 1 else Rollover.TO_0
    for index in range(1, laps * 65536 - 20):
        datagram = build_data(block_of(index, follows), b"01234567")
        assert pair.model.receive(datagram, pair.now_ns) == pair.probe.receive(datagram, pair.now_ns)
        pair.now_ns += 1000
    for index in range(laps * 65536 - 20, laps * 65536 + 20):
        pair.both("receive", build_data(block_of(index, rollover), b"01234567"))
        play_receiver(rng, pair, 3, 10**9, rollover)
        if pair.model.done:
            break
    assert pair.steps > 50 or pair.model.done


@pytest.mark.parametrize("windowsize", [1, 4, 65534])
@pytest.mark.parametrize("laps", [1, 2])
def test_receivers_that_agreed_on_rollover_to_1_agree(windowsize, laps, rng):
    terms = Terms(OACK, blksize_bytes=8, windowsize_blocks=windowsize, rollover=Rollover.TO_1)
    pair = receiver_pair(terms)
    pair.both("start")
    for index in range(1, laps * 65535 - 20):
        datagram = build_data(block_of(index, Rollover.TO_1), b"01234567")
        assert pair.model.receive(datagram, pair.now_ns) == pair.probe.receive(datagram, pair.now_ns)
        pair.now_ns += 1000
    for index in range(laps * 65535 - 20, laps * 65535 + 20):
        pair.both("receive", build_data(block_of(index, Rollover.TO_1), b"01234567"))
        play_receiver(rng, pair, 3, 10**9)
    assert pair.model.next > laps * 65535 - 20


@pytest.mark.parametrize("windowsize", [1, 4])
def test_receivers_agree_to_follow_a_sender_that_goes_on_with_1_in_lock_step_alone(windowsize):
    """In a window block 0 may have been lost."""
    pair = receiver_pair(Terms(OACK, blksize_bytes=8, windowsize_blocks=windowsize))
    pair.both("start")
    for index in range(1, 65536):
        datagram = build_data(index, b"01234567")
        assert pair.model.receive(datagram, pair.now_ns) == pair.probe.receive(datagram, pair.now_ns)
    assert pair.both("receive", build_data(1, b"01234567")) == [build_ack(1 if windowsize == 1 else 65535)]
    assert pair.model.rollover is (Rollover.TO_1 if windowsize == 1 else Rollover.TO_0)


def test_receivers_agree_on_a_sender_that_had_only_paused():
    """It answers both copies of an ACK, late."""
    pair = receiver_pair(Terms(OACK, blksize_bytes=8, patience=Patience(silence=120)))
    pair.both("start")
    pair.now_ns += 5_000_000
    pair.both("receive", build_data(1, b"01234567"))
    pair.to_deadline()
    pair.both("tick")
    for late_ns in (100_000_000, 1000):
        pair.now_ns += late_ns
        pair.both("receive", build_data(2, b"01234567"))
    assert pair.model.patience.pause_ns > 0


def test_a_lost_ack_of_block_65535_is_repeated_before_block_1():
    pair = receiver_pair(Terms(OACK, blksize_bytes=8, rollover=Rollover.TO_1))
    pair.both("start")
    for index in range(1, 65536):
        datagram = build_data(index, b"01234567")
        assert pair.model.receive(datagram, pair.now_ns) == pair.probe.receive(datagram, pair.now_ns)
        if index % 64 == 0 or index > 65500:
            pair.compare(f"block {index}")
    assert pair.both("receive", build_data(65535, b"01234567")) == [build_ack(65535)]
    assert pair.both("receive", build_data(1, b"01234567")) == [build_ack(1)]


# --- the timer -------------------------------------------------------------------------------------------


def test_round_trips_and_patience_agree_to_the_nanosecond(rng):
    for _ in range(20):
        policy = RetransmitPolicy(floor_ns=rng.choice([1, 10_000_000]), ceiling_ns=rng.choice([10**9, 8 * 10**9]))
        model, patience, probe = RoundTrip(policy), Patience(), RttProbe(policy)
        for _ in range(200):
            chance = rng.random()
            if chance < 0.1:
                patience.on_loss(policy)
                probe.on_loss()
            elif chance < 0.2:
                late_ns = rng.randrange(10**10)
                patience.on_pause(late_ns, policy)
                probe.on_pause(late_ns)
            else:
                rtt_ns = rng.choice([0, 1, 2, rng.randrange(10**6), rng.randrange(10**10)])
                model.sample(rtt_ns)
                probe.sample(rtt_ns)
            assert (probe.srtt_ns, probe.rttvar_ns, probe.rto_ns) == (model.srtt_ns, model.rttvar_ns, model.rto_ns)
            for retries in (0, 1, 5, 40):
                assert probe.waits_ns(retries) == patience.rto_ns(model, policy, retries)


@pytest.mark.parametrize("timeout_s", [0, 1, 6, 255])
def test_the_models_dally_is_the_engines(timeout_s):
    pair = receiver_pair(Terms(timeout_ns=timeout_s * 10**9))
    pair.both("start")
    pair.both("receive", build_data(1, b"end"))
    pair.both("commit")
    assert pair.probe.deadline_ns - pair.now_ns == max(transfer.DALLY_NS, 3 * timeout_s * 10**9)
