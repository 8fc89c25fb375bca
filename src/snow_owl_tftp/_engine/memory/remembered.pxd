# What a worker remembers of clients between their transfers: a Patience by address, where there is something to tell.
#
# Bounded: sets of MEMORY_WAYS entries, in which the oldest gives way; an entry is forgotten MEMORY_SECONDS after it was
# last kept.  Found by a keyed hash of the address alone: two addresses that share one are taken for the same client,
# which costs one of them patience or speed, and nothing else.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from snow_owl_tftp._engine.protocol.patience cimport Patience

cdef enum:
    MEMORY_SETS = 2048
    MEMORY_WAYS = 4
    MEMORY_SECONDS = 300
    MEMORY_SAME = 0               # memory_keep: known already, or not worth it; a new entry; one in another's place
    MEMORY_LEARNED = 1
    MEMORY_REPLACED = 2

cdef struct Remembered:
    uint32_t hash                 # of the address
    uint32_t second               # when it was kept, of 2^30 ns and counted from 1; 0: an unused entry
    Patience patience


cdef inline Remembered *memory_find(Remembered *memory, uint32_t hash, uint32_t second) noexcept nogil:
    """The entry of this address; NULL when there is none, or it is too old."""
    cdef Remembered *entries = memory + (hash & (MEMORY_SETS - 1)) * MEMORY_WAYS
    cdef uint32_t i
    for i in range(<uint32_t>MEMORY_WAYS):
        if entries[i].hash == hash and entries[i].second and second - entries[i].second < MEMORY_SECONDS:
            return &entries[i]
    return NULL


cdef inline bint memory_recall(Remembered *memory, uint32_t hash, uint64_t now_ns, Patience *patience) noexcept nogil:
    """Whether anything is known of this address."""
    cdef Remembered *entry = memory_find(memory, hash, <uint32_t>(now_ns >> 30) + 1)
    if entry != NULL:
        patience[0] = entry.patience
        return True
    memset(patience, 0, sizeof(Patience))
    return False


cdef inline int memory_keep(Remembered *memory, uint32_t hash, uint64_t now_ns,
                            const Patience *patience) noexcept nogil:
    """MEMORY_SAME, MEMORY_LEARNED, or MEMORY_REPLACED."""
    cdef Remembered *entries = memory + (hash & (MEMORY_SETS - 1)) * MEMORY_WAYS
    cdef uint32_t second = <uint32_t>(now_ns >> 30) + 1, i, oldest = 0
    cdef bint is_fresh
    cdef int result
    if not patience.loses and patience.pause_ns == 0 and patience.burst_blocks == 0:
        return MEMORY_SAME
    for i in range(<uint32_t>MEMORY_WAYS):
        if entries[i].hash == hash:
            oldest = i
            break
        if entries[i].second < entries[oldest].second:
            oldest = i
    is_fresh = entries[oldest].second and second - entries[oldest].second < MEMORY_SECONDS
    result = MEMORY_SAME
    if not is_fresh:
        result = MEMORY_LEARNED
    elif entries[oldest].hash != hash:
        result = MEMORY_REPLACED
    entries[oldest].hash = hash
    entries[oldest].second = second
    entries[oldest].patience = patience[0]
    return result
