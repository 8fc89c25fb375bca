# Receiving: payload is gathered in buffers and written by the I/O threads, never by the worker.
#
# A fast upload hands over several buffers at once (two windows, at most 256 KiB): each wake-up of an I/O
# thread costs the worker its core for a moment.  Buffers that wait for company are written at the end.
# Memory is bounded: with max_buffers full buffers of a transfer (two windows) unwritten the ACK
# is held back (ack_owed) until one comes home, so a slow disk slows its own sender and nobody else.
# A load generator's sink holds nothing: it compares each payload with a file of its own (a memfd that
# nobody else can shorten, so reading the mapping is safe).
# Must not: write, allocate beyond one buffer a call, or end the transfer.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from snow_owl_tftp._engine.base.buffers cimport buffers_free
from snow_owl_tftp._engine.base.content cimport Buffer, Sink
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.disk.errands cimport Errands
from snow_owl_tftp._engine.disk.jobs cimport store_write
from snow_owl_tftp._engine.includes.threads cimport owl_add32

cdef enum:
    SINK_OK = 0
    SINK_NO_MEMORY = 1
    SINK_TOO_LARGE = 2
    SINK_DIFFERS = 3


cdef inline int sink_write(Errands *errands, Transfer *t, uint32_t at_least) noexcept nogil:
    """Hands all full buffers to one I/O thread, unless there are fewer than `at_least`, one is writing for us, or there
    is no file yet.

    One at a time: two threads that write to one file only wait for each other on its inode.
    """
    cdef Sink *sink = t.sink
    if sink.writing or sink.fd < 0 or sink.full == NULL or sink.waiting < at_least:
        return SINK_OK
    if store_write(errands.store, sink, sink.full, t.id, errands.worker) < 0:
        return SINK_NO_MEMORY
    errands.owes_kick = 1
    sink.writing = 1
    sink.waiting = 0
    sink.full = NULL
    sink.full_end = NULL
    return SINK_OK


cdef inline int sink_submit(Errands *errands, Transfer *t, uint32_t at_least) noexcept nogil:
    """The buffer being filled is to be written, once `at_least` buffers are full."""
    cdef Sink *sink = t.sink
    cdef Buffer *buffer = sink.filling
    if buffer == NULL or buffer.used == 0:
        return SINK_OK
    sink.filling = NULL
    buffer.next = NULL
    if sink.full == NULL:
        sink.full = buffer
    else:
        sink.full_end.next = buffer
    sink.full_end = buffer
    sink.buffers += 1
    sink.waiting += 1
    return sink_write(errands, t, at_least)


cdef inline int sink_buffer(Sink *sink) noexcept nogil:
    """A buffer to fill; no larger than what is still to come, where the peer told its tsize."""
    cdef uint64_t expected = sink.declared_bytes - sink.received_bytes
    cdef uint32_t size = sink.buffer_bytes if sink.buffer_bytes < expected else <uint32_t>expected
    if sink.filling != NULL:
        return SINK_OK
    sink.filling = sink.spare
    sink.spare = NULL
    if sink.filling == NULL:
        sink.filling = <Buffer *>malloc(sizeof(Buffer) + size)
        if sink.filling == NULL:
            return SINK_NO_MEMORY
        sink.filling.capacity = size
        sink.filling.bytes = <uint8_t *>(sink.filling + 1)
    sink.filling.offset = sink.received_bytes
    sink.filling.used = 0
    return SINK_OK


cdef inline int sink_deliver(Errands *errands, Transfer *t, const uint8_t *payload, uint32_t size) noexcept nogil:
    """The next `size` bytes of the file."""
    cdef Sink *sink = t.sink
    cdef uint64_t total = sink.received_bytes + size
    cdef uint32_t part
    if sink.compared != NULL:
        if total > sink.compared.size_bytes or memcmp(sink.compared.map + sink.received_bytes, payload, size):
            return SINK_DIFFERS
        sink.received_bytes = total
        return SINK_OK
    if (sink.limit_bytes and total > sink.limit_bytes) or total > sink.declared_bytes:
        return SINK_TOO_LARGE
    while size:
        if sink_buffer(sink) != SINK_OK:
            return SINK_NO_MEMORY
        part = sink.filling.capacity - sink.filling.used
        if part > size:
            part = size
        memcpy(sink.filling.bytes + sink.filling.used, payload, part)
        sink.filling.used += part
        sink.received_bytes += part
        payload += part
        size -= part
        if sink.filling.used == sink.filling.capacity and sink_submit(errands, t, sink.gathered) != SINK_OK:
            return SINK_NO_MEMORY
    return SINK_OK


cdef inline void sink_written(Sink *sink, Buffer *buffers, bint more) noexcept nogil:
    """Buffers came back.  While `more` is to come one is kept: malloc would give its pages to the kernel and ask
    for them again."""
    cdef Buffer *rest = buffers
    if more and buffers != NULL and sink.spare == NULL:
        sink.spare = buffers
        rest = buffers.next
        buffers.next = NULL
        sink.buffers -= 1
    sink.buffers -= buffers_free(rest)
    sink.writing = 0
    if not more:
        free(sink.spare)
        sink.spare = NULL


cdef inline void sink_free(Sink *sink) noexcept nogil:
    """Only when no I/O thread writes for it.  The descriptor is Python's."""
    if sink != NULL:
        buffers_free(sink.full)
        owl_add32(sink.live, -1)
        free(sink.filling)
        free(sink.spare)
        free(sink)
