# A transfer, in the slab of its worker (memory/slab.pxd); only that worker touches it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.accounts cimport Account
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.content cimport Recipe, Sink
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.protocol.window cimport Flight

cdef enum:                        # Transfer.state: State of protocol/transfer.py, which move_to() alone changes
    T_FREE = 0
    T_REQUESTED = 1               # server: Python is deciding
    T_ASKING = 2                  # client: the request is in flight
    T_ANSWERED = 3                # client: the OACK is with Python
    T_ACTIVE = 4
    T_FLUSHING = 5                # receiver: all there, the I/O threads are writing
    T_COMMITTING = 6              # receiver: Python makes it durable and visible
    T_DALLY = 7                   # receiver: the last ACK is sent; it is repeated on demand
    T_ENDING = 8                  # ended, but I/O threads still hold buffers of it
    T_STUCK = 9                   # the same, and its Completion has gone up: the disk may never come back

cdef enum:                        # Transfer.superseded
    SUPERSEDED_NOT = 0
    SUPERSEDED = 1                # by another request: over, but for what the peer may still say
    SUPERSEDED_PERHAPS = 2        # by its own request again: until one of both is answered

cdef enum:                        # Transfer.held
    HELD_NOT = 0
    HELD_TRIAL = 1                # for a random while: who acknowledges meanwhile does not hear us
    HELD_CAPPED = 2               # its network has had its share
    HELD_EMPTYING = 3             # until all that was sent is acknowledged, for a trial
    HELD_PACED = 4                # until it is its turn at a bucket: worker/pacing.pxd
    HELD_WITHHELD = 5             # strangers have had their answers: worker/rates.pxd

cdef enum:                        # Transfer.before, after: the kinds of list, see memory/chain.pxd
    AMONG_ALL = 0                 # of a worker: those that have answered nothing, or those in T_DALLY
    AMONG_CLIENTS = 1             # of one client: those that have answered nothing
    AMONG_NETWORKS = 2            # the same of one network

cdef struct Chain:
    uint32_t oldest, newest       # places + 1, 0: the list is empty

cdef struct Transfer:
    Flight flight
    uint64_t id                   # worker, generation and place: memory/slab.pxd
    Transfer *timer_next
    Transfer **timer_link         # what points at us; NULL: in no notch
    Transfer *queue_next          # run, blocked or waiting queue
    Recipe *recipe
    Sink *sink
    uint64_t started_ns
    uint64_t held_ns              # since when our own disk, or Python, holds back what the peer waits for; 0: nothing
    uint64_t wheel_ns             # the deadline under which we stand in the wheel
    uint64_t payload_bytes
    uint64_t batch                # serial of the send batch that last took DATA of us
    uint64_t request_hash
    uint64_t rival                # of the same request: until it is known which of both is wanted
    uint64_t answer_ns            # how soon after our last block the peer acknowledges all, usually; 0: not known
    uint64_t answer_spread_ns     # and the mean distance from that
    uint64_t trial_ns             # what was sent last was held back: its ACK is evidence if so near usual; 0: no trial
    uint64_t trial_bytes          # DATA sent since
    uint64_t held_until_ns        # with `held`
    uint64_t paced_ns             # HELD_PACED: since when ...
    uint64_t paced_until_ns       # ... and until when, however long that is
    int64_t paid_next             # receiver: the first block that no bucket was charged for
    uint32_t paced_blocks         # what its buckets are asked for
    uint32_t credit_blocks        # sender: what they have granted
    uint32_t datagrams_in, datagrams_out
    uint32_t duplicate_acks, peak_window
    uint32_t hash_tid, hash_request
    uint32_t hash_network
    int32_t socket                # index in the worker, -1: none yet
    int32_t client                # index of the client's counters, -1: none
    int32_t network               # of its network's, -1: none
    Peer peer
    Local local
    int32_t endpoint                 # which address was asked, until it begins
    uint32_t before[3]            # by AMONG_...: who joined the list before us ...
    uint32_t after[3]             # ... and after us
    Account *account              # which counts it; NULL: none
    Message *farewell             # put by for the Completion: that must not be missing for want of memory
    Message *ending               # T_ENDING: the Completion, kept until the I/O threads are done
    uint8_t state
    uint8_t queued                # which queue holds us: 0 none, 1 run, 2 blocked, 3 waiting
    uint8_t no_gso                # the kernel refused a train of this transfer
    uint8_t doomed                # the kernel could not read the file: look at it in the next turn
    uint8_t counted_half_open
    uint8_t may_give_way          # is in the lists of those that have answered nothing
    uint8_t in_tids, in_requests, in_locals   # which index knows us
    uint8_t owes_first            # the first packet could not be sent yet
    uint8_t flow_hit
    uint8_t superseded            # SUPERSEDED_...: the peer has sent another request, so we speak no more by ourselves
    uint8_t has_copy              # a copy of our request waits until it is known what it means
    uint8_t doubted               # nobody of the peer's network has shown yet that he hears us: memory/networks.pxd
    uint8_t tid_bits              # how hard its TID was to guess
    uint8_t held                  # HELD_...: nothing is sent before held_until_ns
    uint8_t paced_stage           # OF_...: the bucket that is asked next
    uint8_t unknown               # no transfer of its network has ended well within the hour: worker/rates.pxd
    uint8_t kept                  # that the peer's path loses is in the memory already
    uint8_t recounts              # it left its account, or is one too many: may_go_on() looks when its client goes on


cdef extern from * nogil:
    """
    #ifdef SNOW_OWL_DEBUG
    /* A test reads it through the shared object: which moves have been seen. */
    __attribute__((weak, visibility("default"))) unsigned char transfer_moves[10][10];
    #define NOTE_MOVE(before, after) (transfer_moves[before][after] = 1)
    #else
    #define NOTE_MOVE(before, after) ((void)0)
    #endif
    """
    void NOTE_MOVE(uint8_t before, uint8_t after)


cdef inline bint may_follow(int before, int after) noexcept nogil:
    """NEXT of protocol/transfer.py, where the reasons are."""
    if before == T_FREE:
        return after == T_REQUESTED or after == T_ASKING
    if before == T_ASKING:
        return after == T_ANSWERED or after == T_ACTIVE or after == T_FREE
    if before == T_REQUESTED or before == T_ANSWERED:
        return after == T_ACTIVE or after == T_FREE
    if before == T_ACTIVE:
        return after == T_FLUSHING or after == T_ENDING or after == T_FREE
    if before == T_FLUSHING:
        return after == T_FLUSHING or after == T_COMMITTING or after == T_ENDING or after == T_FREE
    if before == T_COMMITTING:
        return after == T_DALLY or after == T_FREE
    if before == T_ENDING:
        return after == T_STUCK or after == T_FREE
    return (before == T_DALLY or before == T_STUCK) and after == T_FREE


cdef inline void move_to(Transfer *t, uint8_t state) noexcept nogil:
    OWL_INVARIANT(may_follow(t.state, state))
    NOTE_MOVE(t.state, state)
    t.state = state
