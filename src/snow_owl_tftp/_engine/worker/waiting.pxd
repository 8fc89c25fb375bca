# Transfers that waited: for their next turn, for a chunk of a file, for a socket that was full.
#
# Each looks again whether it may send, and waits anew if not: nobody is woken for certain.

from libc.stdint cimport int32_t, int64_t, uint64_t
from snow_owl_tftp._engine.base.transfer cimport T_ACTIVE, T_ASKING, T_FREE, Transfer
from snow_owl_tftp._engine.includes.net cimport EPOLLIN, EPOLL_CTL_MOD, epoll_ctl, epoll_event
from snow_owl_tftp._engine.memory.slab cimport transfer_free
from snow_owl_tftp._engine.protocol.exchange cimport flight_restart_clocks
from snow_owl_tftp._engine.protocol.window cimport RECEIVER, SENDER
from snow_owl_tftp._engine.worker.beginning cimport pump
from snow_owl_tftp._engine.worker.control cimport send_ack, send_first
from snow_owl_tftp._engine.worker.life cimport fail_source
from snow_owl_tftp._engine.worker.state cimport Q_NONE, Q_WAITING, Worker


cdef inline void resume_list(Worker *w, Transfer *t) noexcept nogil:
    """Transfers that waited: each looks again whether it may send."""
    cdef Transfer *following
    cdef bint waited
    while t != NULL:
        following = t.queue_next
        waited = t.queued == Q_WAITING
        t.queued = Q_NONE
        if t.state == T_FREE:
            transfer_free(&w.slab, t)
        elif t.doomed:
            fail_source(w, t)
        elif t.state != T_ACTIVE:
            if t.owes_first and t.state == T_ASKING:
                t.owes_first = 0
                send_first(w, t)
        elif t.owes_first:
            t.owes_first = 0
            if t.flight.role == RECEIVER and not t.flight.opening:
                send_ack(w, t, t.flight.next - 1)
            elif t.flight.opening:
                send_first(w, t)
        elif t.flight.role == SENDER and not t.flight.opening:
            if waited:
                look_again(w, t)
            else:
                pump(w, t)
        t = following


cdef inline void look_again(Worker *w, Transfer *t) noexcept nogil:
    """A chunk was loaded: perhaps the one that this transfer waits for."""
    cdef int64_t next = t.flight.next
    flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    pump(w, t)
    if t.queued != Q_WAITING:
        t.held_ns = 0
    elif t.flight.next != next:
        t.held_ns = w.now_ns                     # the disk goes on, slowly


cdef inline void on_loaded(Worker *w) noexcept nogil:
    cdef Transfer *t = w.waiters.for_chunk
    w.waiters.for_chunk = NULL
    resume_list(w, t)


cdef inline void run_queue(Worker *w) noexcept nogil:
    """One quantum for every transfer that had more to send than its last turn allowed."""
    cdef Transfer *t = w.waiters.run_head
    w.waiters.run_head = NULL
    w.waiters.run_tail = NULL
    resume_list(w, t)


cdef inline void on_writable(Worker *w, int32_t socket) noexcept nogil:
    cdef epoll_event event
    cdef Transfer *t = w.waiters.for_socket
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>socket
    w.sockets.entries[socket].awaits_writable = 0
    epoll_ctl(w.epoll_fd, EPOLL_CTL_MOD, w.sockets.entries[socket].fd, &event)  # cannot fail: it is registered
    w.waiters.for_socket = NULL
    resume_list(w, t)                            # those of other sockets find out and wait again
