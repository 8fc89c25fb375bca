"""A transfer after its negotiation: the two state machines, sender and receiver, in readable form.

    datagram, now_ns ──► receive() ──┐
              now_ns ──► tick()    ──┼──► datagrams to send to the peer
              now_ns ──► start()   ──┘    and `deadline_ns`: when tick() is due, unless something arrives before

This is the specification of the engine's `protocol/`, where each rule lies in a `.pxd` of the same name, and the oracle
of a test that plays the same packets into both and compares every datagram and deadline: whoever changes a rule
changes it in both.

    exchange    what both roles have in common: the first packet, the timer, the end
    sender      blocks, windows, loss reports (RFC 7440's DSND)
    receiver    order, gaps, the last ACK (RFC 7440's DRCV)
    patience    how long to wait before something is sent again
    burst       how much of a window may leave at once
    rtt         the measured round trip

Around them a transfer has a life: how it was begun, and what it waits for when all its blocks are there. That is the
engine's (`worker/`), and `NEXT` is its table.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from snow_owl_tftp.protocol.exchange import ExchangeOutcome, Terms
from snow_owl_tftp.protocol.receiver import DALLY_NS, DALLY_TIMEOUTS, Receiver
from snow_owl_tftp.protocol.sender import Sender

__all__ = ["DALLY_NS", "DALLY_TIMEOUTS", "NEXT", "ExchangeOutcome", "Receiver", "Sender", "State", "Terms"]


class State(IntEnum):
    """Where a transfer of the engine is, by the numbers there (`base/transfer.pxd`)."""

    FREE = 0
    """There is none: not yet, or no more."""
    REQUESTED = 1
    """A client has asked; Python is deciding."""
    ASKING = 2
    """Our own request is in flight."""
    ANSWERED = 3
    """Its OACK is with Python."""
    ACTIVE = 4
    """Sender and Receiver: from the first packet to the last block."""
    FLUSHING = 5
    """A receiver has it all; it is being written."""
    COMMITTING = 6
    """It is written; Python makes it durable and visible."""
    DALLY = 7
    """It is kept, and the last ACK is sent; that ACK is repeated on demand."""
    ENDING = 8
    """It is over, but an I/O thread is still writing some of it."""
    STUCK = 9
    """The same, and nobody waits for that write any more."""


NEXT: Final[Mapping[State, frozenset[State]]] = {
    State.FREE: frozenset({State.REQUESTED, State.ASKING}),
    State.REQUESTED: frozenset({State.ACTIVE, State.FREE}),
    # A server that knows no options answers with the first block, or with ACK 0; and an OACK may be the expected one.
    State.ASKING: frozenset({State.ANSWERED, State.ACTIVE, State.FREE}),
    State.ANSWERED: frozenset({State.ACTIVE, State.FREE}),
    # A sender ends from here, and a receiver that only compares; another receiver when something went wrong.
    State.ACTIVE: frozenset({State.FLUSHING, State.ENDING, State.FREE}),
    # From itself: some of it was written, so the disk has all its time again.
    State.FLUSHING: frozenset({State.FLUSHING, State.COMMITTING, State.ENDING, State.FREE}),
    State.COMMITTING: frozenset({State.DALLY, State.FREE}),
    State.DALLY: frozenset({State.FREE}),
    State.ENDING: frozenset({State.STUCK, State.FREE}),
    State.STUCK: frozenset({State.FREE}),
}
"""What may follow each state. A debug build of the engine that does anything else aborts."""
