"""A transfer after its negotiation: the two state machines, sender and receiver, in readable form.

    datagram, now_ns ──► receive() ──┐
              now_ns ──► tick()    ──┼──► datagrams to send to the peer
              now_ns ──► start()   ──┘    and `deadline_ns`: when tick() is due, unless something arrives before

This is the specification of the engine's `_engine/window.pxd`, and the oracle of a test that plays the same packets
into both and compares every datagram and deadline: whoever changes a rule changes it in both.

Knows block_index, time and bytes. No socket, no clock, no file, no TID: whose datagram it is was settled before, and
what the peer sent may be anything (nothing raises). Must not: name a number of the wire outside `seq`.

Words: `window_base` is the oldest block that the peer has not acknowledged, `next` the one to be sent or expected.
`opening` is the phase in which only the first packet (request, OACK, ACK 0) is in flight; a peer is `proven` once it
answered from its address.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from snow_owl_tftp.protocol.constants import (
    DEFAULT_BLKSIZE_BYTES,
    DEFAULT_WINDOWSIZE_BLOCKS,
    MAX_BLOCK,
    ErrorCode,
    Opcode,
)
from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error
from snow_owl_tftp.protocol.rtt import RetransmitPolicy, RoundTrip
from snow_owl_tftp.protocol.seq import Rollover, ahead_of, block_of, index_from

__all__ = ["DALLY_NS", "Outcome", "Receiver", "Sender", "Terms"]

DALLY_NS: Final = 5_000_000_000
"""How long a receiver repeats its last ACK on demand: longer than a sender's usual timeout."""

_HEADER_BYTES: Final = 4
_FIRST_BLOCK: Final = 1
_DELICATE_PATIENCE: Final = 4
_DELICATE_NS: Final = 1_000_000_000
_ONE_ROLLOVER: Final = 65536


class Outcome(StrEnum):
    """How a transfer ended."""

    OK = "OK"
    TIMED_OUT = "TIMED_OUT"
    PEER_ERROR = "PEER_ERROR"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class Terms:
    """What both roles of a transfer start from.

    Attributes:
        first_packet: OACK or request, repeated until it is answered; b"": DATA 1 or ACK 0 begins.
        blksize_bytes: 8..65464, as negotiated (RFC 2348).
        windowsize_blocks: 1..65535, as negotiated (RFC 7440).
        timeout_ns: As negotiated (RFC 2349); 0: the timer follows the measured round trip.
        proven: The peer is one that we asked, so its address cannot be forged.
        policy: When to send again and when to give up.
    """

    first_packet: bytes = b""
    blksize_bytes: int = DEFAULT_BLKSIZE_BYTES
    windowsize_blocks: int = DEFAULT_WINDOWSIZE_BLOCKS
    timeout_ns: int = 0
    proven: bool = False
    rollover: Rollover = Rollover.TO_0
    policy: RetransmitPolicy = field(default_factory=RetransmitPolicy)


class _Transfer(ABC):
    """What sender and receiver have in common: the first packet, the timer, and the end."""

    def __init__(self, terms: Terms, opening: bool) -> None:
        self.terms = terms
        self.opening = opening
        self.proven = terms.proven
        self.rtt = RoundTrip(terms.policy, terms.timeout_ns)
        self.outcome: Outcome | None = None
        self.peer_error: tuple[int, bytes] | None = None
        self.done = False
        self.deadline_ns: int | None = None
        self.next = _FIRST_BLOCK
        self.retries = 0
        self.retransmits = 0
        self._progress_ns = 0
        self._timed_block: int | None = None
        self._timed_ns = 0
        self._answered = False

    # --- what the peer and the clock do

    def start(self, now_ns: int) -> list[bytes]:
        """Begins: returns the first packet, or the first window."""
        self._progress_ns = now_ns
        self._timed_ns = now_ns
        self._timed_block = 0 if self.opening else None
        self.deadline_ns = now_ns + self.rtt.rto_ns
        return self._first() if self.opening else self._begin(now_ns)

    def receive(self, datagram: bytes, now_ns: int) -> list[bytes]:
        """Takes a datagram of the peer; what is no packet of this phase is dropped, for it may be forged."""
        if self.done or len(datagram) < _HEADER_BYTES:
            return []
        opcode = int.from_bytes(datagram[:2], "big")
        if opcode == Opcode.ERROR:
            return self._on_error(datagram)
        return self._on_packet(opcode, int.from_bytes(datagram[2:4], "big"), datagram[4:], now_ns)

    def tick(self, now_ns: int) -> list[bytes]:
        """Does what is due at `now_ns`; nothing before `deadline_ns`."""
        if self.done or self.deadline_ns is None or now_ns < self.deadline_ns:
            return []
        if self._is_hopeless(now_ns):
            return self._abort(Outcome.TIMED_OUT, ErrorCode.NOT_DEFINED, "timed out: no answer")
        if self._has_had_its_share():
            self.deadline_ns = self._progress_ns + self._half_open_ns()
            return []
        return self._on_timeout(now_ns)

    # --- RFC 1350 section 7, premature termination

    def _on_error(self, datagram: bytes) -> list[bytes]:
        """An ERROR is never answered, and ends the transfer at once."""
        text, _, _ = datagram[4:].partition(b"\0")
        self.peer_error = int.from_bytes(datagram[2:4], "big"), text[:511]
        return self._end(Outcome.PEER_ERROR)

    def _abort(self, outcome: Outcome, code: ErrorCode, text: str) -> list[bytes]:
        self._end(outcome)
        return [build_error(code, text)]

    def _end(self, outcome: Outcome) -> list[bytes]:
        self.outcome = self.outcome or outcome
        self.done = True
        self.deadline_ns = None
        return []

    # --- the timer: RFC 6298 section 5, RFC 1123 section 4.2.3.2

    def _patience_ns(self) -> int:
        """How long to wait for the peer: four times the RTO where speaking too early does harm."""
        if self.opening or self.rtt.fixed_ns or not self._is_delicate():
            return self.rtt.rto_ns
        # Up to a second: a longer RTO has backed off already, and a receiver's dally does not last for ever.
        return max(self.rtt.rto_ns, min(_DELICATE_PATIENCE * self.rtt.rto_ns, _DELICATE_NS))

    @abstractmethod
    def _is_delicate(self) -> bool:
        """Whether repeating something that was not lost would do harm."""

    def _is_hopeless(self, now_ns: int) -> bool:
        silent_ns = now_ns - self._progress_ns
        if self.proven:
            return silent_ns >= self.terms.policy.give_up_ns and self.retries >= self.terms.policy.min_retries
        return silent_ns >= self._half_open_ns()

    def _half_open_ns(self) -> int:
        """How long an unproven peer is waited for: long enough for its share at the `timeout` it asked for."""
        policy = self.terms.policy
        return max(policy.half_open_give_up_ns, self.rtt.fixed_ns * policy.half_open_datagrams)

    def _has_had_its_share(self) -> bool:
        """An unproven peer may be a forged address: it gets a few datagrams, then only silence."""
        return not self.proven and self.retries + 1 >= self.terms.policy.half_open_datagrams

    def _on_timeout(self, now_ns: int) -> list[bytes]:
        self.retries += 1
        self.rtt.back_off()
        self._timed_block = None  # Karn's rule: RFC 6298 section 3
        self._answered = False
        self.deadline_ns = now_ns + self._patience_ns()
        if self.opening:
            self.retransmits += 1
            return self._first()
        return self._repeat(now_ns)

    def _progress(self, now_ns: int) -> None:
        """The peer has moved the transfer on."""
        if self.retries:
            self.rtt.forgive()
        self.retries = 0
        self._answered = False
        self.proven = True
        self._progress_ns = now_ns
        self.deadline_ns = now_ns + self._patience_ns()

    def _opened(self, now_ns: int) -> None:
        """The first packet was answered."""
        if self._timed_block == 0:
            self.rtt.sample(now_ns - self._timed_ns)
        self._timed_block = None
        self.opening = False
        self._progress(now_ns)

    def _first(self) -> list[bytes]:
        return [self.terms.first_packet or build_ack(0)]

    # --- what the two roles do differently

    @abstractmethod
    def _begin(self, now_ns: int) -> list[bytes]:
        """What is sent first when nothing has to be opened."""

    @abstractmethod
    def _repeat(self, now_ns: int) -> list[bytes]:
        """What is sent again after a timeout."""

    @abstractmethod
    def _on_packet(self, opcode: int, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        """What answers a packet that is no ERROR."""


class Sender(_Transfer):
    """Sends a whole file block by block, a window at a time (RFC 7440's DSND).

    With a first packet (an OACK or a WRQ) the data follows ACK 0; without one, DATA 1 is the first packet.
    """

    def __init__(self, source: bytes, terms: Terms) -> None:
        super().__init__(terms, opening=bool(terms.first_packet))
        self._source = source
        # RFC 1350 section 6: the transfer ends with a block shorter than the rest, an empty one if need be.
        self.last = len(source) // terms.blksize_bytes + 1
        self.window_base = 0 if self.opening else _FIRST_BLOCK
        self.sent_end = _FIRST_BLOCK
        self._sent_ns = 0
        self._resent = False
        self._twice = 0
        self._recover: int | None = None

    def restart_clocks(self, now_ns: int) -> list[bytes]:
        """For a caller that could not send, for want of bytes from a disk or a pipe.

        The receiver owed nothing meanwhile, and an answer to what left before that measures us, not the path.
        """
        if not self.done and not self.opening:
            self._progress_ns = now_ns
            self._timed_block = None
            self.deadline_ns = now_ns + self._patience_ns()
        return []

    def _begin(self, now_ns: int) -> list[bytes]:
        return self._send_window(now_ns)

    def _is_delicate(self) -> bool:
        """Once the last block is sent the peer may have moved on; a boot ROM takes it for its next file's."""
        return self.sent_end > self.last

    def _on_packet(self, opcode: int, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        if opcode != Opcode.ACK:
            return []
        if self.opening:
            return self._on_first_ack(block, now_ns)
        acked = index_from(self.window_base - 1, block, self.terms.rollover)
        if acked >= self.sent_end:
            return []  # Never sent, or acknowledged long ago: taken as progress it would skip data.
        if acked == self.window_base - 1:
            return self._on_repeated_ack(now_ns)
        return self._on_new_ack(acked, now_ns)

    def _on_first_ack(self, block: int, now_ns: int) -> list[bytes]:
        """RFC 2347, Negotiation Protocol: an OACK is acknowledged with ACK 0; a WRQ too (RFC 1350 section 4)."""
        if block != 0:
            return []
        self._opened(now_ns)
        self.window_base = _FIRST_BLOCK
        return self._send_window(now_ns)

    def _on_repeated_ack(self, now_ns: int) -> list[bytes]:
        """The ACK before the window, again.

        In lock-step it is never answered (RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice). In a window it says
        that the window's first block is missing (RFC 7440 section 4), and is answered once until something moves.
        """
        nothing_sent = self.sent_end == self.window_base
        if self.terms.windowsize_blocks == 1 or self._answered or nothing_sent or not self._may_restart(now_ns):
            return []
        if self.window_base - 1 <= self._twice and not self.retries:
            # It may be the echo of that block's second copy, and to answer echoes would double every window from then
            # on. After a timeout the echoes have all been here.
            return []
        self._answered = True
        self._restart(now_ns)
        return self._send_window(now_ns)

    def _on_new_ack(self, acked: int, now_ns: int) -> list[bytes]:
        """RFC 7440 section 4: the window slides, and what follows the acknowledged block is sent next."""
        # What comes faster than half the shortest round trip answers something older: no sample.
        is_plausible = now_ns - self._timed_ns >= self.rtt.least_ns // 2
        if self._timed_block is not None and acked >= self._timed_block and is_plausible:
            self.rtt.sample(now_ns - self._timed_ns)
            self._timed_block = None
        self._progress(now_ns)
        self.window_base = acked + 1
        if acked == self.last:
            return self._end(Outcome.OK)
        self.next = max(self.next, self.window_base)
        if self.window_base < self.next:
            if self._resent or acked == self._recover:
                # No gap: the receiver met the block that it had received last, said so, and is taking what follows at
                # this moment. To send that again would make it acknowledge there too, for ever.
                self._resent = False
                self._recover = None
                return self._send_window(now_ns)
            # The receiver stopped within the window: what follows was lost.
            if not self._may_restart(now_ns):
                return []
            self._restart(now_ns)
        self._resent = False
        return self._send_window(now_ns)

    def _may_restart(self, now_ns: int) -> bool:
        """No answer to what was sent last can be here in less than half the shortest round trip.

        Such an ACK was doubled or overtaken on its way, and says nothing about loss.
        """
        return now_ns - self._sent_ns >= self.rtt.least_ns // 2

    def _restart(self, now_ns: int) -> None:
        self._recover = self.sent_end - 1
        self.next = self.window_base
        # The receiver has just said that this block is missing, so an ACK of it answers the copy that is sent now: no
        # ambiguity in Karn's sense. On a lossy path hardly any window passes whole, and this is the sample.
        self._timed_block = self.window_base
        self._timed_ns = now_ns
        self._sent_ns = now_ns

    def _repeat(self, now_ns: int) -> list[bytes]:
        """No ACK came: first the newest block alone, then the whole window.

        Whatever the receiver has, the newest block makes it send the ACK that tells: of the gap, or of that block. The
        whole window at once would make it acknowledge in the middle of what it is receiving, and both sides would be
        out of step from then on. In lock-step the newest block is the window.
        """
        is_probe = self.retries == 1 and self.sent_end > self.window_base
        self._resent = self.retries > 1 and self.terms.windowsize_blocks > 1
        self.next = self.sent_end - 1 if is_probe else self.window_base
        return self._send_window(now_ns)

    def _on_timeout(self, now_ns: int) -> list[bytes]:
        self._sent_ns = now_ns
        return super()._on_timeout(now_ns)

    def _send_window(self, now_ns: int) -> list[bytes]:
        """Sends from `next` to the end of the window: at least one block, or the transfer would be over."""
        end = min(self.window_base + self.terms.windowsize_blocks, self.last + 1)
        sent = [self._data(block_index) for block_index in range(self.next, end)]
        self.retransmits += min(end, self.sent_end) - self.next
        if self.next < self.sent_end:
            self._twice = min(end, self.sent_end) - 1
        if end > self.sent_end:
            if self._timed_block is None:
                # Timed: the first block that was never sent before. An ACK of any block from it on answers this.
                self._timed_block = self.sent_end
                self._timed_ns = now_ns
            self.sent_end = end
        self.next = end
        if sent:
            self._sent_ns = now_ns
        self.deadline_ns = now_ns + self._patience_ns()
        return sent

    def _data(self, block_index: int) -> bytes:
        start = (block_index - 1) * self.terms.blksize_bytes
        return build_data(
            block_of(block_index, self.terms.rollover), self._source[start : start + self.terms.blksize_bytes]
        )


class Receiver(_Transfer):
    """Collects blocks and acknowledges them, a window at a time (RFC 7440's DRCV).

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
        self.received = False
        self.in_window = 0
        self.rollover = terms.rollover
        self._dallies = False

    # --- the caller's verdict on the received file

    def commit(self, now_ns: int) -> list[bytes]:
        """The file is safe: acknowledges the last block and dallies, to repeat that ACK if it gets lost."""
        self.outcome = Outcome.OK
        self._dallies = True
        self.deadline_ns = now_ns + DALLY_NS
        return [self._ack()]

    def refuse(self, code: ErrorCode, text: str) -> list[bytes]:
        """The file could not be kept."""
        return self._abort(Outcome.ABORTED, code, text)

    # --- what the peer and the clock do

    def _begin(self, now_ns: int) -> list[bytes]:
        self.deadline_ns = now_ns + self._patience_ns()
        return [self._ack()]

    def tick(self, now_ns: int) -> list[bytes]:
        if self._dallies and self.deadline_ns is not None and now_ns >= self.deadline_ns:
            return self._end(Outcome.OK)
        return super().tick(now_ns)

    def _on_packet(self, opcode: int, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        if opcode == Opcode.OACK and not self.opening and self.next == _FIRST_BLOCK:
            return [self._ack()]  # RFC 2347, Negotiation Protocol: our ACK 0 was lost.
        if opcode != Opcode.DATA:
            return []
        if self.received:
            # RFC 1350 section 6: dallying, the last ACK is repeated when the last block is.
            return [self._ack()] if self._dallies and block == self._wire(self.next - 1) else []
        if len(payload) > self.terms.blksize_bytes:
            return self._abort(Outcome.ABORTED, ErrorCode.ILLEGAL_OPERATION, "DATA longer than the block size")
        return self._on_data(block, payload, now_ns)

    def _on_data(self, block: int, payload: bytes, now_ns: int) -> list[bytes]:
        if self.opening:
            if not _FIRST_BLOCK <= block <= self.terms.windowsize_blocks:
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
        return self._on_gap() if ahead < self.terms.windowsize_blocks else []

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
        return self._acknowledge()

    def _on_final_block(self) -> list[bytes]:
        """RFC 1350 section 6: the short block is the last; the caller decides about its ACK."""
        self.in_window = 0
        self.received = True
        self.deadline_ns = None
        return []

    def _on_last_block_again(self, now_ns: int) -> list[bytes]:
        """The block before `next`: its ACK was lost, and is repeated."""
        self.deadline_ns = now_ns + self._patience_ns()
        return self._acknowledge()

    def _on_gap(self) -> list[bytes]:
        """RFC 7440 section 4: a block is missing; say once what was received in order."""
        if self._answered:
            return []
        self._answered = True
        self._timed_block = None  # Karn's rule: what comes next may have been sent before
        return self._acknowledge()

    def _repeat(self, now_ns: int) -> list[bytes]:
        """No DATA came: say again what was received in order."""
        self.retransmits += 1
        return self._acknowledge()

    def _is_delicate(self) -> bool:
        """A repeated ACK restarts a window: the sender, who knows better what is lost, goes first."""
        return True

    def _acknowledge(self) -> list[bytes]:
        self.in_window = 0
        return [self._ack()]

    def _ack(self) -> bytes:
        return build_ack(self._wire(self.next - 1))

    def _wire(self, block_index: int) -> int:
        return block_of(block_index, self.rollover)
