# Writes: what was received goes to the disk, and the buffers go home to their worker.  On I/O threads.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.content cimport Buffer
from snow_owl_tftp._engine.base.messages cimport Message
from snow_owl_tftp._engine.base.queue cimport queue_push_list
from snow_owl_tftp._engine.disk.lanes cimport IoThread, Job
from snow_owl_tftp._engine.disk.state cimport STOP_NOW, Store
from snow_owl_tftp._engine.includes.files cimport pwrite
from snow_owl_tftp._engine.includes.net cimport ECANCELED, EINTR, EIO, errno
from snow_owl_tftp._engine.includes.threads cimport owl_load32, owl_store64, owl_store8

cdef enum:
    HOLD_NS = 500000              # a written buffer waits no longer for the next one


cdef inline int write_buffer(int fd, const Buffer *buffer) noexcept nogil:
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


cdef inline Message *run_write(Store *store, Job *job) noexcept nogil:
    """Writes a list of buffers; the errno of a failure travels with it."""
    cdef Message *message = job.written
    cdef Buffer *buffer = job.buffer
    cdef int error = 0
    while buffer != NULL and error == 0:
        # After the end the descriptor may be another file's.
        error = write_buffer(job.fd, buffer) if owl_load32(&store.stopping) < STOP_NOW else ECANCELED
        buffer = buffer.next
    message.body.written.buffers = job.buffer
    message.body.written.error = error
    message.worker = job.worker
    return message


cdef inline void run_writes(Store *store, IoThread *thread) noexcept nogil:
    """A list of them.  Written buffers go home together, so that the worker is not woken for each one;
    but none waits longer than HOLD_NS for those behind it."""
    cdef Message *first = NULL
    cdef Message *last = NULL
    cdef Message *message
    cdef Job *job = thread.jobs
    cdef uint64_t started = clock_ns(), now = started
    while job != NULL:
        owl_store64(&thread.since_ns, now)
        message = run_write(store, job)
        owl_store8(&job.done, 1)
        now = clock_ns()
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
