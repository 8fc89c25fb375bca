# Where the transfers of a worker live, and how they are found: by id, by TID, by request, by client.
#
# Slots never move and their memory is never given back, so a stale pointer is caught by comparing the id:
#   id = worker (8 bits) << 56 | generation (24 bits) << 32 | slot (32 bits)
# Must not: send anything, or decide whether a transfer may exist (admission is the worker's).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset
from snow_owl_tftp._engine.base.data cimport Local, Peer, T_FREE, Transfer
from snow_owl_tftp._engine.includes.net cimport AF_INET, sockaddr_in, sockaddr_in6
from snow_owl_tftp._engine.base.index cimport hash_bytes, index_add, index_find, index_remove
from snow_owl_tftp._engine.worker.loop cimport Client, SLAB_CHUNK, Worker


# --- peers -------------------------------------------------------------------------------------------

cdef inline bint peer_equal(const Peer *a, const Peer *b) noexcept nogil:
    if a.address.family != b.address.family:
        return False
    if a.address.family == AF_INET:
        return memcmp(a.address.raw, b.address.raw, 8) == 0
    # Not the flow label (bytes 4-7): the peer may change it between packets.
    return (memcmp(a.address.raw, b.address.raw, 4) == 0
            and memcmp(a.address.raw + 8, b.address.raw + 8, 20) == 0)


cdef inline bint peer_same_host(const Peer *a, const Peer *b) noexcept nogil:
    if a.address.family != b.address.family:
        return False
    if a.address.family == AF_INET:
        return memcmp(a.address.raw + 4, b.address.raw + 4, 4) == 0
    return memcmp(a.address.raw + 8, b.address.raw + 8, 20) == 0


cdef inline uint32_t peer_hash(const Peer *peer, uint64_t secret) noexcept nogil:
    if peer.address.family == AF_INET:
        return <uint32_t>hash_bytes(peer.address.raw, 8, secret)
    return <uint32_t>(hash_bytes(peer.address.raw + 8, 20, secret)
                      ^ hash_bytes(peer.address.raw + 2, 2, secret))


cdef inline uint32_t tid_hash(uint32_t of_peer, int32_t socket) noexcept nogil:
    return of_peer ^ (<uint32_t>socket * <uint32_t>0x9E3779B1)


# --- transfers ---------------------------------------------------------------------------------------

cdef inline Transfer *transfer_by_id(Worker *w, uint64_t id) noexcept nogil:
    """NULL when it has ended."""
    cdef uint32_t slot = <uint32_t>id
    cdef Transfer *t
    if slot >= w.slab_chunks * SLAB_CHUNK:
        return NULL
    t = &w.slab[slot // SLAB_CHUNK][slot % SLAB_CHUNK]
    return t if t.id == id and t.state != T_FREE else NULL


cdef inline int slab_grow(Worker *w) noexcept nogil:
    cdef Transfer *chunk
    cdef void *larger
    cdef uint32_t i
    if w.slab_chunks == w.slab_capacity:
        larger = realloc(w.slab, (w.slab_capacity * 2 + 16) * sizeof(Transfer *))
        if larger == NULL:
            return -1
        w.slab = <Transfer **>larger
        w.slab_capacity = w.slab_capacity * 2 + 16
    chunk = <Transfer *>calloc(SLAB_CHUNK, sizeof(Transfer))
    if chunk == NULL:
        return -1
    for i in range(<uint32_t>SLAB_CHUNK):
        chunk[SLAB_CHUNK - 1 - i].id = (<uint64_t>w.number << 56) | (w.slab_chunks * SLAB_CHUNK + SLAB_CHUNK - 1 - i)
        chunk[SLAB_CHUNK - 1 - i].queue_next = w.free_transfers
        w.free_transfers = &chunk[SLAB_CHUNK - 1 - i]
    w.slab[w.slab_chunks] = chunk
    w.slab_chunks += 1
    return 0


cdef inline Transfer *transfer_new(Worker *w) noexcept nogil:
    """A zeroed slot with a fresh id; NULL when there is no memory."""
    cdef Transfer *t
    cdef uint64_t id
    if w.free_transfers == NULL and slab_grow(w) < 0:
        return NULL
    t = w.free_transfers
    w.free_transfers = t.queue_next
    id = (t.id & ~(<uint64_t>0xFFFFFF << 32)) | (((t.id >> 32) + 1 & 0xFFFFFF) << 32)
    memset(t, 0, sizeof(Transfer))
    t.id = id
    t.socket = -1
    t.client = -1
    return t


cdef inline void transfer_slot_free(Worker *w, Transfer *t) noexcept nogil:
    t.state = T_FREE
    t.queue_next = w.free_transfers
    w.free_transfers = t


cdef inline Transfer *slot(Worker *w, int64_t number) noexcept nogil:
    return &w.slab[number // SLAB_CHUNK][number % SLAB_CHUNK]


cdef inline Transfer *find_by_tid(Worker *w, const Peer *peer, uint32_t of_peer, int32_t socket) noexcept nogil:
    cdef uint32_t hash = tid_hash(of_peer, socket), at = hash
    cdef int64_t found
    cdef Transfer *t
    while True:
        found = index_find(&w.by_tid, hash, &at)
        if found < 0:
            return NULL
        t = slot(w, found)
        if t.socket == socket and peer_equal(&t.peer, peer):
            return t


cdef inline Transfer *find_by_request(Worker *w, const Peer *peer, uint32_t of_peer) noexcept nogil:
    """The request of this peer that was not acknowledged yet."""
    cdef uint32_t at = of_peer
    cdef int64_t found
    cdef Transfer *t
    while True:
        found = index_find(&w.by_request, of_peer, &at)
        if found < 0:
            return NULL
        t = slot(w, found)
        if peer_equal(&t.peer, peer):
            return t


cdef inline int add_by_tid(Worker *w, Transfer *t, uint32_t of_peer) noexcept nogil:
    t.hash_tid = tid_hash(of_peer, t.socket)
    if index_add(&w.by_tid, t.hash_tid, <uint32_t>t.id) < 0:
        return -1
    t.in_tids = 1
    return 0


cdef inline void remove_by_tid(Worker *w, Transfer *t) noexcept nogil:
    if t.in_tids:
        index_remove(&w.by_tid, t.hash_tid, <uint32_t>t.id)
        t.in_tids = 0


cdef inline int add_by_request(Worker *w, Transfer *t, uint32_t of_peer) noexcept nogil:
    t.hash_request = of_peer
    if index_add(&w.by_request, of_peer, <uint32_t>t.id) < 0:
        return -1
    t.in_requests = 1
    return 0


cdef inline void remove_by_request(Worker *w, Transfer *t) noexcept nogil:
    if t.in_requests:
        index_remove(&w.by_request, t.hash_request, <uint32_t>t.id)
        t.in_requests = 0


cdef inline uint32_t local_hash(Worker *w, const Local *local) noexcept nogil:
    return <uint32_t>hash_bytes(local.address, 16, w.secret)


cdef inline Transfer *find_by_local(Worker *w, const Local *local) noexcept nogil:
    cdef uint32_t hash = local_hash(w, local), at = hash
    cdef int64_t found
    while True:
        found = index_find(&w.by_local, hash, &at)
        if found < 0:
            return NULL
        if memcmp(slot(w, found).local.address, local.address, 16) == 0:
            return slot(w, found)


cdef inline void add_by_local(Worker *w, Transfer *t) noexcept nogil:
    if index_add(&w.by_local, local_hash(w, &t.local), <uint32_t>t.id) == 0:
        t.in_locals = 1


cdef inline void remove_by_local(Worker *w, Transfer *t) noexcept nogil:
    if t.in_locals:
        index_remove(&w.by_local, local_hash(w, &t.local), <uint32_t>t.id)
        t.in_locals = 0


# --- clients: how much of the server one address holds -------------------------------------------------

cdef inline int32_t client_new(Worker *w) noexcept nogil:
    cdef void *larger
    cdef int32_t i = w.free_client
    if i >= 0:
        w.free_client = w.clients[i].next_free
        return i
    if w.client_count == w.client_capacity:
        larger = realloc(w.clients, (w.client_capacity * 2 + 64) * sizeof(Client))
        if larger == NULL:
            return -1
        w.clients = <Client *>larger
        w.client_capacity = w.client_capacity * 2 + 64
    w.client_count += 1
    return <int32_t>w.client_count - 1


cdef inline uint32_t client_hash(Worker *w, const Peer *peer, uint8_t *address) noexcept nogil:
    """The hash of the peer's address, which is put into address[0..15]."""
    memset(address, 0, 16)
    if peer.address.family == AF_INET:
        memcpy(address, peer.address.raw + 4, 4)
    else:
        memcpy(address, peer.address.raw + 8, 16)
    return <uint32_t>hash_bytes(address, 16, w.secret)


cdef inline int32_t client_of(Worker *w, const Peer *peer) noexcept nogil:
    """The counters of the peer's address, made when they are missing; -1 when there is no memory."""
    cdef uint8_t address[16]
    cdef uint32_t hash, at
    cdef int64_t found
    cdef int32_t i
    hash = client_hash(w, peer, address)
    at = hash
    while True:
        found = index_find(&w.by_client, hash, &at)
        if found < 0:
            break
        if memcmp(w.clients[found].address, address, 16) == 0:
            return <int32_t>found
    i = client_new(w)
    if i < 0:
        return -1
    memset(&w.clients[i], 0, sizeof(Client))
    memcpy(w.clients[i].address, address, 16)
    w.clients[i].hash = hash
    if index_add(&w.by_client, hash, <uint32_t>i) < 0:
        w.clients[i].next_free = w.free_client
        w.free_client = i
        return -1
    return i


cdef inline void client_leave(Worker *w, int32_t i) noexcept nogil:
    """One transfer less; the entry goes with the last one."""
    if i < 0:
        return
    w.clients[i].live -= 1
    if w.clients[i].live == 0:
        index_remove(&w.by_client, w.clients[i].hash, <uint32_t>i)
        w.clients[i].next_free = w.free_client
        w.free_client = i
