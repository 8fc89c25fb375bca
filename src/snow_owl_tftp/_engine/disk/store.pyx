# Files being sent and received, and the I/O threads.
#
# A Source is one open, mapped file for all transfers of it.  Its pages are made resident chunk by chunk
# by madvise(MADV_POPULATE_READ) on an I/O thread: unlike a page fault in sendmmsg it cannot stall a
# worker, and unlike preadv2(RWF_NOWAIT) it works on tmpfs too.  The mapping is read by the kernel alone
# (sendmmsg copies from it): a page behind a new end of file is EFAULT there, and would be SIGBUS here.
#
# A file that cannot be mapped (FUSE with direct I/O), whose pages its server may drop (FUSE does at every open: the
# worker's own sendmmsg would fetch them again), or whose holes a mapping would fill with blocks (on tmpfs for ever)
# is read into memory of our own instead, chunk by chunk, COPIES of them at most: the oldest gives its memory
# back, after every worker has left the turn in which it may have queued bytes of it.
#
# A file that nobody uses lingers, then it is closed: after linger_ns, at once where no later request could get
# it (changed, unlinked, a read failed), or when there are more open files than max_sources, the oldest first.
# Who only remembers a source, as a flow does, keeps the struct and not the file, and asks store_use() for it.
#
# Jobs wait in the lane of their device (lanes.pxd). I/O threads run them; the watch thread starts those, has idle files
# closed, and looks who hangs: what waited in vain fails with EBUSY, and a thread that never returns is left behind.
#
# Must not: block a worker (store_load and store_write only append to a list), ask a file server anything but on an
# I/O thread (open, map, close), or touch the GIL.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from snow_owl_tftp._engine.base.data cimport (
    CHUNK_ABSENT, CHUNK_ASKED, CHUNK_BYTES, CHUNK_FAILED, CHUNK_LEAVING, CHUNK_OWNED, CHUNK_READY, KEEP_AFTER,
    LOOK_TICK_SHIFT, Look, M_LOADED, M_RETIRED, M_WRITTEN)
from snow_owl_tftp._engine.includes.files cimport (
    MADV_DONTNEED, MADV_POPULATE_READ, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED,
    MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE, madvise, mmap, mremap, munmap, pread, pwrite, so_data,
    so_file, so_hole, so_is_remote, so_look, so_open_pagemap)
from snow_owl_tftp._engine.includes.net cimport (
    CLOCK_MONOTONIC, EAGAIN, EBUSY, ECANCELED, EINTR, EINVAL, EIO, ENOMEM, clock_gettime, close, errno, nanosleep,
    timespec)
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_signal,
    pthread_cond_timedwait, pthread_cond_wait, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, so_add32, so_add32_from, so_load32, so_load64, so_load8, so_look_at_turn,
    so_store32, so_store64, so_store8, so_swap8)
from snow_owl_tftp._engine.disk.apart cimport start_apart
from snow_owl_tftp._engine.base.buffers cimport buffers_free
from snow_owl_tftp._engine.disk.lanes cimport (
    IoThread, JOB_CLOSE, JOB_EXPIRE, JOB_LOAD, JOB_WRITE, Job, Lane, MAX_THREADS, any_lane_may_run, lane_add,
    lane_is_sick, lane_may_run, lane_of, lane_take, lane_take_out, next_lane, waited_in_vain)
from snow_owl_tftp._engine.base.queue cimport (
    message_new, queue_close, queue_note, queue_push, queue_push_list, queue_take_all)

cdef extern from "errno.h" nogil:
    int EFBIG

cdef enum:
    HOLD_NS = 500000              # a written buffer waits no longer for the next one
    SOURCE_BUCKETS = 4096         # a power of two; 32 KiB
    MAX_SOURCE_CHUNKS = 0x8000000  # 64 TiB: half of what a process can map
    MAX_SOURCES = 16384           # mappings are limited too (vm.max_map_count, 65,530)
    MIN_SOURCES = 16
    OTHER_DESCRIPTORS = 128       # sockets, logs, libraries; an idle server has about 50
    LOOK_NS = 250000000           # between two looks at jobs that run
    IDLE_NS = 10000000000         # then a thread leaves, where more than enough are idle

cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <sys/resource.h>
    /* How many files this process may have open. */
    static inline uint64_t so_descriptor_limit(void) {
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);                    /* cannot fail: the resource exists */
        return limit.rlim_cur;
    }
    static inline int so_monotonic_cond(pthread_cond_t *cond) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);                        /* cannot fail on Linux */
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        return pthread_cond_init(cond, &attr);
    }
    """
    int so_monotonic_cond(pthread_cond_t *)
    uint64_t so_descriptor_limit()


cdef uint64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)           # cannot fail: the clock exists
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


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
    store.max_sources = most_sources(so_descriptor_limit())
    store.copies.count = COPIES
    store.kept.count = KEPT
    store.pagemap = so_open_pagemap()
    store.buckets = <Source **>calloc(SOURCE_BUCKETS, sizeof(Source *))
    store.turns = <uint32_t *>calloc(workers, sizeof(uint32_t))
    if store.buckets == NULL or store.turns == NULL:
        return -1
    if so_monotonic_cond(&store.watch) != 0 or so_monotonic_cond(&store.left) != 0:
        return -1
    return so_monotonic_cond(&store.work)


cdef void source_close(Source *source) noexcept nogil:
    """Nobody uses it, and nobody will: the store has let it go."""
    if source.map != NULL:
        munmap(source.map, source.size_bytes)    # cannot fail: it is our mapping
        source.map = NULL
    close(source.fd)
    free(source.chunks)
    free(source.looks)
    source.chunks = NULL
    store_release(source)


cdef void store_free(Store *store) noexcept nogil:
    """After every thread has left; the inboxes, where late messages may lie, go as well."""
    cdef Source *source
    cdef Source *following
    cdef Message *message
    cdef Message *next_message
    cdef uint32_t i
    for i in range(<uint32_t>SOURCE_BUCKETS):
        source = store.buckets[i]
        while source != NULL:
            following = source.next
            source_close(source)
            source = following
    for i in range(store.worker_count):
        message = queue_take_all(&store.workers[i])
        while message != NULL:
            next_message = message.next
            buffers_free(message.buffer)
            free(message)
            message = next_message
        queue_close(&store.workers[i])
    free(store.workers)
    free(store.buckets)
    free(store.turns)
    if store.pagemap >= 0:
        close(store.pagemap)
    pthread_cond_destroy(&store.work)
    pthread_cond_destroy(&store.watch)
    pthread_cond_destroy(&store.left)
    pthread_mutex_destroy(&store.mutex)
    free(store)


# --- sources -----------------------------------------------------------------------------------------

cdef Source *source_new(int fd, const so_file *file) noexcept nogil:
    """Open, and not mapped yet; NULL when there is no memory."""
    cdef Source *source = <Source *>calloc(1, sizeof(Source))
    if source == NULL:
        return NULL
    source.fd = fd
    source.refs = 2                              # the store's and the caller's
    source.users = 1
    source.size_bytes = file.size_bytes
    source.device = file.device
    source.inode = file.inode
    source.mtime_ns = file.mtime_ns
    source.ctime_ns = file.ctime_ns
    source.nameless = file.links == 0
    source.chunk_count = <uint32_t>((source.size_bytes + CHUNK_BYTES - 1) // CHUNK_BYTES)
    if source.chunk_count:
        source.chunks = <uint8_t *>calloc(source.chunk_count, 1)
        if source.chunks == NULL:
            free(source)
            return NULL
    return source


cdef uint8_t *map_memory(uint64_t size_bytes, int protection, int flags, int fd) noexcept nogil:
    """NULL when it failed, with errno."""
    cdef void *start = mmap(NULL, size_bytes, protection, flags, fd, 0)
    return NULL if start == MAP_FAILED else <uint8_t *>start


cdef void set_map(Store *store, Source *source, uint8_t *start, bint copied) noexcept nogil:
    """Whoever comes first: a source may be sent, and compared with, at the same time."""
    pthread_mutex_lock(&store.mutex)
    if source.map == NULL:
        source.copied = copied
        source.map = start
        start = NULL
    pthread_mutex_unlock(&store.mutex)
    if start != NULL:
        munmap(start, source.size_bytes)         # cannot fail: it is our mapping


cdef int source_map(Store *store, Source *source) noexcept nogil:
    """The file, or where it is copied to, for the first chunk; 0 or an errno.  On an I/O thread."""
    cdef uint8_t *start = NULL
    cdef bint copied = so_is_remote(source.fd) or so_hole(source.fd, 0, source.size_bytes) < source.size_bytes
    if not copied:
        start = map_memory(source.size_bytes, PROT_READ, MAP_SHARED, source.fd)
        copied = start == NULL
    if copied:
        start = map_memory(source.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1)
    if start == NULL:
        return errno
    if not copied and store.pagemap >= 0:        # without memory for that nobody looks
        source.looks = <Look *>calloc(source.chunk_count, sizeof(Look))
    set_map(store, source, start, copied)
    return 0


cdef Source **bucket_of(Store *store, uint64_t device, uint64_t inode) noexcept nogil:
    # Fibonacci hashing: inodes of one folder are consecutive.
    return &store.buckets[((inode ^ device << 32) * <uint64_t>0x9E3779B97F4A7C15) >> 32 & (SOURCE_BUCKETS - 1)]


cdef void source_idle(Store *store, Source *source) noexcept nogil:
    """Nobody uses it now; one that no request should be given again goes first."""
    # Nor does a copy: its memory is dear, and a file system that has its files read directly may want to be asked.
    # A file in memory is counted by whoever made it, as long as it is used.
    cdef bint lingers = source_is_fresh(source) and not source.copied and not source.nameless
    source.idle_since_ns = now_ns() if lingers else 0
    source.idle_after = NULL if lingers else store.idle_first
    source.idle_before = store.idle_last if lingers else NULL
    tell_neighbours(store, source, source, source)
    store.idle_count += 1
    if not lingers or store.source_count > store.max_sources:
        pthread_cond_signal(&store.watch)


cdef void tell_neighbours(Store *store, Source *source, Source *after, Source *before) noexcept nogil:
    """The neighbours of `source` in the idle list get new neighbours."""
    if source.idle_before != NULL:
        source.idle_before.idle_after = after
    else:
        store.idle_first = after
    if source.idle_after != NULL:
        source.idle_after.idle_before = before
    else:
        store.idle_last = before


cdef void source_wanted(Store *store, Source *source) noexcept nogil:
    """Out of the idle list: it is in use again, or goes."""
    tell_neighbours(store, source, source.idle_after, source.idle_before)
    source.idle_before = NULL
    source.idle_after = NULL
    store.idle_count -= 1


cdef int store_open(Store *store, int fd, uint64_t size_bytes, bint is_compared, Source **out) noexcept nogil:
    """The source of `fd`, for the caller to use (store_unuse) and to refer to (store_release).

    Takes the descriptor over, also when it fails.  Returns 0 or an errno; EINVAL: the size is another one now,
    EFBIG: more than MAX_SOURCE_CHUNKS (on tmpfs a file of holes may have 8 EiB).
    """
    cdef so_file file
    cdef Source *source
    cdef int error
    if so_look(fd, &file) < 0:
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
        if so_add32(&source.users, 1) == 1:
            source_wanted(store, source)
        so_add32(&source.refs, 1)
    else:
        source = source_new(fd, &file)
        if source != NULL:
            put_source(store, source)
            fd = -1
    pthread_mutex_unlock(&store.mutex)
    if fd >= 0:
        store_discard(store, fd)
    if source == NULL:
        return ENOMEM
    out[0] = source
    return map_compared(store, source) if is_compared else 0


cdef int map_compared(Store *store, Source *source) noexcept nogil:
    """What is compared with is a file in memory (memfd), whole and read by the worker: nothing to wait for."""
    cdef uint8_t *start
    if source.size_bytes == 0:
        return 0
    if source.map == NULL:
        start = map_memory(source.size_bytes, PROT_READ, MAP_SHARED, source.fd)
        if start == NULL:
            return errno
        set_map(store, source, start, False)
    return EINVAL if source.copied else 0


cdef Source *find_source(Store *store, const so_file *file) noexcept nogil:
    """One that is open and the same file; under the mutex."""
    cdef Source *source = bucket_of(store, file.device, file.inode)[0]
    while source != NULL:
        if (source.inode == file.inode and source.device == file.device and source.size_bytes == file.size_bytes
                and source.mtime_ns == file.mtime_ns and source.ctime_ns == file.ctime_ns and source_is_fresh(source)):
            return source
        source = source.next
    return NULL


cdef void put_source(Store *store, Source *source) noexcept nogil:
    cdef Source **bucket = bucket_of(store, source.device, source.inode)
    source.next = bucket[0]
    bucket[0] = source
    store.source_count += 1
    if store.source_count > store.max_sources:
        pthread_cond_signal(&store.watch)        # it may be looking at threads, and has to close another one now
    else:
        wake_watch(store)                        # for it will linger


cdef bint store_use(Store *store, Source *source) noexcept nogil:
    """For who refers to a source without using it: True when its file is still open, and stays so."""
    cdef bint is_open
    if so_add32_from(&source.users, 1, 1):       # without the mutex as long as there are others
        return True
    pthread_mutex_lock(&store.mutex)
    is_open = not source.closed
    if is_open and so_add32(&source.users, 1) == 1:
        source_wanted(store, source)
    pthread_mutex_unlock(&store.mutex)
    return is_open


cdef bint store_is_crowded(const Store *store) noexcept nogil:
    """More files are in use than may be open.  Without the mutex: a moment sooner or later makes no difference."""
    return store.source_count - store.idle_count > store.max_sources


cdef void store_unuse(Store *store, Source *source) noexcept nogil:
    """One user less; an I/O thread closes a file that has none for linger_ns.  A pipe goes with its recipe."""
    if source == NULL or source.stream or so_add32_from(&source.users, -1, 2):
        return
    pthread_mutex_lock(&store.mutex)
    if so_add32(&source.users, -1) == 0:
        source_idle(store, source)
    pthread_mutex_unlock(&store.mutex)


cdef void store_release(Source *source) noexcept nogil:
    """Drops a reference to the struct.  The file of a source is closed before: the store has a reference until then."""
    if source == NULL or so_add32(&source.refs, -1) != 0:
        return
    if source.stream:                            # a pipe belongs to one recipe: there is nobody to wait for
        close(source.fd)
        free(source.map)
    free(source)


cdef Source *take_expired(Store *store, uint64_t now, uint64_t *next_ns) noexcept nogil:
    """One source that is to be closed, out of the store; sets when the next one will be due."""
    cdef Source *source = store.idle_first
    cdef Source **link
    if source == NULL:
        return NULL
    if source.idle_since_ns and source.idle_since_ns + store.linger_ns > now and not store.stopping:
        if store.source_count <= store.max_sources:
            next_ns[0] = source.idle_since_ns + store.linger_ns
            return NULL
        store.evictions_total += 1
    source_wanted(store, source)
    source.closed = 1
    forget_copies(&store.copies, source)
    forget_copies(&store.kept, source)
    link = bucket_of(store, source.device, source.inode)
    while link[0] != source:
        link = &link[0].next
    link[0] = source.next
    store.source_count -= 1
    return source


cdef bint source_is_fresh(const Source *source) noexcept nogil:
    """May be given to a new request, as far as is known without a look."""
    return not (source.changed or source.unlinked or source.failed_errno or source.closed)


cdef bint source_is_changed(Source *source) noexcept nogil:
    """True once the file is not what it was when it was opened.

    ctime is not asked: a rename, a link, a chmod or an unlink moves it, and what they leave is the same file.
    Those who come later do not join such a source all the same (store_open).
    """
    cdef so_file now
    if source.changed:
        return True
    if so_look(source.fd, &now) < 0 or now.size_bytes != source.size_bytes or now.mtime_ns != source.mtime_ns:
        source.changed = 1
        return True
    if now.links == 0 and not source.nameless:
        source.unlinked = 1
    return False


cdef void recipe_release(Store *store, Recipe *recipe, Message *message, Queue *outbox) noexcept nogil:
    """Drops the reference of a transfer, which uses the source.  Takes the message over; see recipe_forget."""
    if recipe == NULL:
        free(message)
        return
    store_unuse(store, recipe.source)
    recipe_forget(recipe, message, outbox)


cdef void recipe_forget(Recipe *recipe, Message *message, Queue *outbox) noexcept nogil:
    """Drops a reference; the last one on a worker goes up to Python, which owns `context`.

    Takes over a message, whatever was in it: memory to say so must not be missing.
    """
    if so_add32(&recipe.refs, -1) != 0 or message == NULL:
        free(message)                            # NULL: of one that was stuck, and even then there was no memory
        return
    message.kind = M_RETIRED
    message.recipe = recipe
    queue_push(outbox, message)


# --- jobs --------------------------------------------------------------------------------------------

cdef void store_kick(Store *store) noexcept nogil:
    """Wakes an I/O thread, if one may take what was added.  Once a turn, not once a job, and never under the mutex: on
    a busy core each wake-up costs the worker its place, and the thread that wakes only finds the mutex taken."""
    if so_swap8(&store.wake, 1, 0):
        pthread_cond_signal(&store.work)


cdef void wake_watch(Store *store) noexcept nogil:
    """Under the mutex."""
    if store.watch_sleeps:
        store.watch_sleeps = 0
        pthread_cond_signal(&store.watch)


cdef void add(Store *store, Job *job) noexcept nogil:
    """Under the mutex; somebody owes a store_kick."""
    cdef Lane *lane = lane_add(&store.lanes, job)
    if not lane_may_run(&store.lanes, lane):
        return                                   # who works for it now goes on with this one
    if store.idle_threads:
        so_store8(&store.wake, 1)
    elif store.starting_threads == 0 and store.thread_count < MAX_THREADS:
        pthread_cond_signal(&store.watch)        # it starts another thread
    wake_watch(store)


cdef void append(Store *store, Job *job) noexcept nogil:
    """The caller owes a store_kick."""
    job.since_ns = now_ns()
    pthread_mutex_lock(&store.mutex)
    add(store, job)
    pthread_mutex_unlock(&store.mutex)


cdef bint store_is_sick(Store *store, uint64_t device) noexcept nogil:
    """So much hangs on a device that what is asked of it now would wait in vain."""
    cdef bint is_sick
    pthread_mutex_lock(&store.mutex)
    is_sick = store.hung_threads != 0 and lane_is_sick(lane_of(&store.lanes, device))
    pthread_mutex_unlock(&store.mutex)
    return is_sick


cdef int store_load(Store *store, Source *source, uint32_t chunk, uint32_t worker) noexcept nogil:
    """Asks for a chunk once; every worker hears when it is there.  Returns -1 when there is no memory.

    One load of a source at a time: a file on a slow disk must not hold more than one I/O thread.  Who
    finds it busy asks again when the other chunk has come.
    """
    cdef Job *job
    if so_load8(&source.chunks[chunk]) != CHUNK_ABSENT or not so_swap8(&source.loading, 0, 1):
        return 0
    if not so_swap8(&source.chunks[chunk], CHUNK_ABSENT, CHUNK_ASKED):
        so_store8(&source.loading, 0)
        return 0
    job = <Job *>calloc(1, sizeof(Job))
    if job == NULL:
        so_store8(&source.chunks[chunk], CHUNK_ABSENT)
        so_store8(&source.loading, 0)
        return -1
    so_add32(&source.users, 1)                   # the job's; the caller's transfer is one, so it was not zero
    job.kind = JOB_LOAD
    job.device = source.device
    job.source = source
    job.chunk = chunk
    job.worker = worker
    append(store, job)
    return 0


cdef int store_write(Store *store, Sink *sink, Buffer *buffer, uint64_t transfer_id, uint32_t worker) noexcept nogil:
    """Hands a list of buffers over to be written; M_WRITTEN brings it back.  Returns -1 when there is no memory."""
    cdef so_file file
    cdef Job *job = <Job *>calloc(1, sizeof(Job))
    if job != NULL:
        job.written = message_new(M_WRITTEN, transfer_id, NULL, 0)   # now, while the transfer can still be refused
    if job == NULL or job.written == NULL:
        free(job)
        return -1
    if sink.device == 0 and so_look(sink.fd, &file) == 0:
        sink.device = file.device                # as far as the kernel knows; else the write will tell what is wrong
    job.kind = JOB_WRITE
    job.device = sink.device
    job.buffer = buffer
    job.fd = sink.fd
    job.transfer_id = transfer_id
    job.worker = worker
    append(store, job)
    return 0


cdef void store_discard(Store *store, int fd) noexcept nogil:
    """Closes a file's descriptor on an I/O thread: FUSE and NFS tell their server, and wait for its answer."""
    cdef so_file file
    cdef Job *job = <Job *>calloc(1, sizeof(Job)) if store.thread_count else NULL
    if job == NULL:
        close(fd)
        return
    job.kind = JOB_CLOSE
    job.fd = fd
    job.device = file.device if so_look(fd, &file) == 0 else 0
    append(store, job)
    store_kick(store)


# --- files that cannot be mapped -----------------------------------------------------------------------

cdef void wait_for_turns(Store *store) noexcept nogil:
    """Until no worker is in a turn that it was in before: what it had queued then has left."""
    cdef timespec pause
    cdef uint32_t worker, turn
    pause.tv_sec = 0
    pause.tv_nsec = 20000
    for worker in range(store.worker_count):
        turn = so_look_at_turn(&store.turns[worker])
        while turn & 1 and so_look_at_turn(&store.turns[worker]) == turn:
            nanosleep(&pause, NULL)              # a signal may cut it short: harmless


cdef bint take_place(Store *store, Copies *copies, Copy *old, Source *source, uint32_t chunk) noexcept nogil:
    """A place for a chunk that is about to be read; under the mutex.  True: `old`, which was there, is to leave, and
    we use its source until then.  The few that others are reading now are passed by."""
    cdef Copy *place = &copies.places[copies.hand]
    cdef uint32_t _
    for _ in range(copies.count):
        place = &copies.places[copies.hand]
        copies.hand = (copies.hand + 1) % copies.count
        if place.source == NULL or so_load8(&place.source.chunks[place.chunk]) != CHUNK_ASKED:
            break
    old[0] = place[0]
    place.source = source
    place.chunk = chunk
    if old.source == NULL or not so_swap8(&old.source.chunks[old.chunk], CHUNK_OWNED, CHUNK_LEAVING):
        return False
    if so_add32(&old.source.users, 1) == 1:
        source_wanted(store, old.source)
    return True


cdef void forget_copies(Copies *copies, const Source *source) noexcept nogil:
    """Its memory goes; under the mutex."""
    cdef uint32_t i
    for i in range(copies.count):
        if copies.places[i].source == source:
            copies.places[i].source = NULL


cdef void give_back(Source *source, uint32_t chunk) noexcept nogil:
    """The memory of a copy: what takes its place is nothing, or the file again."""
    cdef uint64_t start = <uint64_t>chunk * CHUNK_BYTES, size = chunk_bytes(source, chunk)
    if source.copied:
        madvise(source.map + start, size, MADV_DONTNEED)   # cannot fail: it is our mapping
        return
    source.looks[chunk].lost = 0
    # Without memory for that it stays a copy, which is the file's content too.
    mmap(source.map + start, size, PROT_READ, MAP_SHARED | MAP_FIXED, source.fd, <int64_t>start)


cdef void make_room(Store *store, Copies *copies, Source *source, uint32_t chunk) noexcept nogil:
    cdef Copy old
    cdef bint is_full
    pthread_mutex_lock(&store.mutex)
    is_full = take_place(store, copies, &old, source, chunk)
    store.copies_total += 1
    pthread_mutex_unlock(&store.mutex)
    if is_full:
        wait_for_turns(store)
        give_back(old.source, old.chunk)
        so_store8(&old.source.chunks[old.chunk], CHUNK_ABSENT)
        store_unuse(store, old.source)


cdef int read_range(Source *source, uint8_t *into, uint64_t at, uint64_t end) noexcept nogil:
    """0 or an errno; a file that became shorter is a changed one."""
    cdef ssize_t n
    while at < end:
        n = pread(source.fd, into, end - at, <int64_t>at)
        if n > 0:
            at += <uint64_t>n
            into += n
        elif n == 0:
            source.changed = 1
            return EIO
        elif errno != EINTR:
            return errno
    return 0


cdef int read_copy(Source *source, uint64_t start, uint64_t end) noexcept nogil:
    """Reads what is no hole; 0 or an errno.  A hole stays untouched memory, which the kernel sends as zeros."""
    cdef uint64_t at = start, hole
    cdef int error = 0
    while error == 0:
        at = so_data(source.fd, at, end)
        if at >= end:
            break
        hole = so_hole(source.fd, at, end)
        if hole <= at:
            hole = end                           # filled or punched meanwhile
        error = read_range(source, source.map + at, at, hole)
        at = hole
    return error


# --- loads ---------------------------------------------------------------------------------------------

cdef uint64_t chunk_bytes(const Source *source, uint32_t chunk) noexcept nogil:
    cdef uint64_t left = source.size_bytes - <uint64_t>chunk * CHUNK_BYTES
    return left if left < CHUNK_BYTES else CHUNK_BYTES


cdef int populate(uint8_t *start, uint64_t size) noexcept nogil:
    """0 or an errno: EIO where the file became shorter, or the disk failed (EFAULT)."""
    while madvise(start, size, MADV_POPULATE_READ) < 0:
        if errno == EINVAL:
            break                                # before Linux 5.14: the pages come by faults, as they always did
        if errno != EINTR and errno != EAGAIN:
            return EIO
    return 0


cdef int keep_chunk(Store *store, Source *source, uint32_t chunk) noexcept nogil:
    """Reads a chunk into memory of our own and puts that in the place of the file's pages; 0 or an errno.

    Where memory is so short that a chunk is gone before anything was sent of it, its transfers go on all the same.
    Who is sending from it right now reads the same bytes from either.
    """
    cdef uint64_t start = <uint64_t>chunk * CHUNK_BYTES, size = chunk_bytes(source, chunk)
    cdef uint8_t *memory
    cdef int error
    make_room(store, &store.kept, source, chunk)
    memory = map_memory(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1)
    if memory == NULL:
        return errno
    error = read_range(source, memory, start, start + size)
    # Who reads there meanwhile meets either, never a gap.
    if error == 0 and mremap(memory, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, source.map + start) == MAP_FAILED:
        error = errno
    if error:
        munmap(memory, size)                     # cannot fail: it is our mapping
    return error


cdef int load(Store *store, Source *source, uint32_t chunk, uint8_t *state) noexcept nogil:
    """Makes a chunk resident, and says how; 0 or an errno."""
    cdef uint64_t start = <uint64_t>chunk * CHUNK_BYTES, size = chunk_bytes(source, chunk)
    cdef int error = source_map(store, source) if source.map == NULL else 0
    if error:
        return error
    state[0] = CHUNK_OWNED
    if source.copied:
        make_room(store, &store.copies, source, chunk)
        return read_copy(source, start, start + size)
    if source.looks != NULL:
        source.looks[chunk].tick = <uint32_t>(now_ns() >> LOOK_TICK_SHIFT)
        if source.looks[chunk].lost >= KEEP_AFTER and keep_chunk(store, source, chunk) == 0:
            return 0
    state[0] = CHUNK_READY
    return populate(source.map + start, size)


cdef void tell_loaded(Store *store) noexcept nogil:
    cdef Message *message
    cdef uint32_t worker
    for worker in range(store.worker_count):
        message = message_new(M_LOADED, 0, NULL, 0)
        if message != NULL:
            queue_push(&store.workers[worker], message)
        else:
            queue_note(&store.workers[worker])


cdef void fail_chunk(Store *store, Source *source, uint32_t chunk, int error) noexcept nogil:
    """Whoever waits for it is told; unless it has come meanwhile."""
    source.failed_errno = error
    so_swap8(&source.chunks[chunk], CHUNK_ASKED, CHUNK_FAILED)
    tell_loaded(store)


cdef void run_load(Store *store, Job *job) noexcept nogil:
    """Makes a chunk resident, or marks it failed, and tells every worker."""
    cdef Source *source = job.source
    cdef uint8_t state = CHUNK_FAILED
    cdef int error = load(store, source, job.chunk, &state)
    if error:
        source.failed_errno = error
        so_store8(&source.chunks[job.chunk], CHUNK_FAILED)
    elif so_swap8(&source.chunks[job.chunk], CHUNK_ASKED, state):
        source.served = 1                        # else it came too late: fail_chunk()
    so_store8(&source.loading, 0)
    tell_loaded(store)


cdef int write_buffer(int fd, const Buffer *buffer) noexcept nogil:
    """0 or an errno."""
    cdef uint32_t done = 0
    cdef ssize_t n
    while done < buffer.used:
        n = pwrite(fd, buffer.bytes + done, buffer.used - done, <int64_t>(buffer.offset + done))
        if n > 0:
            done += <uint32_t>n
        elif n == 0:
            return EIO
        elif errno != EINTR:
            return errno
    return 0


cdef Message *run_write(Store *store, Job *job) noexcept nogil:
    """Writes a list of buffers; the errno of a failure travels with it."""
    cdef Message *message = job.written
    cdef Buffer *buffer = job.buffer
    cdef int error = 0
    while buffer != NULL and error == 0:
        # After the end the descriptor may be another file's.
        error = write_buffer(job.fd, buffer) if so_load32(&store.stopping) < STOP_NOW else ECANCELED
        buffer = buffer.next
    message.buffer = job.buffer
    message.error = error
    message.worker = job.worker
    return message


cdef void run_writes(Store *store, IoThread *thread) noexcept nogil:
    """A list of them.  Written buffers go home together, so that the worker is not woken for each one;
    but none waits longer than HOLD_NS for those behind it."""
    cdef Message *first = NULL
    cdef Message *last = NULL
    cdef Message *message
    cdef Job *job = thread.jobs
    cdef uint64_t started = now_ns(), now = started
    while job != NULL:
        so_store64(&thread.since_ns, now)
        message = run_write(store, job)
        so_store8(&job.done, 1)
        now = now_ns()
        if first != NULL and (first.worker != message.worker or now - started > HOLD_NS):
            queue_push_list(&store.workers[first.worker], first, last)
            first = NULL
        if first == NULL:
            first = message
            started = now
        else:
            last.next = message
        last = message
        job = job.next
    if first != NULL:
        queue_push_list(&store.workers[first.worker], first, last)


cdef void run_jobs(Store *store, IoThread *thread) noexcept nogil:
    cdef Job *job = thread.jobs
    if job.kind == JOB_WRITE:
        run_writes(store, thread)
        return
    if job.kind == JOB_LOAD:
        run_load(store, job)
    elif job.kind == JOB_CLOSE:
        close(job.fd)
    else:
        source_close(job.source)
    so_store8(&job.done, 1)


# --- I/O threads -----------------------------------------------------------------------------------------

cdef void take_jobs(Store *store, IoThread *thread, Lane *lane) noexcept nogil:
    """Under the mutex.  What is left behind wakes another thread."""
    cdef Job *job = lane_take(&store.lanes, lane)
    thread.lane = lane
    thread.jobs = job
    so_store64(&thread.since_ns, now_ns())
    if job.kind == JOB_LOAD:
        store.loads_total += 1
    while job != NULL:
        store.writes_total += job.kind == JOB_WRITE
        job = job.next
    if store.idle_threads and any_lane_may_run(&store.lanes):
        pthread_cond_signal(&store.work)
    wake_watch(store)


cdef void leave_lane(Store *store, IoThread *thread) noexcept nogil:
    """Under the mutex."""
    cdef Job *job
    thread.lane.busy -= 1
    store.lanes.busy -= 1
    if thread.hangs:
        thread.lane.hung -= 1
        store.hung_threads -= 1
    thread.hangs = 0
    thread.told = 0
    thread.lane = NULL
    while thread.jobs != NULL:
        job = thread.jobs
        thread.jobs = job.next
        free(job)


cdef bint wait_for_jobs(Store *store) noexcept nogil:
    """False: enough others are idle for long."""
    cdef timespec until
    cdef int error = 0
    store.idle_threads += 1
    if store.idle_threads > store.lanes.share + 1:
        set_time(&until, now_ns() + IDLE_NS)
        error = pthread_cond_timedwait(&store.work, &store.mutex, &until)
    else:
        pthread_cond_wait(&store.work, &store.mutex)
    store.idle_threads -= 1
    return error == 0 or store.idle_threads <= store.lanes.share


cdef void set_time(timespec *until, uint64_t at_ns) noexcept nogil:
    until.tv_sec = <long>(at_ns // 1000000000)
    until.tv_nsec = <long>(at_ns % 1000000000)


cdef void *io_thread(void *place) noexcept nogil:
    """The life of one I/O thread; the last one frees a store that nobody has any more."""
    cdef IoThread *thread = <IoThread *>place
    cdef Store *store = <Store *>thread.store
    cdef Source *used
    cdef Lane *lane
    cdef bint is_last
    pthread_mutex_lock(&store.mutex)
    store.starting_threads -= 1
    while True:
        lane = next_lane(&store.lanes)
        if lane != NULL:
            take_jobs(store, thread, lane)
            pthread_mutex_unlock(&store.mutex)
            run_jobs(store, thread)
            used = thread.jobs.source if thread.jobs.kind == JOB_LOAD else NULL
            store_unuse(store, used)
            pthread_mutex_lock(&store.mutex)
            leave_lane(store, thread)
        elif store.stopping:
            if not expire_sources(store, now_ns(), NULL):
                break
        elif not wait_for_jobs(store):
            break
    thread.store = NULL
    store.thread_count -= 1
    is_last = store.orphaned and store.thread_count == 0
    pthread_cond_broadcast(&store.left)
    pthread_mutex_unlock(&store.mutex)
    if is_last:
        store_free(store)
    return NULL


cdef bint start_thread(Store *store) noexcept nogil:
    """Under the mutex.  False: there are enough, or the system has no more."""
    cdef IoThread *thread
    cdef uint32_t i
    for i in range(<uint32_t>MAX_THREADS):
        thread = &store.threads[i]
        if thread.store != NULL:
            continue
        thread.store = store
        store.thread_count += 1
        store.starting_threads += 1
        if start_apart(io_thread, thread) == 0:
            return True
        thread.store = NULL
        store.thread_count -= 1
        store.starting_threads -= 1
        return False
    return False


# --- the watch thread ------------------------------------------------------------------------------------

cdef bint expire_sources(Store *store, uint64_t now, uint64_t *next_ns) noexcept nogil:
    """Has every file closed that nobody needs; under the mutex.  Tells when the next one is due; True: some were."""
    cdef Source *source
    cdef Job *job
    cdef uint64_t due = <uint64_t>-1
    cdef bint some = False
    while store.idle_first != NULL:
        job = <Job *>calloc(1, sizeof(Job))
        if job == NULL:
            break                                # later, then
        source = take_expired(store, now, &due)
        if source == NULL:
            free(job)
            break
        job.kind = JOB_EXPIRE
        job.source = source
        job.device = source.device
        job.since_ns = now
        add(store, job)
        some = True
    if next_ns != NULL:
        next_ns[0] = due
    return some


cdef void tell_in_vain(Store *store, IoThread *thread, uint64_t now) noexcept nogil:
    """Who waits for a job that is being done: it goes on, but not for them; under the mutex."""
    cdef Job *job = thread.jobs
    if not so_load8(&job.done) and waited_in_vain(job, store.patience_ns, now):
        thread.told = 1
        store.expired_total += 1
        fail_chunk(store, job.source, job.chunk, EBUSY)


cdef void look_at_threads(Store *store, uint64_t now) noexcept nogil:
    """Who hangs; under the mutex."""
    cdef IoThread *thread
    cdef uint32_t i
    for i in range(<uint32_t>MAX_THREADS):
        thread = &store.threads[i]
        if thread.lane == NULL:
            continue
        if not thread.hangs and now > so_load64(&thread.since_ns) + store.patience_ns // 5:
            thread.hangs = 1
            thread.lane.hung += 1
            store.hung_threads += 1
            if lane_may_run(&store.lanes, thread.lane):
                pthread_cond_signal(&store.work)
        if not thread.told:
            tell_in_vain(store, thread, now)


cdef Job *take_in_vain(Store *store, bint everything) noexcept nogil:
    """What waited too long, or all that somebody waits for, out of the lanes; under the mutex."""
    cdef uint64_t now = now_ns()
    cdef Job *jobs = NULL
    cdef Job *last
    cdef Job *expired
    cdef uint32_t i
    for i in range(store.lanes.count):
        expired = lane_take_out(&store.lanes.lane[i], everything, store.patience_ns, now)
        last = expired
        while last != NULL and last.next != NULL:
            last = last.next
        if last != NULL:
            last.next = jobs
            jobs = expired
    return jobs


cdef void give_up(Store *store, Job *job, int error) noexcept nogil:
    """A list of jobs that nobody has begun; not under the mutex."""
    cdef Job *following
    cdef Message *message
    while job != NULL:
        following = job.next
        store.expired_total += error == EBUSY
        if job.kind == JOB_LOAD:
            so_store8(&job.source.loading, 0)
            fail_chunk(store, job.source, job.chunk, error)
            store_unuse(store, job.source)
        else:
            message = job.written
            message.buffer = job.buffer
            message.error = error
            message.worker = job.worker
            queue_push(&store.workers[job.worker], message)
        free(job)
        job = following


cdef void sleep_until_due(Store *store, uint64_t next_ns) noexcept nogil:
    """Under the mutex: shortly while a job runs, or else until a file has lingered."""
    cdef timespec until
    cdef uint64_t now = now_ns()
    store.watch_sleeps = store.lanes.busy == 0 and not any_lane_may_run(&store.lanes)
    if not store.watch_sleeps:
        next_ns = now + LOOK_NS
    elif store.source_count == 0:
        pthread_cond_wait(&store.watch, &store.mutex)
        return
    elif next_ns > now + store.linger_ns // 4 + 1000000000:
        # Sources that are in use now become idle without a signal, so look again within a part of a linger.
        next_ns = now + store.linger_ns // 4 + 1000000000
    set_time(&until, next_ns)
    pthread_cond_timedwait(&store.watch, &store.mutex, &until)


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
        look_at_threads(store, now_ns())
        jobs = take_in_vain(store, False)
        if jobs != NULL:
            pthread_mutex_unlock(&store.mutex)
            give_up(store, jobs, EBUSY)
            pthread_mutex_lock(&store.mutex)
        if expire_sources(store, now_ns(), &next_ns):
            store_kick(store)
        sleep_until_due(store, next_ns)
    pthread_mutex_unlock(&store.mutex)


# --- the end ---------------------------------------------------------------------------------------------

cdef bint wait_for_the_last(Store *store, uint64_t wait_ns) noexcept nogil:
    """Under the mutex.  False: some hang."""
    cdef timespec until
    set_time(&until, now_ns() + wait_ns)
    while store.thread_count and pthread_cond_timedwait(&store.left, &store.mutex, &until) == 0:
        pass
    return store.thread_count == 0


cdef bint store_stop(Store *store, uint64_t wait_ns) noexcept nogil:
    """The I/O threads finish what is queued and leave; who does not within `wait_ns` is left behind: then False."""
    cdef bint all_left
    cdef Job *jobs
    pthread_mutex_lock(&store.mutex)
    so_store32(&store.stopping, STOP_FINISH)
    pthread_cond_broadcast(&store.work)
    pthread_cond_broadcast(&store.watch)
    all_left = wait_for_the_last(store, wait_ns)
    so_store32(&store.stopping, STOP_NOW)
    jobs = take_in_vain(store, True)
    pthread_mutex_unlock(&store.mutex)
    give_up(store, jobs, ECANCELED)
    return all_left


cdef void store_abandon(Store *store, uint64_t wait_ns) noexcept nogil:
    """Frees the store and the inboxes; after the workers and the watch thread.

    What is still open is closed by a thread, which may hang: then the last one frees, whenever that is.
    """
    cdef bint is_last
    cdef Job *jobs
    pthread_mutex_lock(&store.mutex)
    so_store32(&store.stopping, STOP_NOW)
    jobs = take_in_vain(store, True)
    pthread_mutex_unlock(&store.mutex)
    give_up(store, jobs, ECANCELED)
    pthread_mutex_lock(&store.mutex)
    if store.thread_count == 0 and (store.source_count or any_lane_may_run(&store.lanes)):
        start_thread(store)
        wait_for_the_last(store, wait_ns)
    is_last = store.thread_count == 0
    store.orphaned = not is_last
    pthread_mutex_unlock(&store.mutex)
    if is_last:
        store_free(store)
