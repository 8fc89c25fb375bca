"""Which clients on which paths are played: the rows of the tables, by the question that they ask.

May know: how a case is described. Must not: play one, or judge it (`measure` does).
A path is named by its round trip, and what it does besides; a client by its window, and what is odd about it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.support.simulation.machines import Agreed
from tests.support.simulation.network import FRAME_BYTES, MS, S, Way
from tests.support.simulation.play import Case, Path
from tests.support.simulation.readers import Gaps, Habits
from tests.support.simulation.writers import Manner

WINDOWS: Final = (1, 4, 16, 64)
US: Final = 1_000
DATAGRAM_BYTES: Final = 1428 + 4 + FRAME_BYTES
MEGABITS_10: Final = 10_000_000


def way(rtt_ms: float, jitter_ms: float = 0, *, order: bool = True, loss: float = 0.0) -> Way:
    """One direction of a path: half of the round trip."""
    return Way(delay_ns=int(rtt_ms * MS / 2), jitter_ns=int(jitter_ms * MS), keeps_order=order, loss=loss)


def path(rtt_ms: float, jitter_ms: float = 0, *, order: bool = True, loss: float = 0.0) -> Path:
    return Path.both(way(rtt_ms, jitter_ms, order=order, loss=loss))


def bottleneck(rtt_ms: float, queue_datagrams: int, loss: float = 0.0) -> Path:
    """10 Mbit/s towards the client, behind a queue of so many DATA (0: boundless)."""
    queue_bytes = queue_datagrams * DATAGRAM_BYTES
    down = replace(way(rtt_ms, loss=loss), rate_bps=MEGABITS_10, queue_bytes=queue_bytes)
    return Path(down, way(rtt_ms, loss=loss))


def lock_step(case: Case) -> Case:
    """The same client on the same path without windows: what windows have to be measured by."""
    return replace(
        case,
        name="in lock-step",
        agreed=replace(case.agreed, windowsize=1),
        habits=replace(case.habits, ack_every_blocks=0),
    )


def patient() -> Iterator[Case]:
    """Paths that lose nothing: nothing may be sent twice within a second, whatever the client does."""
    for window, pause_ms in itertools.product((1, 4, 16, 64), (30, 150, 500, 900, 1500, 2500)):
        every = 8 if window == 1 else window
        habits = Habits(pause=(every, pause_ms * MS), timer_ns=5 * S)
        yield Case(f"pauses {pause_ms} ms every {every}", path(1), Agreed(window), habits, blocks=max(40, 4 * window))
    for pause_ms, timeout_s in itertools.product((900, 2500), (1, 3)):
        habits = Habits(pause=(4, pause_ms * MS), timer_ns=10 * S)
        agreed = Agreed(4, timeout_s=timeout_s)
        yield Case(f"pauses {pause_ms} ms, timeout {timeout_s}", path(1), agreed, habits, blocks=40)
    for window, wait_ms in itertools.product((1, 4), (100, 400, 900)):
        habits = Habits(first_pause_ns=wait_ms * MS)
        yield Case(f"answers the OACK after {wait_ms} ms", path(1), Agreed(window), habits, blocks=40)
    grub = Habits(pause=(51, 12 * MS), block_ns=50 * US)
    yield Case("12 ms every 51 blocks (GRUB)", path(0.2), Agreed(1), grub, blocks=2000)
    for window in WINDOWS:
        yield from _patient_paths(window)


def _patient_paths(window: int) -> Iterator[Case]:
    agreed = Agreed(window)
    for jitter_ms in (1, 10, 100):
        yield Case(f"rtt 20, jitter {jitter_ms}", path(20, jitter_ms), agreed)
    for rtt_ms in (100, 300, 900):
        yield Case(f"rtt {rtt_ms}", path(rtt_ms), agreed, blocks=200)
    growing = Path.both(replace(way(3), grows=(5 * MS, 150 * MS)))
    yield Case("rtt 3, after 5 ms 303", growing, agreed, blocks=300)
    yield Case("10 Mbit/s, boundless queue", bottleneck(2, 0), agreed)
    yield Case("5 % of all datagrams twice", Path.both(replace(way(2), doubled=0.05)), agreed)
    yield Case("every ACK twice", path(2), agreed, Habits(doubles_acks=True))
    yield Case("5 ms a block", path(2), agreed, Habits(block_ns=5 * MS))
    yield Case("ACK after 200 ms", path(2), agreed, Habits(ack_delay_ns=200 * MS), blocks=200)


def lossy() -> Iterator[Case]:
    for rtt_ms, loss, window in itertools.product((2, 20), (0.01, 0.05, 0.2), WINDOWS):
        yield Case(f"rtt {rtt_ms}, loss {loss:.0%}", path(rtt_ms, loss=loss), Agreed(window))
    for window in WINDOWS:
        yield Case(
            "rtt 20, bursts (1 % begin, half end)", Path.both(replace(way(20), burst=(0.01, 0.5))), Agreed(window)
        )


def jittery() -> Iterator[Case]:
    for jitter_ms, window in itertools.product((1, 10, 100), WINDOWS):
        yield Case(f"rtt 20, jitter {jitter_ms}, loss 1%", path(20, jitter_ms, loss=0.01), Agreed(window))


def reordering() -> Iterator[Case]:
    for jitter_ms, loss, window in itertools.product((1, 5, 20, 100), (0.0, 0.01), (4, 16, 64)):
        name = f"rtt 20, reordering {jitter_ms} ms" + (f", loss {loss:.0%}" if loss else "")
        yield Case(name, path(20, jitter_ms, order=False, loss=loss), Agreed(window))


def narrow() -> Iterator[Case]:
    for rtt_ms, queue, window in itertools.product((2, 20), (8, 16, 32, 100), (1, 16, 64)):
        yield Case(f"10 Mbit/s, rtt {rtt_ms}, queue {queue}", bottleneck(rtt_ms, queue), Agreed(window))
    for queue in (16, 100):
        yield Case(f"10 Mbit/s, rtt 20, queue {queue}, loss 1%", bottleneck(20, queue, 0.01), Agreed(64))


def small_buffers() -> Iterator[Case]:
    """4 MB for a client whose socket holds 212,992 bytes as the kernel counts them; a window arrives all at once."""
    fast = path(0.1)
    for blksize, holds, windows in ((1428, 92, (64, 92, 100, 128, 256)), (8192, 20, (32,)), (65464, 3, (4,))):
        for window in windows:
            habits = Habits(buffer_datagrams=holds, block_ns=blksize * 5)
            agreed = Agreed(window, blksize=blksize)
            yield Case(f"4 MB, a buffer of {holds} × {blksize}", fast, agreed, habits, blocks=4_194_304 // blksize + 1)


NETSIM_PATHS: Final = (
    ("rtt 1", path(1)),
    ("rtt 1, loss 1%", path(1, loss=0.01)),
    ("rtt 20, loss 1%", path(20, loss=0.01)),
    ("rtt 20, jitter 20", path(20, 20)),
    ("rtt 20, reordering 20 ms", path(20, 20, order=False)),
    ("rtt 2, reordering 5 ms, loss 1%", path(2, 5, order=False, loss=0.01)),
    ("rtt 20, loss 5%", path(20, loss=0.05)),
    ("rtt 2, loss 20%", path(2, loss=0.2)),
)


def odd_clients() -> Iterator[Case]:
    for gaps, every, window in itertools.product(Gaps, (0, 1, 2), WINDOWS):
        if window > 1 or every == 0:
            habits = Habits(gaps=gaps, ack_every_blocks=every)
            acks = {0: "", 1: ", ACK each", 2: ", ACK every 2"}[every]
            for name, over in NETSIM_PATHS:
                yield Case(f"{name}; gaps {gaps}{acks}", over, Agreed(window), habits)


def patient_uploads() -> Iterator[Case]:
    """Paths that lose nothing, and clients that take their time."""
    for naive, pause_ms, window in itertools.product((False, True), (150, 900, 2500), (1, 4)):
        manner = Manner(is_naive=naive, pause=(10 if window == 1 else window, pause_ms * MS))
        yield Case(f"{_who(naive)}, pauses {pause_ms} ms", path(1), Agreed(window), manner=manner, blocks=100)
    for naive, window in itertools.product((False, True), WINDOWS):
        manner, who = Manner(is_naive=naive), _who(naive)
        agreed, slow = Agreed(window), replace(manner, think_ns=40 * MS)
        yield Case(f"{who}, rtt 20, jitter 100", path(20, 100), agreed, manner=manner, blocks=300)
        yield Case(f"{who}, rtt 300", path(300), agreed, manner=manner, blocks=100)
        yield Case(f"{who}, 40 ms before each window", path(2), agreed, manner=slow, blocks=300)
        yield Case(f"{who}, 2.5 s to store", path(2), agreed, manner=manner, blocks=50, commit_ns=2500 * MS)


def lossy_uploads() -> Iterator[Case]:
    for timer_s, loss in itertools.product((1, 2, 3, 4, 5, 6), (0.01, 0.05)):
        manner = Manner(timer_ns=timer_s * S)
        yield Case(f"a timer of {timer_s} s, loss {loss:.0%}", path(2, loss=loss), manner=manner, blocks=100)
    for loss, window in itertools.product((0.01, 0.05, 0.2), WINDOWS):
        manner = Manner(tries=20)
        yield Case(f"rtt 20, loss {loss:.0%}", path(20, loss=loss), Agreed(window), manner=manner, blocks=300)


def last_acks_lost() -> Iterator[Case]:
    """The file is stored, and its ACK is lost, once or twice in a row: the client asks with its own timer."""
    for timer_s, negotiated, lost in (
        *((timer_s, 0, 1) for timer_s in (1, 2, 3, 4, 5, 6)),
        *((timer_s, timer_s, lost) for timer_s in (2, 6, 20) for lost in (1, 2)),
    ):
        # The OACK is the first datagram of the way back, so the ACK of the last block is number 51.
        back = replace(way(2), lost_numbers=tuple(range(51, 51 + lost)))
        name = f"a timer of {timer_s} s" + ", negotiated" * bool(negotiated) + f", the last ACK lost {lost} ×"
        manner = Manner(timer_ns=timer_s * S)
        yield Case(name, Path(way(2), back), Agreed(timeout_s=negotiated), manner=manner, blocks=50)


def _who(naive: bool) -> str:
    return "naive" if naive else "careful"


READS: Final = {
    "patience": patient,
    "loss": lossy,
    "jitter": jittery,
    "reordering": reordering,
    "bottleneck": narrow,
    "buffers": small_buffers,
    "clients": odd_clients,
}

WRITES: Final = {
    "uploads": patient_uploads,
    "lossy-uploads": lossy_uploads,
    "last-acks": last_acks_lost,
}
