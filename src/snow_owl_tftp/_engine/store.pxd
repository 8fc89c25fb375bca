# Files being sent and received, and the I/O threads that touch the disk so that no worker ever has to.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from snow_owl_tftp._engine.data cimport Buffer, Message, Recipe, Sink, Source
from snow_owl_tftp._engine.includes.threads cimport pthread_cond_t, pthread_mutex_t
from snow_owl_tftp._engine.queue cimport Queue

cdef struct Job:
    Job *next
    Source *source                # load: this chunk of this source ...
    uint32_t chunk
    uint32_t worker               # who asked
    Buffer *buffer                # ... or write: this buffer into this sink, for this transfer
    int fd
    uint64_t transfer_id

cdef struct Store:
    pthread_mutex_t mutex
    pthread_cond_t work
    Job *head
    Job *tail
    Source **buckets              # sources in use and lingering, by device and inode; SOURCE_BUCKETS of them
    Source *idle_first            # those that linger, in the order in which they go
    Source *idle_last
    uint32_t source_count, idle_count
    uint32_t max_sources          # of more than that, those that linger go at once, the oldest first
    uint64_t linger_ns            # how long an unused source stays open
    uint32_t stopping
    Queue *workers                # array of the workers' inboxes
    uint32_t worker_count
    uint64_t loads_total, writes_total, evictions_total

cdef int store_init(Store *store, Queue *inboxes, uint32_t workers, uint64_t linger_ns) noexcept nogil
cdef void store_close(Store *store) noexcept nogil
cdef void store_stop(Store *store) noexcept nogil
cdef void store_kick(Store *store) noexcept nogil
cdef void store_io_thread(Store *store) noexcept nogil
cdef int store_open(Store *store, int fd, uint64_t size_bytes, Source **out) noexcept nogil
cdef bint store_use(Store *store, Source *source) noexcept nogil
cdef void store_unuse(Store *store, Source *source) noexcept nogil
cdef void store_release(Source *source) noexcept nogil
cdef int store_load(Store *store, Source *source, uint32_t chunk, uint32_t worker) noexcept nogil
cdef int store_write(Store *store, Sink *sink, Buffer *buffer, uint64_t transfer_id, uint32_t worker) noexcept nogil
cdef void recipe_release(Store *store, Recipe *recipe, Queue *outbox) noexcept nogil
cdef void recipe_forget(Recipe *recipe, Queue *outbox) noexcept nogil
cdef bint source_is_fresh(const Source *source) noexcept nogil
cdef bint source_is_changed(Source *source) noexcept nogil
