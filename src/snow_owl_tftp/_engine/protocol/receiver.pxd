# The receiver of a transfer, RFC 7440's DRCV, over a Flight.
#
# protocol/receiver.py is the same in Python, with the reasons.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from snow_owl_tftp._engine.protocol.exchange cimport (
    flight_on_second_answer, flight_opened, flight_progress, flight_wait_ns)
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit, rtt_rto_ns, rtt_sample
from snow_owl_tftp._engine.protocol.seq cimport ROLLOVER_TO_1, seq_ahead
from snow_owl_tftp._engine.protocol.window cimport (
    ACT_ACK, ACT_DELIVER, ACT_DUPLICATE, ACT_FINAL, ACT_GAP, ACT_STRAY, Flight)

cdef enum:
    DALLY_TIMEOUTS = 3        # the last ACK is repeated on demand for so many negotiated timeouts, and at least ...

cdef extern from *:
    """
    #define DALLY_NS 7000000000ULL   /* ... so long: 1 + 2 + 4 s */
    """
    const uint64_t DALLY_NS


cdef inline int receiver_acknowledge(Flight *f, uint64_t now_ns) noexcept nogil:
    f.in_window = 0
    f.sent_ns = now_ns
    return ACT_ACK


cdef inline bint receiver_was_long_silent(const Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """Whether the answer to our last ACK should be here by now."""
    return f.rtt.srtt_ns != 0 and now_ns - f.sent_ns >= rtt_rto_ns(&f.rtt, policy)


cdef inline int receiver_on_data(Flight *f, const Retransmit *policy, uint16_t block, uint32_t payload_bytes,
                                 uint64_t now_ns) noexcept nogil:
    """DATA `block` with `payload_bytes` (at most blksize_bytes; the caller has checked)."""
    cdef uint32_t ahead
    if f.opening:
        if block == 0 or block > f.windowsize:
            return ACT_STRAY
        flight_opened(f, policy, now_ns)
    ahead = seq_ahead(f.next, block, f.rollover)
    if ahead == 1 and f.next == 65536 and f.windowsize == 1 and f.rollover != ROLLOVER_TO_1:
        # In lock-step nobody can send block_index 65537 before 65536 was acknowledged: this sender
        # goes on with 1.  In a window it could as well be a lost block 0, so there it stays a gap.
        f.rollover = ROLLOVER_TO_1
        ahead = 0
    if ahead == 0:
        return receiver_accept(f, policy, payload_bytes, now_ns)
    if ahead == 65535 and f.in_window == 0:
        # The last block again, and it was acknowledged: that ACK was lost.  Within a window nothing was
        # said about it yet; then it is a doubled datagram, or a window sent again that goes on anyway.
        flight_on_second_answer(f, policy)
        f.deadline_ns = now_ns + flight_wait_ns(f, policy)
        return ACT_DUPLICATE | receiver_acknowledge(f, now_ns)
    if ahead < f.windowsize:
        # Said once, and again if blocks still come after it a round trip later.
        if f.reported and not receiver_was_long_silent(f, policy, now_ns):
            return ACT_DUPLICATE
        f.reported = 1
        f.timed_block = -1
        return ACT_GAP | receiver_acknowledge(f, now_ns)
    if f.in_window and receiver_was_long_silent(f, policy, now_ns):
        # The sender repeats its window, and may be out of step: the ACK that began ours was lost.
        return ACT_DUPLICATE | receiver_acknowledge(f, now_ns)
    return ACT_DUPLICATE


cdef inline int receiver_accept(Flight *f, const Retransmit *policy, uint32_t payload_bytes,
                                uint64_t now_ns) noexcept nogil:
    if f.timed_block == f.next:
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
        f.timed_block = -1
    flight_progress(f, policy, now_ns)
    f.reported = 0
    f.next += 1
    f.in_window += 1
    if payload_bytes < f.blksize_bytes:
        f.last = f.next - 1
        f.in_window = 0
        return ACT_DELIVER | ACT_FINAL
    if f.in_window >= f.windowsize:
        f.timed_block = f.next
        f.timed_ns = now_ns
        return ACT_DELIVER | receiver_acknowledge(f, now_ns)
    return ACT_DELIVER


cdef inline uint64_t flight_dally_ns(const Flight *f) noexcept nogil:
    """How long the last ACK is repeated on demand."""
    cdef uint64_t asked_ns = f.timeout_ns * DALLY_TIMEOUTS
    return asked_ns if asked_ns > DALLY_NS else DALLY_NS
