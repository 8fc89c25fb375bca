"""One row of a table: a case over some seeds, beside lock-step and both oracles; and which bars it does not reach.

May know: what was played. Must not: know why a bar is missed.
Bars: see `missed_by_read` and `missed_by_write`; a bar that says nothing about a case is not asked of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from tests.support.simulation.cases import lock_step
from tests.support.simulation.network import S
from tests.support.simulation.oracle import Clairvoyant, Prompt
from tests.support.simulation.play import Case, Played, ideal, read, write
from tests.support.simulation.readers import Gaps

SENT_PER_BLOCK: Final = 1.5
SENT_PER_BLOCK_REORDERED: Final = 4.0
LOCK_STEP: Final = 1.0
OF_PROMPT: Final = 0.8

# What falls short of these: the figures that are reached, and why it is not more. What is learned of a path is learned
# in the first windows, and short transfers (120 to 200 blocks) are two or three windows of 64.
SENT_REORDERED_WITHIN_WINDOW: Final = 6.5
"""The same in the first transfer of a client that acknowledges within the window: until that is known its ACKs look
like reports. Means of twelve seeds reach 6.3 in 120 blocks; in 600 it is below 4."""
SENT_NARROW: Final = 4.5
"""A queue shorter than the window drops its end, and no receiver can report that; three losses in a row at the same
place tell it from chance. To believe two halves the goodput at 5 % loss."""
SENT_WITHIN_WINDOW: Final = 1.75
"""The first ACK within a window looks like a report. More in the same instant tell a habit; spread by jitter, they come
as slowly as reports do."""
SENT_UNREPORTED: Final = 16.0
"""A client that never reports is sent the window until it passes; three of its silences have to be met for less."""
LOCK_STEP_HEAVY: Final = 6.9
"""At 20 % loss; 4.3 before lock-step became nearly twice as fast there. A receiver counts its window from its last
report. Where that was lost it may have all that the sender's window allows and wait for more: nothing that may be sent
makes it speak before its own timer, a second."""
LOCK_STEP_NARROW: Final = 2.2
"""A queue is overrun and drained by turns while its size is being learned, in the first transfer: the next takes half
of what lock-step does."""
LOCK_STEP_UNREPORTED: Final = 9.0
"""Each loss costs the client's own second, or several of our timers."""
OF_PROMPT_SHORT: Final = 0.55
"""300 blocks are five windows of 64: one timeout is a third of that, and the timer of the last one runs four times as
long (a boot ROM may have moved on). And where losses come in spells, our timer doubles and the oracle's does not."""
OF_PROMPT_LOSSY: Final = 0.75
"""At 5 % loss windows of 16 reach 0.79."""
HEAVY_LOSS: Final = 0.2
SHORT_BLOCKS: Final = 200
BUFFERS_S: Final = 0.5
"""4 MB for a client whose buffer is smaller than its window."""


@dataclass(frozen=True, slots=True)
class Average:
    """Of the same transfer (the first, or those after it) over all seeds."""

    took_s: float
    worst_s: float
    sent_per_block: float
    timeouts: float

    @classmethod
    def of(cls, transfers: Sequence[Played]) -> "Average":
        n = len(transfers)
        return cls(
            sum(played.took_ns for played in transfers) / n / S,
            max(played.took_ns for played in transfers) / S,
            sum(played.sent for played in transfers) / sum(played.blocks for played in transfers),
            sum(played.timeouts for played in transfers) / n,
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """All transfers of a case over all seeds.

    Attributes:
        cold: The first transfer of a client of which nothing is known.
        warm: Its later ones.
    """

    cold: Average
    warm: Average
    failed: int
    repeats: int
    early: int
    damaged: int
    worst_sent_per_block: float

    @classmethod
    def of(cls, runs: Sequence[Sequence[Played]]) -> "Tally":
        everything = [played for run in runs for played in run]
        return cls(
            Average.of([run[0] for run in runs]),
            Average.of([played for run in runs for played in (run[1:] or run)]),
            sum(not (played.arrived and played.ended_well) for played in everything),
            sum(played.repeats for played in everything),
            sum(played.early for played in everything),
            sum(played.damaged for played in everything),
            max(played.sent / played.blocks for played in everything),
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A read, and what it is measured by; `lock_step` is None for a case in lock-step."""

    case: Case
    real: Tally
    lock_step: Tally | None
    clairvoyant: Tally | None = None
    prompt: Tally | None = None

    @property
    def of_clairvoyant(self) -> float | None:
        """Goodput of a client's later transfers, as a part of the ideal."""
        return self.clairvoyant.warm.took_s / self.real.warm.took_s if self.clairvoyant else None

    @property
    def of_prompt(self) -> float | None:
        return self.prompt.warm.took_s / self.real.warm.took_s if self.prompt else None


def measure_read(case: Case, seeds: Sequence[int]) -> Row:
    """Plays the case, and lock-step beside it."""
    walks = _walk(lock_step(case), tuple(seeds)) if case.agreed.windowsize > 1 else None
    return Row(case, Tally.of([read(case, seed) for seed in seeds]), walks)


def measure_beside_oracles(case: Case, seeds: Sequence[int]) -> Row:
    clairvoyant = Tally.of([ideal(case, seed, Clairvoyant) for seed in seeds])
    # Where datagrams overtake each other, or a window overruns a queue, one that sends less at once gets more.
    is_bound = case.path.keeps_order and not case.path.down.queue_bytes and not case.habits.buffer_datagrams
    prompt = Tally.of([ideal(case, seed, Prompt) for seed in seeds]) if is_bound else None
    return replace(measure_read(case, seeds), clairvoyant=clairvoyant, prompt=prompt)


@cache
def _walk(case: Case, seeds: tuple[int, ...]) -> Tally:
    """Lock-step; the rows of one path, with this window and that, share it."""
    return Tally.of([read(case, seed) for seed in seeds])


def measure_write(case: Case, seeds: Sequence[int]) -> Tally:
    return Tally.of([write(case, seed) for seed in seeds])


def missed_by_read(row: Row) -> list[str]:
    """Which bars this row does not reach, by name."""
    case, real = row.case, row.real
    is_plain = not case.habits.ack_every_blocks
    # One that never reports a gap is silent after a lost ACK until its own timer, whatever it is sent.
    reports = case.habits.gaps is not Gaps.NEVER
    loses = real.damaged > 0
    missed = {
        "arrives": real.failed > 0,
        # An ACK within a window cannot be told from a report of a gap: such a client is answered.
        "patience": is_plain and not loses and case.path.keeps_order and real.early > 0,
        "sent": max(real.cold.sent_per_block, real.warm.sent_per_block) > sent_limit(case),
        "lock-step": row.lock_step is not None and is_slower(case, real, row.lock_step),
        "once a loss": is_plain and reports and loses and case.path.keeps_order and real.repeats > repeats_limit(row),
        "0.5 s": bool(case.habits.buffer_datagrams) and real.cold.worst_s > BUFFERS_S,
    }
    return [name for name, is_missed in missed.items() if is_missed]


def sent_limit(case: Case) -> float:
    """DATA datagrams per block. Loss of the client's own making (full queues and buffers) earns no allowance."""
    begins, ends = case.path.down.burst or (0.0, 1.0)
    loss = case.path.down.loss + begins / (begins + ends)
    if case.habits.gaps is Gaps.NEVER and (loss or not case.path.keeps_order):
        return max(SENT_UNREPORTED, SENT_PER_BLOCK + 2 * loss * case.agreed.windowsize)
    if not case.path.keeps_order:
        is_odd = case.habits.ack_every_blocks and case.blocks <= SHORT_BLOCKS
        return SENT_REORDERED_WITHIN_WINDOW if is_odd else SENT_PER_BLOCK_REORDERED
    if case.path.down.queue_bytes:
        return SENT_NARROW
    least = SENT_WITHIN_WINDOW if case.habits.ack_every_blocks and case.blocks <= SHORT_BLOCKS else SENT_PER_BLOCK
    return least + 2 * loss * case.agreed.windowsize


def lock_step_limit(case: Case) -> float:
    """How many times as long as lock-step a window may take."""
    if case.habits.gaps is Gaps.NEVER:
        return LOCK_STEP_UNREPORTED
    if case.path.down.loss >= HEAVY_LOSS:
        return LOCK_STEP_HEAVY
    return LOCK_STEP_NARROW if case.path.down.queue_bytes else LOCK_STEP


def repeats_limit(row: Row) -> int:
    """A window for each datagram that was lost, of whichever way."""
    return row.real.damaged * row.case.agreed.windowsize


def is_slower(case: Case, real: Tally, walks: Tally) -> bool:
    """Than lock-step. Where only a window loses anything, the first loss of an unknown client may cost its second."""
    allowance_s = 1.0 if real.repeats and not walks.damaged else 0.0
    times = lock_step_limit(case)
    return real.cold.took_s > times * walks.cold.took_s + allowance_s or real.warm.took_s > times * walks.warm.took_s


def missed_by_write(case: Case, tally: Tally) -> list[str]:
    missed = {"arrives": tally.failed > 0, "patience": not tally.damaged and tally.early > 0}
    return [name for name, is_missed in missed.items() if is_missed]
