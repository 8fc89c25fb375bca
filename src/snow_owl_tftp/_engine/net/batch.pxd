# Batched system calls: datagrams in, datagrams out, and nothing about TFTP.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.counters cimport Counters
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.includes.net cimport iovec, mmsghdr

cdef enum:
    SEND_MESSAGES = 128           # per sendmmsg; a message is a datagram or a train
    TRAIN_SEGMENTS = 64           # kernels before 6.9 take no more (UDP_MAX_SEGMENTS)
    TRAIN_BYTES = 65000           # below 65507, the most that IPv4 carries
    SCRATCH_BYTES = 1280          # per message: OACK, ACK or ERROR; the largest we are given is a request
    CONTROL_BYTES = 96            # one PKTINFO and one UDP_SEGMENT
    STAGING_BYTES = 1048576       # final blocks, copied before they are sent

cdef struct Tuning:
    # Live settings: Python writes one, every worker copies it at the start of a turn and reads its copy.
    uint32_t recvmmsg, sendmmsg, gso, flows   # 0 or 1
    uint32_t max_batch            # datagrams per recvmmsg, 1..1024
    uint32_t linger_us            # 0..10000
    uint32_t adaptive             # 0 or 1
    uint32_t adaptive_threshold   # live transfers of a worker
    uint32_t tell_modes           # 0 or 1: somebody reads M_MODE

cdef struct SendItem:
    Transfer *owner               # NULL: nobody's (an answer to a stranger)
    uint64_t owner_id
    int64_t first                 # DATA: the first block_index in the message; -1: a control packet
    uint32_t count                # DATA: how many blocks
    int64_t sent_end              # DATA: the owner's before this message
    uint8_t staged                # the payload lies in our memory, not in the mapping

cdef struct SendBatch:
    int32_t socket                # index in the worker; all messages leave from it
    int fd
    uint64_t serial               # one more with every flush; from 1, so that no new transfer seems to be in it
    uint32_t count
    uint32_t iov_used
    uint32_t staging_used
    mmsghdr *messages
    SendItem *items
    Peer *peers
    iovec *iov                    # two a segment: header and payload
    uint8_t *headers              # four bytes a segment
    uint8_t *scratch
    uint8_t *control
    uint8_t *staging
    uint8_t *flat                 # one whole datagram, for plain sendto

cdef struct ReceiveBatch:
    uint32_t capacity             # slots
    uint32_t slot_bytes
    uint32_t stride_bytes         # from slot to slot
    uint32_t used                 # slots to be reset before the next call
    bint with_control             # what they were set up for
    mmsghdr *messages
    iovec *iov
    Peer *peers
    uint8_t *control
    uint8_t *buffers

cdef int send_init(SendBatch *batch) noexcept nogil
cdef void send_free(SendBatch *batch) noexcept nogil
cdef bint send_has_room(SendBatch *batch, uint32_t segments) noexcept nogil
cdef uint8_t *send_control(SendBatch *batch, const Peer *peer, const Local *local, Transfer *owner,
                           uint32_t size) noexcept nogil
cdef void send_data(SendBatch *batch, Transfer *owner, int64_t first, uint32_t count, uint8_t *payload,
                    uint64_t size, bint staged) noexcept nogil
cdef void send_forget(SendBatch *batch, uint32_t at, const Transfer *owner) noexcept nogil
cdef int send_from(SendBatch *batch, uint32_t *at, const Tuning *tuning, Counters *counters) noexcept nogil
cdef int receive_init(ReceiveBatch *batch, uint32_t capacity, uint32_t slot_bytes) noexcept nogil
cdef void receive_free(ReceiveBatch *batch) noexcept nogil
cdef int receive(ReceiveBatch *batch, int fd, bint wants_control, const Tuning *tuning,
                 Counters *counters) noexcept nogil
cdef uint32_t received_segment(ReceiveBatch *batch, uint32_t i) noexcept nogil
cdef bint may_be_anothers(int error) noexcept nogil
cdef int receive_error(int fd, Peer *peer) noexcept nogil
cdef void received_local(ReceiveBatch *batch, uint32_t i, Local *local) noexcept nogil
