"""What both sides of the border count, and call things by: the structs of the compiled side hold the same order.

That is `base/counters.pxd`, `worker/state.pxd` (REFUSED_...) and `base/messages.pxd` (OUT_...). The compiled side
refuses to be imported when the number of counters is another one.
"""

CONTRACT_VERSION = 3

OUTCOMES = ("OK", "TIMED_OUT", "PEER_ERROR", "LOCAL_IO_ERROR", "CHANGED", "ABORTED", "UNREACHABLE")

COUNTERS = (
    "epoll_wait_calls",
    "recvmmsg_calls",
    "recvmmsg_empty",
    "recvfrom_calls",
    "recvfrom_empty",
    "sendmmsg_calls",
    "sendto_calls",
    "datagrams_received",
    "datagrams_sent",
    "bytes_received",
    "bytes_sent",
    "blocks_sent",
    "blocks_received",
    "gso_trains",
    "gso_refused",
    "send_would_block",
    "send_errors",
    "requests",
    "requests_repeated",
    "requests_revived",
    "requests_dropped",
    "requests_refused_busy",
    "refused_transfers",
    "refused_half_open",
    "refused_pending",
    "refused_client_transfers",
    "refused_client_half_open",
    "refused_memory",
    "refused_guesses",
    "flow_hits",
    "flow_misses",
    "strays",
    "strays_answered",
    "malformed",
    "error_queue_calls",
    "errors_heard",
    "wrong_guesses",
    "acks_too_early",
    "sends_tried",
    "sends_capped",
    "networks_proven",
    "networks_replaced",
    "memory_learned",
    "memory_replaced",
    "memory_used",
    "retransmits",
    "duplicate_acks",
    "timeouts",
    "transfers_started",
    "transfers_ended",
    "transfers_gave_way",
    "transfers_stalled",
    "lingers",
    "linger_ns",
    "file_checks",
    "page_looks",
    "chunks_lost",
    "page_waits",
    "live_transfers",
    "half_open_transfers",
    "dallying_transfers",
)

# In the order of REFUSED_... in worker/state.pxd: the limit, by its name in Engine().
LIMITS = (
    "max_transfers",
    "max_half_open",
    "max_pending_requests",
    "max_transfers_per_client",
    "max_half_open_per_client",
    "memory",
    "wrong_guesses",
)
