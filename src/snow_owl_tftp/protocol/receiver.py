"""The receiver of a transfer: RFC 7440's DRCV. See `transfer` for the whole, `exchange` for what both roles share."""

from typing import Final

from snow_owl_tftp.protocol.constants import MAX_BLOCK, ErrorCode, Opcode
from snow_owl_tftp.protocol.exchange import FIRST_BLOCK, Exchange, ExchangeOutcome, Terms
from snow_owl_tftp.protocol.packets import build_ack
from snow_owl_tftp.protocol.seq import Rollover, ahead_of, block_of

__all__ = ["DALLY_NS", "DALLY_TIMEOUTS", "Receiver"]

DALLY_NS: Final = 7_000_000_000
"""How long a receiver repeats its last ACK on demand: a sender repeats its last block after 1, 2 and 4 s or so."""

DALLY_TIMEOUTS: Final = 3
"""But as long as a sender needs for so many repetitions at the `timeout` that it negotiated."""

_ONE_ROLLOVER: Final = 65536


class Receiver(Exchange):
    """Collects blocks and acknowledges them, a window at a time.

    When the last block is there `received` is true, and nothing is sent until commit() or refuse(): an ACK of the last
    block says that the file is safe, and only the caller knows when it is.

    Args:
        terms: What was negotiated.
        opening: False when the peer has answered before (it sent the OACK to our RRQ): then ACK 0 is sent, but not as
            a first packet that is repeated until something comes.
    """

    def __init__(self, terms: Terms, *, opening: bool = True) -> None:
        super().__init__(terms, opening)
        self.delivered = bytearray()
        self.in_window = 0
        self.last = -1  # the final block, once it is there
        self._reported = False
        self._dallies = False

    @property
    def received(self) -> bool:
        """Whether the last block is there."""
        return self.last >= 0

    # --- the caller's verdict on the received file

    def commit(self, now_ns: int) -> list[bytes]:
        """The file is safe: acknowledges the last block and dallies, to repeat that ACK if it gets lost."""
        self.outcome = ExchangeOutcome.OK
        self._dallies = True
        self.deadline_ns = now_ns + max(DALLY_NS, DALLY_TIMEOUTS * self.terms.timeout_ns)
        return [self._ack()]

    def refuse(self, code: ErrorCode, text: str) -> list[bytes]:
        """The file could not be kept."""
        return self._abort(ExchangeOutcome.ABORTED, code, text)

    # --- what the peer and the clock do

    def _begin(self, now_ns: int) -> list[bytes]:
        self.deadline_ns = now_ns + self._wait_ns()
        return [self._ack()]

    def tick(self, now_ns: int) -> list[bytes]:
        if self._dallies and self.deadline_ns is not None and now_ns >= self.deadline_ns:
            return self._end(ExchangeOutcome.OK)
        return super().tick(now_ns)

    def _on_packet(self, opcode: int, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        if opcode == Opcode.OACK and not self.opening and self.next == FIRST_BLOCK:
            return [self._ack()]  # RFC 2347, Negotiation Protocol: our ACK 0 was lost.
        if opcode != Opcode.DATA:
            return []
        if self.received:
            # RFC 1350 section 6: dallying, the last ACK is repeated when the last block is.
            return [self._ack()] if self._dallies and block == self._wire(self.last) else []
        if len(payload) > self.terms.blksize_bytes:
            return self._abort(ExchangeOutcome.ABORTED, ErrorCode.ILLEGAL_OPERATION, "DATA longer than the block size")
        return self._on_data(block, payload, now_ns)

    def _on_data(self, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        if self.opening:
            if not FIRST_BLOCK <= block <= self.terms.windowsize_blocks:
                return []
            self._opened(now_ns)
        ahead = ahead_of(self.next, block, self.rollover)
        if ahead == 1 and self._peer_rolls_over_to_1():
            self.rollover = Rollover.TO_1
            ahead = 0
        if ahead == 0:
            return self._on_next_block(payload, now_ns)
        if ahead == MAX_BLOCK and not self.in_window:
            return self._on_last_block_again(now_ns)
        return self._on_gap(now_ns) if ahead < self.terms.windowsize_blocks else self._on_old_block(now_ns)

    def _peer_rolls_over_to_1(self) -> bool:
        """Block 1 where 0 was expected.

        In lock-step nobody can be one block further before we acknowledged this one: the sender goes on with 1. In a
        window it could as well be a lost block 0, so there it stays a gap.
        """
        return self.next == _ONE_ROLLOVER and self.terms.windowsize_blocks == 1 and self.rollover is Rollover.TO_0

    def _on_next_block(self, payload: bytes, now_ns: int) -> list[bytes]:
        if self._timed_block == self.next:
            self.rtt.sample(now_ns - self._timed_ns)
            self._timed_block = None
        self._progress(now_ns)
        self._reported = False
        self.delivered += payload
        self.next += 1
        self.in_window += 1
        if len(payload) < self.terms.blksize_bytes:
            return self._on_final_block()
        if self.in_window < self.terms.windowsize_blocks:
            return []
        # The answer to this ACK is the next block: it is timed.
        self._timed_block = self.next
        self._timed_ns = now_ns
        return self._acknowledge(now_ns)

    def _on_final_block(self) -> list[bytes]:
        """RFC 1350 section 6: the short block is the last; the caller decides about its ACK."""
        self.in_window = 0
        self.last = self.next - 1
        self.deadline_ns = None
        return []

    def _on_last_block_again(self, now_ns: int) -> list[bytes]:
        """The block before `next`: its ACK was lost, and is repeated."""
        self._on_second_answer()
        self.deadline_ns = now_ns + self._wait_ns()
        return self._acknowledge(now_ns)

    def _on_gap(self, now_ns: int) -> list[bytes]:
        """RFC 7440 section 4: a block is missing; say once what was received in order.

        Say it again if blocks still come after it a round trip later: what was sent again was lost again.
        """
        if self._reported and not self._was_long_silent(now_ns):
            return []
        self._reported = True
        self._timed_block = None  # Karn's rule: what comes next may have been sent before
        return self._acknowledge(now_ns)

    def _on_old_block(self, now_ns: int) -> list[bytes]:
        """A block from before: doubled on its way, or the sender repeats its window and does not know what we have.

        It may be out of step: we reported a gap, which begins a new window here, and that ACK was lost. Then nothing
        that it may send completes our window.
        """
        return self._acknowledge(now_ns) if self.in_window and self._was_long_silent(now_ns) else []

    def _was_long_silent(self, now_ns: int) -> bool:
        """Whether the answer to our last ACK should be here by now."""
        return bool(self.rtt.srtt_ns) and now_ns - self.sent_ns >= self.rtt.rto_ns

    def _repeat(self, now_ns: int) -> list[bytes]:
        """No DATA came: say again what was received in order."""
        self.retransmits += 1
        self._reported = False
        return self._acknowledge(now_ns)

    def _was_lone(self) -> bool:
        return True

    def _is_delicate(self) -> bool:
        """A repeated ACK restarts a window: the sender, who knows better what is lost, goes first."""
        return True

    def _wait_ns(self) -> int:
        """In lock-step never sooner than a second: there are senders that answer every ACK with a block."""
        wait_ns = super()._wait_ns()
        if self.terms.windowsize_blocks == 1 and not self.terms.timeout_ns:
            return max(wait_ns, self.terms.policy.initial_ns)
        return wait_ns

    def _acknowledge(self, now_ns: int) -> list[bytes]:
        self.in_window = 0
        self.sent_ns = now_ns
        return [self._ack()]

    def _ack(self) -> bytes:
        return build_ack(self._wire(self.next - 1))

    def _wire(self, block_index: int) -> int:
        return block_of(block_index, self.rollover)
