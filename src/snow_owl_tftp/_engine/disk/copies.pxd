# Chunks in memory of our own, for files that cannot be sent from a mapping; so many at most, the oldest gives way.
#
# A file that cannot be mapped (FUSE with direct I/O), whose pages its server may drop (FUSE does at every open: the
# worker's own sendmmsg would fetch them again), or whose holes a mapping would fill with blocks (on tmpfs for ever)
# is read into memory of our own instead, chunk by chunk: the oldest gives its memory back, after every worker has
# left the turn in which it may have queued bytes of it.  On I/O threads.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport (
    CHUNK_ABSENT, CHUNK_ASKED, CHUNK_BYTES, CHUNK_LEAVING, CHUNK_OWNED, Source)
from snow_owl_tftp._engine.disk.sources cimport source_wanted, store_unuse
from snow_owl_tftp._engine.disk.state cimport Copies, Copy, Store
from snow_owl_tftp._engine.includes.files cimport MADV_DONTNEED, MAP_FIXED, MAP_SHARED, PROT_READ, madvise, mmap
from snow_owl_tftp._engine.includes.net cimport nanosleep, timespec
from snow_owl_tftp._engine.includes.threads cimport (
    pthread_mutex_lock, pthread_mutex_unlock, owl_add32, owl_load8, owl_look_at_turn, owl_store8, owl_swap8)


cdef inline uint64_t chunk_bytes(const Source *source, uint32_t chunk) noexcept nogil:
    cdef uint64_t left = source.size_bytes - <uint64_t>chunk * CHUNK_BYTES
    return left if left < CHUNK_BYTES else CHUNK_BYTES


cdef inline void wait_for_turns(Store *store) noexcept nogil:
    """Until no worker is in a turn that it was in before: what it had queued then has left."""
    cdef timespec pause
    cdef uint32_t worker, turn
    pause.tv_sec = 0
    pause.tv_nsec = 20000
    for worker in range(store.worker_count):
        turn = owl_look_at_turn(&store.turns[worker])
        while turn & 1 and owl_look_at_turn(&store.turns[worker]) == turn:
            nanosleep(&pause, NULL)              # a signal may cut it short: harmless


cdef inline bint take_place(Store *store, Copies *copies, Copy *old, Source *source, uint32_t chunk) noexcept nogil:
    """A place for a chunk that is about to be read; under the mutex.  True: `old`, which was there, is to leave, and
    we use its source until then.  The few that others are reading now are passed by."""
    cdef Copy *place = &copies.places[copies.hand]
    cdef uint32_t _
    for _ in range(copies.count):
        place = &copies.places[copies.hand]
        copies.hand = (copies.hand + 1) % copies.count
        if place.source == NULL or owl_load8(&place.source.chunks[place.chunk]) != CHUNK_ASKED:
            break
    old[0] = place[0]
    place.source = source
    place.chunk = chunk
    if old.source == NULL or not owl_swap8(&old.source.chunks[old.chunk], CHUNK_OWNED, CHUNK_LEAVING):
        return False
    if owl_add32(&old.source.users, 1) == 1:
        source_wanted(store, old.source)
    return True


cdef inline void forget_copies(Copies *copies, const Source *source) noexcept nogil:
    """Its memory goes; under the mutex."""
    cdef uint32_t i
    for i in range(copies.count):
        if copies.places[i].source == source:
            copies.places[i].source = NULL


cdef inline void give_back(Source *source, uint32_t chunk) noexcept nogil:
    """The memory of a copy: what takes its place is nothing, or the file again."""
    cdef uint64_t start = <uint64_t>chunk * CHUNK_BYTES, size = chunk_bytes(source, chunk)
    if source.copied:
        madvise(source.map + start, size, MADV_DONTNEED)  # cannot fail: it is our mapping
        return
    source.looks[chunk].lost = 0
    # Without memory for that it stays a copy, which is the file's content too.
    mmap(source.map + start, size, PROT_READ, MAP_SHARED | MAP_FIXED, source.fd, <int64_t>start)


cdef inline void make_room(Store *store, Copies *copies, Source *source, uint32_t chunk) noexcept nogil:
    cdef Copy old
    cdef bint is_full
    pthread_mutex_lock(&store.mutex)
    is_full = take_place(store, copies, &old, source, chunk)
    store.copies_total += 1
    pthread_mutex_unlock(&store.mutex)
    if is_full:
        wait_for_turns(store)
        give_back(old.source, old.chunk)
        owl_store8(&old.source.chunks[old.chunk], CHUNK_ABSENT)
        store_unuse(store, old.source)
