# Block numbers: the 16 bits on the wire against the unbounded block_index.
#
# Only this file converts one into the other.  `block` is what RFC 1350 section 5 puts into DATA and ACK;
# `block_index` counts 1, 2, 3 … without end (0 is the OACK or the ACK 0 that stands before the data).
# RFC 1350 says nothing about what follows block 65535; nearly everybody goes on with 0, some old
# servers with 1.  Pure functions: no state, no I/O.

from libc.stdint cimport int64_t, uint16_t

cdef enum:
    ROLLOVER_TO_0 = 0
    ROLLOVER_TO_1 = 1


cdef inline uint16_t seq_block(int64_t block_index, int rollover) noexcept nogil:
    """The number that stands on the wire for `block_index` (>= 0)."""
    if rollover == ROLLOVER_TO_1 and block_index > 65535:
        return <uint16_t>((block_index - 1) % 65535 + 1)
    return <uint16_t>block_index


cdef inline int64_t seq_index_from(int64_t reference, uint16_t block) noexcept nogil:
    """The first block_index at or after `reference` (>= -1) that has number `block`, rollover to 0."""
    return reference + <uint16_t>(block - <uint16_t>reference)


cdef inline uint16_t seq_distance(uint16_t block, uint16_t reference) noexcept nogil:
    """How far `block` stands after `reference` on the circle of 65536 numbers."""
    return <uint16_t>(block - reference)
