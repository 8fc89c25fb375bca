"""A transfer after its negotiation: the two state machines, sender and receiver, in readable form.

    datagram, now_ns ──► receive() ──┐
              now_ns ──► tick()    ──┼──► datagrams to send to the peer
              now_ns ──► start()   ──┘    and `deadline_ns`: when tick() is due, unless something arrives before

This is the specification of the engine's `protocol/window.pxd`, and the oracle of a test that plays the same packets
into both and compares every datagram and deadline: whoever changes a rule changes it in both.

    exchange    what both roles have in common: the first packet, the timer, the end
    sender      blocks, windows, loss reports (RFC 7440's DSND)
    receiver    order, gaps, the last ACK (RFC 7440's DRCV)
    patience    how long to wait before something is sent again
    burst       how much of a window may leave at once
    rtt         the measured round trip
"""

from snow_owl_tftp.protocol.exchange import Outcome, Terms
from snow_owl_tftp.protocol.receiver import DALLY_NS, DALLY_TIMEOUTS, Receiver
from snow_owl_tftp.protocol.sender import Sender

__all__ = ["DALLY_NS", "DALLY_TIMEOUTS", "Outcome", "Receiver", "Sender", "Terms"]
