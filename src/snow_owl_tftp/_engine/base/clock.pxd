# The clock that every time in the engine is of: CLOCK_MONOTONIC, in nanoseconds.

from libc.stdint cimport uint64_t
from snow_owl_tftp._engine.includes.net cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef inline uint64_t clock_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)           # cannot fail: the clock exists
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec
