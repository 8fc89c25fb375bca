# Token buckets of clients and networks: how often each asks, and how many bytes it moves.
#
#   Quotas (settings, live) ──┐
#   BucketTable (a worker's) ─┼─► requests refused, bytes held back       worker/rates.pxd, worker/pacing.pxd
#   SharedBuckets (all's) ────┘
#
# Bounded: sets of BUCKET_WAYS entries.  A bucket that is full tells nothing, so an entry expires by itself, a second
# after its client was served last, or when what it has reserved is over; where a set is full the one that is fullest
# gives way.  Found by a keyed hash of the address alone: two that share one share a bucket.
# Must not: refuse, hold or end anything.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    BUCKET_WAYS = 4
    CLIENT_SETS = 16384           # 65,536 clients at a time; memory that nobody uses is not touched
    NETWORK_BUCKET_SETS = 4096

cdef struct Bucket:
    # When each is full again (protocol/bucket.pxd).
    uint64_t requests_ns, bytes_ns
    uint32_t hash                 # of the address, or of the network

cdef struct BucketTable:
    Bucket *entries
    uint32_t sets                 # a power of two


cdef inline int buckets_init(BucketTable *table, uint32_t sets) noexcept nogil:
    """Returns -1 when there is no memory."""
    table.sets = sets
    table.entries = <Bucket *>calloc(sets * BUCKET_WAYS, sizeof(Bucket))
    return 0 if table.entries != NULL else -1


cdef inline void buckets_free(BucketTable *table) noexcept nogil:
    free(table.entries)


cdef inline uint64_t bucket_full_ns(const Bucket *b) noexcept nogil:
    return b.requests_ns if b.requests_ns > b.bytes_ns else b.bytes_ns


cdef inline Bucket *bucket_of(BucketTable *table, uint32_t hash, uint64_t now_ns, uint64_t *replaced) noexcept nogil:
    """The buckets of an address, full where none are known; `replaced` counts those that gave way before they were."""
    cdef Bucket *entries = table.entries + (hash & (table.sets - 1)) * BUCKET_WAYS
    cdef Bucket *b = entries
    cdef uint32_t i
    for i in range(<uint32_t>BUCKET_WAYS):
        if entries[i].hash == hash:
            return &entries[i]
    for i in range(1, <uint32_t>BUCKET_WAYS):
        if bucket_full_ns(&entries[i]) < bucket_full_ns(b):
            b = &entries[i]
    replaced[0] += bucket_full_ns(b) > now_ns
    b.hash = hash
    b.requests_ns = 0
    b.bytes_ns = 0
    return b
