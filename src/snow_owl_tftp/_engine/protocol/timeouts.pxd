# The timer of a transfer, over a Flight: deadline_ns has passed, and whose role it is decides what follows.
#
# protocol/exchange.py (`tick`, `_on_timeout`) is the same in Python, where the two roles are subclasses.

from libc.stdint cimport uint64_t
from snow_owl_tftp._engine.protocol.exchange cimport flight_conclude, flight_end_ns, flight_wait_ns
from snow_owl_tftp._engine.protocol.receiver cimport receiver_acknowledge
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit
from snow_owl_tftp._engine.protocol.sender cimport flight_is_pausing, sender_go_on, sender_repeat
from snow_owl_tftp._engine.protocol.window cimport ACT_FIRST, ACT_GIVE_UP, ACT_GO_ON, ACT_SEND, SENDER, Flight


cdef inline int flight_on_timeout(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """deadline_ns has passed.  Sets the next deadline; sender_sent sets it anew."""
    cdef uint64_t silent_ns = now_ns - f.progress_ns
    if f.role == SENDER and flight_is_pausing(f):
        sender_go_on(f)
        f.deadline_ns = now_ns + flight_wait_ns(f, policy)   # should the caller be unable to send
        return ACT_SEND | ACT_GO_ON
    if f.proven:
        if silent_ns >= policy.give_up_ns and f.retries >= policy.min_retries:
            return ACT_GIVE_UP
    else:
        if silent_ns >= policy.half_open_give_up_ns:
            return ACT_GIVE_UP
        if f.retries + 1 >= policy.half_open_datagrams:
            # An unproven peer may be a forged address: it has had its share.
            f.deadline_ns = f.progress_ns + policy.half_open_give_up_ns
            return 0
    flight_conclude(f, policy)
    if f.retries == 0:
        f.asked_ns = f.sent_ns
    f.repeated_ns = now_ns
    f.retries += 1
    f.timed_block = -1
    f.deadline_ns = flight_end_ns(f, policy, now_ns + flight_wait_ns(f, policy))
    if f.opening:
        f.retransmits += 1
        f.sent_ns = now_ns
        return ACT_FIRST
    if f.role == SENDER:
        sender_repeat(f, policy, now_ns)
        return ACT_SEND
    f.retransmits += 1
    f.reported = 0
    return receiver_acknowledge(f, now_ns)
