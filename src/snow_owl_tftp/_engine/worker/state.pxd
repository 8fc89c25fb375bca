# A worker: one thread's sockets, transfers, timers and buffers, as a struct of structs.
#
# What is below the worker takes the part that it needs, by address, and knows nothing of the rest.
# Everything in Worker belongs to the worker's thread, except: inbox and outbox (queues), counters (read
# by anybody), live_tuning and live_quotas (written by Python, copied here once a turn), flows.outdated (raised by
# Python), and what stands before `run` is called.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.accounts cimport AccountTable
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.counters cimport Counters
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.base.quotas cimport Quotas, SharedBuckets
from snow_owl_tftp._engine.base.transfer cimport Chain, Transfer
from snow_owl_tftp._engine.disk.errands cimport Errands
from snow_owl_tftp._engine.disk.flows cimport FlowTable
from snow_owl_tftp._engine.memory.buckets cimport BucketTable
from snow_owl_tftp._engine.memory.clients cimport ClientTable
from snow_owl_tftp._engine.memory.guesses cimport Guesses
from snow_owl_tftp._engine.memory.history cimport History
from snow_owl_tftp._engine.memory.networks cimport Network
from snow_owl_tftp._engine.memory.remembered cimport Remembered
from snow_owl_tftp._engine.memory.slab cimport Slab
from snow_owl_tftp._engine.memory.strays cimport Strays
from snow_owl_tftp._engine.memory.timers cimport Wheel
from snow_owl_tftp._engine.net.batch cimport ReceiveBatch, SendBatch, Tuning
from snow_owl_tftp._engine.net.sockets cimport SocketTable
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit

cdef enum:
    Q_NONE = 0
    Q_RUN = 1                     # has more to send in the next turn
    Q_BLOCKED = 2                 # waits until its socket takes more
    Q_WAITING = 3                 # waits for a chunk from the disk

cdef enum:                        # why a request is refused without being asked about
    REFUSED_TRANSFERS = 0
    REFUSED_HALF_OPEN = 1
    REFUSED_PENDING = 2
    REFUSED_CLIENT_TRANSFERS = 3
    REFUSED_CLIENT_HALF_OPEN = 4
    REFUSED_MEMORY = 5
    REFUSED_GUESSES = 6
    REFUSED_NETWORK_TRANSFERS = 7
    REFUSED_NETWORK_HALF_OPEN = 8
    REFUSED_REQUESTS = 9
    REFUSED_CLIENT_REQUESTS = 10
    REFUSED_NETWORK_REQUESTS = 11
    REFUSED_UNPROVEN = 12
    REFUSED_RULE_REQUESTS = 13
    REFUSED_RULE_TRANSFERS = 14
    REFUSALS = 15
    PACED = 15                    # + OF_...: nothing is refused, a transfer is held back
    PACED_BY_RULE = 18
    TOLD = 19

cdef enum:
    TID_HISTORY = 65536
    RANDOM_BYTES = 256            # fetched from the kernel at once
    FINALS = 128
    EVENTS = 128

cdef struct Limits:
    uint32_t transfers            # of this worker
    uint32_t transfers_per_client
    uint32_t half_open
    uint32_t half_open_per_client
    uint32_t pending_requests     # with Python
    uint32_t flows
    uint64_t stalled_ns           # how long our own disk, or Python, may hold a transfer up
    uint32_t network_bytes        # sent to a network that has not shown yet that it hears us; 0: no limit

cdef struct Refusal:
    # What was refused, or held back, for one reason and not yet told.
    uint64_t count
    uint64_t told_ns              # when somebody was told last
    Peer last                     # who was refused last

cdef struct Refusals:
    Refusal by_reason[19]         # by REFUSED_..., and PACED
    uint32_t untold               # how many of them have a count

cdef struct Final:
    Transfer *transfer
    uint64_t id

cdef struct Finals:
    # Transfers whose last block is to leave at the end of the batch.
    Final entries[128]
    uint32_t count
    uint64_t check_round          # looks at files so far; a source is looked at once a round

cdef struct Waiters:
    # Transfers that have more to send, linked by queue_next; `queued` of each says in which list it is.
    Transfer *run_head            # in the next turn
    Transfer *run_tail
    Transfer *for_chunk           # when the disk has brought something
    Transfer *for_socket          # when a socket takes more

cdef struct Aside:
    # Copies of requests whose transfers run, the oldest first.
    Message *oldest
    Message *newest
    uint32_t count

cdef struct Randomness:
    uint8_t bytes[256]
    uint32_t left                 # of them, so many were not used yet

cdef struct Lingering:
    # What the adaptive law goes by, and what it has decided.
    double rate_per_ns            # datagrams, smoothed
    uint64_t rate_at_ns, rate_seen
    uint64_t mode_since_ns
    uint8_t mode                  # MODE_...
    uint8_t mode_told             # the last that went up, MODE_UNKNOWN: none

cdef struct Worker:
    uint32_t number
    int epoll_fd
    uint32_t stopping, draining
    Queue *inbox                  # of the engine, which owns it
    Queue *outbox                 # all workers' events to Python
    uint8_t owes_wake             # requests of this batch are in the outbox, and Python was not woken
    const Tuning *live_tuning
    Tuning tuning                 # of this turn: a batch leaves as it was filled
    Retransmit retransmit
    Limits limits
    const Quotas *live_quotas
    Quotas quotas                 # of this turn
    SharedBuckets *shared         # of the engine, which owns them (atomic)
    AccountTable *accounts        # likewise (locked)
    Counters counters
    uint64_t now_ns
    uint64_t secret               # of the hashes
    uint32_t pending              # requests with Python
    uint32_t undelivered          # completions that Python has not seen yet (atomic)
    SocketTable sockets
    Slab slab
    ClientTable clients
    ClientTable held_by           # the same by networks
    BucketTable client_buckets
    BucketTable network_buckets
    FlowTable flows
    Errands errands
    SendBatch out
    ReceiveBatch received
    Waiters waiters
    Finals finals
    Chain dallying                # those in T_DALLY, in the order in which they came to it
    Chain unproven                # those that have begun and whose peers have answered nothing, in that order
    Aside aside
    Refusals refusals
    Strays strays
    Guesses guesses
    History history
    Network *networks             # by hash of the network
    Remembered *memory            # of clients between their transfers
    uint8_t *tid_history          # by hash of the peer: 1 + the TID socket of its last transfer
    Randomness random
    Lingering lingering
    Wheel wheel
