# Files that nobody uses are closed: after they have lingered, or at once where more are open than may be.
#
# Under the store's mutex; closing itself is a job, for a file server may be asked.

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.disk.copies cimport forget_copies
from snow_owl_tftp._engine.disk.jobs cimport add
from snow_owl_tftp._engine.disk.lanes cimport JOB_EXPIRE, Job
from snow_owl_tftp._engine.disk.sources cimport bucket_of, source_wanted
from snow_owl_tftp._engine.disk.state cimport Store


cdef inline Source *take_expired(Store *store, uint64_t now, uint64_t *next_ns) noexcept nogil:
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


cdef inline bint expire_sources(Store *store, uint64_t now, uint64_t *next_ns) noexcept nogil:
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
