# Strangers: datagrams to a TID socket that belong to no transfer, and which of them are answered with ERROR 5.
#
# A pair of TIDs is remembered for a few seconds after its transfer, whose late echoes are no stranger's, and after it
# was answered, since one ERROR 5 is enough.  Bounded: sets of ENDED_WAYS entries, in which the oldest gives way.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    ENDED_SETS = 16384            # TID pairs of ended transfers and of strangers, in sets of ...
    ENDED_WAYS = 4
    ENDED_SECONDS = 8             # ... remembered so long (of 2^30 ns)
    STRAYS_PER_SECOND = 100       # ERROR 5 to strangers, at most

cdef extern from *:
    """
    /* An entry: hash << 32 | whose | second, the second being of 2^30 ns. */
    #define ENDED_SECOND 0x3fffffffU
    #define OF_ENDED 0x40000000U
    #define OF_STRANGER 0x80000000U
    """
    const uint32_t ENDED_SECOND, OF_ENDED, OF_STRANGER

cdef struct Strays:
    uint64_t *entries             # by hash: transfers that ended a moment ago, and strangers that were answered
    uint64_t tokens, refill_ns    # ERROR 5 that may still be sent in this second, which began then


cdef inline int strays_init(Strays *strays) noexcept nogil:
    """Returns -1 when there is no memory."""
    strays.entries = <uint64_t *>calloc(ENDED_SETS * ENDED_WAYS, sizeof(uint64_t))
    return 0 if strays.entries != NULL else -1


cdef inline void strays_free(Strays *strays) noexcept nogil:
    free(strays.entries)


cdef inline void strays_remember(Strays *strays, uint64_t now_ns, uint32_t hash, uint32_t whose) noexcept nogil:
    """A TID pair whose packets are not answered with ERROR 5 for a while; the oldest of its set gives way."""
    cdef uint64_t *entries = strays.entries + (hash & (ENDED_SETS - 1)) * ENDED_WAYS
    cdef uint32_t second = <uint32_t>(now_ns >> 30) & ENDED_SECOND, i, oldest = 0
    for i in range(<uint32_t>ENDED_WAYS):
        if <uint32_t>(entries[i] >> 32) == hash:
            oldest = i
            break
        if (<uint32_t>entries[i] & ENDED_SECOND) < (<uint32_t>entries[oldest] & ENDED_SECOND):
            oldest = i
    entries[oldest] = <uint64_t>hash << 32 | whose | second


cdef inline uint32_t strays_recall(const Strays *strays, uint64_t now_ns, uint32_t hash) noexcept nogil:
    """OF_ENDED, OF_STRANGER, or 0: nothing is known of this TID pair."""
    cdef uint64_t *entries = strays.entries + (hash & (ENDED_SETS - 1)) * ENDED_WAYS
    cdef uint32_t i
    for i in range(<uint32_t>ENDED_WAYS):
        if <uint32_t>(entries[i] >> 32) == hash:
            if (<uint32_t>(now_ns >> 30) - <uint32_t>entries[i] & ENDED_SECOND) < ENDED_SECONDS:
                return <uint32_t>entries[i] & ~ENDED_SECOND
            return 0
    return 0


cdef inline bint strays_may_answer(Strays *strays, uint64_t now_ns) noexcept nogil:
    """Whether another ERROR 5 may leave in this second; it counts as sent then."""
    if now_ns - strays.refill_ns >= 1000000000:
        strays.refill_ns = now_ns
        strays.tokens = STRAYS_PER_SECOND
    if strays.tokens == 0:
        return False
    strays.tokens -= 1
    return True
