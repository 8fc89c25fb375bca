# Messages: what goes between threads: events up, commands down, finished I/O.
#
# A tagged union: `kind` says which member of `body` there is, and nobody reads another one.  A message belongs to its
# sender until it is pushed and to the receiver once it is taken (queue.pxd).  One that is put by for a Completion
# begins as another kind, and is cleared when it becomes one (message_becomes).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.classes cimport Classes
from snow_owl_tftp._engine.base.content cimport Buffer, Recipe, Sink

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
    M_ABORT_ASKED = 26            # down: end the transfer of our own asking with this context
    M_ASK_PROGRESS = 27           # down: tell how far it is
    M_SUPPLY = 28                 # down: the descriptor of an upload that has begun to arrive
    M_CLASSES = 29                # down: other client classes, with which every flow is forgotten
    M_LOADED = 32                 # from I/O: a chunk is resident (or failed)
    M_WRITTEN = 33                # from I/O: a buffer is written (or failed)

# --- up, to Python

cdef struct Requested:            # M_REQUEST; also a copy of one that its worker has put aside
    Peer peer
    Local local
    int32_t endpoint                 # whose listener it came to ...
    int32_t listener              # ... and which that is, in the worker
    uint64_t received_ns
    uint8_t is_counted            # by the limits of its client's class: base/accounts.pxd

cdef struct Figures:
    uint64_t srtt_ns
    int64_t blocks                # acknowledged, or received in order
    uint32_t blksize_bytes, windowsize, retransmits

cdef struct Completed:            # M_COMPLETION
    Figures figures               # of the flight
    Peer peer
    Local local
    uint64_t started_ns, ended_ns
    uint64_t payload_bytes        # acknowledged, or received in order
    uint32_t datagrams_in, datagrams_out, duplicate_acks, peak_window
    int32_t error                 # errno, or the peer's code
    uint8_t outcome               # OUT_...
    uint8_t flow_hit
    uint8_t is_stuck              # a write to its sink is still under way

cdef struct Answered:             # M_ANSWER; the OACK is `bytes`
    Peer peer

cdef struct Stored:               # M_RECEIVED
    uint64_t payload_bytes

cdef struct Progressed:           # M_PROGRESS
    uint64_t payload_bytes
    uint32_t datagrams_in, datagrams_out

cdef struct Refused:              # M_REFUSED
    uint64_t count
    int32_t reason                # REFUSED_...
    Peer last                     # whom it hit last

cdef struct ModeChanged:          # M_MODE
    uint64_t live_transfers, linger_ns, datagrams_per_s
    uint8_t mode                  # MODE_...

# --- down, from Python

cdef struct Start:                # M_START; `bytes`: the path of the flow with its zero, then the request
    int64_t ctime_ns              # of the file when Python decided
    int directory                 # of the flow
    uint32_t path_bytes
    uint8_t has_flow

cdef struct Ask:                  # M_ASK
    Peer peer
    Local local                   # where it uses a shared socket
    int fd                        # of its own socket, -1: the shared one
    uint8_t has_gro               # UDP_GRO is on

cdef struct Resume:               # M_RESUME
    uint64_t declared_bytes
    uint8_t is_declared

cdef struct Supply:               # M_SUPPLY
    uint64_t limit_bytes          # 0: as the plan says
    int fd

cdef struct Reclassed:            # M_CLASSES
    Classes *classes              # a reference for the worker; NULL: none from now on

cdef struct Verdict:              # M_COMMIT, M_ABORT; the text is `bytes`
    int32_t code                  # TFTP's, below 0: the upload is visible
    int32_t error                 # errno

cdef struct Asked:                # M_ABORT_ASKED, M_ASK_PROGRESS: the transfer of our own asking ...
    void *context                 # ... with this context
    int32_t code                  # M_ABORT_ASKED: of the ERROR

# --- from I/O threads

cdef struct Written:              # M_WRITTEN
    Buffer *buffers
    int32_t error                 # errno of the first write that failed, 0: none

cdef union Body:
    Requested request
    Completed completion
    Answered answer
    Stored received
    Progressed progress
    Refused refused
    ModeChanged mode
    Start start
    Ask ask
    Resume resume
    Supply supply
    Verdict verdict
    Reclassed reclassed
    Asked asked
    Written written

cdef struct Message:
    Message *next
    uint32_t kind                 # M_...
    uint32_t worker               # whose it is; M_WRITTEN: who is told
    uint64_t id                   # of the transfer
    Recipe *recipe                # of the transfer, in what is about one
    Sink *sink                    # M_START, M_ASK: of a receiver
    Body body
    uint32_t bytes_used           # of `bytes`
    uint8_t *bytes                # datagram, error text, flow; lies behind the struct


cdef inline Message *message_new(uint32_t kind, uint64_t id, const void *bytes, size_t size) noexcept nogil:
    """A zeroed message with a copy of `bytes` behind it; NULL when there is no memory."""
    cdef Message *message = <Message *>calloc(1, sizeof(Message) + size + 1)
    if message == NULL:
        return NULL
    message.kind = kind
    message.id = id
    message.bytes = <unsigned char *>(message + 1)
    message.bytes_used = <uint32_t>size
    if size:
        memcpy(message.bytes, bytes, size)
    return message


cdef inline void message_becomes(Message *message, uint32_t kind, uint64_t id) noexcept nogil:
    """Another message in the same memory, with no bytes behind it."""
    message.kind = kind
    message.id = id
    message.bytes_used = 0
    memset(&message.body, 0, sizeof(Body))
