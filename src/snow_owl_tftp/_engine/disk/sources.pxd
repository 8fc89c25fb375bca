# Sources: the files being sent, who uses them, and which of them linger.
#
# A Source is one open file for all transfers of it, mapped when its first chunk is loaded.  A file that nobody uses
# lingers, then it is closed: after linger_ns, at once where no later request could get it (changed, unlinked, a read
# failed), or when there are more open files than max_sources, the oldest first (expiry.pxd).
# Who only remembers a source, as a flow does, keeps the struct and not the file, and asks store_use() for it.
#
# `users` goes 0 <-> 1 under the store's mutex only.  Must not: wait for anything but that.

from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.includes.files cimport munmap, owl_file, owl_look
from snow_owl_tftp._engine.includes.net cimport close
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_cond_signal, pthread_mutex_lock, pthread_mutex_unlock, owl_add32, owl_add32_from)

cdef enum:
    SOURCE_BUCKETS = 4096         # a power of two; 32 KiB


cdef inline Source **bucket_of(Store *store, uint64_t device, uint64_t inode) noexcept nogil:
    # Fibonacci hashing: inodes of one folder are consecutive.
    return &store.buckets[((inode ^ device << 32) * <uint64_t>0x9E3779B97F4A7C15) >> 32 & (SOURCE_BUCKETS - 1)]


cdef inline void tell_neighbours(Store *store, Source *source, Source *after, Source *before) noexcept nogil:
    """The neighbours of `source` in the idle list get new neighbours."""
    if source.idle_before != NULL:
        source.idle_before.idle_after = after
    else:
        store.idle_first = after
    if source.idle_after != NULL:
        source.idle_after.idle_before = before
    else:
        store.idle_last = before


cdef inline void source_wanted(Store *store, Source *source) noexcept nogil:
    """Out of the idle list: it is in use again, or goes."""
    tell_neighbours(store, source, source.idle_after, source.idle_before)
    source.idle_before = NULL
    source.idle_after = NULL
    store.idle_count -= 1


cdef inline bint source_is_fresh(const Source *source) noexcept nogil:
    """May be given to a new request, as far as is known without a look."""
    return not (source.changed or source.unlinked or source.failed_errno or source.closed)


cdef inline bint source_is_changed(Source *source) noexcept nogil:
    """True once the file is not what it was when it was opened.

    ctime is not asked: a rename, a link, a chmod or an unlink moves it, and what they leave is the same file.
    Those who come later do not join such a source all the same (store_open).
    """
    cdef owl_file now
    if source.changed:
        return True
    if owl_look(source.fd, &now) < 0 or now.size_bytes != source.size_bytes or now.mtime_ns != source.mtime_ns:
        source.changed = 1
        return True
    if now.links == 0 and not source.nameless:
        source.unlinked = 1
    return False


cdef inline void source_idle(Store *store, Source *source) noexcept nogil:
    """Nobody uses it now; one that no request should be given again goes first."""
    # Nor does a copy: its memory is dear, and a file system that has its files read directly may want to be asked.
    # A file in memory is counted by whoever made it, as long as it is used.
    cdef bint lingers = source_is_fresh(source) and not source.copied and not source.nameless
    source.idle_since_ns = clock_ns() if lingers else 0
    source.idle_after = NULL if lingers else store.idle_first
    source.idle_before = store.idle_last if lingers else NULL
    tell_neighbours(store, source, source, source)
    store.idle_count += 1
    if not lingers or store.source_count > store.max_sources:
        pthread_cond_signal(&store.watch)


cdef inline bint store_use(Store *store, Source *source) noexcept nogil:
    """For who refers to a source without using it: True when its file is still open, and stays so."""
    cdef bint is_open
    if owl_add32_from(&source.users, 1, 1):       # without the mutex as long as there are others
        return True
    pthread_mutex_lock(&store.mutex)
    is_open = not source.closed
    if is_open and owl_add32(&source.users, 1) == 1:
        source_wanted(store, source)
    pthread_mutex_unlock(&store.mutex)
    return is_open


cdef inline bint store_is_crowded(const Store *store) noexcept nogil:
    """More files are in use than may be open.  Without the mutex: a moment sooner or later makes no difference."""
    return store.source_count - store.idle_count > store.max_sources


cdef inline void store_unuse(Store *store, Source *source) noexcept nogil:
    """One user less; an I/O thread closes a file that has none for linger_ns.  A pipe goes with its recipe."""
    if source == NULL or source.stream or owl_add32_from(&source.users, -1, 2):
        return
    pthread_mutex_lock(&store.mutex)
    if owl_add32(&source.users, -1) == 0:
        source_idle(store, source)
    pthread_mutex_unlock(&store.mutex)


cdef inline void store_release(Source *source) noexcept nogil:
    """Drops a reference to the struct.  The file of a source is closed before: the store has a reference until then."""
    if source == NULL or owl_add32(&source.refs, -1) != 0:
        return
    if source.stream:                            # a pipe belongs to one recipe: there is nobody to wait for
        close(source.fd)
        free(source.map)
    free(source)


cdef inline void source_close(Source *source) noexcept nogil:
    """Nobody uses it, and nobody will: the store has let it go."""
    if source.map != NULL:
        munmap(source.map, source.size_bytes)    # cannot fail: it is our mapping
        source.map = NULL
    close(source.fd)
    free(source.chunks)
    free(source.looks)
    source.chunks = NULL
    store_release(source)
