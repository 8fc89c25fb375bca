# Lists of buffers on their way to a file: workers fill them, I/O threads write them, whoever is last frees.

from libc.stdint cimport uint32_t
from libc.stdlib cimport free
from snow_owl_tftp._engine.base.content cimport Buffer


cdef inline uint32_t buffers_free(Buffer *buffer) noexcept nogil:
    """Frees a list; returns how many there were."""
    cdef uint32_t n = 0
    cdef Buffer *following
    while buffer != NULL:
        following = buffer.next
        free(buffer)
        buffer = following
        n += 1
    return n
