# Client classes: which addresses are told the same, so that a decision made for one of them holds for the others.
#
#   prefixes ─ClientClasses (engine/classes.pyx)─► ranges in order ─class_of─► the number of the longest prefix
#                                                        how much each client of it may have ◄─limits_of_class─┘
#
# One table for both families: IPv4 lies at ::ffff:0:0/96, which is also what it looks like on a dual-stack socket.
# A table is never changed: Python and workers share it, and swap it whole.
#
# Invariants: the first range begins at 0, each begins behind the one before, so every address is in exactly one.
# Must not: lock, allocate, or know what else a class means.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.quotas cimport ClientLimits
from snow_owl_tftp._engine.includes.net cimport AF_INET, ntohl
from snow_owl_tftp._engine.includes.threads cimport owl_add32

cdef extern from "<endian.h>" nogil:
    uint64_t be64toh(uint64_t)

cdef enum:
    MAX_PREFIXES = 65536          # at most 131,073 ranges of 24 bytes

cdef struct Range:
    uint64_t high, low            # where it begins: an address of 128 bits
    uint32_t client_class         # of every address from there to the next range; 0: of no prefix

cdef struct Classes:
    uint32_t refs                 # atomic: Python's object, each worker, and messages under way
    uint32_t count                # of ranges, at least 1
    Range *ranges                 # behind the struct
    uint32_t limit_count          # classes from 0 of which `limits` says something
    ClientLimits *limits          # behind the ranges


cdef inline uint32_t class_at(const Classes *classes, uint64_t high, uint64_t low) noexcept nogil:
    """The class of the last range that begins at this address or before."""
    cdef uint32_t first = 0, behind = classes.count, middle
    cdef const Range *here
    OWL_INVARIANT(classes.count > 0 and classes.ranges[0].high == 0 and classes.ranges[0].low == 0)
    while behind - first > 1:                    # the answer lies in first .. behind - 1
        middle = first + (behind - first) // 2
        here = &classes.ranges[middle]
        if here.high < high or (here.high == high and here.low <= low):
            first = middle
        else:
            behind = middle
    return classes.ranges[first].client_class


cdef inline uint32_t class_of(const Classes *classes, const Peer *peer) noexcept nogil:
    """0 where there are no classes."""
    cdef uint64_t words[2]
    cdef uint32_t four
    if classes == NULL:
        return 0
    if peer.address.family == AF_INET:
        memcpy(&four, peer.address.raw + 4, 4)
        return class_at(classes, 0, <uint64_t>0xFFFF00000000 | ntohl(four))
    memcpy(words, peer.address.raw + 8, 16)
    return class_at(classes, be64toh(words[0]), be64toh(words[1]))


cdef inline const ClientLimits *limits_of_class(const Classes *classes, uint32_t client_class) noexcept nogil:
    """What holds for every request of a client of this class; NULL: none does, or it depends on the request."""
    cdef const ClientLimits *limits
    if client_class >= classes.limit_count:
        return NULL
    limits = &classes.limits[client_class]
    return limits if limits.requests_per_s or limits.transfers else NULL


cdef inline void classes_keep(Classes *classes) noexcept nogil:
    if classes != NULL:
        owl_add32(&classes.refs, 1)


cdef inline void classes_drop(Classes *classes) noexcept nogil:
    """Who drops the last reference frees."""
    if classes != NULL and owl_add32(&classes.refs, -1) == 0:
        free(classes)
