# What a worker counts: every system call and every datagram, in plain 64-bit integers.
#
# Written by the worker alone, read by anybody at any time (an aligned 64-bit load is whole).  The names
# that Python shows stand in the same order in engine/names.py; a test compares both sizes.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    HISTOGRAM = 12                # datagrams per call: 1, 2, 3-4, 5-8, ... 1025 and more

cdef struct Counters:
    uint64_t epoll_wait_calls
    uint64_t recvmmsg_calls, recvmmsg_empty, recvfrom_calls, recvfrom_empty
    uint64_t sendmmsg_calls, sendto_calls
    uint64_t datagrams_received, datagrams_sent
    uint64_t bytes_received, bytes_sent
    uint64_t blocks_sent, blocks_received
    uint64_t gso_trains, gso_refused
    uint64_t send_would_block, send_errors
    uint64_t requests, requests_repeated, requests_revived, requests_dropped, requests_refused_busy
    # By reason, in the order of REFUSED_... in worker/state.pxd.
    uint64_t refused_transfers, refused_half_open, refused_pending
    uint64_t refused_client_transfers, refused_client_half_open, refused_memory, refused_guesses
    uint64_t refused_network_transfers, refused_network_half_open
    uint64_t refused_requests, refused_client_requests, refused_network_requests, refused_unproven
    uint64_t refused_rule_requests, refused_rule_transfers
    uint64_t flow_hits, flow_misses
    uint64_t strays, strays_answered, malformed, error_queue_calls, errors_heard, wrong_guesses, acks_too_early
    uint64_t sends_paced, answers_withheld, buckets_replaced
    uint64_t sends_tried, sends_capped, networks_proven, networks_replaced
    uint64_t memory_learned, memory_replaced, memory_used
    uint64_t retransmits, duplicate_acks, timeouts
    uint64_t transfers_started, transfers_ended, transfers_gave_way, transfers_stalled, transfers_too_many
    uint64_t lingers, linger_ns
    uint64_t file_checks
    uint64_t page_looks, chunks_lost, page_waits
    uint64_t live_transfers, half_open_transfers, dallying_transfers
    uint64_t receive_histogram[12]
    uint64_t send_histogram[12]


cdef inline void count_batch(uint64_t *histogram, uint32_t datagrams) noexcept nogil:
    cdef uint32_t bucket = 0, top = 1
    while datagrams > top and bucket < HISTOGRAM - 1:
        top *= 2
        bucket += 1
    histogram[bucket] += 1
