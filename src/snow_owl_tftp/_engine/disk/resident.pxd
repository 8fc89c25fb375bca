# Whether what is about to be sent is still in memory.
#
# An I/O thread makes a chunk resident once; under memory pressure the kernel drops its pages again, and then the
# worker's own sendmmsg would read them, and wait for the disk.  /proc/self/pagemap says which pages stand in our page
# table: those sendmmsg copies without a fault.  mincore(2) and cachestat(2) tell nothing to who may not write the file;
# preadv2(RWF_NOWAIT) does not work on tmpfs, and begins to read what it does not find, for which it may wait.
#
# A look takes 0.8 us.  So a worker looks at a chunk that nobody has looked at for LOOK_TICKS; once something was
# missing it is watchful, and looks at each message until WATCH_NS after the last one.
#
# Must not: touch what is mapped, or wait.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport (
    CHUNK_ABSENT, CHUNK_BYTES, CHUNK_READY, KEEP_AFTER, LOOK_TICK_SHIFT, Look, Source)
from snow_owl_tftp._engine.disk.errands cimport Errands
from snow_owl_tftp._engine.includes.files cimport owl_in_page_table
from snow_owl_tftp._engine.includes.threads cimport owl_swap8

cdef enum:
    LOOK_TICKS = 10               # of 2^20 ns

cdef extern from * nogil:
    """
    #define OWL_WATCH_NS 10000000000ULL
    #include <sys/resource.h>
    /* How often this thread has waited for a page since it began. */
    static inline uint64_t owl_major_faults(void) {
        struct rusage usage;
        getrusage(RUSAGE_THREAD, &usage);                    /* cannot fail: a valid who, and our own memory */
        return (uint64_t)usage.ru_majflt;
    }
    """
    const uint64_t WATCH_NS "OWL_WATCH_NS"
    uint64_t owl_major_faults()


cdef inline bint is_due(const Errands *errands, const Look *look, uint64_t now_ns) noexcept nogil:
    return (now_ns < errands.watch_until_ns
            or <int32_t>(<uint32_t>(now_ns >> LOOK_TICK_SHIFT) - look.tick) >= LOOK_TICKS)


cdef inline bint is_lost(Errands *errands, Source *source, uint64_t chunk, uint64_t start, uint64_t end,
                         uint64_t now_ns) noexcept nogil:
    """True when a page of bytes start .. end - 1 was dropped since its chunk, which is CHUNK_READY, was made resident.
    The chunk is absent then."""
    cdef Look *look = source.looks + chunk
    if source.looks == NULL or not is_due(errands, look, now_ns):
        return False
    look.tick = <uint32_t>(now_ns >> LOOK_TICK_SHIFT)
    errands.counters.page_looks += 1
    if start < chunk * CHUNK_BYTES:
        start = chunk * CHUNK_BYTES
    if end > (chunk + 1) * CHUNK_BYTES:
        end = (chunk + 1) * CHUNK_BYTES
    if owl_in_page_table(errands.store.pagemap, source.map + start, end - start):
        return False
    errands.watch_until_ns = now_ns + WATCH_NS
    errands.counters.chunks_lost += 1
    if look.lost < KEEP_AFTER:
        look.lost += 1
    owl_swap8(&source.chunks[chunk], CHUNK_READY, CHUNK_ABSENT)  # or another worker was quicker
    return True


cdef inline void note_waits(Errands *errands, uint64_t now_ns) noexcept nogil:
    """Between a look and its message a page may still go: how often that cost a wait, while we are watchful."""
    if now_ns < errands.watch_until_ns:
        errands.counters.page_waits = owl_major_faults()
