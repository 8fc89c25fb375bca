# The timer wheel of one worker: WHEEL_NOTCHES ticks of one millisecond.
#
# An ACK moves a deadline a little further millions of times a second, and timers almost never fire.  So
# the wheel is lazy: a later deadline costs one store (Flight.deadline_ns), and only when the notch comes
# round is the transfer put where it belongs now.  An earlier deadline moves the transfer at once.
# Deadlines beyond the wheel wait in its last notch and are placed again when it comes round.
#
# Invariant: timer_link != NULL exactly while the transfer stands in a notch; wheel_ns is not later than
# its deadline at the time it was placed.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from snow_owl_tftp._engine.base.transfer cimport Transfer

cdef extern from * nogil:
    """
    static inline unsigned int owl_lowest_bit(unsigned long long word) { return (unsigned int)__builtin_ctzll(word); }
    """
    unsigned int owl_lowest_bit(uint64_t word)

cdef enum:
    WHEEL_NOTCHES = 4096            # a power of two: 4.1 s ahead
    WHEEL_WORDS = 64
    TICK_NS = 1000000             # epoll_wait counts in milliseconds

cdef struct Wheel:
    uint64_t tick                 # the next tick to be looked at
    uint32_t count
    uint64_t busy[64]             # one bit a notch: may hold something
    Transfer *notches[4096]


cdef inline void wheel_init(Wheel *wheel, uint64_t now_ns) noexcept nogil:
    memset(wheel, 0, sizeof(Wheel))
    wheel.tick = now_ns // TICK_NS


cdef inline void wheel_remove(Wheel *wheel, Transfer *t) noexcept nogil:
    if t.timer_link == NULL:
        return
    t.timer_link[0] = t.timer_next
    if t.timer_next != NULL:
        t.timer_next.timer_link = t.timer_link
    t.timer_link = NULL
    wheel.count -= 1


cdef inline void wheel_place(Wheel *wheel, Transfer *t) noexcept nogil:
    """Puts `t`, which stands in no notch, under its deadline."""
    cdef uint64_t tick = t.flight.deadline_ns // TICK_NS + 1
    cdef uint32_t notch
    if tick < wheel.tick:
        tick = wheel.tick
    if tick >= wheel.tick + WHEEL_NOTCHES:
        tick = wheel.tick + WHEEL_NOTCHES - 1
    notch = tick & (WHEEL_NOTCHES - 1)
    t.wheel_ns = t.flight.deadline_ns
    t.timer_next = wheel.notches[notch]
    if t.timer_next != NULL:
        t.timer_next.timer_link = &t.timer_next
    t.timer_link = &wheel.notches[notch]
    wheel.notches[notch] = t
    wheel.busy[notch >> 6] |= <uint64_t>1 << (notch & 63)
    wheel.count += 1


cdef inline void wheel_update(Wheel *wheel, Transfer *t) noexcept nogil:
    """After every change of the deadline: free unless it became earlier."""
    if t.timer_link == NULL:
        wheel_place(wheel, t)
    elif t.flight.deadline_ns < t.wheel_ns:
        wheel_remove(wheel, t)
        wheel_place(wheel, t)


cdef inline uint64_t wheel_next_ns(const Wheel *wheel) noexcept nogil:
    """When the next busy notch is due; UINT64_MAX (as -1) when nothing waits.  At most 65 words are read."""
    cdef uint64_t tick = wheel.tick, end = wheel.tick + WHEEL_NOTCHES, word
    if wheel.count == 0:
        return <uint64_t>-1
    while tick < end:
        word = wheel.busy[(tick & (WHEEL_NOTCHES - 1)) >> 6] >> (tick & 63)
        if word:
            return (tick + owl_lowest_bit(word)) * TICK_NS
        tick = (tick | 63) + 1
    return end * TICK_NS


cdef inline Transfer *wheel_take_due(Wheel *wheel, uint64_t now_ns) noexcept nogil:
    """The next transfer whose deadline has passed, taken out of the wheel; NULL when there is none."""
    cdef uint64_t now_tick = now_ns // TICK_NS
    cdef uint32_t notch
    cdef Transfer *t
    while wheel.tick <= now_tick:
        if wheel.count == 0:
            wheel.tick = now_tick + 1
            memset(wheel.busy, 0, sizeof(wheel.busy))
            return NULL
        notch = wheel.tick & (WHEEL_NOTCHES - 1)
        t = wheel.notches[notch]
        if t == NULL:
            wheel.busy[notch >> 6] &= ~(<uint64_t>1 << (notch & 63))
            wheel.tick += 1
            continue
        wheel_remove(wheel, t)
        if t.flight.deadline_ns <= now_ns:
            return t
        wheel_place(wheel, t)     # was put later in the meantime: into a notch after this one
    return NULL
