# How long this worker lets datagrams gather before it drains its sockets, and who is told.
#
# The law is in net/adaptive.pxd; docs/batching.md explains it.  A mode is kept for MODE_HOLD_NS.

from libc.stdint cimport uint8_t, uint64_t
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.messages cimport M_MODE, Message, message_new
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.includes.net cimport nanosleep, timespec
from snow_owl_tftp._engine.net.adaptive cimport (
    MODE_AT_ONCE, MODE_HOLD_NS, MODE_UNKNOWN, RATE_WINDOW_NS, linger_law_ns, smooth_rate)
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void measure_rate(Worker *w) noexcept nogil:
    """The arrival rate over the last milliseconds."""
    cdef uint64_t elapsed = w.now_ns - w.lingering.rate_at_ns
    cdef uint64_t datagrams = w.counters.datagrams_received - w.lingering.rate_seen
    if elapsed < RATE_WINDOW_NS:
        return
    w.lingering.rate_per_ns = smooth_rate(w.lingering.rate_per_ns, datagrams, elapsed)
    w.lingering.rate_seen = w.counters.datagrams_received
    w.lingering.rate_at_ns = w.now_ns


cdef inline void tell_mode(Worker *w, uint64_t linger_ns) noexcept nogil:
    """The mode goes up, with what it was decided from."""
    cdef Message *m = message_new(M_MODE, 0, NULL, 0)
    if m == NULL:
        return                                   # told at the next turn
    w.lingering.mode_told = w.lingering.mode
    m.worker = w.number
    m.body.mode.mode = w.lingering.mode
    m.body.mode.live_transfers = w.counters.live_transfers
    m.body.mode.linger_ns = linger_ns
    m.body.mode.datagrams_per_s = <uint64_t>(w.lingering.rate_per_ns * 1e9)
    queue_push(w.outbox, m)


cdef inline uint64_t choose_mode(Worker *w) noexcept nogil:
    """Follows the law, but changes the mode no sooner than MODE_HOLD_NS after the last change."""
    cdef uint8_t mode = MODE_AT_ONCE
    cdef uint64_t ns = linger_law_ns(&w.tuning, w.counters.live_transfers, w.lingering.rate_per_ns, &mode)
    if mode != w.lingering.mode:
        if w.lingering.mode != MODE_UNKNOWN and w.now_ns - w.lingering.mode_since_ns < MODE_HOLD_NS:
            return 0                             # to linger too little is the harmless error
        w.lingering.mode = mode
        w.lingering.mode_since_ns = w.now_ns
    if not w.tuning.tell_modes:
        w.lingering.mode_told = MODE_UNKNOWN     # who begins to listen is told where things stand
    elif w.lingering.mode_told != w.lingering.mode:
        tell_mode(w, ns)
    return ns


cdef inline void linger(Worker *w) noexcept nogil:
    cdef uint64_t ns, began_ns = w.now_ns
    cdef timespec pause
    measure_rate(w)
    ns = choose_mode(w)
    if ns == 0:
        return
    pause.tv_sec = 0
    pause.tv_nsec = <long>ns                     # at most 10 ms
    nanosleep(&pause, NULL)                      # a signal may cut it short: harmless
    w.now_ns = clock_ns()
    w.counters.lingers += 1
    w.counters.linger_ns += w.now_ns - began_ns
