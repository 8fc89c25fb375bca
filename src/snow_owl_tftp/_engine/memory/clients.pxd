# Clients: how much of the server one address, or one network, holds.  An entry lives as long as a transfer of it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.index cimport Index, index_add, index_find, index_free, index_init, index_remove
from snow_owl_tftp._engine.base.peers cimport address_hash, network_address
from snow_owl_tftp._engine.base.transfer cimport Chain

cdef struct Client:
    uint8_t address[16]
    uint32_t hash
    uint32_t live, half_open
    Chain unproven                # its transfers that have begun, and have answered nothing
    int32_t next_unused

cdef struct ClientTable:
    Client *entries
    uint32_t count, capacity
    int32_t unused                # linked by next_unused, -1: none
    uint64_t secret               # of the hashes
    Index by_address


cdef inline int clients_init(ClientTable *clients, uint64_t secret) noexcept nogil:
    """`clients` is zeroed.  Returns -1 when there is no memory."""
    clients.unused = -1
    clients.secret = secret
    return index_init(&clients.by_address, 1024)


cdef inline void clients_free(ClientTable *clients) noexcept nogil:
    free(clients.entries)
    index_free(&clients.by_address)


cdef inline int32_t client_new(ClientTable *clients) noexcept nogil:
    cdef void *larger
    cdef int32_t i = clients.unused
    if i >= 0:
        clients.unused = clients.entries[i].next_unused
        return i
    if clients.count == clients.capacity:
        larger = realloc(clients.entries, (clients.capacity * 2 + 64) * sizeof(Client))
        if larger == NULL:
            return -1
        clients.entries = <Client *>larger
        clients.capacity = clients.capacity * 2 + 64
    clients.count += 1
    return <int32_t>clients.count - 1


cdef inline int32_t client_of(ClientTable *clients, const Peer *peer) noexcept nogil:
    """The counters of the peer's address, made when they are missing; -1 when there is no memory."""
    cdef uint8_t address[16]
    cdef uint32_t hash = address_hash(peer, clients.secret, address)
    return client_at(clients, address, hash)


cdef inline int32_t network_at(ClientTable *networks, const Peer *peer) noexcept nogil:
    """The same of its network, in a table of networks."""
    cdef uint8_t address[16]
    cdef uint32_t hash = network_address(peer, networks.secret, address)
    return client_at(networks, address, hash)


cdef inline int32_t client_at(ClientTable *clients, const uint8_t *address, uint32_t hash) noexcept nogil:
    cdef uint32_t at = hash
    cdef int64_t found
    cdef int32_t i
    while True:
        found = index_find(&clients.by_address, hash, &at)
        if found < 0:
            break
        if memcmp(clients.entries[found].address, address, 16) == 0:
            return <int32_t>found
    i = client_new(clients)
    if i < 0:
        return -1
    memset(&clients.entries[i], 0, sizeof(Client))
    memcpy(clients.entries[i].address, address, 16)
    clients.entries[i].hash = hash
    if index_add(&clients.by_address, hash, <uint32_t>i) < 0:
        clients.entries[i].next_unused = clients.unused
        clients.unused = i
        return -1
    return i


cdef inline void client_leave(ClientTable *clients, int32_t i) noexcept nogil:
    """One transfer less; the entry goes with the last one."""
    if i < 0:
        return
    clients.entries[i].live -= 1
    if clients.entries[i].live == 0:
        index_remove(&clients.by_address, clients.entries[i].hash, <uint32_t>i)
        clients.entries[i].next_unused = clients.unused
        clients.unused = i
