"""Both state machines of a transfer: the engine's and its readable model, after every step of any script the same.

A script begins with what the transfer was negotiated to be, and then has a step for each few bytes: what arrives, or
what the clock does.
"""

from tests.engine.test_window_differential import HASTY, OACK, Pair, receiver_pair, sender_pair
from tests.fuzz.guided.script import Script

from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error
from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.rtt import RetransmitPolicy
from snow_owl_tftp.protocol.seq import Rollover, block_of
from snow_owl_tftp.protocol.transfer import Sender, Terms

MOST_STEPS = 400
SIZES = [0, 1, 7, 8, 9, 31, 32, 33, 100, 255, 256, 600, 5000]
WAITS_NS = [0, 1, 1000, 10**6, 5 * 10**6, 3 * 10**7, 5 * 10**8, 3 * 10**9]


def check(data: bytes) -> None:
    """Raises AssertionError where the two differ, or an invariant of the engine's is broken."""
    script = Script(data)
    is_sender = script.byte() & 1
    terms = read_terms(script)
    if is_sender:
        play_sender(script, sender_pair(script.pick(SIZES), terms))
    else:
        play_receiver(script, receiver_pair(terms, opening=bool(terms.first_packet) or not terms.proven))


def read_terms(script: Script) -> Terms:
    rollover = script.pick(list(Rollover))
    windowsize = script.pick([1, 1, 2, 4, 16, 64, 65535])
    return Terms(
        first_packet=script.pick([b"", OACK]),
        blksize_bytes=8,
        windowsize_blocks=min(windowsize, 65534) if rollover is Rollover.TO_1 else windowsize,
        timeout_ns=script.pick([0, 0, 5 * 10**7, 10**9, 20 * 10**9]),
        proven=bool(script.byte() & 1),
        policy=script.pick([RetransmitPolicy(), HASTY]),
        patience=read_patience(script) if script.byte() & 1 else None,
        rollover=rollover,
    )


def read_patience(script: Script) -> Patience:
    return Patience(
        loses=bool(script.byte() & 1),
        pause_ns=script.pick([0, 3 * 10**7, 2 * 10**9]),
        srtt_ns=script.word() * 1000,
        rttvar_ns=script.word() * 100,
        burst_blocks=script.pick([0, 1, 3, 9]),
        silence=script.byte(),
    )


def step(script: Script, pair: Pair) -> int:
    """Time passes, and what belongs to both roles happens; returns what is left to choose, 0: it has happened."""
    pair.now_ns += script.pick(WAITS_NS)
    what = script.byte()
    if what < 40:
        pair.tick()
    elif what < 50 and isinstance(pair.model, Sender):
        pair.both("restart_clocks")
    elif what < 54:
        pair.both("receive", build_error(script.byte(), "enough"))
    elif what < 70:
        pair.both("receive", script.take(script.byte() % 12))
    else:
        return what
    return 0


def play_sender(script: Script, pair: Pair) -> None:
    pair.both("start")
    while not script.is_over and not pair.model.done and pair.steps < MOST_STEPS:
        if what := step(script, pair):
            sender = pair.model
            near = [sender.sent_end - 1, sender.window_base, sender.window_base - 1, sender.sent_end, sender.last]
            index = near[what % len(near)] + (script.byte() - 128 if what > 200 else 0)
            pair.both("receive", build_ack(block_of(max(index, 0), sender.terms.rollover)))


def play_receiver(script: Script, pair: Pair) -> None:
    pair.both("start")
    while not script.is_over and not pair.model.done and pair.steps < MOST_STEPS:
        if what := step(script, pair):
            receiver = pair.model
            if receiver.received and receiver.outcome is None and what < 130:
                pair.both("commit")
                continue
            ahead = (
                script.byte() - 128 if what > 220 else [0, 0, 0, 1, -1, 2, receiver.terms.windowsize_blocks][what % 7]
            )
            block = block_of(max(receiver.next + ahead, 0), receiver.rollover)
            size = 8 if what % 16 else script.byte() % 10
            pair.both("receive", build_data(block, bytes(size)))
