# I/O threads: each takes jobs of a lane that may have another thread, and leaves when enough others are idle.
#
# The watch thread starts them (watching.pxd).  One that hangs is left behind at the end, and the last one that leaves
# frees a store that nobody has any more.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from snow_owl_tftp._engine.base.buffers cimport buffers_free
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.messages cimport M_WRITTEN, Message
from snow_owl_tftp._engine.base.queue cimport queue_close, queue_take_all
from snow_owl_tftp._engine.disk.apart cimport start_apart
from snow_owl_tftp._engine.disk.expiry cimport expire_sources
from snow_owl_tftp._engine.disk.jobs cimport wake_watch
from snow_owl_tftp._engine.disk.lanes cimport (
    IoThread, JOB_CLOSE, JOB_LOAD, JOB_WRITE, Job, Lane, MAX_THREADS, any_lane_may_run, lane_take, next_lane)
from snow_owl_tftp._engine.disk.reading cimport run_load
from snow_owl_tftp._engine.disk.sources cimport SOURCE_BUCKETS, source_close, store_unuse
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.disk.writing cimport run_writes
from snow_owl_tftp._engine.includes.net cimport close, timespec
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_signal, pthread_cond_timedwait, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock, owl_store64, owl_store8)

cdef enum:
    IDLE_NS = 10000000000         # then a thread leaves, where more than enough are idle


cdef inline void store_free(Store *store) noexcept nogil:
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
            if message.kind == M_WRITTEN:
                buffers_free(message.body.written.buffers)
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


cdef inline void set_time(timespec *until, uint64_t at_ns) noexcept nogil:
    until.tv_sec = <long>(at_ns // 1000000000)
    until.tv_nsec = <long>(at_ns % 1000000000)


cdef inline void run_jobs(Store *store, IoThread *thread) noexcept nogil:
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
    owl_store8(&job.done, 1)


cdef inline void take_jobs(Store *store, IoThread *thread, Lane *lane) noexcept nogil:
    """Under the mutex.  What is left behind wakes another thread."""
    cdef Job *job = lane_take(&store.lanes, lane)
    thread.lane = lane
    thread.jobs = job
    owl_store64(&thread.since_ns, clock_ns())
    if job.kind == JOB_LOAD:
        store.loads_total += 1
    while job != NULL:
        store.writes_total += job.kind == JOB_WRITE
        job = job.next
    if store.idle_threads and any_lane_may_run(&store.lanes):
        pthread_cond_signal(&store.work)
    wake_watch(store)


cdef inline void leave_lane(Store *store, IoThread *thread) noexcept nogil:
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


cdef inline bint wait_for_jobs(Store *store) noexcept nogil:
    """False: enough others are idle for long."""
    cdef timespec until
    cdef int error = 0
    store.idle_threads += 1
    if store.idle_threads > store.lanes.share + 1:
        set_time(&until, clock_ns() + IDLE_NS)
        error = pthread_cond_timedwait(&store.work, &store.mutex, &until)
    else:
        pthread_cond_wait(&store.work, &store.mutex)
    store.idle_threads -= 1
    return error == 0 or store.idle_threads <= store.lanes.share


cdef inline void *io_thread(void *place) noexcept nogil:
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
            if not expire_sources(store, clock_ns(), NULL):
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


cdef inline bint start_thread(Store *store) noexcept nogil:
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
