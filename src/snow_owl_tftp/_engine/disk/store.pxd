# What the engine calls of the store: made, filled, watched, ended.

from libc.stdint cimport uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.disk.state cimport Store

cdef int store_init(Store *store, Queue *inboxes, uint32_t workers, uint64_t linger_ns, uint32_t io_threads,
                    uint64_t patience_ns) noexcept nogil
cdef void store_abandon(Store *store, uint64_t wait_ns) noexcept nogil
cdef void store_give_up(Store *store) noexcept nogil
cdef bint store_stop(Store *store, uint64_t wait_ns) noexcept nogil
cdef bint store_is_sick(Store *store, uint64_t device) noexcept nogil
cdef void store_watch(Store *store) noexcept nogil
cdef int store_open(Store *store, int fd, uint64_t size_bytes, bint is_compared, Source **out) noexcept nogil
cdef void store_discard(Store *store, int fd) noexcept nogil
