# The store as a struct: files in use, jobs by device, and the threads that do them.
#
# Under `mutex`, unless said otherwise.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.disk.lanes cimport IoThread, Lanes
from snow_owl_tftp._engine.includes.threads cimport pthread_cond_t, pthread_mutex_t

cdef enum:
    COPIES = 256                  # chunks of files that cannot be mapped, at most: 128 MiB
    KEPT = 16                     # chunks that the kernel evicts again and again: 8 MiB, since memory is short

cdef struct Copy:
    # A chunk whose bytes lie in memory of our own.
    Source *source                # NULL: none
    uint32_t chunk

cdef enum:                        # Store.stopping
    STOP_FINISH = 1               # what is queued is finished
    STOP_NOW = 2                  # what is queued is dropped, who hangs is left behind

cdef struct Copies:
    Copy places[256]
    uint32_t count                # so many of them are used
    uint32_t hand                 # the one that makes room next

cdef struct Store:
    pthread_mutex_t mutex
    pthread_cond_t work           # for I/O threads: there is a job
    pthread_cond_t watch          # for the watch thread: there is something to look at
    pthread_cond_t left           # for who stops: a thread has left
    Lanes lanes
    IoThread threads[160]         # MAX_THREADS places
    uint32_t thread_count, idle_threads, starting_threads, hung_threads
    uint8_t wake                  # atomic: a job was added that an idle thread may take
    uint8_t watch_sleeps          # 1: the watch thread must be woken when a job begins
    uint64_t patience_ns          # how long a read may take before who waits for it is refused
    Source **buckets              # sources in use and lingering, by device and inode; SOURCE_BUCKETS of them
    Source *idle_first            # those that linger, in the order in which they go
    Source *idle_last
    uint32_t source_count, idle_count
    uint32_t max_sources          # of more than that, those that linger go at once, the oldest first
    uint64_t linger_ns            # how long an unused source stays open
    uint32_t stopping             # atomic: STOP_...
    uint32_t orphaned             # 1: the engine is gone, and who leaves last frees everything
    Queue *workers                # array of the workers' inboxes
    uint32_t worker_count
    uint64_t loads_total, writes_total, evictions_total, copies_total
    uint64_t expired_total        # jobs that somebody waited for in vain
    Copies copies                 # of files that cannot be mapped
    Copies kept                   # of mapped files, in the place of what was mapped
    int pagemap                   # for owl_in_page_table(), -1: nothing is looked at
    uint32_t *turns               # of each worker: odd while it is in a turn, and may be sending from a chunk
