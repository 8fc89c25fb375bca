# Files being sent and received, and the I/O threads that touch the disk so that no worker ever has to.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from snow_owl_tftp._engine.data cimport Buffer, Message, Recipe, Sink, Source
from snow_owl_tftp._engine.includes.threads cimport pthread_cond_t, pthread_mutex_t
from snow_owl_tftp._engine.queue cimport Queue

cdef enum:                        # Job.kind
    JOB_LOAD = 1                  # this chunk of this source
    JOB_WRITE = 2                 # this buffer into this descriptor, for this transfer
    JOB_CLOSE = 3                 # this descriptor

cdef enum:
    COPIES = 256                  # chunks of files that cannot be mapped, at most: 128 MiB
    KEPT = 16                     # chunks that the kernel evicts again and again: 8 MiB, since memory is short

cdef struct Copy:
    # A chunk whose bytes lie in memory of our own.
    Source *source                # NULL: none
    uint32_t chunk

cdef struct Copies:
    Copy places[256]
    uint32_t count                # so many of them are used
    uint32_t hand                 # the one that makes room next

cdef struct Job:
    Job *next
    uint32_t kind
    Source *source
    uint32_t chunk
    uint32_t worker               # who asked
    Buffer *buffer
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
    uint64_t loads_total, writes_total, evictions_total, copies_total
    Copies copies                 # of files that cannot be mapped
    Copies kept                   # of mapped files, in the place of what was mapped
    int pagemap                   # for so_in_page_table(), -1: nothing is looked at
    uint32_t *turns               # of each worker: odd while it is in a turn, and may be sending from a chunk

cdef int store_init(Store *store, Queue *inboxes, uint32_t workers, uint64_t linger_ns) noexcept nogil
cdef void store_close(Store *store) noexcept nogil
cdef void store_stop(Store *store) noexcept nogil
cdef void store_kick(Store *store) noexcept nogil
cdef void store_io_thread(Store *store) noexcept nogil
cdef int store_open(Store *store, int fd, uint64_t size_bytes, bint is_compared, Source **out) noexcept nogil
cdef void store_discard(Store *store, int fd) noexcept nogil
cdef bint store_use(Store *store, Source *source) noexcept nogil
cdef void store_unuse(Store *store, Source *source) noexcept nogil
cdef void store_release(Source *source) noexcept nogil
cdef int store_load(Store *store, Source *source, uint32_t chunk, uint32_t worker) noexcept nogil
cdef int store_write(Store *store, Sink *sink, Buffer *buffer, uint64_t transfer_id, uint32_t worker) noexcept nogil
cdef void recipe_release(Store *store, Recipe *recipe, Queue *outbox) noexcept nogil
cdef void recipe_forget(Recipe *recipe, Queue *outbox) noexcept nogil
cdef bint source_is_fresh(const Source *source) noexcept nogil
cdef bint source_is_changed(Source *source) noexcept nogil
