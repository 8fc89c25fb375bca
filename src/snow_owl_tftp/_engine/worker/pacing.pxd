# How fast transfers go: bytes a second of a client, of a network and of all, and how a transfer is held back.
#
#   pump(), acknowledge() ─► pace() ─► credit_blocks: send                   the buckets have granted them
#                               └────► HELD_PACED ─► on_due_paced() ─► pace()      in turn: client, network, all
#
# A transfer reserves tokens for what it may send next, and is held until they are there: whoever comes later waits
# behind it, and nobody looks in vain.  It goes from bucket to bucket and asks the next one when the last has granted:
# what is held for its client's sake takes nothing from all.  A receiver is held before its ACK.
#
# Must not: count what it holds as the peer's silence, or end a transfer.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.quotas cimport OF_ALL, OF_CLIENT, OWNERS
from snow_owl_tftp._engine.base.transfer cimport HELD_PACED, Transfer
from snow_owl_tftp._engine.memory.buckets cimport Bucket
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.protocol.bucket cimport (
    owl_bucket_cost_ns, owl_bucket_look_shared, owl_bucket_take, owl_bucket_take_shared, owl_bucket_wait_ns)
from snow_owl_tftp._engine.worker.rates cimport client_bucket, network_bucket, note_reached
from snow_owl_tftp._engine.worker.state cimport PACED, PACED_BY_RULE, Worker


cdef enum:
    TURN_BYTES = 6000             # of a sender, where others wait: four usual blocks, so lock-step is not far behind


cdef inline void hold(Worker *w, Transfer *t, uint8_t why, uint64_t ns) noexcept nogil:
    t.held = why
    t.held_until_ns = w.now_ns + ns
    keep_held(w, t)


cdef inline void keep_held(Worker *w, Transfer *t) noexcept nogil:
    """A packet may have moved its deadline."""
    t.flight.deadline_ns = t.held_until_ns
    wheel_update(&w.wheel, t)


cdef inline uint64_t rate_of(const Worker *w, const Transfer *t, int of) noexcept nogil:
    """Bytes a second; 0: no limit.  What a rule says of a client counts in the place of what holds for every client."""
    if of == OF_CLIENT and t.recipe.limits.bytes_per_s:
        return t.recipe.limits.bytes_per_s
    return w.quotas.bytes_per_s[of]


cdef inline Bucket *bucket_for(Worker *w, const Transfer *t, int of) noexcept nogil:
    if of != OF_CLIENT:
        return network_bucket(w, &t.peer)
    return client_bucket(w, &t.peer, t.recipe.limits.rule if t.recipe.limits.bytes_per_s else 0)


cdef inline uint64_t reserve(Worker *w, const Transfer *t, int of, uint64_t bytes) noexcept nogil:
    """How long to wait for so many tokens of one bucket, which are taken."""
    cdef uint64_t rate = rate_of(w, t, of)
    cdef Bucket *b
    if rate == 0:
        return 0
    if of == OF_ALL:
        return owl_bucket_take_shared(&w.shared.bytes_ns, bytes, rate, w.now_ns, False)
    b = bucket_for(w, t, of)
    return owl_bucket_take(&b.bytes_ns, bytes, rate, w.now_ns, False)


cdef inline bint has_tokens(Worker *w, const Transfer *t, int of, uint64_t bytes) noexcept nogil:
    cdef uint64_t rate = rate_of(w, t, of)
    cdef Bucket *b
    if rate == 0:
        return True
    if of == OF_ALL:
        return owl_bucket_look_shared(&w.shared.bytes_ns, bytes, rate, w.now_ns) == 0
    b = bucket_for(w, t, of)
    return owl_bucket_wait_ns(b.bytes_ns, owl_bucket_cost_ns(bytes, rate), w.now_ns) == 0


cdef inline uint32_t at_once(const Worker *w, const Transfer *t, int64_t blocks, uint32_t most) noexcept nogil:
    """How many of these blocks are asked for: no more than a second's worth of any bucket."""
    cdef uint64_t least = w.quotas.least_bytes_per_s, by_rule = t.recipe.limits.bytes_per_s, fit
    if by_rule and (least == 0 or by_rule < least):
        least = by_rule
    fit = least // (t.flight.blksize_bytes + 4)
    if blocks > most:
        blocks = most
    if least and <uint64_t>blocks > fit:
        blocks = <int64_t>fit
    return <uint32_t>blocks if blocks > 0 else 1


cdef inline bint have_tokens(Worker *w, const Transfer *t, uint64_t bytes) noexcept nogil:
    """Whether nobody waits for any of its buckets, and each has so much."""
    cdef int of
    for of in range(OWNERS):
        if not has_tokens(w, t, of, bytes):
            return False
    return True


cdef inline uint32_t in_turn(Worker *w, const Transfer *t, uint32_t blocks) noexcept nogil:
    """How many of these blocks a sender asks for: few where there are others, since all of them take turns."""
    cdef uint32_t size = t.flight.blksize_bytes + 4
    cdef uint32_t few = TURN_BYTES // size if size < TURN_BYTES else 1
    return blocks if blocks <= few or have_tokens(w, t, <uint64_t>blocks * size) else few


cdef inline int reason_of(const Transfer *t, int of) noexcept nogil:
    return PACED_BY_RULE if of == OF_CLIENT and t.recipe.limits.bytes_per_s else PACED + of


cdef inline bint pace(Worker *w, Transfer *t, uint32_t blocks) noexcept nogil:
    """Whether it may go on; else it is held.  Once asked for, the number of blocks stays until it is granted."""
    cdef uint64_t ns, bytes
    if t.paced_stage == OF_CLIENT:
        t.paced_blocks = blocks
    bytes = <uint64_t>t.paced_blocks * (t.flight.blksize_bytes + 4)
    if t.superseded and not have_tokens(w, t, bytes):
        return False                             # it never speaks by itself: its client's next ACK brings it back
    while t.paced_stage < OWNERS:
        ns = reserve(w, t, t.paced_stage, bytes)
        t.paced_stage += 1
        if ns:
            w.counters.sends_paced += 1
            note_reached(w, reason_of(t, t.paced_stage - 1), &t.peer)
            hold_paced(w, t, ns)
            return False
    t.paced_stage = OF_CLIENT
    t.credit_blocks = t.paced_blocks
    return True


cdef inline void hold_paced(Worker *w, Transfer *t, uint64_t ns) noexcept nogil:
    """No longer at a time than a disk of ours would be waited for; who is unproven is not kept for longer than any."""
    cdef uint64_t most_ns = w.limits.stalled_ns if t.flight.proven else w.retransmit.half_open_give_up_ns
    t.paced_ns = w.now_ns
    t.paced_until_ns = w.now_ns + ns
    hold(w, t, HELD_PACED, ns if ns < most_ns else most_ns)
