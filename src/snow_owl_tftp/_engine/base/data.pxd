# The engine's data layout: what a transfer is made of, and who owns which part.
#
#   Transfer   one per transfer, in the slab of its worker; only that worker touches it
#   Recipe     what Python decided (TransferPlan), frozen; shared by the transfers of one flow; counted
#   Source     an open file being sent, mapped; shared by every transfer of the file; counted twice: who
#              uses the file, and who may look at the struct, which a flow does without using the file
#   Sink       a file being received; belongs to one transfer
#   Message    what goes between threads: events up, commands down, finished I/O; belongs to its queue
#
# References are counted with atomics because Python, workers and I/O threads drop them; who drops the
# last one frees.  Nothing here calls anything.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cpython.ref cimport PyObject
from snow_owl_tftp._engine.protocol.window cimport Flight

cdef enum:
    CHUNK_BYTES = 524288          # what one I/O job makes resident; 366 blocks of 1428
    CHUNK_ABSENT = 0
    CHUNK_ASKED = 1
    CHUNK_READY = 2
    CHUNK_FAILED = 3
    CHUNK_LEAVING = 4             # its memory is given back
    CHUNK_OWNED = 5               # as CHUNK_READY, in memory of our own
    LOOK_TICK_SHIFT = 20          # Look.tick counts 2^20 ns, about a millisecond
    KEEP_AFTER = 2                # who was lost so often is not mapped again but copied

cdef enum:                        # Transfer.state
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

cdef enum:                        # Transfer.before, after: the two kinds of list, see chain.pxd
    AMONG_ALL = 0                 # of a worker: those that have answered nothing, or those in T_DALLY
    AMONG_CLIENTS = 1             # of one client: those that have answered nothing

cdef enum:                        # Completion.outcome, docs/engine-contract.md
    OUT_OK = 0
    OUT_TIMED_OUT = 1
    OUT_PEER_ERROR = 2
    OUT_LOCAL_IO_ERROR = 3
    OUT_CHANGED = 4
    OUT_ABORTED = 5
    OUT_UNREACHABLE = 6

cdef enum:                        # Message.kind
    M_REQUEST = 1                 # up: a datagram that may be a request
    M_COMPLETION = 2              # up: a transfer ended
    M_ANSWER = 3                  # up: an OACK for a transfer that we asked for
    M_RECEIVED = 4                # up: every byte of an upload is written
    M_RETIRED = 5                 # up: a Recipe lost its last reference on a worker
    M_MODE = 6                    # up: the batching mode of a worker changed
    M_PROGRESS = 7                # up: how far a transfer of our own asking is
    M_REFUSED = 8                 # up: requests were refused by a limit
    M_FIRST_DATA = 9              # up: an upload whose file is not open has begun to arrive
    M_RELEASED = 10               # up: nothing is written any more to the file of an upload that was stuck
    M_START = 16                  # down: a TransferPlan for a request
    M_ASK = 17                    # down: a TransferPlan of our own, on a socket of its own
    M_REFUSE = 18                 # down: the ERROR for a request, or silence
    M_RESUME = 19                 # down: how to go on after an OACK
    M_COMMIT = 20                 # down: the upload is visible, or the ERROR
    M_ABORT = 21                  # down: end one transfer
    M_DRAIN = 22                  # down: no more requests
    M_ABORT_ALL = 23              # down: end every transfer
    M_FORGET_FLOWS = 24           # down: policy or content changed
    M_STOP = 25                   # down: leave the loop
    M_ABORT_ASKED = 26            # down: end the transfer of our own asking whose context is `hash`
    M_ASK_PROGRESS = 27           # down: tell how far it is
    M_SUPPLY = 28                 # down: the descriptor of an upload that has begun to arrive
    M_LOADED = 32                 # from I/O: a chunk is resident (or failed)
    M_WRITTEN = 33                # from I/O: a buffer is written (or failed)

cdef union Address:
    uint8_t raw[28]               # sockaddr_in or sockaddr_in6 as the kernel gave it
    uint16_t family
    uint64_t align

cdef struct Chain:
    uint32_t oldest, newest       # slots + 1, 0: the list is empty

cdef struct Peer:
    Address address
    uint32_t size                 # of the sockaddr: 16 or 28

cdef struct Local:
    uint8_t address[16]           # where the request was sent to; v4 in the first 4 bytes
    uint32_t ifindex
    uint32_t family               # 0: the socket is bound to one address, nothing to say

cdef struct Look:
    # At the pages of a chunk that is mapped.  All workers write it: a look too many does no harm.
    uint32_t tick                 # of the last one, or of when the chunk was fetched
    uint8_t lost                  # how often pages were missing since it was last in memory of our own; to KEEP_AFTER

cdef struct Source:
    int fd                        # ours while users > 0, or while the store has it
    uint32_t refs                 # of the struct: recipes, and the store while the file is open
    uint32_t users                # of the file: transfers and loads; 0 <-> 1 only under the store's mutex
    uint8_t *map                  # made for the first chunk; of a file NEVER read by us: the kernel copies from it
    uint8_t copied                # 1: it is not to be mapped, `map` is memory of our own that chunks are read into
    uint64_t size_bytes
    uint64_t device, inode
    int64_t mtime_ns, ctime_ns
    uint8_t *chunks               # CHUNK_ state per CHUNK_BYTES, atomic
    Look *looks                   # one a chunk; NULL: nobody looks
    uint32_t chunk_count
    uint8_t loading               # atomic: 1 while an I/O thread is at it
    uint8_t served                # a chunk of it was there once: some client has a part of the file
    int failed_errno              # of the first read that failed
    uint64_t idle_since_ns        # when the last user left; 0: it goes at once
    uint64_t checked              # token (worker and round) of the last look that found it unchanged
    uint32_t changed              # 1: not the file that was opened any more
    uint32_t unlinked             # 1: no name leads to it any more; whoever has begun is served to the end
    uint32_t nameless             # 1: no name led to it when it was opened: a copy in memory
    uint32_t closed               # 1: descriptor and mapping are gone, or go now; set under the store's mutex
    Source *next                  # the store's: of the same bucket
    Source *idle_before           # the store's: those that nobody uses, the next to go first
    Source *idle_after
    uint8_t stream                # 1: `fd` is a pipe, `map` a ring of our own, `size_bytes` what was read
    uint8_t ended                 # stream: the writer has closed the pipe
    uint8_t watched               # stream: the pipe is registered with epoll
    uint64_t ring_bytes           # stream: a multiple of the block size, one block more than a window

cdef struct Recipe:
    uint32_t refs
    Source *source                # sender
    PyObject *context             # Python's own object for this decision; returned in the Completion
    uint64_t fixed_ns             # negotiated timeout, 0: measured
    uint32_t blksize_bytes
    uint32_t windowsize
    uint32_t first_bytes          # length of `first`
    uint8_t role
    uint8_t rollover              # what follows block 65535: ROLLOVER_TO_0 or ROLLOVER_TO_1
    uint32_t expected_bytes       # length of `expected`
    uint8_t *expected             # an OACK of these bytes needs no decision; behind `first`
    uint8_t *first                # ready-made OACK or request; lies behind the struct

cdef struct Buffer:
    Buffer *next
    uint64_t offset
    uint32_t used, capacity       # bytes
    uint8_t *bytes                # lies behind the struct

cdef struct Sink:
    int fd                        # -1: not open yet; what arrives waits in buffers until it is
    int error                     # errno of the first write that failed
    uint64_t received_bytes       # payload accepted so far
    uint64_t limit_bytes          # more than this is refused; 0: no limit
    uint64_t declared_bytes       # tsize, or UINT64_MAX: not declared
    uint32_t buffer_bytes         # of one buffer
    uint32_t buffers              # full ones: being written, or waiting for that
    uint32_t max_buffers          # more than that hold the ACK back
    uint32_t waiting              # full ones that no I/O thread has yet
    uint32_t gathered             # so many of them are handed over together; at most half of max_buffers
    Buffer *filling
    Buffer *spare                 # written, and the next to be filled: its pages are there already
    Buffer *full                  # waiting, in order ...
    Buffer *full_end
    uint8_t writing               # ... because one job at a time writes to a file
    uint8_t ack_owed              # an ACK waits until a buffer is written
    uint8_t asked                 # Python was told that the descriptor is wanted
    Source *compared              # a load generator's: what the payload must be; the recipe's reference
    uint32_t *live                # the engine's count of sinks
    uint64_t device               # of the file; 0: not looked at yet

cdef struct Transfer:
    Flight flight
    uint64_t id                   # worker, slot and generation; see worker.pxd
    Transfer *timer_next
    Transfer **timer_link         # what points at us; NULL: in no slot
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
    uint32_t datagrams_in, datagrams_out
    uint32_t duplicate_acks, peak_window
    uint32_t hash_tid, hash_request
    uint32_t hash_network
    int32_t socket                # index in the worker, -1: none yet
    int32_t client                # index of the client's counters, -1: none
    Peer peer
    Local local
    int32_t group                 # which address was asked, until it begins
    uint32_t before[2]            # by AMONG_...: who joined the list before us ...
    uint32_t after[2]             # ... and after us
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
    uint8_t doubted               # nobody of the peer's network has shown yet that he hears us: networks.pxd
    uint8_t tid_bits              # how hard its TID was to guess
    uint8_t held                  # HELD_...: nothing is sent before held_until_ns
    uint8_t kept                  # that the peer's path loses is in the memory already

cdef struct Figures:
    uint64_t srtt_ns
    int64_t blocks                # acknowledged, or received in order
    uint32_t blksize_bytes, windowsize, retransmits

cdef struct Message:
    Message *next
    uint32_t kind
    uint32_t worker
    uint64_t id
    Recipe *recipe
    Source *source
    Sink *sink
    Buffer *buffer
    Figures figures               # completion: of the flight
    Peer peer
    Local local
    uint64_t started_ns, ended_ns, payload_bytes
    uint32_t datagrams_in, datagrams_out, duplicate_acks, peak_window
    int32_t socket
    int32_t error                 # outcome's errno or TFTP code
    int32_t flow_dir              # START: directory of the flow check, -1: no flow
    int64_t flow_ctime_ns         # START: of the file when Python decided
    uint64_t hash                 # START: of the request
    uint8_t outcome, flow_hit, state
    uint32_t bytes_used           # of `bytes`
    uint32_t split                # START: where in `bytes` the request follows the path of the flow
    uint8_t *bytes                # datagram, error text, flow path; lies behind the struct
