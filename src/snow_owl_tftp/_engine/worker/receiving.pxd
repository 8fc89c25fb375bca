# DATA of an upload, or of a file that we asked for: into buffers, onto the disk, and then Python's commit.
#
# The ACK waits while the disk is behind.  Nothing is acknowledged for good that was not written; what the disk owes
# has a deadline of its own (owe_verdict).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from snow_owl_tftp._engine.base.buffers cimport buffers_free
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.messages cimport (
    M_FIRST_DATA, M_RECEIVED, Message, OUT_ABORTED, OUT_CHANGED, OUT_LOCAL_IO_ERROR, OUT_OK, message_new)
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.base.quotas cimport OF_CLIENT
from snow_owl_tftp._engine.base.transfer cimport (
    T_ACTIVE, T_COMMITTING, T_DALLY, T_ENDING, T_FLUSHING, T_STUCK, Transfer)
from snow_owl_tftp._engine.disk.sink cimport (
    SINK_DIFFERS, SINK_NO_MEMORY, SINK_OK, SINK_TOO_LARGE, sink_deliver, sink_submit, sink_write, sink_written)
from snow_owl_tftp._engine.includes.net cimport EDQUOT, EFBIG, ENOMEM, ENOSPC
from snow_owl_tftp._engine.memory.slab cimport transfer_by_id
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.protocol.exchange cimport flight_restart_clocks
from snow_owl_tftp._engine.protocol.receiver cimport receiver_on_data
from snow_owl_tftp._engine.protocol.seq cimport seq_block
from snow_owl_tftp._engine.protocol.window cimport (
    ACT_ACK, ACT_DELIVER, ACT_DUPLICATE, ACT_FINAL, RECEIVER, flight_check)
from snow_owl_tftp._engine.worker.completions cimport complete
from snow_owl_tftp._engine.worker.control cimport send_ack
from snow_owl_tftp._engine.worker.life cimport end, fail, owe_verdict, release, tell_released
from snow_owl_tftp._engine.worker.limits cimport may_go_on
from snow_owl_tftp._engine.worker.pacing cimport keep_held, pace
from snow_owl_tftp._engine.worker.speakers cimport on_spoken
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void acknowledge(Worker *w, Transfer *t) noexcept nogil:
    """The ACK that is due, unless the disk is behind, or it is not its turn at a bucket."""
    if t.sink.buffers >= t.sink.max_buffers:
        t.sink.ack_owed = 1
        if t.held_ns == 0:
            t.held_ns = w.now_ns
        return
    if w.quotas.paces and not may_acknowledge(w, t):
        return
    send_ack(w, t, t.flight.next - 1)


cdef inline bint may_acknowledge(Worker *w, Transfer *t) noexcept nogil:
    """Whether the buckets have tokens for what has arrived since the last ACK; else the ACK is held back."""
    cdef int64_t blocks = t.flight.next - t.paid_next
    if t.held:
        keep_held(w, t)
        return False
    if t.paced_stage == OF_CLIENT:
        t.paid_next = t.flight.next
        if blocks <= 0:
            return True                          # what it repeats was paid for
    return pace(w, t, t.flight.windowsize if blocks > t.flight.windowsize else <uint32_t>blocks)


cdef inline int ask_for_sink(Worker *w, Transfer *t) noexcept nogil:
    """The first DATA of a file that is not open yet: Python opens it.  -1 when there is no memory."""
    cdef Message *m = message_new(M_FIRST_DATA, t.id, NULL, 0)
    if m == NULL:
        return -1
    t.sink.asked = 1
    m.worker = w.number
    m.recipe = t.recipe                          # borrowed: its Completion comes behind
    queue_push(w.outbox, m)
    return 0


cdef inline void flush_sink(Worker *w, Transfer *t) noexcept nogil:
    """The last block is here: write what is left, then let Python commit."""
    cdef Message *m
    if t.sink.compared != NULL:
        send_ack(w, t, t.flight.last)
        if t.sink.received_bytes != t.sink.compared.size_bytes:
            fail(w, t, OUT_CHANGED, 0, 0, b"content differs")
        else:
            end(w, t, OUT_OK, 0, NULL, 0)
        return
    if sink_submit(&w.errands, t, 1) != SINK_OK or sink_write(&w.errands, t, 1) != SINK_OK:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
        return
    owe_verdict(w, t, T_FLUSHING)
    if t.sink.buffers or t.sink.fd < 0:
        return
    owe_verdict(w, t, T_COMMITTING)
    m = message_new(M_RECEIVED, t.id, NULL, 0)
    if m == NULL:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
        return
    m.worker = w.number
    m.body.received.payload_bytes = t.sink.received_bytes
    m.recipe = t.recipe                          # borrowed: the transfer keeps its reference until the commit
    queue_push(w.outbox, m)


cdef inline bint deliver(Worker *w, Transfer *t, const uint8_t *payload, uint32_t size) noexcept nogil:
    """The next bytes of the file; False: the transfer has ended."""
    cdef int result = SINK_OK
    w.counters.blocks_received += 1
    if t.sink.fd < 0 and not t.sink.asked and ask_for_sink(w, t) < 0:
        result = SINK_NO_MEMORY
    if result == SINK_OK:
        result = sink_deliver(&w.errands, t, payload, size)
    if result == SINK_DIFFERS:
        fail(w, t, OUT_CHANGED, 0, 0, b"content differs")
    elif result == SINK_TOO_LARGE:
        fail(w, t, OUT_ABORTED, EFBIG, 3, b"more data than announced or allowed")
    elif result != SINK_OK:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
    return result == SINK_OK


cdef inline void on_data(Worker *w, Transfer *t, uint16_t block, const uint8_t *payload, uint32_t size) noexcept nogil:
    cdef int act
    if t.flight.role != RECEIVER:
        return
    if t.state == T_DALLY:
        if block == seq_block(t.flight.last, t.flight.rollover):
            send_ack(w, t, t.flight.last)
        return
    if t.state != T_ACTIVE:
        return
    if size > t.flight.blksize_bytes:
        fail(w, t, OUT_ABORTED, 0, 4, b"DATA longer than the block size")
        return
    act = receiver_on_data(&t.flight, &w.retransmit, block, size, w.now_ns)
    OWL_INVARIANT(flight_check(&t.flight))
    on_spoken(w, t, act & ACT_FINAL)
    if act & ACT_DUPLICATE:
        t.duplicate_acks += 1
    if act & ACT_DELIVER and not deliver(w, t, payload, size):
        return
    if act & ACT_FINAL:
        flush_sink(w, t)
        return
    if t.recounts and act & ACT_ACK and not may_go_on(w, t):
        return
    if act & ACT_ACK:
        acknowledge(w, t)
    elif t.held:
        keep_held(w, t)
    wheel_update(&w.wheel, t)


cdef inline bint awaits_sink(const Transfer *t) noexcept nogil:
    """Whether Python was told of its first DATA, and has not answered."""
    return (t.state == T_ACTIVE or t.state == T_FLUSHING) and t.sink != NULL and t.sink.fd < 0 and t.sink.asked


cdef inline void write_on(Worker *w, Transfer *t) noexcept nogil:
    """The disk has done something, or the file is open: the next buffers, and what was held back meanwhile."""
    if sink_write(&w.errands, t, 1 if t.state == T_FLUSHING else t.sink.gathered) != SINK_OK:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
    elif t.state == T_FLUSHING:
        owe_verdict(w, t, T_FLUSHING)
        if t.sink.buffers == 0:
            flush_sink(w, t)
    elif t.sink.ack_owed and t.state == T_ACTIVE and t.sink.buffers < t.sink.max_buffers:
        t.sink.ack_owed = 0
        t.held_ns = 0
        # Its silence was ours: from here on it has all the time there is.
        flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
        acknowledge(w, t)
        wheel_update(&w.wheel, t)
    elif t.sink.ack_owed:
        t.held_ns = w.now_ns                     # it is slow, but it goes on


cdef inline void fail_sink(Worker *w, Transfer *t) noexcept nogil:
    cdef int error = t.sink.error
    if error == ENOSPC or error == EDQUOT or error == EFBIG:
        fail(w, t, OUT_LOCAL_IO_ERROR, error, 3, b"disk full or allocation exceeded")
    else:
        fail(w, t, OUT_LOCAL_IO_ERROR, error, 0, b"I/O error while writing the file")


cdef inline void on_written(Worker *w, Message *m) noexcept nogil:
    """Buffers came back from the disk."""
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    if t == NULL or t.sink == NULL:
        buffers_free(m.body.written.buffers)
        return
    sink_written(t.sink, m.body.written.buffers, t.state == T_ACTIVE)
    if m.body.written.error and not t.sink.error:
        t.sink.error = m.body.written.error
    if t.state == T_STUCK:
        tell_released(w, t)
    elif t.state == T_ENDING:
        complete(w, t, t.ending)
        release(w, t)
    elif t.sink.error:
        fail_sink(w, t)
    else:
        write_on(w, t)
