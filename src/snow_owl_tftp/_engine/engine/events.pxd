# The fields of events, and what makes them of messages.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.accounts cimport AccountTable
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.base.quotas cimport ClientLimits


cdef class Accounts:
    cdef AccountTable table


cdef class Request:
    cdef readonly uint64_t transfer_id
    cdef readonly int endpoint
    cdef readonly bytes datagram
    cdef readonly uint64_t received_ns
    cdef readonly object limits
    cdef Accounts _accounts       # of the engine, which may be gone by then
    cdef object _refusal
    cdef bint _is_counted
    cdef uint32_t _charged
    cdef Peer _peer
    cdef Local _local


cdef class Completion:
    cdef readonly uint64_t transfer_id
    cdef readonly int worker, outcome, error, role
    cdef readonly bytes text
    cdef readonly object context
    cdef readonly uint64_t payload_bytes, duration_ns, started_ns, srtt_ns
    cdef readonly int64_t blocks
    cdef readonly uint32_t datagrams_in, datagrams_out, retransmits, duplicate_acks, peak_window_blocks
    cdef readonly uint32_t blksize_bytes, windowsize_blocks
    cdef readonly bint flow_hit, is_stuck, is_last
    cdef Peer _peer
    cdef Local _local


cdef class Answer:
    cdef readonly uint64_t transfer_id
    cdef readonly bytes datagram
    cdef readonly object context
    cdef Peer _peer


cdef class Progress:
    cdef readonly uint64_t transfer_id
    cdef readonly uint64_t payload_bytes
    cdef readonly uint32_t datagrams_in, datagrams_out
    cdef readonly object context


cdef class FirstData:
    cdef readonly uint64_t transfer_id
    cdef readonly object context


cdef class Released:
    cdef readonly uint64_t transfer_id
    cdef readonly object context


cdef class Retired:
    cdef readonly object context


cdef class Received:
    cdef readonly uint64_t transfer_id
    cdef readonly uint64_t payload_bytes
    cdef readonly object context


cdef class Refusals:
    cdef readonly int worker
    cdef readonly str limit
    cdef readonly uint64_t count
    cdef Peer _peer


cdef class ModeChange:
    cdef readonly int worker, mode
    cdef readonly uint64_t live_transfers, linger_ns, datagrams_per_s


cdef int client_limits(limits, ClientLimits *made) except -1
cdef object event_of(const Message *m)
