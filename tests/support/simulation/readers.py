"""Model clients that read a file: as conforming, odd, slow and deaf as real ones have been seen to be.

May know: bytes of packets and virtual time. Must not: import the state machines that it judges.
Invariants: takes blocks in order only (RFC 7440 section 4: what is behind a gap is discarded) and stores each once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from tests.support.simulation.network import Clock, S

DATA, ACK, ERROR, OACK = b"\0\3", b"\0\4", b"\0\5", b"\0\6"


class Gaps(StrEnum):
    """How a client reports that a block is missing."""

    ONCE = "once"
    ALWAYS = "always"  # at every datagram that is out of order: that many repeated ACKs for one loss
    NEVER = "never"  # it waits for its own timer, and repeats no ACK for a block that comes again


@dataclass(frozen=True, slots=True)
class Habits:
    """What a client does its own way.

    Attributes:
        gaps: How it reports them.
        ack_every_blocks: 0: at the end of a window; 1: each block; N: every N blocks, at most a window.
        timer_ns: Without a new block for so long it repeats its last ACK.
        backs_off: Its timer doubles, up to 16 s.
        pause: (every so many blocks, for so long) it does nothing: an erased flash sector, a drawn picture.
        first_pause_ns: Before it answers the OACK; it does nothing else meanwhile.
        ack_delay_ns: Of each ACK.
        doubles_acks: Sends each ACK twice.
        buffer_datagrams: What its socket holds; 0: boundless.
        block_ns: To take one datagram out of it.
    """

    gaps: Gaps = Gaps.ONCE
    ack_every_blocks: int = 0
    timer_ns: int = S
    backs_off: bool = False
    pause: tuple[int, int] | None = None
    first_pause_ns: int = 0
    ack_delay_ns: int = 0
    doubles_acks: bool = False
    buffer_datagrams: int = 0
    block_ns: int = 0

    def pause_after_ns(self, block_index: int) -> int:
        return self.pause[1] if self.pause and block_index and block_index % self.pause[0] == 0 else 0


class Reader:
    """One client in one transfer.

    Attributes:
        next: The block that it takes next; everything before it is stored.
        acked: The block that its last ACK named; -1: it has sent none.
        done_ns: When the last block was there.
    """

    def __init__(
        self, clock: Clock, habits: Habits, windowsize: int, blksize: int, send: Callable[[bytes], None]
    ) -> None:
        self.clock = clock
        self.habits = habits
        self.windowsize = windowsize
        self.blksize = blksize
        self.next = 1
        self.acked = -1
        self.done_ns: int | None = None
        self.error = b""
        self.content = bytearray()
        self.overruns = 0
        self.on_taken: Callable[[bytes], None] = lambda _datagram: None
        self.on_overrun: Callable[[bytes], None] = lambda _datagram: None
        self._send = send
        self._in_window = 0
        self._has_reported = False
        self._timer_ns = habits.timer_ns
        self._timer_number = 0
        self._queue: deque[bytes] = deque()
        self._serving = False
        self._busy_until_ns = 0

    def is_over(self) -> bool:
        return self.done_ns is not None or bool(self.error)

    # --- its socket

    def arrive(self, datagram: bytes) -> None:
        """A datagram has reached its socket; what does not fit is lost."""
        if self.habits.buffer_datagrams and len(self._queue) >= self.habits.buffer_datagrams:
            self.overruns += 1
            self.on_overrun(datagram)
            return
        self._queue.append(datagram)
        if not self._serving:
            self._serve()

    def _serve(self) -> None:
        while self._queue:
            begins_ns = max(self.clock.now_ns, self._busy_until_ns)
            if begins_ns > self.clock.now_ns:
                self._serving = True
                self.clock.at(begins_ns, self._serve)
                return
            self._serving = False
            datagram = self._queue.popleft()
            if self.habits.block_ns:
                self._serving = True
                self._busy_until_ns = begins_ns + self.habits.block_ns
                self.clock.at(self._busy_until_ns, partial(self._taken, datagram))
                return
            self._take(datagram)
        self._serving = False

    def _taken(self, datagram: bytes) -> None:
        self._take(datagram)
        self._serve()

    # --- RFC 1350, RFC 7440

    def _take(self, datagram: bytes) -> None:
        opcode, block = datagram[:2], int.from_bytes(datagram[2:4], "big")
        if opcode == OACK:
            self._take_oack()
        elif opcode == ERROR:
            self.error = datagram
        elif opcode == DATA:
            self._take_data(block, datagram)
        self.on_taken(datagram)

    def _take_oack(self) -> None:
        if self.next > 1 or self.done_ns is not None:
            return
        wait_ns = self.habits.first_pause_ns if self.acked < 0 else 0
        self._busy_until_ns = max(self._busy_until_ns, self.clock.now_ns + wait_ns)
        self._acknowledge(wait_ns)
        self._arm()

    def _take_data(self, block: int, datagram: bytes) -> None:
        ahead = (block - self.next + 0x8000) % 0x10000 - 0x8000
        if self.done_ns is not None:
            if ahead == -1:
                self._acknowledge()  # RFC 1350 section 6: it dallies, for its last ACK may be lost
        elif ahead == 0:
            self._take_next(datagram[4:])
        elif ahead > 0:
            self._out_of_order(may_report=not self._has_reported)
            self._has_reported = True
        else:
            self._out_of_order(may_report=ahead == -1 and self.acked == self.next - 1)

    def _take_next(self, payload: bytes) -> None:
        self.content += payload
        self.next += 1
        self._in_window += 1
        self._has_reported = False
        self._timer_ns = self.habits.timer_ns
        self._arm()
        is_last = len(payload) < self.blksize
        if is_last or self._in_window >= min(self.habits.ack_every_blocks or self.windowsize, self.windowsize):
            self._acknowledge()
        self._busy_until_ns = max(self._busy_until_ns, self.clock.now_ns + self.habits.pause_after_ns(self.next - 1))
        if is_last:
            self.done_ns = self.clock.now_ns

    def _out_of_order(self, may_report: bool) -> None:
        if self.habits.gaps is Gaps.ALWAYS or (may_report and self.habits.gaps is Gaps.ONCE):
            self._acknowledge()

    def _acknowledge(self, after_ns: int = 0) -> None:
        self._in_window = 0
        self.acked = self.next - 1
        datagram = ACK + (self.acked & 0xFFFF).to_bytes(2, "big")
        after_ns += self.habits.ack_delay_ns
        for _ in range(1 + self.habits.doubles_acks):
            if after_ns:
                self.clock.at(self.clock.now_ns + after_ns, lambda: self._send(datagram))
            else:
                self._send(datagram)

    # --- its timer

    def _arm(self) -> None:
        self._timer_number += 1
        self._at_timer(self.clock.now_ns + self._timer_ns, self._timer_number)

    def _at_timer(self, when_ns: int, number: int) -> None:
        self.clock.at(when_ns, lambda: self._on_timer(number))

    def _on_timer(self, number: int) -> None:
        if number != self._timer_number or self.is_over():
            return
        if self._busy_until_ns > self.clock.now_ns:
            self._at_timer(self._busy_until_ns + self._timer_ns, number)
            return
        if self.habits.backs_off:
            self._timer_ns = min(2 * self._timer_ns, 16 * S)
        if self.acked >= 0 or self.next > 1:
            self._acknowledge()
        self._arm()
