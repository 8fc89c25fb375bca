# Files being sent and received, and the I/O threads.
#
# A Source is one open, mapped file for all transfers of it.  Its pages are made resident chunk by chunk
# by madvise(MADV_POPULATE_READ) on an I/O thread: unlike a page fault in sendmmsg it cannot stall a
# worker, and unlike preadv2(RWF_NOWAIT) it works on tmpfs too.  The mapping is read by the kernel alone
# (sendmmsg copies from it): a page behind a new end of file is EFAULT there, and would be SIGBUS here.
#
# Must not: block a worker (store_load and store_write only append to a list), close a file or unmap on
# a worker (I/O threads do), or touch the GIL.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from snow_owl_tftp._engine.data cimport (
    CHUNK_ABSENT, CHUNK_ASKED, CHUNK_BYTES, CHUNK_FAILED, CHUNK_READY, M_LOADED, M_RETIRED, M_WRITTEN)
from snow_owl_tftp._engine.includes.files cimport (
    MADV_POPULATE_READ, MAP_FAILED, MAP_SHARED, PROT_READ, fstat, madvise, mmap, munmap, pwrite,
    so_ctime_ns, so_file, so_look, so_mtime_ns, stat_t)
from snow_owl_tftp._engine.includes.net cimport (
    CLOCK_MONOTONIC, EAGAIN, EINTR, EINVAL, EIO, ENOMEM, clock_gettime, close, errno, timespec)
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_signal,
    pthread_cond_timedwait, pthread_cond_wait, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, so_add32, so_load8, so_store8, so_swap8)
from snow_owl_tftp._engine.buffers cimport buffers_free
from snow_owl_tftp._engine.queue cimport message_new, queue_push, queue_push_list

cdef enum:
    JOBS_AT_ONCE = 16
    HOLD_NS = 500000              # a written buffer waits no longer for the next one
    SOURCE_BUCKETS = 4096         # a power of two; 32 KiB
    MAX_IDLE = 512                # that linger: half of the usual limit of descriptors

cdef extern from * nogil:
    """
    #include <pthread.h>
    static inline int so_monotonic_cond(pthread_cond_t *cond) {
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);                        /* cannot fail on Linux */
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        return pthread_cond_init(cond, &attr);
    }
    """
    int so_monotonic_cond(pthread_cond_t *)


cdef uint64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)           # cannot fail: the clock exists
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


cdef int store_init(Store *store, Queue *inboxes, uint32_t workers, uint64_t linger_ns) noexcept nogil:
    memset(store, 0, sizeof(Store))
    pthread_mutex_init(&store.mutex, NULL)       # cannot fail: default attributes on Linux
    store.workers = inboxes
    store.worker_count = workers
    store.linger_ns = linger_ns
    store.buckets = <Source **>calloc(SOURCE_BUCKETS, sizeof(Source *))
    if store.buckets == NULL:
        return -1
    return so_monotonic_cond(&store.work)


cdef void store_stop(Store *store) noexcept nogil:
    """The I/O threads finish what is queued and leave."""
    pthread_mutex_lock(&store.mutex)
    store.stopping = 1
    pthread_cond_broadcast(&store.work)
    pthread_mutex_unlock(&store.mutex)


cdef void source_free(Source *source) noexcept nogil:
    if source.map != NULL:
        munmap(source.map, source.size_bytes)    # cannot fail: it is our mapping
    close(source.fd)
    free(source.chunks)
    free(source)


cdef void store_close(Store *store) noexcept nogil:
    """After every thread has left."""
    cdef Source *source
    cdef Source *following
    cdef uint32_t i
    for i in range(<uint32_t>SOURCE_BUCKETS):
        source = store.buckets[i]
        while source != NULL:
            following = source.next
            source_free(source)
            source = following
    free(store.buckets)
    store.buckets = NULL
    store.idle_first = NULL
    store.idle_last = NULL
    store.source_count = 0
    store.idle_count = 0
    pthread_cond_destroy(&store.work)
    pthread_mutex_destroy(&store.mutex)


# --- sources -----------------------------------------------------------------------------------------

cdef int source_map(Source *source, int fd, const stat_t *status) noexcept nogil:
    """Fills `source`; 0 or an errno."""
    source.fd = fd
    source.refs = 1
    source.size_bytes = <uint64_t>status.st_size
    source.device = status.st_dev
    source.inode = status.st_ino
    source.mtime_ns = so_mtime_ns(status)
    source.ctime_ns = so_ctime_ns(status)
    if source.size_bytes == 0:
        return 0
    source.chunk_count = <uint32_t>((source.size_bytes + CHUNK_BYTES - 1) // CHUNK_BYTES)
    source.chunks = <uint8_t *>calloc(source.chunk_count, 1)
    if source.chunks == NULL:
        return ENOMEM
    source.map = <uint8_t *>mmap(NULL, source.size_bytes, PROT_READ, MAP_SHARED, fd, 0)
    if source.map == <uint8_t *>MAP_FAILED:
        source.map = NULL
        free(source.chunks)
        return errno
    return 0


cdef Source **bucket_of(Store *store, uint64_t device, uint64_t inode) noexcept nogil:
    # Fibonacci hashing: inodes of one folder are consecutive.
    return &store.buckets[((inode ^ device << 32) * <uint64_t>0x9E3779B97F4A7C15) >> 32 & (SOURCE_BUCKETS - 1)]


cdef void source_idle(Store *store, Source *source) noexcept nogil:
    """Nobody uses it now; one that no request can ever match again goes first."""
    source.idle_since_ns = 0 if source.changed else now_ns()
    source.idle_after = store.idle_first if source.changed else NULL
    source.idle_before = NULL if source.changed else store.idle_last
    tell_neighbours(store, source, source, source)
    store.idle_count += 1
    if store.idle_count > MAX_IDLE:
        pthread_cond_signal(&store.work)


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


cdef int store_open(Store *store, int fd, uint64_t size_bytes, Source **out) noexcept nogil:
    """A counted reference to the source of `fd`; takes the descriptor over, also when it fails.

    Returns 0 or an errno; EINVAL: the file has not `size_bytes` any more.
    """
    cdef stat_t status
    cdef Source **bucket
    cdef Source *source
    cdef int error
    if fstat(fd, &status) < 0:
        error = errno
        close(fd)
        return error
    if <uint64_t>status.st_size != size_bytes:
        close(fd)
        return EINVAL
    pthread_mutex_lock(&store.mutex)
    bucket = bucket_of(store, status.st_dev, status.st_ino)
    source = bucket[0]
    while source != NULL:
        if (source.inode == status.st_ino and source.device == status.st_dev and source.size_bytes == size_bytes
                and source.mtime_ns == so_mtime_ns(&status) and source.ctime_ns == so_ctime_ns(&status)
                and not source.changed and not source.failed_errno):
            if so_add32(&source.refs, 1) == 1:
                source_wanted(store, source)
            pthread_mutex_unlock(&store.mutex)
            close(fd)
            out[0] = source
            return 0
        source = source.next
    source = <Source *>calloc(1, sizeof(Source))
    error = source_map(source, fd, &status) if source != NULL else ENOMEM
    if error == 0:
        source.next = bucket[0]
        bucket[0] = source
        store.source_count += 1
        pthread_cond_signal(&store.work)         # somebody must watch the lingering ones
    pthread_mutex_unlock(&store.mutex)
    if error:
        free(source)
        close(fd)
        return error
    out[0] = source
    return 0


cdef void store_release(Store *store, Source *source) noexcept nogil:
    """Drops a reference; an I/O thread closes the file after linger_ns.

    Under the mutex: store_open may be taking a new reference to the same source at this moment.
    """
    if source == NULL:
        return
    if source.stream:                            # a pipe belongs to one recipe: there is nobody to wait for
        close(source.fd)
        free(source.map)
        free(source)
        return
    pthread_mutex_lock(&store.mutex)
    if so_add32(&source.refs, -1) == 0:
        source_idle(store, source)
    pthread_mutex_unlock(&store.mutex)


cdef Source *take_expired(Store *store, uint64_t now, uint64_t *next_ns) noexcept nogil:
    """One source that nobody used for linger_ns, out of the store; sets when the next one will be due."""
    cdef Source *source = store.idle_first
    cdef Source **link
    if source == NULL:
        return NULL
    if source.idle_since_ns + store.linger_ns > now and store.idle_count <= MAX_IDLE:
        next_ns[0] = source.idle_since_ns + store.linger_ns
        return NULL
    source_wanted(store, source)
    link = bucket_of(store, source.device, source.inode)
    while link[0] != source:
        link = &link[0].next
    link[0] = source.next
    store.source_count -= 1
    return source


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
    return False


cdef void recipe_release(Store *store, Recipe *recipe, Queue *outbox) noexcept nogil:
    """Drops a reference; the last one on a worker goes up to Python, which owns `context`."""
    cdef Message *message
    if recipe == NULL or so_add32(&recipe.refs, -1) != 0:
        return
    message = message_new(M_RETIRED, 0, NULL, 0)
    if message == NULL:
        return                                   # no memory for 500 bytes: the recipe leaks, nothing breaks
    message.recipe = recipe
    queue_push(outbox, message)


# --- jobs --------------------------------------------------------------------------------------------

cdef void store_kick(Store *store) noexcept nogil:
    """Wakes an I/O thread.  Once a turn, not once a job, and never under the mutex: on a busy core each
    wake-up costs the worker its place, and the thread that wakes only finds the mutex taken."""
    pthread_cond_signal(&store.work)


cdef void append(Store *store, Job *job) noexcept nogil:
    """The caller owes a store_kick."""
    job.next = NULL
    pthread_mutex_lock(&store.mutex)
    if store.head == NULL:
        store.head = job
    else:
        store.tail.next = job
    store.tail = job
    pthread_mutex_unlock(&store.mutex)


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
    so_add32(&source.refs, 1)                    # the job's; store_release gives it back
    job.source = source
    job.chunk = chunk
    job.worker = worker
    append(store, job)
    return 0


cdef int store_write(Store *store, Sink *sink, Buffer *buffer, uint64_t transfer_id, uint32_t worker) noexcept nogil:
    """Hands a list of buffers over to be written; M_WRITTEN brings it back.  Returns -1 when there is no memory."""
    cdef Job *job = <Job *>calloc(1, sizeof(Job))
    if job == NULL:
        return -1
    job.buffer = buffer
    job.fd = sink.fd
    job.transfer_id = transfer_id
    job.worker = worker
    append(store, job)
    return 0


cdef void run_load(Store *store, Job *job) noexcept nogil:
    """Makes a chunk resident.  EFAULT (the file became shorter, or the disk failed) marks it failed."""
    cdef Source *source = job.source
    cdef uint64_t start = <uint64_t>job.chunk * CHUNK_BYTES
    cdef uint64_t size = source.size_bytes - start
    cdef uint8_t state = CHUNK_READY
    cdef Message *message
    cdef uint32_t worker
    if size > CHUNK_BYTES:
        size = CHUNK_BYTES
    while madvise(source.map + start, size, MADV_POPULATE_READ) < 0:
        if errno == EINTR or errno == EAGAIN:
            continue
        if errno == EINVAL:
            break                                # before Linux 5.14: the pages come by faults, as they always did
        source.failed_errno = EIO
        state = CHUNK_FAILED
        break
    so_store8(&source.chunks[job.chunk], state)
    so_store8(&source.loading, 0)
    for worker in range(store.worker_count):
        message = message_new(M_LOADED, 0, NULL, 0)
        if message == NULL:
            continue                             # the waiting transfers look again on their timers
        queue_push(&store.workers[worker], message)
    store_release(store, source)


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


cdef Message *run_write(Job *job) noexcept nogil:
    """Writes a list of buffers; the errno of a failure travels with it.  NULL when there is no memory."""
    cdef Message *message = message_new(M_WRITTEN, job.transfer_id, NULL, 0)
    cdef Buffer *buffer = job.buffer
    cdef int error = 0
    while buffer != NULL and error == 0:
        error = write_buffer(job.fd, buffer)
        buffer = buffer.next
    if message == NULL:
        buffers_free(job.buffer)                 # the transfer ends by its timer: it can never be acknowledged
        return NULL
    message.buffer = job.buffer
    message.error = error
    message.worker = job.worker
    return message


cdef void run_jobs(Store *store, Job *job) noexcept nogil:
    """A list of jobs.  Written buffers go home together, so that the worker is not woken for each one;
    but none waits longer than HOLD_NS for those behind it."""
    cdef Message *first = NULL
    cdef Message *last = NULL
    cdef Message *message
    cdef Job *following
    cdef uint64_t started = now_ns()
    while job != NULL:
        following = job.next
        if job.source != NULL:
            run_load(store, job)
        else:
            message = run_write(job)
            if message != NULL and first != NULL and (
                    first.worker != message.worker or now_ns() - started > HOLD_NS):
                queue_push_list(&store.workers[first.worker], first, last)
                first = NULL
            if message != NULL:
                if first == NULL:
                    first = message
                    started = now_ns()
                else:
                    last.next = message
                last = message
        free(job)
        job = following
    if first != NULL:
        queue_push_list(&store.workers[first.worker], first, last)


cdef Job *take_jobs(Store *store) noexcept nogil:
    """The oldest load, or up to JOBS_AT_ONCE writes, unlinked; under the mutex.

    A load may wait for a slow disk for seconds, so nothing is taken along with it.  What is left behind
    wakes another thread.
    """
    cdef Job *jobs = store.head
    cdef Job *last = jobs
    cdef uint32_t n = 1
    if jobs.source != NULL:
        store.loads_total += 1
    else:
        while last.next != NULL and last.next.source == NULL and n < JOBS_AT_ONCE:
            last = last.next
            n += 1
        store.writes_total += n
    store.head = last.next
    if store.head != NULL:
        pthread_cond_signal(&store.work)
    last.next = NULL
    return jobs


cdef void store_io_thread(Store *store) noexcept nogil:
    """The loop of one I/O thread."""
    cdef Job *job
    cdef Source *expired
    cdef uint64_t next_ns, now
    cdef timespec until
    pthread_mutex_lock(&store.mutex)
    while True:
        if store.head != NULL:
            job = take_jobs(store)
            pthread_mutex_unlock(&store.mutex)
            run_jobs(store, job)
            pthread_mutex_lock(&store.mutex)
            continue
        if store.stopping:
            break
        now = now_ns()
        next_ns = <uint64_t>-1
        expired = take_expired(store, now, &next_ns)
        if expired != NULL:
            pthread_mutex_unlock(&store.mutex)
            source_free(expired)
            pthread_mutex_lock(&store.mutex)
            continue
        if store.source_count == 0:
            pthread_cond_wait(&store.work, &store.mutex)
        else:
            # Sources that are in use now become idle without a signal, so look again within a linger.
            if next_ns > now + store.linger_ns + 1000000000:
                next_ns = now + store.linger_ns + 1000000000
            until.tv_sec = <long>(next_ns // 1000000000)
            until.tv_nsec = <long>(next_ns % 1000000000)
            pthread_cond_timedwait(&store.work, &store.mutex, &until)
    pthread_mutex_unlock(&store.mutex)
