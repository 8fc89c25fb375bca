# How long to wait before something is sent again: protocol/patience.py, over a struct.
#
# One belongs to every transfer; what is worth it is remembered for the client's address between them (remembered.pxd).

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit, Rtt, rtt_rto_ns

cdef enum:
    MOST_DOUBLINGS = 16
    ALL = 256
    SELDOM = 4
    MEMORY = 16
    MOST_LEVEL = 4


cdef struct Patience:
    uint64_t pause_ns              # the least wait, learned from pauses that were mistaken for losses
    uint64_t srtt_ns, rttvar_ns    # with `loses`: the round trip of the client's last transfer
    uint32_t burst_blocks          # how many blocks at once its path took, 0: no limit was met
    uint32_t silence               # of 256 blocks in lock-step so many were met with silence, of late
    uint8_t loses                  # its path was seen to lose: the measured round trip drives the timer


cdef inline uint64_t patience_rto_ns(const Patience *p, const Rtt *rtt, const Retransmit *policy,
                                     uint32_t retries) noexcept nogil:
    """The wait before the next repetition, doubled for each that was in vain: RFC 6298 (5.5)."""
    cdef uint64_t least_ns = p.pause_ns, rto_ns = rtt_rto_ns(rtt, policy)
    if not p.loses and policy.initial_ns > least_ns:
        least_ns = policy.initial_ns
    if least_ns > rto_ns:
        rto_ns = least_ns
    rto_ns <<= retries if retries < MOST_DOUBLINGS else MOST_DOUBLINGS
    return rto_ns if rto_ns < policy.ceiling_ns else policy.ceiling_ns


cdef inline uint32_t patience_level(const Patience *p) noexcept nogil:
    """How many repetitions in vain are no news on this path, for the timer of a sender in lock-step."""
    cdef uint32_t level = 0, chance = p.silence
    while p.loses and chance > <uint32_t>SELDOM and level < <uint32_t>MOST_LEVEL:
        chance = chance * p.silence // ALL
        level += 1
    return level


cdef inline void patience_on_answer(Patience *p, uint32_t repeats) noexcept nogil:
    """A block in lock-step was answered, after so many repetitions; before a loss is known they mean nothing."""
    if not p.loses:
        return
    if repeats:
        p.silence += (ALL - p.silence) * (repeats if repeats < <uint32_t>MOST_LEVEL else <uint32_t>MOST_LEVEL) // MEMORY
    else:
        p.silence -= p.silence // MEMORY


cdef inline void patience_on_loss(Patience *p, const Retransmit *policy) noexcept nogil:
    p.loses = 1
    p.pause_ns -= p.pause_ns // 4
    if p.pause_ns > policy.initial_ns:
        p.pause_ns = policy.initial_ns


cdef inline void patience_on_pause(Patience *p, const Retransmit *policy, uint64_t late_ns) noexcept nogil:
    cdef uint64_t pause_ns = 2 * late_ns, most_ns = policy.initial_ns if p.loses else policy.ceiling_ns
    if pause_ns > most_ns:
        pause_ns = most_ns
    if pause_ns > p.pause_ns:
        p.pause_ns = pause_ns
    p.silence = 0
