# The retransmission timer of one transfer: RFC 6298, in integer nanoseconds.
#
# srtt_ns == 0 means that nothing was measured yet.  RTO = SRTT + max(G, 4 * RTTVAR), where G, the floor
# of the policy, is what a peer's scheduler may add to a round trip that never varied: with a floor under
# the whole RTO instead, a steady 20 ms path gets an RTO of 20 ms and every hiccup is taken for a loss.
# The caller keeps Karn's rule: no sample from a repeated packet.

from libc.stdint cimport uint64_t, int64_t


cdef struct Retransmit:
    # The retransmission policy of an engine; owner: Engine, read-only after start.
    uint64_t initial_ns            # RTO before the first sample (RFC 6298 (2.1): one second)
    uint64_t floor_ns              # the least that RTO exceeds the round trip by
    uint64_t ceiling_ns            # the greatest RTO that back-off reaches
    uint64_t give_up_ns            # without progress for so long a proven transfer ends
    uint64_t half_open_give_up_ns  # the same for a peer that never acknowledged
    unsigned int half_open_datagrams   # first answers sent to an unproven peer by timer, the first included
    unsigned int min_retries           # retransmissions before giving up, however long they take


cdef struct Rtt:
    uint64_t srtt_ns
    uint64_t rttvar_ns
    uint64_t rto_ns
    uint64_t least_ns              # the shortest round trip seen, 0: none
    uint64_t forgiven              # 1: a back-off was forgotten without a sample since
    uint64_t fixed_ns              # `timeout` as negotiated (RFC 2349), 0: measured


cdef inline void rtt_init(Rtt *r, const Retransmit *policy, uint64_t fixed_ns) noexcept nogil:
    r.srtt_ns = 0
    r.rttvar_ns = 0
    r.least_ns = 0
    r.forgiven = 0
    r.fixed_ns = fixed_ns
    r.rto_ns = fixed_ns if fixed_ns else policy.initial_ns


cdef inline void rtt_settle(Rtt *r, const Retransmit *policy) noexcept nogil:
    """RTO from what was measured."""
    cdef uint64_t margin_ns = 4 * r.rttvar_ns
    if r.fixed_ns or r.srtt_ns == 0:
        return
    if margin_ns < policy.floor_ns:
        margin_ns = policy.floor_ns
    r.rto_ns = r.srtt_ns + margin_ns
    if r.rto_ns > policy.ceiling_ns:
        r.rto_ns = policy.ceiling_ns


cdef inline void rtt_forgive(Rtt *r, const Retransmit *policy) noexcept nogil:
    """Progress after a timeout, but no sample (Karn).

    RFC 6298 keeps a backed-off RTO until there is a sample, so that a round trip that grew is learned.
    On a lossy path samples are rare, and two or three back-offs in a row cost seconds.  So the back-off
    is forgotten once; a second one stays until there is a sample.
    """
    if not r.forgiven:
        r.forgiven = 1
        rtt_settle(r, policy)


cdef inline void rtt_sample(Rtt *r, const Retransmit *policy, uint64_t rtt_ns) noexcept nogil:
    """RFC 6298 (2.2) and (2.3): alpha = 1/8, beta = 1/4, K = 4."""
    cdef uint64_t error_ns
    r.forgiven = 0
    if r.least_ns == 0 or rtt_ns < r.least_ns:
        r.least_ns = rtt_ns
    if r.srtt_ns == 0:
        r.srtt_ns = rtt_ns if rtt_ns else 1
        r.rttvar_ns = rtt_ns // 2
    else:
        error_ns = r.srtt_ns - rtt_ns if r.srtt_ns > rtt_ns else rtt_ns - r.srtt_ns
        r.rttvar_ns = (3 * r.rttvar_ns + error_ns) // 4
        r.srtt_ns = (7 * r.srtt_ns + rtt_ns) // 8
        if r.srtt_ns == 0:
            r.srtt_ns = 1
    rtt_settle(r, policy)


cdef inline void rtt_back_off(Rtt *r, const Retransmit *policy) noexcept nogil:
    """RFC 6298 (5.5).  A negotiated timeout is honoured as asked and never grows."""
    if r.fixed_ns:
        return
    r.rto_ns *= 2
    if r.rto_ns > policy.ceiling_ns:
        r.rto_ns = policy.ceiling_ns
