# Jobs: what I/O threads are asked to do, put into the lane of their device (lanes.pxd).
#
# Whoever asks waits for nothing: a job is a place in a list, and a thread is woken once a turn (store_kick).
# Must not: open, read, write or close a file.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.content cimport Buffer, CHUNK_ABSENT, CHUNK_ASKED, Sink, Source
from snow_owl_tftp._engine.base.messages cimport M_WRITTEN, message_new
from snow_owl_tftp._engine.disk.lanes cimport JOB_LOAD, JOB_WRITE, Job, Lane, MAX_THREADS, lane_add, lane_may_run
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.includes.files cimport owl_file, owl_look
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_signal, pthread_mutex_lock, pthread_mutex_unlock, owl_add32, owl_load8, owl_store8, owl_swap8)


cdef inline void store_kick(Store *store) noexcept nogil:
    """Wakes an I/O thread, if one may take what was added.  Once a turn, not once a job, and never under the mutex: on
    a busy core each wake-up costs the worker its place, and the thread that wakes only finds the mutex taken."""
    if owl_swap8(&store.wake, 1, 0):
        pthread_cond_signal(&store.work)


cdef inline void wake_watch(Store *store) noexcept nogil:
    """Under the mutex."""
    if store.watch_sleeps:
        store.watch_sleeps = 0
        pthread_cond_signal(&store.watch)


cdef inline void add(Store *store, Job *job) noexcept nogil:
    """Under the mutex; somebody owes a store_kick."""
    cdef Lane *lane = lane_add(&store.lanes, job)
    if not lane_may_run(&store.lanes, lane):
        return                                   # who works for it now goes on with this one
    if store.idle_threads:
        owl_store8(&store.wake, 1)
    elif store.starting_threads == 0 and store.thread_count < MAX_THREADS:
        pthread_cond_signal(&store.watch)        # it starts another thread
    wake_watch(store)


cdef inline void append(Store *store, Job *job) noexcept nogil:
    """The caller owes a store_kick."""
    job.since_ns = clock_ns()
    pthread_mutex_lock(&store.mutex)
    add(store, job)
    pthread_mutex_unlock(&store.mutex)


cdef inline int store_load(Store *store, Source *source, uint32_t chunk, uint32_t worker) noexcept nogil:
    """Asks for a chunk once; every worker hears when it is there.  Returns -1 when there is no memory.

    One load of a source at a time: a file on a slow disk must not hold more than one I/O thread.  Who
    finds it busy asks again when the other chunk has come.
    """
    cdef Job *job
    if owl_load8(&source.chunks[chunk]) != CHUNK_ABSENT or not owl_swap8(&source.loading, 0, 1):
        return 0
    if not owl_swap8(&source.chunks[chunk], CHUNK_ABSENT, CHUNK_ASKED):
        owl_store8(&source.loading, 0)
        return 0
    job = <Job *>calloc(1, sizeof(Job))
    if job == NULL:
        owl_store8(&source.chunks[chunk], CHUNK_ABSENT)
        owl_store8(&source.loading, 0)
        return -1
    owl_add32(&source.users, 1)                   # the job's; the caller's transfer is one, so it was not zero
    job.kind = JOB_LOAD
    job.device = source.device
    job.source = source
    job.chunk = chunk
    job.worker = worker
    append(store, job)
    return 0


cdef inline int store_write(Store *store, Sink *sink, Buffer *buffer, uint64_t transfer_id,
                            uint32_t worker) noexcept nogil:
    """Hands a list of buffers over to be written; M_WRITTEN brings it back.  Returns -1 when there is no memory."""
    cdef owl_file file
    cdef Job *job = <Job *>calloc(1, sizeof(Job))
    if job != NULL:
        job.written = message_new(M_WRITTEN, transfer_id, NULL, 0)  # now, while the transfer can still be refused
    if job == NULL or job.written == NULL:
        free(job)
        return -1
    if sink.device == 0 and owl_look(sink.fd, &file) == 0:
        sink.device = file.device                # as far as the kernel knows; else the write will tell what is wrong
    job.kind = JOB_WRITE
    job.device = sink.device
    job.buffer = buffer
    job.fd = sink.fd
    job.transfer_id = transfer_id
    job.worker = worker
    append(store, job)
    return 0
