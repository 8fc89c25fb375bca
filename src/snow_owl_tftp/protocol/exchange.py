"""What sender and receiver have in common: the first packet, the timer, what is learned of the peer, and the end.

Knows block_index, time and bytes. No socket, no clock, no file, no TID: whose datagram it is was settled before, and
what the peer sent may be anything (nothing raises). Must not: name a number of the wire outside `seq`.

Words: `next` is the block to be sent or expected next. `opening` is the phase in which only the first packet (request,
OACK, ACK 0) is in flight; a peer is `proven` once it answered from its address.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from snow_owl_tftp.protocol.constants import DEFAULT_BLKSIZE_BYTES, DEFAULT_WINDOWSIZE_BLOCKS, ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import build_ack, build_error
from snow_owl_tftp.protocol.patience import Patience, Trial
from snow_owl_tftp.protocol.rtt import RetransmitPolicy, RoundTrip
from snow_owl_tftp.protocol.seq import Rollover

__all__ = ["FIRST_BLOCK", "Exchange", "ExchangeOutcome", "Terms"]

FIRST_BLOCK: Final = 1

_HEADER_BYTES: Final = 4
_DELICATE_PATIENCE: Final = 4
_DELICATE_NS: Final = 1_000_000_000
_DOUBLINGS: Final = 10


class ExchangeOutcome(StrEnum):
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
        timeout_ns: As negotiated (RFC 2349); 0: the timer follows `patience`.
        rollover: What follows block 65535.
        proven: The peer is one that we asked, so its address cannot be forged.
        policy: When to send again and when to give up.
        patience: What earlier transfers have learned of this client; None: nothing.
    """

    first_packet: bytes = b""
    blksize_bytes: int = DEFAULT_BLKSIZE_BYTES
    windowsize_blocks: int = DEFAULT_WINDOWSIZE_BLOCKS
    timeout_ns: int = 0
    proven: bool = False
    rollover: Rollover = Rollover.TO_0
    policy: RetransmitPolicy = field(default_factory=RetransmitPolicy)
    patience: Patience | None = None


class Exchange(ABC):
    """A transfer, whoever sends the data."""

    def __init__(self, terms: Terms, opening: bool) -> None:
        self.terms = terms
        self.opening = opening
        self.proven = terms.proven
        self.patience = terms.patience if terms.patience is not None else Patience()
        self.rtt = RoundTrip(terms.policy)
        if self.patience.srtt_ns:
            self.rtt.srtt_ns, self.rtt.rttvar_ns = self.patience.srtt_ns, self.patience.rttvar_ns
        self.outcome: ExchangeOutcome | None = None
        self.peer_error: tuple[int, bytes] | None = None
        self.done = False
        self.deadline_ns: int | None = None
        self.next = FIRST_BLOCK
        self.rollover = terms.rollover
        self.retries = 0
        self.retransmits = 0
        self.sent_ns = 0
        self._progress_ns = 0
        self._timed_block: int | None = None
        self._timed_ns = 0
        self._asked_ns = 0
        self._repeated_ns = 0
        self._trial: Trial | None = None

    # --- what the peer and the clock do

    def start(self, now_ns: int) -> list[bytes]:
        """Begins: returns the first packet, or the first window."""
        self._progress_ns = now_ns
        self.sent_ns = now_ns
        self._timed_ns = now_ns
        self._timed_block = 0 if self.opening else None
        self.deadline_ns = self._end_ns(now_ns + self._wait_ns())
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
            return self._abort(ExchangeOutcome.TIMED_OUT, ErrorCode.NOT_DEFINED, "timed out: no answer")
        if self._has_had_its_share():
            self.deadline_ns = self._progress_ns + self.terms.policy.half_open_give_up_ns
            return []
        return self._on_timeout(now_ns)

    # --- RFC 1350 section 7, premature termination

    def _on_error(self, datagram: bytes) -> list[bytes]:
        """An ERROR is never answered, and ends the transfer at once."""
        text, _, _ = datagram[4:].partition(b"\0")
        self.peer_error = int.from_bytes(datagram[2:4], "big"), text[:511]
        return self._end(ExchangeOutcome.PEER_ERROR)

    def _abort(self, outcome: ExchangeOutcome, code: ErrorCode, text: str) -> list[bytes]:
        self._end(outcome)
        return [build_error(code, text)]

    def _end(self, outcome: ExchangeOutcome) -> list[bytes]:
        self._remember()
        self.outcome = self.outcome or outcome
        self.done = True
        self.deadline_ns = None
        return []

    def _remember(self) -> None:
        """For this client's next transfer."""
        if self.rtt.srtt_ns and (self.patience.loses or self.patience.burst_blocks):
            self.patience.srtt_ns, self.patience.rttvar_ns = self.rtt.srtt_ns, self.rtt.rttvar_ns

    # --- the timer: RFC 1123 section 4.2.3.2, and `patience`

    @property
    def rto_ns(self) -> int:
        """How long the packet that was sent last is waited for."""
        asked_ns = self.terms.timeout_ns
        if not asked_ns:
            return self.patience.rto_ns(self.rtt, self.terms.policy, max(self.retries - self._level(), 0))
        if asked_ns >= _DELICATE_NS:
            return asked_ns  # RFC 2349: as agreed
        # `utimeout` may be 10 ms, and a window each 10 ms for half a minute is a flood for who has vanished, or for a
        # stranger whose address was forged: while nothing comes it doubles, up to a second.
        return min(asked_ns << min(self.retries, _DOUBLINGS), _DELICATE_NS)

    def _wait_ns(self) -> int:
        """The same, stretched where speaking too early does harm."""
        rto_ns = self.rto_ns
        if self.opening or self.terms.timeout_ns or not self._is_delicate():
            return rto_ns
        # Up to a second: a longer RTO has backed off already, and a receiver's dally does not last for ever.
        return max(rto_ns, min(_DELICATE_PATIENCE * rto_ns, _DELICATE_NS))

    def _level(self) -> int:
        """How many repetitions in vain do not double the timer."""
        return 0

    @abstractmethod
    def _is_delicate(self) -> bool:
        """Whether repeating something that was not lost would do harm."""

    def _is_hopeless(self, now_ns: int) -> bool:
        silent_ns = now_ns - self._progress_ns
        if self.proven:
            return silent_ns >= self.terms.policy.give_up_ns and self.retries >= self.terms.policy.min_retries
        return silent_ns >= self.terms.policy.half_open_give_up_ns

    def _end_ns(self, deadline_ns: int) -> int:
        """Sooner, if an unproven peer is given up before: whatever `timeout` it asked for, it may be forged."""
        if self.proven:
            return deadline_ns
        return min(deadline_ns, self._progress_ns + self.terms.policy.half_open_give_up_ns)

    def _has_had_its_share(self) -> bool:
        """An unproven peer may be a forged address: it gets a few datagrams, then only silence."""
        return not self.proven and self.retries + 1 >= self.terms.policy.half_open_datagrams

    def _on_timeout(self, now_ns: int) -> list[bytes]:
        self._conclude()
        if not self.retries:
            self._asked_ns = self.sent_ns
        self._repeated_ns = now_ns
        self.retries += 1
        self._timed_block = None  # Karn's rule: RFC 6298 section 3
        self.deadline_ns = self._end_ns(now_ns + self._wait_ns())
        if self.opening:
            self.retransmits += 1
            self.sent_ns = now_ns
            return self._first()
        return self._repeat(now_ns)

    def _progress(self, now_ns: int) -> None:
        """The peer has moved the transfer on."""
        if self.retries and self._was_lone():
            self._trial = Trial(now_ns - self._asked_ns, now_ns - self._repeated_ns, self.retries)
        elif not self.retries:
            self._conclude()
        self.retries = 0
        self.proven = True
        self._progress_ns = now_ns
        self.deadline_ns = now_ns + self._wait_ns()

    # --- was it a loss, or a pause? See `patience`

    def _conclude(self) -> None:
        """The client has gone on, and did not answer the repetition twice: it was a loss, if the answer was prompt."""
        trial = self._trial
        if trial is None or not self.rtt.srtt_ns:
            return  # Without a measured round trip nobody can say what is prompt: when there is one.
        if self.rtt.is_about_one(trial.answer_ns):
            self._trial = None
            self._on_loss()
            if trial.repeats == 1 and not self._is_of_first_copy(trial.answer_ns):
                self.rtt.sample(trial.answer_ns)

    def _is_of_first_copy(self, answer_ns: int) -> bool:
        """Whether this came too soon for an answer to what was sent again alone."""
        return False

    def _on_loss(self) -> None:
        """Something was lost, for certain."""
        self.patience.on_loss(self.terms.policy)

    def _on_second_answer(self) -> None:
        """Another copy arrived too. When all have, the client had only paused."""
        if self._trial is None:
            return
        self._trial.repeats -= 1
        if not self._trial.repeats:
            trial, self._trial = self._trial, None
            is_prompt = self.rtt.is_about_one(trial.answer_ns)
            if is_prompt and trial.late_ns >= self.terms.policy.initial_ns:
                return  # The timer of the peer is a second too, and has met ours: nobody knows.
            least_ns = self.rtt.least_ns
            self.rtt.sample(trial.late_ns)
            self.rtt.least_ns = least_ns  # a pause is no fact about the path
            self.patience.on_pause(trial.late_ns, self.terms.policy)

    @abstractmethod
    def _was_lone(self) -> bool:
        """Whether what was sent again was one packet, each time."""

    # --- the first packet

    def _opened(self, now_ns: int) -> None:
        """The first packet was answered."""
        if self._timed_block == 0:
            self.rtt.sample(now_ns - self._timed_ns)
            self.rtt.forget_least()
        self._timed_block = None
        self._progress(now_ns)
        self.opening = False
        self.deadline_ns = now_ns + self._wait_ns()

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
