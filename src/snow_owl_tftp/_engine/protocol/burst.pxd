# How much of a window may leave at once: protocol/burst.py, over a struct.  Limits in 1/256 of a block.

from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef enum:
    USUAL_BUFFER_BYTES = 212992
    FRAME_BYTES = 1480
    SMALL_BYTES = 640
    SMALL_COST_BYTES = 1280
    FRAME_COST_BYTES = 2304
    LEAST_PAUSE_NS = 1000000
    SAME_PLACE = 3
    SMALL_PLACE = 4
    LARGE = 4
    FEW = 8
    FEW_LEARNED = 2
    UNHEEDING = 4
    CAREFUL = 64
    WARY = 256


cdef struct Burst:
    uint64_t least_pause_ns        # between two bursts, learned
    uint32_t fence                 # the limit, in 1/256
    uint32_t most                  # the window, in 1/256
    uint32_t start                 # the limit at first, blocks
    uint32_t remembered            # that of the client's last transfer, 0: none was met
    uint32_t now                   # how many blocks may leave at once now: the limit, less behind a loss
    uint32_t place                 # where in a burst the last loss was, blocks
    uint32_t times                 # how many losses in a row were there
    uint32_t growth                # the limit grows by 1/growth of itself
    uint8_t is_learned             # something was lost for its sake
    uint8_t overtakes              # blocks were seen to overtake one another


cdef inline uint32_t blocks_of_a_usual_buffer(uint32_t blksize_bytes) noexcept nogil:
    cdef uint32_t cost_bytes = SMALL_COST_BYTES, blocks
    if blksize_bytes >= SMALL_BYTES:
        cost_bytes = (blksize_bytes + 12 + FRAME_BYTES - 1) // FRAME_BYTES * FRAME_COST_BYTES
    blocks = USUAL_BUFFER_BYTES * 3 // 4 // cost_bytes
    return blocks if blocks else 1


cdef inline uint32_t burst_limit(const Burst *b) noexcept nogil:
    return b.fence // 256


cdef inline void burst_forget(Burst *b) noexcept nogil:
    """What was learned in this transfer was no loss."""
    b.fence = b.start * 256 if b.start < b.most // 256 else b.most
    b.growth = CAREFUL if b.remembered else UNHEEDING
    b.is_learned = b.remembered > 0
    b.overtakes = 0
    b.now = burst_limit(b)
    b.place = 0
    b.times = 0


cdef inline void burst_init(Burst *b, uint32_t windowsize, uint32_t blksize_bytes, uint32_t remembered) noexcept nogil:
    b.most = windowsize * 256
    b.remembered = remembered
    b.start = remembered if remembered else blocks_of_a_usual_buffer(blksize_bytes)
    b.least_pause_ns = 0
    burst_forget(b)


cdef inline uint32_t burst_after(const Burst *b, uint32_t blocks) noexcept nogil:
    """How many blocks may leave behind so many that arrived, or have left."""
    cdef uint32_t limit = burst_limit(b)
    blocks = 2 * blocks + (<uint32_t>FEW_LEARNED if b.is_learned else <uint32_t>FEW)
    return blocks if blocks < limit else limit


cdef inline bint burst_is_at_end(const Burst *b, uint32_t arrived) noexcept nogil:
    cdef uint32_t limit = burst_limit(b)
    return arrived >= limit - limit // (2 if limit > LARGE else 8) if b.is_learned else arrived >= b.start


cdef inline void burst_lost(Burst *b, uint32_t arrived, bint is_silent) noexcept nogil:
    """So many blocks of a burst arrived before the first that did not; `is_silent`: nobody reported it before a
    timeout, so its whole end was lost, and that counts twice."""
    cdef uint32_t apart = arrived - b.place if arrived > b.place else b.place - arrived
    is_silent = is_silent and arrived >= <uint32_t>FEW
    b.times = (b.times if apart <= b.place // 8 else 0) + 1 + is_silent
    b.place = arrived
    if burst_is_at_end(b, arrived) or b.times >= <uint32_t>SAME_PLACE + <uint32_t>(arrived < <uint32_t>SMALL_PLACE):
        b.is_learned = 1
        b.growth = CAREFUL
        if arrived * 256 < b.fence:
            b.fence = arrived * 256 if arrived else 256
    elif b.overtakes and arrived * 256 < b.fence:
        b.fence //= 2
        if b.fence < arrived * 256:
            b.fence = arrived * 256
        if b.fence < 256:
            b.fence = 256
    if is_silent:
        b.now = arrived if arrived < burst_limit(b) else burst_limit(b)
    else:
        b.now = burst_after(b, arrived)


cdef inline void burst_lost_behind_pause(Burst *b, uint32_t arrived, uint64_t pause_ns,
                                         uint64_t most_ns) noexcept nogil:
    if b.is_learned:
        pause_ns += pause_ns // 4 + LEAST_PAUSE_NS
        b.least_pause_ns = pause_ns if pause_ns < most_ns else most_ns
    b.now = burst_after(b, arrived)


cdef inline void burst_whole_behind_pause(Burst *b) noexcept nogil:
    b.least_pause_ns -= b.least_pause_ns // 4


cdef inline void burst_shrink(Burst *b, bint blindly) noexcept nogil:
    b.is_learned = 1
    b.growth = WARY if blindly else CAREFUL
    if not blindly:
        b.overtakes = 1
    if b.fence > b.now * 256:
        b.fence = b.now * 256
    b.fence = b.fence // 2 if b.fence >= 512 else 256
    if b.now > burst_limit(b):
        b.now = burst_limit(b)


cdef inline void burst_whole(Burst *b) noexcept nogil:
    """A burst arrived whole: try a little more, the whole window only when all but one block of it went well."""
    cdef uint32_t most = b.most
    if b.fence >= b.most:
        return
    if b.fence < b.most - 256:
        most -= 256
    b.fence += b.fence // b.growth + 1
    if b.fence > most:
        b.fence = most
