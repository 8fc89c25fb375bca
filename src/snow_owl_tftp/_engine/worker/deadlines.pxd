# Deadlines: what is done when a transfer's time has come.
#
# One deadline a transfer serves all that it may be waiting for: its peer, our disk, Python, its network's share.

from libc.stdint cimport uint64_t
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.messages cimport OUT_ABORTED, OUT_LOCAL_IO_ERROR, OUT_TIMED_OUT
from snow_owl_tftp._engine.base.transfer cimport (
    HELD_CAPPED, HELD_EMPTYING, HELD_NOT, HELD_PACED, HELD_WITHHELD, SUPERSEDED_PERHAPS, T_ACTIVE, T_ASKING,
    T_COMMITTING, T_DALLY, T_ENDING, T_FLUSHING, Transfer)
from snow_owl_tftp._engine.disk.stream cimport stream_idle
from snow_owl_tftp._engine.includes.net cimport ETIMEDOUT
from snow_owl_tftp._engine.memory.networks cimport Network
from snow_owl_tftp._engine.memory.timers cimport wheel_take_due, wheel_update
from snow_owl_tftp._engine.protocol.exchange cimport flight_restart_clocks
from snow_owl_tftp._engine.protocol.timeouts cimport flight_on_timeout
from snow_owl_tftp._engine.protocol.window cimport (
    ACT_ACK, ACT_FIRST, ACT_GIVE_UP, ACT_GO_ON, ACT_SEND, SENDER, flight_check)
from snow_owl_tftp._engine.worker.beginning cimport pump
from snow_owl_tftp._engine.worker.control cimport send_first
from snow_owl_tftp._engine.worker.doubt cimport CAPPED_NS, hold_for_trial, network_entry, share_is_spent, takes_turn
from snow_owl_tftp._engine.worker.life cimport end, fail, leave_stuck, release
from snow_owl_tftp._engine.worker.pacing cimport hold, keep_held
from snow_owl_tftp._engine.worker.receiving cimport acknowledge
from snow_owl_tftp._engine.worker.state cimport Q_WAITING, Worker
from snow_owl_tftp._engine.worker.waiting cimport on_loaded


cdef inline void on_due_superseded(Worker *w, Transfer *t) noexcept nogil:
    """It never speaks again by itself; one that may still be wanted waits for that without a word."""
    if t.superseded == SUPERSEDED_PERHAPS and w.now_ns - t.flight.progress_ns < w.retransmit.give_up_ns:
        t.flight.deadline_ns = w.now_ns + w.retransmit.initial_ns
        wheel_update(&w.wheel, t)
        return
    end(w, t, OUT_ABORTED, 0, b"the client sent another request", 31)


cdef inline bint is_stalled(Worker *w, Transfer *t) noexcept nogil:
    """Our own disk, or Python, has held it up for too long; it has ended then."""
    if t.state != T_FLUSHING and t.state != T_COMMITTING:
        if t.held_ns == 0 or w.now_ns - t.held_ns < w.limits.stalled_ns:
            return False
    w.counters.transfers_stalled += 1
    fail(w, t, OUT_LOCAL_IO_ERROR, ETIMEDOUT, 0, b"Server busy, try again")
    return True


cdef inline bint is_held(const Transfer *t) noexcept nogil:
    """Whether the peer waits for us, and not we for the peer."""
    return t.queued == Q_WAITING or stream_idle(t) or (t.sink != NULL and t.sink.ack_owed)


cdef inline void on_due_held(Worker *w, Transfer *t) noexcept nogil:
    """Sends what was held back, unless the network's share is still spent."""
    cdef uint64_t silent_ns = w.now_ns - t.flight.progress_ns
    cdef Network *n
    if t.held == HELD_CAPPED and silent_ns >= w.retransmit.give_up_ns:
        fail(w, t, OUT_TIMED_OUT, 0, 0, b"timed out: nobody of this network was seen to hear us")
        return
    if t.held != HELD_EMPTYING and t.doubted and share_is_spent(w, t):
        t.trial_ns = 0                           # others took it meanwhile
        hold(w, t, HELD_CAPPED, CAPPED_NS + silent_ns // 4)
        return
    if t.held == HELD_CAPPED and t.doubted:
        n = network_entry(w, t.hash_network)
        if not takes_turn(w, t, n):
            hold(w, t, HELD_CAPPED, n.turn_ns - w.now_ns)
            return
        if hold_for_trial(w, t):
            return                               # or a client whose network had its share would have no way out
    t.held = HELD_NOT
    flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    pump(w, t)
    wheel_update(&w.wheel, t)


cdef inline void let_go_on(Worker *w, Transfer *t, uint64_t progress_ns) noexcept nogil:
    """It is held no longer, and its timer begins anew, though its peer has been silent since `progress_ns`."""
    t.held = HELD_NOT
    flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    t.flight.progress_ns = progress_ns


cdef inline void on_due_paced(Worker *w, Transfer *t) noexcept nogil:
    """Its turn at a bucket.  What it waited is taken out of the peer's silence; what was silence before stays."""
    cdef uint64_t progress_ns = t.flight.progress_ns + (w.now_ns - t.paced_ns)
    if w.now_ns < t.held_until_ns:
        keep_held(w, t)
        return
    if w.now_ns < t.paced_until_ns:
        w.counters.transfers_stalled += 1
        fail(w, t, OUT_LOCAL_IO_ERROR, ETIMEDOUT, 0, b"Server busy, try again")
        return
    let_go_on(w, t, progress_ns if progress_ns < w.now_ns else w.now_ns)
    if t.flight.role == SENDER:
        pump(w, t)
    else:
        acknowledge(w, t)
    wheel_update(&w.wheel, t)


cdef inline void on_due_withheld(Worker *w, Transfer *t) noexcept nogil:
    """Perhaps there is something left for strangers now; who has answered nothing is kept no longer than any."""
    if w.now_ns < t.held_until_ns:
        keep_held(w, t)
    elif w.now_ns - t.flight.progress_ns >= w.retransmit.half_open_give_up_ns:
        end(w, t, OUT_TIMED_OUT, 0, b"timed out: strangers had their share of answers", 47)
    else:
        let_go_on(w, t, t.flight.progress_ns)
        pump(w, t)
        wheel_update(&w.wheel, t)


cdef inline void on_timeout(Worker *w, Transfer *t) noexcept nogil:
    """The peer has been silent for long enough: something is sent again, or the transfer is given up."""
    cdef int act = flight_on_timeout(&t.flight, &w.retransmit, w.now_ns)
    OWL_INVARIANT(flight_check(&t.flight))
    if act & ACT_GIVE_UP:
        fail(w, t, OUT_TIMED_OUT, 0, 0, b"timed out: no answer")
        return
    if act and not act & ACT_GO_ON:
        w.counters.timeouts += 1
        t.trial_ns = 0                           # which copy will be answered?
    if act & ACT_FIRST:
        send_first(w, t)
    elif act & ACT_ACK:
        acknowledge(w, t)
    elif act & ACT_SEND:
        pump(w, t)
    wheel_update(&w.wheel, t)


cdef inline void on_due_waiting(Worker *w, Transfer *t) noexcept nogil:
    """The peer waits for us: it has all its time again."""
    flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    if t.flight.role == SENDER:
        pump(w, t)                               # a pipe that could not be watched is looked at again
    wheel_update(&w.wheel, t)


cdef inline void on_due(Worker *w, Transfer *t) noexcept nogil:
    """The deadline of a transfer has passed."""
    if t.state == T_DALLY:
        release(w, t)
        return
    if t.state == T_ENDING:
        leave_stuck(w, t)
        return
    if (t.state == T_FLUSHING or t.state == T_COMMITTING or is_held(t)) and is_stalled(w, t):
        return
    if t.state != T_ACTIVE and t.state != T_ASKING:
        return
    if t.superseded:
        on_due_superseded(w, t)
    elif t.queued == Q_WAITING and w.errands.owes_look:
        w.errands.owes_look = 0
        on_loaded(w)                             # there was no memory to ask for a chunk
        wheel_update(&w.wheel, t)
    elif t.held == HELD_PACED:
        on_due_paced(w, t)
    elif t.held == HELD_WITHHELD:
        on_due_withheld(w, t)
    elif t.held:
        on_due_held(w, t)
    elif is_held(t):
        on_due_waiting(w, t)
    else:
        on_timeout(w, t)


cdef inline void run_timers(Worker *w) noexcept nogil:
    cdef Transfer *t
    while True:
        t = wheel_take_due(&w.wheel, w.now_ns)
        if t == NULL:
            return
        on_due(w, t)
