# Receiving: payload is gathered in buffers and written by the I/O threads, never by the worker.
#
# Memory is bounded: with max_jobs buffers of a transfer (two windows) with the I/O threads the ACK
# is held back (ack_owed) until one comes home, so a slow disk slows its own sender and nobody else.
# A load generator's sink holds nothing: it compares each payload with a file of its own (a memfd that
# nobody else can shorten, so reading the mapping is safe).
# Must not: write, allocate beyond one buffer a call, or end the transfer.

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from snow_owl_tftp._engine.data cimport Buffer, Sink, Transfer
from snow_owl_tftp._engine.includes.threads cimport so_add32
from snow_owl_tftp._engine.store cimport store_write
from snow_owl_tftp._engine.worker cimport Worker

cdef enum:
    SINK_BUFFER_BYTES = 65536     # small enough to be written out of the cache it was filled in
    SINK_OK = 0
    SINK_NO_MEMORY = 1
    SINK_TOO_LARGE = 2
    SINK_DIFFERS = 3


cdef inline int sink_submit(Worker *w, Transfer *t) noexcept nogil:
    """Hands the buffer being filled to the I/O threads."""
    cdef Sink *sink = t.sink
    cdef Buffer *buffer = sink.filling
    if buffer == NULL or buffer.used == 0:
        return SINK_OK
    if store_write(w.store, sink, buffer, t.id, w.number) < 0:
        return SINK_NO_MEMORY
    sink.filling = NULL
    sink.jobs += 1
    return SINK_OK


cdef inline int sink_buffer(Sink *sink) noexcept nogil:
    if sink.filling != NULL:
        return SINK_OK
    sink.filling = <Buffer *>malloc(sizeof(Buffer) + SINK_BUFFER_BYTES)
    if sink.filling == NULL:
        return SINK_NO_MEMORY
    sink.filling.offset = sink.received_bytes
    sink.filling.used = 0
    sink.filling.capacity = SINK_BUFFER_BYTES
    sink.filling.bytes = <uint8_t *>(sink.filling + 1)
    return SINK_OK


cdef inline int sink_deliver(Worker *w, Transfer *t, const uint8_t *payload, uint32_t size) noexcept nogil:
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
        if sink.filling.used == sink.filling.capacity and sink_submit(w, t) != SINK_OK:
            return SINK_NO_MEMORY
    return SINK_OK


cdef inline void sink_free(Sink *sink) noexcept nogil:
    """Only when no buffer is with the I/O threads.  The descriptor is Python's."""
    if sink != NULL:
        so_add32(sink.live, -1)
        free(sink.filling)
        free(sink)
