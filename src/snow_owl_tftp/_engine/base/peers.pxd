# Peers: addresses with a TID, as the kernel lays them out; who equals whom, and keyed hashes to find them by.
#
# Hashes are keyed with a random secret of the process, so that nobody can aim at an entry of a table.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.index cimport hash_bytes
from snow_owl_tftp._engine.includes.net cimport AF_INET

cdef extern from *:
    """
    static const unsigned char owl_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};   /* ::ffff:0:0/96 */
    """
    const uint8_t *MAPPED "owl_mapped"


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


cdef inline uint32_t address_hash(const Peer *peer, uint64_t secret, uint8_t *address) noexcept nogil:
    """The hash of the peer's address, which is put into address[0..15]."""
    memset(address, 0, 16)
    if peer.address.family == AF_INET:
        memcpy(address, peer.address.raw + 4, 4)
    else:
        memcpy(address, peer.address.raw + 8, 16)
    return <uint32_t>hash_bytes(address, 16, secret)


cdef inline uint32_t network_address(const Peer *peer, uint64_t secret, uint8_t *address) noexcept nogil:
    """The hash of the peer's network, a /24 or a /56, which is put into address[0..15]."""
    address_hash(peer, secret, address)
    if peer.address.family == AF_INET:
        address[3] = 0
    elif memcmp(address, MAPPED, 12) == 0:       # IPv4 on a dual-stack socket
        address[15] = 0
    else:
        memset(address + 7, 0, 9)
    return <uint32_t>hash_bytes(address, 16, secret)


cdef inline uint32_t network_hash(const Peer *peer, uint64_t secret) noexcept nogil:
    """The hash of the peer's network alone."""
    cdef uint8_t address[16]
    return network_address(peer, secret, address)
