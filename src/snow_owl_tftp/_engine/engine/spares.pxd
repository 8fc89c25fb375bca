# Messages that are put by: answers that can be given while there is no memory.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from snow_owl_tftp._engine.base.messages cimport Message, message_becomes, message_new

cdef enum:
    SPARES = 64
    SPARE_BYTES = 520             # an ERROR with the longest text

cdef struct Spares:
    Message *first
    uint32_t count


cdef inline void spares_fill(Spares *spares) noexcept:
    """As far as there is memory."""
    cdef char room[520]
    cdef Message *m
    memset(room, 0, sizeof(room))
    while spares.count < SPARES:
        m = message_new(0, 0, room, SPARE_BYTES)
        if m == NULL:
            return
        m.next = spares.first
        spares.first = m
        spares.count += 1


cdef inline void spares_free(Spares *spares) noexcept:
    cdef Message *m
    while spares.first != NULL:
        m = spares.first
        spares.first = m.next
        free(m)


cdef inline Message *message_or_spare(Spares *spares, uint32_t kind, uint64_t id, const void *bytes,
                                      uint32_t size) noexcept:
    """As message_new(), from what was put by where there is no memory; NULL: nothing is left, or it is too long."""
    cdef Message *m = message_new(kind, id, bytes, size)
    if m != NULL:
        return m
    m = spares.first
    if m == NULL or size > SPARE_BYTES:
        return NULL
    spares.first = m.next
    spares.count -= 1
    m.next = NULL
    message_becomes(m, kind, id)
    m.bytes_used = size
    memcpy(m.bytes, bytes, size)
    return m
