# The store: files being sent and received, and the I/O threads that touch the disk so that no worker ever has to.
#
#   sources   who uses a file, and which of them linger          jobs     what I/O threads are asked to do, in lanes
#   opening   a descriptor becomes a source                      threads  who does it
#   reading   a chunk is made resident; copies: in our memory    watching who hangs, who waits in vain; expiry
#   writing   what was received goes to the disk
#
# The files of this room are compiled into this module, and what workers call (store_load, store_use ...) into theirs.
# The watch thread starts I/O threads, has idle files closed, and looks who hangs: what waited in vain fails with EBUSY,
# and a thread that never returns is left behind.
#
# Must not: block a worker (store_load and store_write only append to a list), ask a file server anything but on an
# I/O thread (open, map, close), or touch the GIL.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.content cimport CHUNK_BYTES, Source
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.disk.expiry cimport expire_sources
from snow_owl_tftp._engine.disk.jobs cimport append, store_kick
from snow_owl_tftp._engine.disk.lanes cimport JOB_CLOSE, Job, any_lane_may_run, lane_is_sick, lane_of
from snow_owl_tftp._engine.disk.opening cimport find_source, put_source, source_new
from snow_owl_tftp._engine.disk.reading cimport map_compared
from snow_owl_tftp._engine.disk.sources cimport SOURCE_BUCKETS, source_wanted
from snow_owl_tftp._engine.disk.state cimport COPIES, KEPT, STOP_FINISH, STOP_NOW, Store
from snow_owl_tftp._engine.disk.threads cimport set_time, start_thread, store_free
from snow_owl_tftp._engine.disk.watching cimport give_up, look_at_threads, sleep_until_due, take_in_vain
from snow_owl_tftp._engine.includes.files cimport owl_file, owl_look, owl_open_pagemap
from snow_owl_tftp._engine.includes.net cimport EBUSY, ECANCELED, EFBIG, EINVAL, ENOMEM, close, errno, timespec
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_broadcast, pthread_cond_t, pthread_cond_timedwait, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock, owl_add32, owl_store32)

cdef enum:
    MAX_SOURCE_CHUNKS = 0x8000000  # 64 TiB: half of what a process can map
    MAX_SOURCES = 16384           # mappings are limited too (vm.max_map_count, 65,530)
    MIN_SOURCES = 16
    OTHER_DESCRIPTORS = 128       # sockets, logs, libraries; an idle server has about 50

cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <sys/resource.h>
    /* How many files this process may have open. */
    static inline uint64_t owl_descriptor_limit(void) {
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);                    /* cannot fail: the resource exists */
        return limit.rlim_cur;
    }
    static inline int owl_monotonic_cond(pthread_cond_t *cond) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);                        /* cannot fail on Linux */
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        return pthread_cond_init(cond, &attr);
    }
    """
    int owl_monotonic_cond(pthread_cond_t *)
    uint64_t owl_descriptor_limit()


cdef uint32_t most_sources(uint64_t descriptors) noexcept nogil:
    """How many files may be open before those that nobody uses have to go: uploads and pipes need descriptors too."""
    cdef uint64_t most = descriptors // 2
    if most + OTHER_DESCRIPTORS > descriptors:
        most = descriptors - OTHER_DESCRIPTORS if descriptors > OTHER_DESCRIPTORS else 0
    if most < MIN_SOURCES:
        return MIN_SOURCES
    return <uint32_t>most if most < MAX_SOURCES else <uint32_t>MAX_SOURCES


cdef int store_init(Store *store, Queue *inboxes, uint32_t workers, uint64_t linger_ns, uint32_t io_threads,
                    uint64_t patience_ns) noexcept nogil:
    memset(store, 0, sizeof(Store))
    pthread_mutex_init(&store.mutex, NULL)       # cannot fail: default attributes on Linux
    store.workers = inboxes
    store.worker_count = workers
    store.linger_ns = linger_ns
    store.patience_ns = patience_ns
    store.lanes.share = io_threads
    store.max_sources = most_sources(owl_descriptor_limit())
    store.copies.count = COPIES
    store.kept.count = KEPT
    store.pagemap = owl_open_pagemap()
    store.buckets = <Source **>calloc(SOURCE_BUCKETS, sizeof(Source *))
    store.turns = <uint32_t *>calloc(workers, sizeof(uint32_t))
    if store.buckets == NULL or store.turns == NULL:
        return -1
    if owl_monotonic_cond(&store.watch) != 0 or owl_monotonic_cond(&store.left) != 0:
        return -1
    return owl_monotonic_cond(&store.work)


cdef bint store_is_sick(Store *store, uint64_t device) noexcept nogil:
    """So much hangs on a device that what is asked of it now would wait in vain."""
    cdef bint is_sick
    pthread_mutex_lock(&store.mutex)
    is_sick = store.hung_threads != 0 and lane_is_sick(lane_of(&store.lanes, device))
    pthread_mutex_unlock(&store.mutex)
    return is_sick


cdef void store_discard(Store *store, int fd) noexcept nogil:
    """Closes a file's descriptor on an I/O thread: FUSE and NFS tell their server, and wait for its answer."""
    cdef owl_file file
    discard_on(store, fd, file.device if owl_look(fd, &file) == 0 else 0)


cdef void discard_on(Store *store, int fd, uint64_t device) noexcept nogil:
    """As store_discard, of a file whose device is known."""
    cdef Job *job = <Job *>calloc(1, sizeof(Job)) if store.thread_count else NULL
    if job == NULL:
        close(fd)
        return
    job.kind = JOB_CLOSE
    job.fd = fd
    job.device = device
    append(store, job)
    store_kick(store)


cdef int store_open(Store *store, int fd, uint64_t size_bytes, bint is_compared, Source **out) noexcept nogil:
    """The source of `fd`, for the caller to use (store_unuse) and to refer to (store_release).

    Takes the descriptor over, also when it fails.  Returns 0 or an errno; EINVAL: the size is another one now,
    EFBIG: more than MAX_SOURCE_CHUNKS (on tmpfs a file of holes may have 8 EiB).
    """
    cdef owl_file file
    cdef Source *source
    cdef int error
    cdef bint is_near = False
    if owl_look(fd, &file) < 0:
        error = errno
        store_discard(store, fd)
        return error
    if file.size_bytes != size_bytes or size_bytes > <uint64_t>MAX_SOURCE_CHUNKS * CHUNK_BYTES:
        store_discard(store, fd)
        return EINVAL if file.size_bytes != size_bytes else EFBIG
    if store.hung_threads and store_is_sick(store, file.device):
        store_discard(store, fd)
        return EBUSY
    pthread_mutex_lock(&store.mutex)
    source = find_source(store, &file)
    if source != NULL:
        if owl_add32(&source.users, 1) == 1:
            source_wanted(store, source)
        owl_add32(&source.refs, 1)
        is_near = source.near
    else:
        source = source_new(fd, &file)
        if source != NULL:
            put_source(store, source)
            fd = -1
    pthread_mutex_unlock(&store.mutex)
    if fd >= 0 and is_near:
        close(fd)                                # each request of a storm opens it; to wake a thread costs more
    elif fd >= 0:
        discard_on(store, fd, file.device)
    if source == NULL:
        return ENOMEM
    out[0] = source
    return map_compared(store, source) if is_compared else 0


cdef void store_watch(Store *store) noexcept nogil:
    """The life of the watch thread, which asks no file anything."""
    cdef Job *jobs
    cdef uint64_t next_ns
    pthread_mutex_lock(&store.mutex)
    while not store.stopping:
        while store.thread_count <= store.lanes.share and start_thread(store):
            pass
        if store.idle_threads + store.starting_threads == 0:
            start_thread(store)                  # one is always there for a device that is well
        look_at_threads(store, clock_ns())
        jobs = take_in_vain(store, False)
        if jobs != NULL:
            pthread_mutex_unlock(&store.mutex)
            give_up(store, jobs, EBUSY)
            pthread_mutex_lock(&store.mutex)
        if expire_sources(store, clock_ns(), &next_ns):
            store_kick(store)
        sleep_until_due(store, next_ns)
    pthread_mutex_unlock(&store.mutex)


cdef bint wait_for_the_last(Store *store, uint64_t wait_ns) noexcept nogil:
    """Under the mutex.  False: some hang."""
    cdef timespec until
    set_time(&until, clock_ns() + wait_ns)
    while store.thread_count and pthread_cond_timedwait(&store.left, &store.mutex, &until) == 0:
        pass
    return store.thread_count == 0


cdef void store_give_up(Store *store) noexcept nogil:
    """Whatever is queued and nobody has begun is done in vain: the I/O threads are to leave, or have left."""
    cdef Job *jobs
    pthread_mutex_lock(&store.mutex)
    owl_store32(&store.stopping, STOP_NOW)
    jobs = take_in_vain(store, True)
    pthread_mutex_unlock(&store.mutex)
    give_up(store, jobs, ECANCELED)


cdef bint store_stop(Store *store, uint64_t wait_ns) noexcept nogil:
    """The I/O threads finish what is queued and leave; who does not within `wait_ns` is left behind: then False.

    A worker may ask for more before it ends: store_give_up(), behind it.
    """
    cdef bint all_left
    pthread_mutex_lock(&store.mutex)
    owl_store32(&store.stopping, STOP_FINISH)
    pthread_cond_broadcast(&store.work)
    pthread_cond_broadcast(&store.watch)
    all_left = wait_for_the_last(store, wait_ns)
    pthread_mutex_unlock(&store.mutex)
    store_give_up(store)
    return all_left


cdef void store_abandon(Store *store, uint64_t wait_ns) noexcept nogil:
    """Frees the store and the inboxes; after the workers and the watch thread.

    What is still open is closed by a thread, which may hang: then the last one frees, whenever that is.
    """
    cdef bint is_last
    store_give_up(store)
    pthread_mutex_lock(&store.mutex)
    if store.thread_count == 0 and (store.source_count or any_lane_may_run(&store.lanes)):
        start_thread(store)
        wait_for_the_last(store, wait_ns)
    is_last = store.thread_count == 0
    store.orphaned = not is_last
    pthread_mutex_unlock(&store.mutex)
    if is_last:
        store_free(store)
