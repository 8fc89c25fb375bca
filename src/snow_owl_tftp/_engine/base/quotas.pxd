# How often and how fast clients may be served: the settings, what a rule lets one client have instead, and the buckets
# that all workers share.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:                        # whose
    OF_CLIENT = 0
    OF_NETWORK = 1
    OF_ALL = 2
    OWNERS = 3

cdef struct Quotas:
    # Live settings: Python writes one, every worker copies it at the start of a turn.  0: no limit.
    uint64_t requests_per_s[3]    # by OF_...
    uint64_t bytes_per_s[3]       # by OF_...
    uint64_t unproven_bytes_per_s  # answers to networks that have shown nothing yet, of all workers
    uint64_t least_bytes_per_s    # of bytes_per_s
    uint32_t transfers_per_network, half_open_per_network
    uint32_t transfers_per_client  # 0: as the engine was made
    uint32_t asks                 # whether a request is looked at before it is taken
    uint32_t paces                # whether there is any of bytes_per_s, of a rule's too
    uint32_t bounds               # whether what is sent is looked at: `paces`, or unproven_bytes_per_s

cdef struct ClientLimits:
    # Of each client by itself, in the place of what is OF_CLIENT.  0: a rule says nothing of it.
    uint64_t requests_per_s, bytes_per_s
    uint32_t transfers
    uint32_t rule                 # what a client has by one is counted apart from what it has by another

cdef struct SharedBuckets:
    # Of all workers, one compare-and-exchange each (atomic): when each is full again (protocol/bucket.pxd).
    uint64_t requests_ns, unknown_requests_ns, bytes_ns, unproven_ns
