"""Two senders that no real one can beat: what a receiver and a path permit to who knows what was lost.

Both keep the protocol: a block leaves only when it lies within a window of the last ACK that has *arrived*, blocks go
to the same model reader over the same weather (`network`), and a reader that discards what is behind a gap gets it
again from the gap. They differ in when they know what became of a datagram:

Clairvoyant: at the moment it leaves. A lost block is repeated in the same instant, before anything that would be
    discarded behind it; a block that would be overtaken, or would meet a full queue or a full socket buffer, leaves
    at the first instant from which it arrives in order and finds room. A lost ACK is known when it leaves the reader:
    the block that it named goes out again at once, for the reader to repeat it. Loss costs it no time but that, so
    this is about the time of the path without loss. It is the ideal, and no sender can come near it at heavy loss.

Prompt: when the answer to it would have been here: after the way to the reader, and the delay of the way back. It
    sends all that the window allows at once, goes back to the first block that was lost or discarded, once for all
    copies that left before it knew, and repeats the last block alone if it was the ACK that was lost. This is a
    sender whose timer is always exactly right and who is never deceived by a report: what can be reached.
    It does not pace: where a window overruns a queue, or is overtaken by itself, a sender that sends less at once
    beats it, so there it is no bound (and `measure` does not ask it).

Neither ever waits for a timer of its own; both wait for the reader's where that alone brings an ACK (a reader with
`Gaps.NEVER` whose ACK was lost, or one that acknowledges every N blocks where N does not divide the window).
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from tests.support.simulation.network import Clock, Link
from tests.support.simulation.readers import ACK, DATA, OACK, Gaps, Reader


@dataclass(frozen=True, slots=True)
class Stage:
    """What an oracle sees: everything."""

    clock: Clock
    reader: Reader
    down: Link
    up: Link


class Copy(bytes):
    """A datagram that remembers what it is: the count of its block, 0 for the OACK, and the attempt it belongs to."""

    block_index: int
    attempt: int | None


class Oracle(ABC):
    """What both have in common: the window, and the packets."""

    def __init__(self, stage: Stage, source: bytes, blksize: int, *, has_oack: bool) -> None:
        self.stage = stage
        self.source = source
        self.blksize = blksize
        self.last = len(source) // blksize + 1
        self.base = 0 if has_oack else 1
        self.next = self.base
        self.attempt = 0
        self.sent_total = 0
        self.done = False
        stage.up.on_lost = self._on_ack_lost

    def start(self) -> None:
        self._pump()

    def receive(self, datagram: bytes) -> None:
        if datagram[:2] != ACK:
            return
        acked = self.base - 1 + (int.from_bytes(datagram[2:4], "big") - self.base + 1) % 0x10000
        if acked >= self.next:
            return
        self.base = max(self.base, acked + 1)
        self.next = max(self.next, self.base)
        self.done = self.base > self.last
        self._pump()

    def _window_end(self) -> int:
        """Behind the last block that may leave; while the OACK is unanswered that is all there is."""
        return 1 if self.base == 0 else min(self.base + self.stage.reader.windowsize, self.last + 1)

    def _reader_repeats(self, block_index: int) -> bool:
        """Whether it repeats the ACK of this block when the block comes again."""
        return block_index == 0 or block_index == self.last or self.stage.reader.habits.gaps is not Gaps.NEVER

    def _send(self, block_index: int, attempt: int | None) -> None:
        start = (block_index - 1) * self.blksize
        payload = self.source[start : start + self.blksize] if block_index else b""
        head = DATA + (block_index & 0xFFFF).to_bytes(2, "big") if block_index else OACK + b"blksize\0"
        copy = Copy(head + payload)
        copy.block_index, copy.attempt = block_index, attempt
        self.sent_total += block_index > 0
        self.stage.down.send(copy)

    @abstractmethod
    def _pump(self) -> None:
        """Sends what may leave now."""

    @abstractmethod
    def _on_ack_lost(self, datagram: bytes, would_arrive_ns: int) -> None:
        """The way back lost an ACK, which left this moment."""


class Clairvoyant(Oracle):
    """Knows the fate of a datagram at the moment it leaves."""

    def __init__(self, stage: Stage, source: bytes, blksize: int, *, has_oack: bool) -> None:
        super().__init__(stage, source, blksize, has_oack=has_oack)
        self._again: deque[int] = deque()
        self._waking = False
        self._arrived_ns = 0
        # When the reader begins with each datagram that was sent, and is free again after the last one.
        self._begins_ns: deque[int] = deque(maxlen=stage.reader.habits.buffer_datagrams or 1)
        self._free_ns = 0

    def _pump(self) -> None:
        while not self._waking and not self.done:
            if not self._again and self.next >= self._window_end():
                return
            block_index = self._again[0] if self._again else self.next
            if wait_ns := self._wait_ns(block_index):
                self._waking = True
                self.stage.clock.at(self.stage.clock.now_ns + wait_ns, self._wake)
                return
            self._leave(block_index)

    def _wake(self) -> None:
        self._waking = False
        self._pump()

    def _size(self, block_index: int) -> int:
        return 4 + (self.blksize if block_index < self.last else len(self.source) % self.blksize)

    def _wait_ns(self, block_index: int) -> int:
        """How much later it must leave to arrive in order, and to find room in the queue and in the buffer."""
        down, now_ns = self.stage.down, self.stage.clock.now_ns
        fate = down.peek()
        if fate.is_lost:
            return 0
        in_order_ns = self._arrived_ns + (not down.way.keeps_order)
        buffer = self.stage.reader.habits.buffer_datagrams
        fits_ns = self._begins_ns[0] + 1 if buffer and len(self._begins_ns) == buffer else 0
        leaves_ns = down.departure_ns(self._size(block_index), fate, max(in_order_ns, fits_ns))
        return max(down.room_at_ns(), leaves_ns) - now_ns

    def _leave(self, block_index: int) -> None:
        fate = self.stage.down.peek()
        arrives_ns = self.stage.down.arrival_ns(self._size(block_index), fate)
        self._send(block_index, None)
        if fate.is_lost:
            return
        self._arrived_ns = arrives_ns
        habits = self.stage.reader.habits
        for _ in range(1 + fate.is_doubled):
            begins_ns = max(arrives_ns, self._free_ns)
            self._begins_ns.append(begins_ns)
            self._free_ns = begins_ns + habits.block_ns
        if self._again:
            self._again.popleft()
        else:
            self._free_ns += habits.pause_after_ns(block_index)
            self.next += 1

    def _on_ack_lost(self, datagram: bytes, would_arrive_ns: int) -> None:
        acked = self.stage.reader.acked
        is_the_last_word = acked == self.next - 1 and self.next >= self._window_end()
        if acked >= self.base and is_the_last_word and self._reader_repeats(acked):
            self._again.append(acked)
            self._pump()


class Prompt(Oracle):
    """Knows the fate of a datagram when the answer to it would have been here."""

    def __init__(self, stage: Stage, source: bytes, blksize: int, *, has_oack: bool) -> None:
        super().__init__(stage, source, blksize, has_oack=has_oack)
        stage.down.on_lost = self._on_lost
        stage.reader.on_taken = self._on_taken
        stage.reader.on_overrun = self._on_overrun

    def _pump(self) -> None:
        while self.next < self._window_end() and not self.done:
            self.next += 1
            self._send(self.next - 1, self.attempt)

    # --- what becomes of a datagram, at the reader's end

    def _on_lost(self, datagram: bytes, would_arrive_ns: int) -> None:
        self.stage.clock.at(would_arrive_ns, lambda: self._on_overrun(datagram))

    def _on_overrun(self, datagram: bytes) -> None:
        assert isinstance(datagram, Copy)
        if datagram.attempt is None or datagram.block_index >= self._reader_wants():
            self._learn(datagram.block_index, datagram.attempt)

    def _on_taken(self, datagram: bytes) -> None:
        """Taken out of the socket: stored, or discarded because one before it is missing."""
        assert isinstance(datagram, Copy)
        if datagram.block_index > self.stage.reader.next:
            self._learn(self.stage.reader.next, datagram.attempt)

    def _reader_wants(self) -> int:
        """The block that the reader takes next: the OACK before everything else."""
        return self.stage.reader.next if self.stage.reader.acked >= 0 or self.base > 0 else 0

    # --- and a way back later, at the sender's

    def _learn(self, block_index: int, attempt: int | None) -> None:
        clock, known_ns = self.stage.clock, self.stage.clock.now_ns + self.stage.up.way.delay_ns
        # Twice, to come behind an ACK that arrives at this very moment: it may be the report.
        clock.at(known_ns, lambda: clock.at(known_ns, lambda: self._go_back(block_index, attempt)))

    def _go_back(self, block_index: int, attempt: int | None) -> None:
        if self.done:
            return
        if attempt is None:
            self._ask_again(block_index)
        elif attempt == self.attempt:  # else it left before the last time, and what was sent since makes up for it
            self.attempt += 1
            self.next = max(block_index, self.base)
            # A reader that has reported a gap counts its window from there. If the report is lost, less than that
            # window may be sent, and it would never acknowledge: the report first.
            is_report_lost = self.base < block_index == self.stage.reader.acked + 1
            if is_report_lost and self._reader_repeats(block_index - 1):
                self._send(block_index - 1, None)
            else:
                self._pump()

    def _on_ack_lost(self, datagram: bytes, would_arrive_ns: int) -> None:
        acked = self.stage.reader.acked
        self.stage.clock.at(would_arrive_ns, lambda: self._ask_again(acked))

    def _ask_again(self, acked: int) -> None:
        """For the ACK of a block, if that is still the last that the reader said."""
        is_wanted = self.base <= acked == self.stage.reader.acked
        is_idle = self.next >= self._window_end() or self.next == acked + 1
        if not self.done and is_wanted and is_idle and self._reader_repeats(acked):
            self._send(acked, None)
