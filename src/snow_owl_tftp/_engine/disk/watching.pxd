# What the watch thread looks at: who hangs, and who waits in vain.
#
# What waited in vain fails with EBUSY; the thread that never returned keeps what it has in its hands.
# Must not: ask a file anything.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.disk.lanes cimport (
    IoThread, JOB_LOAD, Job, MAX_THREADS, any_lane_may_run, lane_may_run, lane_take_out, waited_in_vain)
from snow_owl_tftp._engine.disk.reading cimport fail_chunk
from snow_owl_tftp._engine.disk.sources cimport store_unuse
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.disk.threads cimport set_time
from snow_owl_tftp._engine.includes.net cimport EBUSY, timespec
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_signal, pthread_cond_timedwait, pthread_cond_wait, owl_load64, owl_load8, owl_store8)

cdef enum:
    LOOK_NS = 250000000           # between two looks at jobs that run


cdef inline void tell_in_vain(Store *store, IoThread *thread, uint64_t now) noexcept nogil:
    """Who waits for a job that is being done: it goes on, but not for them; under the mutex."""
    cdef Job *job = thread.jobs
    if not owl_load8(&job.done) and waited_in_vain(job, store.patience_ns, now):
        thread.told = 1
        store.expired_total += 1
        fail_chunk(store, job.source, job.chunk, EBUSY)


cdef inline void look_at_threads(Store *store, uint64_t now) noexcept nogil:
    """Who hangs; under the mutex."""
    cdef IoThread *thread
    cdef uint32_t i
    for i in range(<uint32_t>MAX_THREADS):
        thread = &store.threads[i]
        if thread.lane == NULL:
            continue
        if not thread.hangs and now > owl_load64(&thread.since_ns) + store.patience_ns // 5:
            thread.hangs = 1
            thread.lane.hung += 1
            store.hung_threads += 1
            if lane_may_run(&store.lanes, thread.lane):
                pthread_cond_signal(&store.work)
        if not thread.told:
            tell_in_vain(store, thread, now)


cdef inline Job *take_in_vain(Store *store, bint everything) noexcept nogil:
    """What waited too long, or all that somebody waits for, out of the lanes; under the mutex."""
    cdef uint64_t now = clock_ns()
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


cdef inline void give_up(Store *store, Job *job, int error) noexcept nogil:
    """A list of jobs that nobody has begun; not under the mutex."""
    cdef Job *following
    cdef Message *message
    while job != NULL:
        following = job.next
        store.expired_total += error == EBUSY
        if job.kind == JOB_LOAD:
            owl_store8(&job.source.loading, 0)
            fail_chunk(store, job.source, job.chunk, error)
            store_unuse(store, job.source)
        else:
            message = job.written
            message.body.written.buffers = job.buffer
            message.body.written.error = error
            message.worker = job.worker
            queue_push(&store.workers[job.worker], message)
        free(job)
        job = following


cdef inline void sleep_until_due(Store *store, uint64_t next_ns) noexcept nogil:
    """Under the mutex: shortly while a job runs, or else until a file has lingered."""
    cdef timespec until
    cdef uint64_t now = clock_ns()
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
