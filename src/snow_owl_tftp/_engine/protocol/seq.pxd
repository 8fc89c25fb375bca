# Block numbers: the 16 bits on the wire against the unbounded block_index.
#
# Only this file converts one into the other.  `block` is what RFC 1350 section 5 puts into DATA and ACK;
# `block_index` counts 1, 2, 3 … without end (0 is the OACK or the ACK 0 that stands before the data).
# RFC 1350 says nothing about what follows block 65535; nearly everybody goes on with 0, some old
# servers with 1.  Pure functions: no state, no I/O.

from libc.stdint cimport int64_t, uint16_t, uint32_t

cdef enum:
    ROLLOVER_TO_0 = 0
    ROLLOVER_TO_1 = 1


cdef inline uint16_t seq_block(int64_t block_index, int rollover) noexcept nogil:
    """The number that stands on the wire for `block_index` (>= 0)."""
    if rollover == ROLLOVER_TO_1 and block_index > 65535:
        return <uint16_t>((block_index - 1) % 65535 + 1)
    return <uint16_t>block_index


cdef inline uint32_t seq_steps(int64_t block_index, uint16_t block, int rollover) noexcept nogil:
    """From `block_index` (>= -1) on to the next one that has number `block`."""
    if rollover != ROLLOVER_TO_1 or block_index <= 0:
        return <uint16_t>(block - <uint16_t>block_index)
    if block == 0:
        return 65536                             # only the ACK before the data has it: no window reaches so far
    return (<uint32_t>block + 65535 - seq_block(block_index, rollover)) % 65535


cdef inline int64_t seq_index_from(int64_t reference, uint16_t block, int rollover) noexcept nogil:
    """The first block_index at or after `reference` (>= -1) that has number `block`."""
    return reference + seq_steps(reference, block, rollover)


cdef inline uint32_t seq_ahead(int64_t expected, uint16_t block, int rollover) noexcept nogil:
    """How far `block` stands after the block_index `expected` (>= 1); 65535: it is the one before."""
    cdef uint32_t steps = seq_steps(expected, block, rollover)
    return 65535 if rollover == ROLLOVER_TO_1 and steps == 65534 else steps
