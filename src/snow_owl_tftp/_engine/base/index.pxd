# A hash index: 32-bit hash -> number of a place somewhere else.  Open addressing, linear probing.
#
# The index knows nothing of what it finds: the caller walks the candidates of a hash and compares.
# One index type serves transfers by TID, transfers by request, clients and flows.  Hashes are keyed
# with a random secret of the process, so that a peer cannot aim at one bucket.
#
# Invariants: used * 2 <= size; size is a power of two; an entry is (value + 1) << 32 | hash, 0 is free.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef struct Index:
    uint64_t *cells
    uint32_t mask
    uint32_t used


cdef inline int index_init(Index *index, uint32_t size) noexcept nogil:
    """`size`: a power of two.  Returns -1 when there is no memory."""
    index.cells = <uint64_t *>calloc(size, sizeof(uint64_t))
    index.mask = size - 1
    index.used = 0
    return 0 if index.cells != NULL else -1


cdef inline void index_free(Index *index) noexcept nogil:
    free(index.cells)
    index.cells = NULL


cdef inline void index_place(uint64_t *cells, uint32_t mask, uint64_t entry) noexcept nogil:
    cdef uint32_t at = <uint32_t>entry & mask
    while cells[at]:
        at = (at + 1) & mask
    cells[at] = entry


cdef inline int index_grow(Index *index) noexcept nogil:
    cdef uint32_t size = (index.mask + 1) * 2, i
    cdef uint64_t *cells = <uint64_t *>calloc(size, sizeof(uint64_t))
    if cells == NULL:
        return -1
    for i in range(index.mask + 1):
        if index.cells[i]:
            index_place(cells, size - 1, index.cells[i])
    free(index.cells)
    index.cells = cells
    index.mask = size - 1
    return 0


cdef inline int index_add(Index *index, uint32_t hash, uint32_t value) noexcept nogil:
    """Returns -1 when there is no memory for a larger table."""
    if (index.used + 1) * 2 > index.mask + 1 and index_grow(index) < 0:
        return -1
    index_place(index.cells, index.mask, (<uint64_t>value + 1) << 32 | hash)
    index.used += 1
    return 0


cdef inline int64_t index_find(const Index *index, uint32_t hash, uint32_t *at) noexcept nogil:
    """The next candidate from `at` on (start with `at[0] = hash`), or -1.  Leaves `at` behind it."""
    cdef uint64_t entry
    cdef uint32_t i = at[0] & index.mask
    while True:
        entry = index.cells[i]
        if entry == 0:
            return -1
        i = (i + 1) & index.mask
        if <uint32_t>entry == hash:
            at[0] = i
            return <int64_t>(entry >> 32) - 1


cdef inline void index_remove(Index *index, uint32_t hash, uint32_t value) noexcept nogil:
    """Takes out what index_add put in; what stands behind moves up (no tombstones)."""
    cdef uint64_t entry = (<uint64_t>value + 1) << 32 | hash
    cdef uint32_t hole = hash & index.mask, at, home
    while index.cells[hole] != entry:
        if index.cells[hole] == 0:
            return
        hole = (hole + 1) & index.mask
    index.used -= 1
    at = hole
    while True:
        at = (at + 1) & index.mask
        if index.cells[at] == 0:
            break
        home = <uint32_t>index.cells[at] & index.mask
        if ((at - home) & index.mask) >= ((at - hole) & index.mask):
            index.cells[hole] = index.cells[at]
            hole = at
    index.cells[hole] = 0


cdef inline uint64_t hash_bytes(const uint8_t *bytes, size_t size, uint64_t secret) noexcept nogil:
    """A keyed mix of `size` bytes: eight at a time, multiplied and folded."""
    cdef uint64_t h = secret ^ (size * <uint64_t>0x9E3779B97F4A7C15), word
    while size >= 8:
        memcpy(&word, bytes, 8)
        h = (h ^ word) * <uint64_t>0xD6E8FEB86659FD93
        h ^= h >> 32
        bytes += 8
        size -= 8
    word = 0
    memcpy(&word, bytes, size)
    h = (h ^ word) * <uint64_t>0xD6E8FEB86659FD93
    h ^= h >> 29
    h = (h + secret) * <uint64_t>0x9E3779B97F4A7C15
    return h ^ (h >> 32)
