# Sending a file: which blocks of a transfer may leave now, put into the batch as trains.
#
# pump_file() walks a sender's window, as far as its bytes are in memory; the last block is for finals.pxd.
#
# Must not: end a transfer (it may be in use by the caller), wait for anything, or read a mapping.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport (
    CHUNK_ABSENT, CHUNK_BYTES, CHUNK_FAILED, CHUNK_OWNED, CHUNK_READY, Source)
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.disk.jobs cimport store_load
from snow_owl_tftp._engine.disk.resident cimport is_lost
from snow_owl_tftp._engine.includes.threads cimport owl_load8
from snow_owl_tftp._engine.net.batch cimport send_data, TRAIN_BYTES, TRAIN_SEGMENTS
from snow_owl_tftp._engine.protocol.exchange cimport flight_offset
from snow_owl_tftp._engine.protocol.sender cimport flight_send_end
from snow_owl_tftp._engine.worker.finals cimport add_final
from snow_owl_tftp._engine.worker.outbox cimport use_socket
from snow_owl_tftp._engine.worker.queues cimport run_later, wait_for_chunk
from snow_owl_tftp._engine.worker.sent cimport note_sent, rest
from snow_owl_tftp._engine.worker.state cimport Q_NONE, Worker

cdef enum:
    # A transfer sends no more in one turn while others wait (fairness).
    QUANTUM_BYTES = 262144
    QUANTUM_BLOCKS = 256          # a datagram costs the worker about the same, however small it is


cdef inline bint use_socket_for(Worker *w, Transfer *t) noexcept nogil:
    """Makes room for any DATA of `t`.  A flush may have to, and the kernel may refuse what it sends: then `t` may be
    back at an earlier block, so nothing about the message may be computed before.  False: `t` waits for its turn."""
    use_socket(w, t.socket, TRAIN_SEGMENTS)
    return t.queued == Q_NONE


cdef inline int chunk_state(Worker *w, Source *source, uint64_t chunk, uint64_t start, uint64_t end) noexcept nogil:
    """Whether bytes start .. end - 1 of a chunk may be sent; asks for it, and for the one behind, when it is needed."""
    cdef int state = owl_load8(&source.chunks[chunk])
    if state == CHUNK_READY and is_lost(&w.errands, source, chunk, start, end, w.now_ns):
        state = CHUNK_ABSENT
    if state == CHUNK_ABSENT:
        w.errands.owes_kick = 1
        if store_load(w.errands.store, source, <uint32_t>chunk, w.number) < 0:
            w.errands.owes_look = 1
    if chunk + 1 < source.chunk_count and owl_load8(&source.chunks[chunk + 1]) == CHUNK_ABSENT:
        w.errands.owes_kick = 1
        store_load(w.errands.store, source, <uint32_t>chunk + 1, w.number)
    return state


cdef inline bint resident(Worker *w, Transfer *t, uint64_t start, uint64_t end) noexcept nogil:
    """True when bytes start .. end - 1 are in memory; else the transfer waits (or is doomed)."""
    cdef Source *source = t.recipe.source
    cdef uint64_t chunk = start // CHUNK_BYTES
    cdef int state
    while chunk * CHUNK_BYTES < end:
        state = chunk_state(w, source, chunk, start, end)
        if state == CHUNK_FAILED or (state != CHUNK_READY and state != CHUNK_OWNED and source.failed_errno):
            t.doomed = 1
            run_later(w, t)
            return False
        if state != CHUNK_READY and state != CHUNK_OWNED:
            wait_for_chunk(w, t)
            return False
        chunk += 1
    return True


cdef inline uint32_t train_length(Worker *w, Transfer *t, int64_t end) noexcept nogil:
    """How many blocks from `next` to `end` (not the final one) fit one message."""
    cdef uint32_t segment = t.flight.blksize_bytes + 4, most = 1
    cdef int64_t blocks = end - t.flight.next + 1
    if w.tuning.gso and w.tuning.sendmmsg and not t.no_gso:
        most = TRAIN_BYTES // segment
        if most > TRAIN_SEGMENTS:
            most = TRAIN_SEGMENTS
        if most < 1:
            most = 1
    return most if blocks > most else <uint32_t>blocks


cdef inline uint32_t quantum_blocks(const Transfer *t) noexcept nogil:
    """How many blocks a transfer may send in one turn."""
    cdef uint32_t blocks = QUANTUM_BYTES // t.flight.blksize_bytes + 1
    return blocks if blocks < QUANTUM_BLOCKS else QUANTUM_BLOCKS


cdef inline uint32_t turn_blocks(const Worker *w, const Transfer *t) noexcept nogil:
    """The same, and no more than its buckets have granted."""
    cdef uint32_t blocks = quantum_blocks(t)
    if w.quotas.paces and t.credit_blocks < blocks:
        return t.credit_blocks
    return blocks


cdef inline void pump_file(Worker *w, Transfer *t) noexcept nogil:
    """Puts what the window allows into the batch, at most a quantum of it."""
    cdef Source *source = t.recipe.source
    cdef uint32_t blksize = t.flight.blksize_bytes, count, budget = turn_blocks(w, t)
    cdef int64_t end = flight_send_end(&t.flight)
    cdef uint64_t offset
    while t.flight.next <= end:
        if budget == 0:
            run_later(w, t)
            break
        if t.flight.next == t.flight.last:
            offset = flight_offset(&t.flight, t.flight.next)
            if offset == source.size_bytes or resident(w, t, offset, source.size_bytes):
                add_final(w, t)
            break
        if not use_socket_for(w, t):
            break
        offset = flight_offset(&t.flight, t.flight.next)
        count = train_length(w, t, end if end < t.flight.last else t.flight.last - 1)
        count = count if count < budget else budget
        if not resident(w, t, offset, offset + <uint64_t>count * blksize):
            break
        send_data(&w.out, t, t.flight.next, count, source.map + offset, <uint64_t>count * blksize,
                  source.copied)
        note_sent(w, t, count)
        budget -= count
    rest(w, t)
