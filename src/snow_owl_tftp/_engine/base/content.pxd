# What is sent and received, and who owns which part.
#
#   Recipe     what Python decided (TransferPlan), frozen; shared by the transfers of one flow; counted
#   Source     an open file being sent, mapped; shared by every transfer of the file; counted twice: who
#              uses the file, and who may look at the struct, which a flow does without using the file
#   Sink       a file being received; belongs to one transfer
#   Buffer     a piece of it on its way to the disk
#
# References are counted with atomics because Python, workers and I/O threads drop them; who drops the
# last one frees.  Nothing here calls anything.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.quotas cimport ClientLimits

cdef enum:
    CHUNK_BYTES = 524288          # what one I/O job makes resident; 366 blocks of 1428
    CHUNK_ABSENT = 0
    CHUNK_ASKED = 1
    CHUNK_READY = 2
    CHUNK_FAILED = 3
    CHUNK_LEAVING = 4             # its memory is given back
    CHUNK_OWNED = 5               # as CHUNK_READY, in memory of our own
    LOOK_TICK_SHIFT = 20          # Look.tick counts 2^20 ns, about a millisecond
    KEEP_AFTER = 2                # who was lost so often is not mapped again but copied

cdef struct Look:
    # At the pages of a chunk that is mapped.  All workers write it: a look too many does no harm.
    uint32_t tick                 # of the last one, or of when the chunk was fetched
    uint8_t lost                  # how often pages were missing since it was last in memory of our own; to KEEP_AFTER

cdef struct Source:
    int fd                        # ours while users > 0, or while the store has it
    uint32_t refs                 # of the struct: recipes, and the store while the file is open
    uint32_t users                # of the file: transfers and loads; 0 <-> 1 only under the store's mutex
    uint8_t *map                  # made for the first chunk; of a file NEVER read by us: the kernel copies from it
    uint8_t copied                # 1: it is not to be mapped, `map` is memory of our own that chunks are read into
    uint8_t near                  # 1: nobody is asked, and waited for, when another descriptor of it is closed
    uint64_t size_bytes
    uint64_t device, inode
    int64_t mtime_ns, ctime_ns
    uint8_t *chunks               # CHUNK_ state per CHUNK_BYTES, atomic
    Look *looks                   # one a chunk; NULL: nobody looks
    uint32_t chunk_count
    uint8_t loading               # atomic: 1 while an I/O thread is at it
    uint8_t served                # a chunk of it was there once: some client has a part of the file
    int failed_errno              # of the first read that failed
    uint64_t idle_since_ns        # when the last user left; 0: it goes at once
    uint64_t checked              # token (worker and round) of the last look that found it unchanged
    uint32_t changed              # 1: not the file that was opened any more
    uint32_t unlinked             # 1: no name leads to it any more; whoever has begun is served to the end
    uint32_t nameless             # 1: no name led to it when it was opened: a copy in memory
    uint32_t closed               # 1: descriptor and mapping are gone, or go now; set under the store's mutex
    Source *next                  # the store's: of the same bucket
    Source *idle_before           # the store's: those that nobody uses, the next to go first
    Source *idle_after
    uint8_t stream                # 1: `fd` is a pipe, `map` a ring of our own, `size_bytes` what was read
    uint8_t ended                 # stream: the writer has closed the pipe
    uint8_t watched               # stream: the pipe is registered with epoll
    uint64_t ring_bytes           # stream: a multiple of the block size, one block more than a window

cdef struct Recipe:
    uint32_t refs
    Source *source                # sender
    PyObject *context             # Python's own object for this decision; returned in the Completion
    uint64_t fixed_ns             # negotiated timeout, 0: measured
    uint32_t blksize_bytes
    uint32_t windowsize
    uint32_t first_bytes          # length of `first`
    uint8_t role
    uint8_t rollover              # what follows block 65535: ROLLOVER_TO_0 or ROLLOVER_TO_1
    uint32_t expected_bytes       # length of `expected`
    ClientLimits limits           # of its client, by the rule that decided
    uint8_t *expected             # an OACK of these bytes needs no decision; behind `first`
    uint8_t *first                # ready-made OACK or request; lies behind the struct

cdef struct Buffer:
    Buffer *next
    uint64_t offset
    uint32_t used, capacity       # bytes
    uint8_t *bytes                # lies behind the struct

cdef struct Sink:
    int fd                        # -1: not open yet; what arrives waits in buffers until it is
    int error                     # errno of the first write that failed
    uint64_t received_bytes       # payload accepted so far
    uint64_t limit_bytes          # more than this is refused; 0: no limit
    uint64_t declared_bytes       # tsize, or UINT64_MAX: not declared
    uint32_t buffer_bytes         # of one buffer
    uint32_t buffers              # full ones: being written, or waiting for that
    uint32_t max_buffers          # more than that hold the ACK back
    uint32_t waiting              # full ones that no I/O thread has yet
    uint32_t gathered             # so many of them are handed over together; at most half of max_buffers
    Buffer *filling
    Buffer *spare                 # written, and the next to be filled: its pages are there already
    Buffer *full                  # waiting, in order ...
    Buffer *full_end
    uint8_t writing               # ... because one job at a time writes to a file
    uint8_t ack_owed              # an ACK waits until a buffer is written
    uint8_t asked                 # Python was told that the descriptor is wanted
    Source *compared              # a load generator's: what the payload must be; the recipe's reference
    uint32_t *live                # the engine's count of sinks
    uint64_t device               # of the file; 0: not looked at yet
