# A worker: one thread's sockets, transfers, timers and buffers.  The struct and what engine.pyx calls.
#
# Everything in Worker belongs to the worker's thread, except: inbox and outbox (queues), counters (read
# by anybody), live_tuning (written by Python, copied here once a turn), and what stands before `run` is called.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from snow_owl_tftp._engine.batch cimport ReceiveBatch, SendBatch, Tuning
from snow_owl_tftp._engine.counters cimport Counters
from snow_owl_tftp._engine.data cimport Chain, Message, Peer, Recipe, Transfer
from snow_owl_tftp._engine.includes.files cimport so_file
from snow_owl_tftp._engine.index cimport Index
from snow_owl_tftp._engine.memory cimport Remembered
from snow_owl_tftp._engine.networks cimport Network
from snow_owl_tftp._engine.queue cimport Queue
from snow_owl_tftp._engine.rtt cimport Retransmit
from snow_owl_tftp._engine.store cimport Store
from snow_owl_tftp._engine.timers cimport Wheel

cdef enum:
    S_FREE = 0
    S_LISTENER = 1                # requests; in single-port mode also transfers
    S_TID = 2                     # shared by transfers
    S_PRIVATE = 3                 # one transfer of our own asking
    S_SHARED = 4                  # transfers of our own asking, told apart by their local address

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
    REFUSALS = 7

cdef enum:
    SLAB_CHUNK = 256
    TID_HISTORY = 65536
    GUESSES = 4096                # addresses whose wrong guesses are counted
    RANDOM_BYTES = 256            # fetched from the kernel at once
    ENDED_SETS = 16384            # TID pairs of ended transfers and of strangers, in sets of ...
    ENDED_WAYS = 4
    ENDED_SECONDS = 8             # ... remembered so long (of 2^30 ns)
    HISTORY = 4096                # networks where a transfer ended well
    MAX_GROUPS = 64
    FINALS = 128
    EVENTS = 128

cdef extern from *:
    """
    #define STREAM_EVENT 0x100000000ULL   /* epoll data: the low half is a transfer's slot */
    """
    const uint64_t STREAM_EVENT

cdef struct Socket:
    int fd
    uint8_t kind
    uint8_t wants_control         # PKTINFO or GRO: receive with control data
    uint8_t awaits_writable       # EPOLLOUT is armed
    uint8_t wildcard              # answers must say their source address
    int32_t group
    int32_t next_free             # list of unused entries
    uint64_t owner                # S_PRIVATE: its transfer's id

cdef struct Group:
    # A bound address: one listener and its TID sockets (consecutive entries of `sockets`).
    int32_t listener
    int32_t first_tid, tid_count  # tid_count 0: single-port

cdef struct Client:
    uint8_t address[16]
    uint32_t hash
    uint32_t live, half_open
    Chain unproven                # its transfers that have begun, and have answered nothing
    int32_t next_free

cdef struct Flow:
    # A decision of Python's that the worker repeats by itself for the same request.
    uint8_t *request              # the datagram; path behind it
    uint32_t request_bytes
    char *path                    # beneath `dir`
    int dir
    uint32_t hash
    int32_t group
    Recipe *recipe                # NULL: free entry
    Message *farewell             # put by for the recipe's way up
    so_file file                  # what the path led to when Python decided
    uint64_t checked              # the `receives` at which the file was last found the same

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
    # What was refused for one reason and not yet told.
    uint64_t count
    uint64_t told_ns              # when somebody was told last
    Peer last                     # who was refused last

cdef struct Guesser:
    # An address from which a TID was guessed wrongly, or seemed to be.
    uint32_t hash                 # of the address
    uint32_t count                # since it was quiet for GUESS_MEMORY_NS
    uint64_t last_ns              # 0: an unused entry

cdef struct Final:
    Transfer *transfer
    uint64_t id

cdef struct Worker:
    uint32_t number
    int epoll_fd
    uint32_t stopping, draining
    Queue *inbox                  # of the engine, which owns it
    Queue *outbox                 # all workers' events to Python
    Store *store
    const Tuning *live_tuning
    Tuning tuning                 # of this turn: a batch leaves as it was filled
    Retransmit retransmit
    Limits limits
    Counters counters
    Socket *sockets
    int32_t socket_count, socket_capacity, free_socket
    Group groups[64]
    int32_t group_count
    int32_t shared_socket         # S_SHARED, -1: none
    Transfer **slab               # chunks of SLAB_CHUNK
    uint32_t slab_chunks, slab_capacity
    Transfer *free_transfers      # linked by queue_next
    Client *clients
    uint32_t client_count, client_capacity
    int32_t free_client
    Flow *flow_entries
    uint32_t flow_hand            # the entry that makes room next
    Index by_tid, by_request, by_client, by_flow, by_local
    Wheel wheel
    SendBatch out
    ReceiveBatch received
    Transfer *run_head
    Transfer *run_tail
    Transfer *waiting
    Transfer *blocked
    Final finals[128]
    uint32_t final_count
    uint64_t now_ns
    uint64_t receives             # batches taken from sockets: what was checked is checked anew for each
    uint64_t secret               # of the hashes
    uint64_t check_round
    uint64_t watch_until_ns       # until then each message is preceded by a look whether its pages are there
    uint8_t owes_kick             # jobs were queued in this turn
    uint8_t owes_wake             # requests of this batch are in the outbox, and Python was not woken
    uint8_t owes_look             # there was no memory to ask for a chunk: those who wait ask again by their timers
    uint64_t stray_tokens, stray_refill_ns
    uint8_t *tid_history          # by hash of the peer: 1 + the TID socket of its last transfer
    Guesser *guessers             # by hash of the address
    Network *networks             # by hash of the network
    uint64_t *history             # by hash of the network and the second of the last
    uint64_t guessed_ns           # when the last wrong guess came; 0: none yet
    uint8_t random[256]
    uint32_t random_left          # of them, so many were not used yet
    uint64_t *ended               # by hash: transfers that ended a moment ago (their echoes are no strays)
    Remembered *memory            # of clients between their transfers
    Message *copies               # copies of requests whose transfers run, the oldest first ...
    Message *copies_end
    uint32_t copy_count
    uint32_t pending              # requests with Python
    Refusal refusals[7]           # by REFUSED_...
    uint32_t untold               # how many of them have a count
    Chain dallying                # those in T_DALLY, in the order in which they came to it
    Chain unproven                # those that have begun and whose peers have answered nothing, in that order
    uint32_t undelivered          # completions that Python has not seen yet (atomic)
    double rate_per_ns            # datagrams, smoothed: the adaptive law's input
    uint64_t rate_at_ns, rate_seen
    uint8_t mode                  # MODE_...
    uint8_t mode_told             # the last that went up, MODE_UNKNOWN: none
    uint64_t mode_since_ns

cdef int worker_init(Worker *w, uint32_t number, Queue *inbox, Queue *outbox, Store *store,
                     const Tuning *tuning, const Retransmit *retransmit, const Limits *limits, uint32_t max_batch,
                     uint32_t slot_bytes, uint64_t secret) noexcept nogil
cdef int worker_add_socket(Worker *w, int fd, int kind, int group, bint wildcard, bint wants_control) noexcept nogil
cdef void worker_run(Worker *w) noexcept nogil
cdef void worker_free(Worker *w) noexcept nogil
cdef Recipe *recipe_new(int role, uint32_t blksize_bytes, uint32_t windowsize, uint64_t fixed_ns,
                        const uint8_t *first, uint32_t first_bytes, const uint8_t *expected,
                        uint32_t expected_bytes) noexcept nogil
