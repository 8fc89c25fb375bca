"""The sender of a transfer: RFC 7440's DSND. See `transfer` for the whole, `exchange` for what both roles share.

Words: `window_base` is the oldest block that the peer has not acknowledged, `next` the one to be sent next, `sent_end`
one past the newest that was ever sent. A *report* is an ACK that says that the block behind it is missing: it leaves
blocks unacknowledged that were sent, or it is repeated. A report needs no timer, it is answered at once, by that block
and what follows. What is no report, and how one can tell:

- It comes too soon: the block that it misses was sent less than a round trip ago. So a window is sent again at most
  once a round trip.
- It is an echo: the block that it acknowledges was sent twice, and both copies are acknowledged. So many ACKs as copies
  were sent in vain are echoes, from a round trip after the copies on.
- The client acknowledges more often than it agreed to: its ACKs all advance by the same number of blocks (`_stride`),
  and the next one comes before an answer to the first could be there. Then nothing was missing, and nothing that was
  sent is sent again.

Progress that comes too soon for an answer to what was sent again, and an ACK that comes behind a newer one, tell that
datagrams overtake one another (`burst`).

Whatever an ACK is, the progress in it is real.
"""

from typing import Final

from snow_owl_tftp.protocol.burst import Burst
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.exchange import FIRST_BLOCK, Exchange, ExchangeOutcome, Terms
from snow_owl_tftp.protocol.packets import build_data
from snow_owl_tftp.protocol.seq import block_of, index_from

__all__ = ["Sender"]

_SHORT_PAUSE_NS: Final = 2_000_000
"""Between bursts of a client that has lost nothing: time to empty a socket buffer."""

_FEELING_NS: Final = 250_000_000
"""A first pause is no longer than this: the answer to an OACK may have taken seconds."""

_NUMBERS: Final = 65535

_RECENT: Final = 1024
"""An ACK of one of so many blocks before the window, fewer where the window is smaller, has been overtaken."""

_DOUBLED_NS: Final = 50_000
"""An ACK that comes again sooner than this may have been doubled on its way; there are round trips as short."""

_EQUAL_ADVANCES: Final = 3
"""More ACKs in a row than this that advance by the same number of blocks, one of them early, are a client's habit."""

_FEW_BLOCKS: Final = 8
"""12 KB on Ethernet; TCP sends 10 to a peer of which it knows nothing (RFC 6928)."""

_FULL_REPEATS: Final = 2

_DEAF_PROBES: Final = 3
"""So many probes without an answer, where the window brought one: this client answers no probes."""


class Sender(Exchange):
    """Sends a whole file block by block, a window at a time.

    With a first packet (an OACK or a WRQ) the data follows ACK 0; without one, DATA 1 is the first packet.
    """

    def __init__(self, source: bytes, terms: Terms) -> None:
        super().__init__(terms, opening=bool(terms.first_packet))
        self._source = source
        # RFC 1350 section 6: the transfer ends with a block shorter than the rest, an empty one if need be.
        self.last = len(source) // terms.blksize_bytes + 1
        self.window_base = 0 if self.opening else FIRST_BLOCK
        self.sent_end = FIRST_BLOCK
        self.burst = Burst(terms.windowsize_blocks, terms.blksize_bytes, self.patience.burst_blocks)
        self.burst_end = self.burst.limit  # the newest block that this burst may send
        self._presumed = FIRST_BLOCK  # blocks before this one have arrived or never will: they fill no buffer
        self._unit_base = FIRST_BLOCK  # where the burst began whose blocks are being acknowledged
        self._unit_blocks = self.burst.now  # how many it has
        self._unit_is_first = True  # no pause was before it
        self._run_first = FIRST_BLOCK  # the first block that was sent at `sent_ns`, in a row with the newest
        self._restarted = 0  # where the window was last restarted, 0: nowhere
        self._restart_end = 0
        self._restart_ns = 0
        self._doubted = 0  # a block that was reported missing, but too early to be believed
        self._restart_is_open = False  # nothing has answered it yet
        self._is_vain = False  # blocks were seen to overtake one another since
        self._echo_first = 0  # blocks that were sent twice in vain ...
        self._echo_last = -1
        self._echo_ns = 0  # ... when ...
        self._echoes = 0  # ... and how many ACKs that may bring
        self._holds = False  # nothing is sent behind this burst before an answer or a timeout
        self._skips = False  # the probe is not complete: the newest block follows
        self._window_resent = False  # a timeout sent several blocks again, and no ACK has come since
        self._timed_resent = False  # the timed block is the second copy of one that was reported missing
        self._stride = terms.windowsize_blocks
        self._advance = 0  # blocks by which the last ACK advanced
        self._advances = 0  # how many ACKs in a row did so
        self._habit = _EQUAL_ADVANCES
        self._early = False  # and whether one of them came too early for what was sent again
        self._deaf = 0
        self._has_lost = self.patience.loses
        self._feels = False  # the path's way of losing is unknown: nothing follows this burst before its answer could

    # --- the caller's side

    def restart_clocks(self, now_ns: int) -> list[bytes]:
        """For a caller that could not send, for want of bytes from a disk or a pipe.

        The receiver owed nothing meanwhile, and an answer to what left before that measures us, not the path.
        """
        if not self.done and not self.opening:
            self._progress_ns = now_ns
            self._timed_block = None
            self.deadline_ns = now_ns + self._wait_ns()
        return []

    def tick(self, now_ns: int) -> list[bytes]:
        if self.pausing and self.deadline_ns is not None and now_ns >= self.deadline_ns:
            # The pause is over: the path has delivered the last burst, or never will. It is timed from here.
            self._timed_block = None
            self._feels = False
            if self._skips:
                self._skips = False
                self.next = self.sent_end - 1
            self._presumed = self.next
            self.burst.now = self.burst.after(self.burst.now)
            self._allow_burst()
            return self._send_window(now_ns)
        return super().tick(now_ns)

    def _begin(self, now_ns: int) -> list[bytes]:
        self._allow_burst()
        return self._send_window(now_ns)

    def _level(self) -> int:
        """Only in lock-step: where a window is met with silence it may have overrun the path.

        And only behind the first packet: who has answered nothing is sent three of them, and these are spread.
        """
        return self.patience.level if self.terms.windowsize_blocks == 1 and not self.opening else 0

    def _is_delicate(self) -> bool:
        """Once the last block is sent the peer may have moved on; a boot ROM takes it for its next file's."""
        return self.sent_end > self.last

    def _end(self, outcome: ExchangeOutcome) -> list[bytes]:
        if self.burst.is_learned:
            self.patience.burst_blocks = self.burst.limit
        return super()._end(outcome)

    # --- ACKs

    def _on_packet(self, opcode: int, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        if opcode != Opcode.ACK:
            return []
        if self.opening:
            return self._on_first_ack(block, now_ns)
        acked = index_from(self.window_base - 1, block, self.rollover)
        if acked >= self.sent_end:
            # Never sent, or acknowledged before: taken as progress it would skip data.
            if acked - self.window_base >= _NUMBERS - min(self.terms.windowsize_blocks, _RECENT):
                self._on_overtaken()
            return []
        if acked == self.window_base - 1:
            return self._on_repeated_ack(now_ns)
        return self._on_new_ack(acked, now_ns)

    def _on_first_ack(self, block: int, now_ns: int) -> list[bytes]:
        """RFC 2347, Negotiation Protocol: an OACK is acknowledged with ACK 0; a WRQ too (RFC 1350 section 4)."""
        if block != 0:
            return []
        if self.retries:
            self._expect_echoes(0, 0, self.retries, self._repeated_ns)
        self._opened(now_ns)
        self.window_base = FIRST_BLOCK
        self._allow_burst()
        return self._send_window(now_ns)

    def _on_repeated_ack(self, now_ns: int) -> list[bytes]:
        """The ACK before the window, again.

        In lock-step it is never answered (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice). In a window it says
        that the window's first block is missing (RFC 7440 section 4).
        """
        self._advance = 0
        if self._is_echo(now_ns):
            if self.window_base == FIRST_BLOCK:
                self._trial = None  # it thought about the options: that says nothing of its blocks
            else:
                self._on_second_answer()
            return []
        nothing_sent = self.sent_end == self.window_base
        if self.terms.windowsize_blocks == 1 or nothing_sent:
            return []
        if not self._could_be_missing(now_ns):
            self._doubted = self.window_base
            self._hasten(now_ns)
            return []
        if self.rtt.is_about_one(now_ns - self.sent_ns):
            self._deaf = 0
        return self._restart(now_ns, is_silent=self.retries > 0)

    def _on_new_ack(self, acked: int, now_ns: int) -> list[bytes]:
        """RFC 7440 section 4: the window slides, and what follows the acknowledged block is sent next."""
        is_early = self._judge_restart(acked, now_ns)
        self._note_advance(acked - self.window_base + 1, is_early)
        self._take_sample(acked, now_ns)
        is_report = self._is_partial(acked)
        is_silent = self.retries > 0
        self._judge_probe()
        if self.terms.windowsize_blocks == 1:
            self.patience.on_answer(self.retries)
        self._progress(now_ns)
        self.window_base = acked + 1
        self.next = max(self.next, self.window_base)
        self._note_arrived()
        if acked == self.last:
            return self._end(ExchangeOutcome.OK)
        if is_report and not self._is_taking(now_ns):
            if self._trial is not None:
                # The probe was answered with what is missing: who had only paused would miss nothing.
                self._trial = None
                self._on_loss()
            if self._could_be_missing(now_ns):
                return self._restart(now_ns, is_silent)
            self._doubted = self.window_base
        self._feels &= is_early
        self._window_resent = False
        self._allow_burst()
        return self._send_window(now_ns)

    def _is_taking(self, now_ns: int) -> bool:
        """Whether this ACK may only tell that the receiver met the block that it had acknowledged last, in a window
        that was sent again: it is taking what follows at this moment. To send that once more would make it acknowledge
        there too, for ever.
        """
        least_ns = self.rtt.least_ns or self.rtt.srtt_ns
        return self._window_resent and now_ns - self._repeated_ns <= least_ns + least_ns // 2

    def _is_partial(self, acked: int) -> bool:
        """Whether blocks behind `acked` were sent that a receiver which is content would have acknowledged with it."""
        advance = acked - self.window_base + 1
        return acked + 1 < self.next and advance % self._stride != 0

    def _could_be_missing(self, now_ns: int) -> bool:
        """Whether an ACK could say so by now of block `window_base`: it was sent a round trip ago.

        ACK 0 is different, if the OACK was sent once: whoever repeats it misses block 1, and no round trip is known.
        """
        if self.window_base >= self._run_first:
            sent_ns = self.sent_ns
        else:
            sent_ns = self._restart_ns
        if self.window_base == FIRST_BLOCK and not self._restarted:
            return now_ns - sent_ns >= _DOUBLED_NS
        return now_ns - sent_ns >= self.rtt.soonest_ns

    def _hasten(self, now_ns: int) -> None:
        """ACK 0 came again at once: doubled, or the only report that block 1 is missing.

        If it was doubled the window is answered in a round trip. Who reports gaps once says nothing more before a timer
        of a second, or of `timeout`.
        """
        if not self.pausing and self.deadline_ns is not None:
            self.deadline_ns = min(self.deadline_ns, now_ns + self._rest_ns())

    def _rest_ns(self) -> int:
        """What may be sent was sent: when to go on. See `_hasten`."""
        if self.pausing:
            return self._pause_ns()
        is_doubtful = self.window_base == self._doubted == FIRST_BLOCK and not self._restarted and not self.retries
        if is_doubtful and self.rtt.srtt_ns:
            return min(self._wait_ns(), self.rtt.rto_ns)
        return self._wait_ns()

    def _restart(self, now_ns: int, is_silent: bool) -> list[bytes]:
        """What was reported missing is sent again, and what follows it: the receiver has discarded that.

        `is_silent`: it took a timeout to hear of it.
        """
        arrived = min(self.window_base - self._unit_base, self.burst.limit)
        if self._unit_is_first:
            self.burst.lost(arrived, is_silent)
        else:
            self.burst.lost_behind_pause(arrived, self._pause_ns(), self.rtt.rto_ns)
        self._feels = not self._has_lost or (is_silent and arrived >= _FEW_BLOCKS)
        self._has_lost = True
        self._window_resent = False
        answer_ns = now_ns - self._timed_ns
        if (
            self._timed_block == self.window_base
            and not self._timed_resent
            and (self.rtt.srtt_ns // 2 <= answer_ns and self.rtt.is_about_one(answer_ns))
        ):
            self.rtt.sample(answer_ns)
        self._begin_unit()
        self._presumed = self.window_base
        self._restarted = self.window_base
        self._restart_end = self.sent_end - 1
        self._restart_ns = now_ns
        self._restart_is_open = True
        self._is_vain = False
        self.next = self.window_base
        # The receiver has just said that this block is missing, so an ACK of it answers the copy that is sent now: no
        # ambiguity in Karn's sense. On a lossy path hardly any window passes whole, and this is the sample.
        self._timed_block = self.window_base
        self._timed_resent = True
        self._timed_ns = now_ns
        self._allow_burst()
        return self._send_window(now_ns)

    def _judge_restart(self, acked: int, now_ns: int) -> bool:
        """Whether this ACK came too early for an answer to the last restart: then that was in vain."""
        if not self._restart_is_open or acked < self._restarted:
            return False
        if not self.rtt.is_too_soon(now_ns - self._restart_ns):
            self._restart_is_open = False
            if self.rtt.is_about_one(now_ns - self._restart_ns):
                self.patience.on_loss(self.terms.policy)
            return False
        if not self._is_vain and (not self._repeated_ns or self._restart_ns > self._repeated_ns + self.rtt.rto_ns):
            self._on_overtaken()
            copies = self.next - self._restarted
            self._expect_echoes(self._restarted, self._restart_end, copies, self._restart_ns)
        return True

    def _on_overtaken(self) -> None:
        """Datagrams overtake one another on this path: less must be in flight."""
        if not self._is_vain and self.terms.windowsize_blocks > 1:
            self._is_vain = True
            self.burst.shrink(blindly=False)

    def _take_sample(self, acked: int, now_ns: int) -> None:
        """A block that was sent once is timed by its first ACK, however soon that comes.

        That of one that was reported missing may have been answered by the first copy: then it comes too soon.
        """
        if self._timed_block is None or acked < self._timed_block:
            return
        answer_ns = now_ns - self._timed_ns
        if not self._timed_resent or answer_ns >= self.rtt.soonest_ns:
            self.rtt.sample(answer_ns)
        self._timed_block = None

    def _note_advance(self, advance: int, is_early: bool) -> None:
        """A client that acknowledges within the window: what it says there is no report."""
        if advance != self._advance:
            self._advances, self._early = 0, False
        self._advance = advance
        self._advances += 1
        self._early |= is_early
        if self._early and self._advances > self._habit and advance < self._stride:
            self._stride = advance
            self.burst.forget()
            is_early = True
        if is_early and self._stride < self.terms.windowsize_blocks:
            self._take_back_restart()

    def _take_back_restart(self) -> None:
        """Nothing was missing: goes on behind what was sent."""
        self._echoes = 0
        self._expect_echoes(self._restarted, self.sent_end - 1, max(self.next - self._restarted, 0), self._restart_ns)
        self._restart_is_open = False
        self._restart_ns = 0
        self._run_first = self.next = self.sent_end

    # --- echoes

    def _on_loss(self) -> None:
        super()._on_loss()
        self._echoes = 0

    def _expect_echoes(self, first: int, last: int, count: int, now_ns: int) -> None:
        """Blocks `first` to `last` were sent again, perhaps in vain: so many ACKs of one of them may be repeated."""
        self._echo_first = min(self._echo_first, first) if self._echoes else first
        self._echo_last = last
        self._echo_ns = now_ns
        self._echoes += count

    def _is_echo(self, now_ns: int) -> bool:
        """Whether the ACK before the window may be the second answer to a block that was sent twice.

        Not sooner than a round trip after the copies; but perhaps much later: a client that pauses answers all of them
        when it goes on.
        """
        if not self._echo_first <= self.window_base - 1 <= self._echo_last or not self._echoes:
            return False
        if self.rtt.is_too_soon(now_ns - self._echo_ns):
            return False
        self._echoes -= 1
        return True

    # --- bursts

    def _note_arrived(self) -> None:
        """Bursts that were acknowledged whole."""
        while self.window_base - self._unit_base >= self._unit_blocks:
            self._unit_base += self._unit_blocks
            if self._unit_blocks >= self.burst.limit:
                self.burst.whole()
            self._unit_blocks = self.burst.after(self._unit_blocks)
            self.burst.now = max(self.burst.now, self._unit_blocks)
            if not self._unit_is_first:
                self.burst.whole_behind_pause()
            self._unit_is_first = False
        if self.window_base == self.next:
            self._begin_unit()

    def _begin_unit(self) -> None:
        """What is sent from here on meets an empty path."""
        self._unit_base = self.window_base
        self._unit_blocks = self.burst.now
        self._unit_is_first = True

    def _allow_burst(self) -> None:
        self._holds = False
        self.burst_end = max(self.window_base, self._presumed) + self.burst.now - 1

    def _pause_ns(self) -> int:
        """How long the path's queue needs for a burst: by so much an ACK takes longer than the shortest round trip.

        Not longer than a round trip: single blocks would arrive later than in lock-step.

        Behind the first loss on an unknown path as long as a report may take: where blocks overtake one another, or a
        queue is short, all that would follow is in vain.
        """
        if not self.rtt.srtt_ns:
            return self.terms.policy.floor_ns
        if self._feels and not self.burst.is_learned:
            return max(min(self.rtt.srtt_ns + self.rtt.rttvar_ns, _FEELING_NS), self.burst.least_pause_ns)
        pause_ns = self.rtt.srtt_ns - min(self.rtt.least_ns, self.rtt.srtt_ns) + self.rtt.rttvar_ns
        pause_ns = min(pause_ns, self.rtt.srtt_ns)
        return max(pause_ns, self.burst.least_pause_ns) if self.burst.is_learned else min(pause_ns, _SHORT_PAUSE_NS)

    # --- timeouts

    def _judge_probe(self) -> None:
        """Whether this client answers probes, or only windows."""
        if self.retries > 1:
            self._deaf += 1
        elif self.retries and not self._window_resent:
            self._deaf = 0

    def _is_of_first_copy(self, answer_ns: int) -> bool:
        """The timer of a window may run out while the window still queues: what comes right behind the probe then
        answers the window, and as a sample it would make the next timer shorter yet. Where blocks overtake nobody
        knows.
        """
        least_ns = self.rtt.least_ns or self.rtt.srtt_ns
        return self.terms.windowsize_blocks > 1 and not self.burst.overtakes and answer_ns < least_ns // 2

    def _was_lone(self) -> bool:
        return not self._window_resent

    def _repeat(self, now_ns: int) -> list[bytes]:
        """No ACK came: first a probe, then the whole window.

        Whatever the receiver has, the newest block makes it send the ACK that tells: of the gap, or of that block. The
        whole window at once would make it acknowledge in the middle of what it is receiving, and both sides would be
        out of step from then on. In lock-step the newest block is the window. With a negotiated `timeout` the answer to
        a probe that nobody answers would cost another one: the whole window, as RFC 7440 section 4 has it.
        """
        if self._stride < self.terms.windowsize_blocks:
            self._stride = self.terms.windowsize_blocks
            self._habit *= 2
        self._begin_unit()
        self._holds = False
        if self.retries == 1 and not self.terms.timeout_ns and self._deaf < _DEAF_PROBES:
            return self._probe(now_ns)
        self._window_resent = self.sent_end - 1 > self.window_base
        if self._deaf >= _DEAF_PROBES:
            self.burst.shrink(blindly=True)
        self.next = self._presumed = self.window_base
        self._allow_burst()
        self._keep_to_few()
        self._expect_echoes(self.next, self.sent_end - 1, 1, now_ns)
        return self._send_window(now_ns)

    def _keep_to_few(self) -> None:
        """Who has acknowledged no block of the file has shown little: its ACK 0 may be forged.

        It is sent its window, and that once more; from then on a few of its blocks each time, in turns.
        """
        few = min(self.burst.limit, _FEW_BLOCKS)
        parts = -(-(self.sent_end - 1) // few)
        if self.window_base != FIRST_BLOCK or self.retries <= _FULL_REPEATS or parts <= 1:
            return
        self.next = self._presumed = FIRST_BLOCK + (self.retries - _FULL_REPEATS - 1) % parts * few
        self.burst_end = self.next + few - 1
        self._holds = True

    def _probe(self, now_ns: int) -> list[bytes]:
        """The newest block; and before it the oldest, if that was reported missing.

        It may have been lost once more, and many receivers report a gap only once.
        """
        newest = self.sent_end - 1
        self._skips = self.window_base in (self._restarted, self._doubted) and newest > self.window_base
        self.next = self._presumed = self.window_base if self._skips else newest
        self.burst_end = self.next
        self._expect_echoes(self.next, self.next, 1, now_ns)
        return self._send_window(now_ns)

    # --- sending

    @property
    def pausing(self) -> bool:
        """Whether the window allows more, but the burst does not."""
        return not self.opening and not self._holds and self.burst_end < self.next <= self.window_end

    @property
    def window_end(self) -> int:
        """The newest block that the window allows."""
        return min(self.window_base + self.terms.windowsize_blocks - 1, self.last)

    def _send_window(self, now_ns: int) -> list[bytes]:
        """Sends from `next` to the end of the burst, or of the window."""
        end = min(self.window_end, self.burst_end) + 1
        sent = [self._data(block_index) for block_index in range(self.next, end)]
        self.retransmits += max(min(end, self.sent_end) - self.next, 0)
        if sent:
            self._note_sent(end, now_ns)
        self.deadline_ns = now_ns + self._rest_ns()
        return sent

    def _note_sent(self, end: int, now_ns: int) -> None:
        """Blocks `next` .. `end` - 1 have left."""
        if now_ns != self.sent_ns or self.next < self._run_first:
            self._run_first = self.next
        self.sent_ns = now_ns
        if end > self.sent_end:
            if self._timed_block is None:
                # Timed: the first block that was never sent before. An ACK of any block from it on answers this.
                self._timed_block = self.sent_end
                self._timed_resent = False
                self._timed_ns = now_ns
            self.sent_end = end
        self.next = end

    def _data(self, block_index: int) -> bytes:
        start = (block_index - 1) * self.terms.blksize_bytes
        number = block_of(block_index, self.rollover)
        return build_data(number, self._source[start : start + self.terms.blksize_bytes])
