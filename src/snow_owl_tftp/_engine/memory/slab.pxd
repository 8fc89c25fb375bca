# Where the transfers of a worker live, and how they are found: by id, by TID, by request, by local address.
#
# Transfers never move and the memory of a place is never given back, so a stale pointer is caught by comparing the id:
#   id = worker (8 bits) << 56 | generation (24 bits) << 32 | place (32 bits)
# Must not: send anything, or decide whether a transfer may exist (admission is the worker's).

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memset
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.index cimport (
    Index, hash_bytes, index_add, index_find, index_free, index_init, index_remove)
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.peers cimport peer_equal, tid_hash
from snow_owl_tftp._engine.base.transfer cimport T_FREE, Transfer

cdef enum:
    SLAB_CHUNK = 256

cdef struct Slab:
    uint32_t worker               # whose it is: a part of every id
    uint64_t secret               # of the hashes
    Transfer **chunks             # of SLAB_CHUNK places
    uint32_t count, capacity      # of them
    Transfer *unused              # linked by queue_next
    Index by_tid, by_request, by_local


cdef inline int slab_init(Slab *slab, uint32_t worker, uint64_t secret) noexcept nogil:
    """`slab` is zeroed.  Returns -1 when there is no memory."""
    slab.worker = worker
    slab.secret = secret
    if index_init(&slab.by_tid, 1024) < 0 or index_init(&slab.by_request, 1024) < 0:
        return -1
    return index_init(&slab.by_local, 1024)


cdef inline void slab_free(Slab *slab) noexcept nogil:
    cdef uint32_t i
    for i in range(slab.count):
        free(slab.chunks[i])
    free(slab.chunks)
    index_free(&slab.by_tid)
    index_free(&slab.by_request)
    index_free(&slab.by_local)


cdef inline uint32_t slab_places(const Slab *slab) noexcept nogil:
    return slab.count * <uint32_t>SLAB_CHUNK


cdef inline Transfer *transfer_at(Slab *slab, int64_t number) noexcept nogil:
    return &slab.chunks[number // SLAB_CHUNK][number % SLAB_CHUNK]


cdef inline Transfer *transfer_by_id(Slab *slab, uint64_t id) noexcept nogil:
    """NULL when it has ended."""
    cdef uint32_t number = <uint32_t>id
    cdef Transfer *t
    if number >= slab_places(slab):
        return NULL
    t = transfer_at(slab, number)
    return t if t.id == id and t.state != T_FREE else NULL


cdef inline int slab_grow(Slab *slab) noexcept nogil:
    cdef Transfer *chunk
    cdef void *larger
    cdef uint32_t i
    if slab.count == slab.capacity:
        larger = realloc(slab.chunks, (slab.capacity * 2 + 16) * sizeof(Transfer *))
        if larger == NULL:
            return -1
        slab.chunks = <Transfer **>larger
        slab.capacity = slab.capacity * 2 + 16
    chunk = <Transfer *>calloc(SLAB_CHUNK, sizeof(Transfer))
    if chunk == NULL:
        return -1
    for i in range(<uint32_t>SLAB_CHUNK):
        chunk[SLAB_CHUNK - 1 - i].id = (<uint64_t>slab.worker << 56) | (slab.count * SLAB_CHUNK + SLAB_CHUNK - 1 - i)
        chunk[SLAB_CHUNK - 1 - i].queue_next = slab.unused
        slab.unused = &chunk[SLAB_CHUNK - 1 - i]
    slab.chunks[slab.count] = chunk
    slab.count += 1
    return 0


cdef inline Transfer *transfer_new(Slab *slab) noexcept nogil:
    """A zeroed one with a fresh id; NULL when there is no memory."""
    cdef Transfer *t
    cdef uint64_t id
    if slab.unused == NULL and slab_grow(slab) < 0:
        return NULL
    t = slab.unused
    slab.unused = t.queue_next
    id = (t.id & ~(<uint64_t>0xFFFFFF << 32)) | (((t.id >> 32) + 1 & 0xFFFFFF) << 32)
    memset(t, 0, sizeof(Transfer))
    t.id = id
    t.socket = -1
    t.client = -1
    t.network = -1
    return t


cdef inline void transfer_free(Slab *slab, Transfer *t) noexcept nogil:
    OWL_INVARIANT(t.state == T_FREE)
    t.queue_next = slab.unused
    slab.unused = t


cdef inline Transfer *find_by_tid(Slab *slab, const Peer *peer, uint32_t of_peer, int32_t socket) noexcept nogil:
    cdef uint32_t hash = tid_hash(of_peer, socket), at = hash
    cdef int64_t found
    cdef Transfer *t
    while True:
        found = index_find(&slab.by_tid, hash, &at)
        if found < 0:
            return NULL
        t = transfer_at(slab, found)
        if t.socket == socket and peer_equal(&t.peer, peer):
            return t


cdef inline Transfer *find_by_request(Slab *slab, const Peer *peer, uint32_t of_peer) noexcept nogil:
    """The request of this peer that was not acknowledged yet."""
    cdef uint32_t at = of_peer
    cdef int64_t found
    cdef Transfer *t
    while True:
        found = index_find(&slab.by_request, of_peer, &at)
        if found < 0:
            return NULL
        t = transfer_at(slab, found)
        if peer_equal(&t.peer, peer):
            return t


cdef inline int add_by_tid(Slab *slab, Transfer *t, uint32_t of_peer) noexcept nogil:
    t.hash_tid = tid_hash(of_peer, t.socket)
    if index_add(&slab.by_tid, t.hash_tid, <uint32_t>t.id) < 0:
        return -1
    t.in_tids = 1
    return 0


cdef inline void remove_by_tid(Slab *slab, Transfer *t) noexcept nogil:
    if t.in_tids:
        index_remove(&slab.by_tid, t.hash_tid, <uint32_t>t.id)
        t.in_tids = 0


cdef inline int add_by_request(Slab *slab, Transfer *t, uint32_t of_peer) noexcept nogil:
    t.hash_request = of_peer
    if index_add(&slab.by_request, of_peer, <uint32_t>t.id) < 0:
        return -1
    t.in_requests = 1
    return 0


cdef inline void remove_by_request(Slab *slab, Transfer *t) noexcept nogil:
    if t.in_requests:
        index_remove(&slab.by_request, t.hash_request, <uint32_t>t.id)
        t.in_requests = 0


cdef inline uint32_t local_hash(Slab *slab, const Local *local) noexcept nogil:
    return <uint32_t>hash_bytes(local.address, 16, slab.secret)


cdef inline Transfer *find_by_local(Slab *slab, const Local *local) noexcept nogil:
    cdef uint32_t hash = local_hash(slab, local), at = hash
    cdef int64_t found
    while True:
        found = index_find(&slab.by_local, hash, &at)
        if found < 0:
            return NULL
        if memcmp(transfer_at(slab, found).local.address, local.address, 16) == 0:
            return transfer_at(slab, found)


cdef inline void add_by_local(Slab *slab, Transfer *t) noexcept nogil:
    if index_add(&slab.by_local, local_hash(slab, &t.local), <uint32_t>t.id) == 0:
        t.in_locals = 1


cdef inline void remove_by_local(Slab *slab, Transfer *t) noexcept nogil:
    if t.in_locals:
        index_remove(&slab.by_local, local_hash(slab, &t.local), <uint32_t>t.id)
        t.in_locals = 0
