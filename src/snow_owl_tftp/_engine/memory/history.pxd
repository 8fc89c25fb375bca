# Networks of which a transfer ended well: a /24 of IPv4 or a /56 of IPv6 that our own clients live in.
#
# Bounded: of two networks that share an entry the later one stays.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.peers cimport network_hash

cdef enum:
    HISTORY = 4096                # networks
    HISTORY_SECONDS = 3600        # how long it counts that a network's transfer ended well

cdef struct History:
    uint64_t *entries             # by hash of the network: hash << 32 | the second of the last, counted from 1
    uint64_t secret               # of the hashes


cdef inline int history_init(History *history, uint64_t secret) noexcept nogil:
    """Returns -1 when there is no memory."""
    history.secret = secret
    history.entries = <uint64_t *>calloc(HISTORY, sizeof(uint64_t))
    return 0 if history.entries != NULL else -1


cdef inline void history_free(History *history) noexcept nogil:
    free(history.entries)


cdef inline void history_note(History *history, const Peer *peer, uint64_t now_ns) noexcept nogil:
    """A transfer with a peer of this network ended well."""
    cdef uint32_t hash = network_hash(peer, history.secret)
    history.entries[hash & (HISTORY - 1)] = <uint64_t>hash << 32 | <uint32_t>(now_ns // 1000000000 + 1)


cdef inline bint history_has(const History *history, const Peer *peer, uint64_t now_ns) noexcept nogil:
    cdef uint32_t hash = network_hash(peer, history.secret)
    cdef uint64_t entry = history.entries[hash & (HISTORY - 1)]
    return (<uint32_t>(entry >> 32) == hash and <uint32_t>entry != 0
            and <uint32_t>(now_ns // 1000000000 + 1) - <uint32_t>entry < HISTORY_SECONDS)
