# Lists of transfers in the order in which they joined: who came first gives way first.
#
# Joining and leaving cost a few stores, wherever in the list.  A transfer is in at most one list of each kind
# (AMONG_...), and leaves it before its place is given back.  Links are places + 1, 0: nobody, so three lists cost
# 24 bytes a transfer.  Must not: decide who joins, or who gives way.

from libc.stdint cimport uint32_t
from snow_owl_tftp._engine.base.transfer cimport Chain, Transfer
from snow_owl_tftp._engine.memory.slab cimport Slab, transfer_at


cdef inline Transfer *chain_oldest(Slab *slab, const Chain *chain) noexcept nogil:
    return transfer_at(slab, chain.oldest - 1) if chain.oldest else NULL


cdef inline void chain_join(Slab *slab, Chain *chain, Transfer *t, int among) noexcept nogil:
    cdef uint32_t link = <uint32_t>t.id + 1
    t.before[among] = chain.newest
    t.after[among] = 0
    if chain.newest:
        transfer_at(slab, chain.newest - 1).after[among] = link
    else:
        chain.oldest = link
    chain.newest = link


cdef inline void chain_leave(Slab *slab, Chain *chain, Transfer *t, int among) noexcept nogil:
    if t.before[among]:
        transfer_at(slab, t.before[among] - 1).after[among] = t.after[among]
    else:
        chain.oldest = t.after[among]
    if t.after[among]:
        transfer_at(slab, t.after[among] - 1).before[among] = t.before[among]
    else:
        chain.newest = t.before[among]
