# The round trip of one transfer: RFC 6298, in integer nanoseconds.  protocol/rtt.py, bit by bit, says why.
#
# srtt_ns == 0 means that nothing was measured yet.  The caller decides what is a sample (Karn's rule), and how long
# to wait is more than this: patience.pxd.

from libc.stdint cimport uint64_t


cdef struct Retransmit:
    # The retransmission policy of an engine; owner: Engine, read-only after start.
    uint64_t initial_ns            # the wait before the first repetition to a client of which no loss is known
    uint64_t floor_ns              # the least that the measured timer exceeds the round trip by
    uint64_t ceiling_ns            # the greatest RTO that back-off reaches
    uint64_t give_up_ns            # without progress for so long a proven transfer ends
    uint64_t half_open_give_up_ns  # the same for a peer that never acknowledged
    unsigned int half_open_datagrams   # first answers sent to an unproven peer by timer, the first included
    unsigned int min_retries           # retransmissions before giving up, however long they take


cdef struct Rtt:
    uint64_t srtt_ns
    uint64_t rttvar_ns
    uint64_t least_ns              # the shortest round trip seen, 0: none


cdef inline uint64_t rtt_rto_ns(const Rtt *r, const Retransmit *policy) noexcept nogil:
    """The RTO without any back-off; the initial one before the first sample."""
    cdef uint64_t margin_ns = 4 * r.rttvar_ns
    if r.srtt_ns == 0:
        return policy.initial_ns
    if margin_ns < policy.floor_ns:
        margin_ns = policy.floor_ns
    return r.srtt_ns + margin_ns if r.srtt_ns + margin_ns < policy.ceiling_ns else policy.ceiling_ns


cdef inline void rtt_sample(Rtt *r, const Retransmit *policy, uint64_t rtt_ns) noexcept nogil:
    """RFC 6298 (2.2) and (2.3): alpha = 1/8, beta = 1/4, K = 4; more than twice the RTO counts as that."""
    cdef uint64_t error_ns, most_ns
    cdef bint is_first = r.least_ns == 0 and rtt_ns < r.srtt_ns
    if r.least_ns == 0 or rtt_ns < r.least_ns:
        r.least_ns = rtt_ns
    if r.srtt_ns == 0 or is_first:
        r.srtt_ns = rtt_ns if rtt_ns else 1
        r.rttvar_ns = rtt_ns // 2
        return
    most_ns = 2 * rtt_rto_ns(r, policy)
    if rtt_ns > most_ns:
        rtt_ns = most_ns
    error_ns = r.srtt_ns - rtt_ns if r.srtt_ns > rtt_ns else rtt_ns - r.srtt_ns
    r.rttvar_ns = (3 * r.rttvar_ns + error_ns) // 4
    r.srtt_ns = (7 * r.srtt_ns + rtt_ns) // 8
    if r.srtt_ns == 0:
        r.srtt_ns = 1


cdef inline uint64_t rtt_soonest_ns(const Rtt *r) noexcept nogil:
    """What is answered sooner than this is hardly answered to what was sent last."""
    cdef uint64_t ns = r.least_ns if r.least_ns else r.srtt_ns
    return ns - ns // 8


cdef inline bint rtt_is_too_soon(const Rtt *r, uint64_t ns) noexcept nogil:
    """Whether an answer after `ns` answers something older, for certain."""
    return r.least_ns > 0 and ns < rtt_soonest_ns(r)


cdef inline bint rtt_is_about_one(const Rtt *r, const Retransmit *policy, uint64_t ns) noexcept nogil:
    """Whether an answer after `ns` took about a round trip."""
    return r.srtt_ns != 0 and ns <= 2 * (r.least_ns if r.least_ns else r.srtt_ns) + policy.floor_ns
