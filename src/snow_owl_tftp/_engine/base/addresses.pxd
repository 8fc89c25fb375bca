# Addresses as the kernel lays them out: a peer, which is an address and a TID, and where it was that it asked.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef union Address:
    uint8_t raw[28]               # sockaddr_in or sockaddr_in6 as the kernel gave it
    uint16_t family
    uint64_t align

cdef struct Peer:
    Address address
    uint32_t size                 # of the sockaddr: 16 or 28

cdef struct Local:
    uint8_t address[16]           # where the request was sent to; v4 in the first 4 bytes
    uint32_t ifindex
    uint32_t family               # 0: the socket is bound to one address, nothing to say
