# The sockets of a worker: listeners, the TID sockets that transfers share, sockets of our own asking.
#
# A socket is known by the number of its entry, which is also what epoll hands back.  Entries are used again.
# Must not: receive or send, or know a transfer.

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from snow_owl_tftp._engine.includes.net cimport (
    EPOLLIN, EPOLL_CTL_ADD, IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_RECVERR, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU_DISCOVER,
    IPV6_PMTUDISC_DONT, IPV6_RECVERR, close, epoll_ctl, epoll_event, setsockopt)

cdef enum:
    S_FREE = 0
    S_LISTENER = 1                # requests; in single-port mode also transfers
    S_TID = 2                     # shared by transfers
    S_PRIVATE = 3                 # one transfer of our own asking
    S_SHARED = 4                  # transfers of our own asking, told apart by their local address

cdef enum:
    MAX_ENDPOINTS = 64

cdef struct Socket:
    int fd
    uint8_t kind
    uint8_t wants_control         # PKTINFO or GRO: receive with control data
    uint8_t awaits_writable       # EPOLLOUT is armed
    uint8_t wildcard              # answers must say their source address
    int32_t endpoint
    int32_t next_unused             # list of unused entries
    uint64_t owner                # S_PRIVATE: its transfer's id

cdef struct Endpoint:
    # A bound address: one listener and its TID sockets (consecutive entries of `sockets`).
    int32_t listener
    int32_t first_tid, tid_count  # tid_count 0: single-port

cdef struct SocketTable:
    Socket *entries
    int32_t count, capacity
    int32_t unused                # linked by next_unused, -1: none
    int32_t shared                # S_SHARED, -1: none
    Endpoint endpoints[64]


cdef inline void sockets_init(SocketTable *sockets) noexcept nogil:
    sockets.unused = -1
    sockets.shared = -1


cdef inline void sockets_free(SocketTable *sockets) noexcept nogil:
    cdef int32_t i
    for i in range(sockets.count):
        if sockets.entries[i].kind != S_FREE:
            close(sockets.entries[i].fd)
    free(sockets.entries)


cdef inline void socket_close(SocketTable *sockets, int32_t i) noexcept nogil:
    """Closes it, which takes it out of epoll, and frees its entry."""
    cdef Socket *s = &sockets.entries[i]
    close(s.fd)
    s.kind = S_FREE
    s.next_unused = sockets.unused
    sockets.unused = i


cdef inline int32_t socket_entry(SocketTable *sockets) noexcept nogil:
    cdef void *larger
    cdef int32_t i = sockets.unused
    if i >= 0:
        sockets.unused = sockets.entries[i].next_unused
        return i
    if sockets.count == sockets.capacity:
        larger = realloc(sockets.entries, (sockets.capacity * 2 + 32) * sizeof(Socket))
        if larger == NULL:
            return -1
        sockets.entries = <Socket *>larger
        sockets.capacity = sockets.capacity * 2 + 32
    sockets.count += 1
    return sockets.count - 1


cdef inline void let_routers_fragment(int fd) noexcept nogil:
    """No "don't fragment" bit: some boot ROMs discard datagrams that have it, and behind a firewall that swallows
    ICMP a block that is larger than the path's MTU would never arrive.  A train that the kernel would have to
    fragment is refused as ever (EMSGSIZE), and goes as plain datagrams."""
    cdef int never4 = IP_PMTUDISC_DONT, never6 = IPV6_PMTUDISC_DONT
    # Each fails on a socket of the other family, and a dual-stack socket needs both: nothing depends on the rest.
    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &never4, sizeof(never4))
    setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &never6, sizeof(never6))


cdef inline void hear_icmp(int fd) noexcept nogil:
    """Errors that ICMP brings are queued with the peer's address; drain_errors() reads them."""
    cdef int on = 1
    # As above: a dual-stack socket needs both, and a socket of one family refuses the other's.
    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on))
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(on))


cdef inline int socket_add(SocketTable *sockets, int epoll_fd, int fd, int kind, int endpoint, bint wildcard,
                           bint wants_control) noexcept nogil:
    """Its index; -1 when there is no memory or epoll refuses it (the descriptor stays the caller's)."""
    cdef epoll_event event
    cdef int32_t i = socket_entry(sockets)
    if i < 0:
        return -1
    memset(&sockets.entries[i], 0, sizeof(Socket))
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>i
    if epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
        sockets.entries[i].next_unused = sockets.unused
        sockets.unused = i
        return -1
    sockets.entries[i].fd = fd
    sockets.entries[i].kind = kind
    sockets.entries[i].endpoint = endpoint
    sockets.entries[i].wildcard = wildcard
    sockets.entries[i].wants_control = wants_control
    let_routers_fragment(fd)
    if kind != S_SHARED:                         # its transfers are told apart by what an error does not say
        hear_icmp(fd)
    if kind == S_LISTENER:
        sockets.endpoints[endpoint].listener = i
    elif kind == S_TID:
        if sockets.endpoints[endpoint].tid_count == 0:
            sockets.endpoints[endpoint].first_tid = i
        sockets.endpoints[endpoint].tid_count += 1
    elif kind == S_SHARED:
        sockets.shared = i
    return i
