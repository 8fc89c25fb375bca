# Loads: a chunk of a file is made resident, so that sending it waits for no disk.
#
# By madvise(MADV_POPULATE_READ) on an I/O thread: unlike a page fault in sendmmsg it cannot stall a worker, and unlike
# preadv2(RWF_NOWAIT) it works on tmpfs too.  The mapping is read by the kernel alone (sendmmsg copies from it): a page
# behind a new end of file is EFAULT there, and would be SIGBUS here.  On I/O threads, but for map_compared().

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.content cimport (
    CHUNK_ASKED, CHUNK_BYTES, CHUNK_FAILED, CHUNK_OWNED, CHUNK_READY, KEEP_AFTER, LOOK_TICK_SHIFT, Look, Source)
from snow_owl_tftp._engine.base.messages cimport M_LOADED, Message, message_new
from snow_owl_tftp._engine.base.queue cimport queue_note, queue_push
from snow_owl_tftp._engine.disk.copies cimport chunk_bytes, make_room
from snow_owl_tftp._engine.disk.lanes cimport Job
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.includes.files cimport (
    MADV_POPULATE_READ, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, MREMAP_FIXED,
    MREMAP_MAYMOVE, PROT_READ, PROT_WRITE, madvise, mmap, mremap, munmap, pread, owl_data, owl_hole, owl_is_near,
    owl_is_remote)
from snow_owl_tftp._engine.includes.net cimport EAGAIN, EINTR, EINVAL, EIO, errno
from snow_owl_tftp._engine.includes.threads cimport pthread_mutex_lock, pthread_mutex_unlock, owl_store8, owl_swap8


cdef inline uint8_t *map_memory(uint64_t size_bytes, int protection, int flags, int fd) noexcept nogil:
    """NULL when it failed, with errno."""
    cdef void *start = mmap(NULL, size_bytes, protection, flags, fd, 0)
    return NULL if start == MAP_FAILED else <uint8_t *>start


cdef inline void set_map(Store *store, Source *source, uint8_t *start, bint copied) noexcept nogil:
    """Whoever comes first: a source may be sent, and compared with, at the same time."""
    pthread_mutex_lock(&store.mutex)
    if source.map == NULL:
        source.copied = copied
        source.map = start
        start = NULL
    pthread_mutex_unlock(&store.mutex)
    if start != NULL:
        munmap(start, source.size_bytes)         # cannot fail: it is our mapping


cdef inline int source_map(Store *store, Source *source) noexcept nogil:
    """The file, or where it is copied to, for the first chunk; 0 or an errno.  On an I/O thread."""
    cdef uint8_t *start = NULL
    cdef bint copied = owl_is_remote(source.fd) or owl_hole(source.fd, 0, source.size_bytes) < source.size_bytes
    if not copied:
        start = map_memory(source.size_bytes, PROT_READ, MAP_SHARED, source.fd)
        copied = start == NULL
    if copied:
        start = map_memory(source.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1)
    if start == NULL:
        return errno
    if not copied and store.pagemap >= 0:        # without memory for that nobody looks
        source.looks = <Look *>calloc(source.chunk_count, sizeof(Look))
    source.near = owl_is_near(source.fd)
    set_map(store, source, start, copied)
    return 0


cdef inline int map_compared(Store *store, Source *source) noexcept nogil:
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


cdef inline int read_range(Source *source, uint8_t *into, uint64_t at, uint64_t end) noexcept nogil:
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


cdef inline int read_copy(Source *source, uint64_t start, uint64_t end) noexcept nogil:
    """Reads what is no hole; 0 or an errno.  A hole stays untouched memory, which the kernel sends as zeros."""
    cdef uint64_t at = start, hole
    cdef int error = 0
    while error == 0:
        at = owl_data(source.fd, at, end)
        if at >= end:
            break
        hole = owl_hole(source.fd, at, end)
        if hole <= at:
            hole = end                           # filled or punched meanwhile
        error = read_range(source, source.map + at, at, hole)
        at = hole
    return error


cdef inline int populate(uint8_t *start, uint64_t size) noexcept nogil:
    """0 or an errno: EIO where the file became shorter, or the disk failed (EFAULT)."""
    while madvise(start, size, MADV_POPULATE_READ) < 0:
        if errno == EINVAL:
            break                                # before Linux 5.14: the pages come by faults, as they always did
        if errno != EINTR and errno != EAGAIN:
            return EIO
    return 0


cdef inline int keep_chunk(Store *store, Source *source, uint32_t chunk) noexcept nogil:
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


cdef inline int load(Store *store, Source *source, uint32_t chunk, uint8_t *state) noexcept nogil:
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
        source.looks[chunk].tick = <uint32_t>(clock_ns() >> LOOK_TICK_SHIFT)
        if source.looks[chunk].lost >= KEEP_AFTER and keep_chunk(store, source, chunk) == 0:
            return 0
    state[0] = CHUNK_READY
    return populate(source.map + start, size)


cdef inline void tell_loaded(Store *store) noexcept nogil:
    cdef Message *message
    cdef uint32_t worker
    for worker in range(store.worker_count):
        message = message_new(M_LOADED, 0, NULL, 0)
        if message != NULL:
            queue_push(&store.workers[worker], message)
        else:
            queue_note(&store.workers[worker])


cdef inline void fail_chunk(Store *store, Source *source, uint32_t chunk, int error) noexcept nogil:
    """Whoever waits for it is told; unless it has come meanwhile."""
    source.failed_errno = error
    owl_swap8(&source.chunks[chunk], CHUNK_ASKED, CHUNK_FAILED)
    tell_loaded(store)


cdef inline void run_load(Store *store, Job *job) noexcept nogil:
    """Makes a chunk resident, or marks it failed, and tells every worker."""
    cdef Source *source = job.source
    cdef uint8_t state = CHUNK_FAILED
    cdef int error = load(store, source, job.chunk, &state)
    if error:
        source.failed_errno = error
        owl_store8(&source.chunks[job.chunk], CHUNK_FAILED)
    elif owl_swap8(&source.chunks[job.chunk], CHUNK_ASKED, state):
        source.served = 1                        # else it came too late: fail_chunk()
    owl_store8(&source.loading, 0)
    tell_loaded(store)
