# Opening: a descriptor becomes a source, or one that is open already and the same file takes its place.
#
# Under the store's mutex, but for source_new().

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from snow_owl_tftp._engine.base.content cimport CHUNK_BYTES, Source
from snow_owl_tftp._engine.disk.jobs cimport wake_watch
from snow_owl_tftp._engine.disk.sources cimport bucket_of, source_is_fresh
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.includes.files cimport owl_file
from snow_owl_tftp._engine.includes.threads cimport pthread_cond_signal


cdef inline Source *source_new(int fd, const owl_file *file) noexcept nogil:
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


cdef inline Source *find_source(Store *store, const owl_file *file) noexcept nogil:
    """One that is open and the same file; under the mutex."""
    cdef Source *source = bucket_of(store, file.device, file.inode)[0]
    while source != NULL:
        if (source.inode == file.inode and source.device == file.device and source.size_bytes == file.size_bytes
                and source.mtime_ns == file.mtime_ns and source.ctime_ns == file.ctime_ns and source_is_fresh(source)):
            return source
        source = source.next
    return NULL


cdef inline void put_source(Store *store, Source *source) noexcept nogil:
    cdef Source **bucket = bucket_of(store, source.device, source.inode)
    source.next = bucket[0]
    bucket[0] = source
    store.source_count += 1
    if store.source_count > store.max_sources:
        pthread_cond_signal(&store.watch)        # it may be looking at threads, and has to close another one now
    else:
        wake_watch(store)                        # for it will linger
