# Where a transfer waits that cannot send now: for its turn, for bytes from a disk, for room in a socket.
#
# A transfer is in one queue at most.  Who takes them out again: the loop (run), waiting.pxd (chunks, sockets).

from libc.stdint cimport uint64_t
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.includes.net cimport epoll_ctl, EPOLL_CTL_MOD, epoll_event, EPOLLIN, EPOLLOUT
from snow_owl_tftp._engine.net.sockets cimport Socket
from snow_owl_tftp._engine.worker.state cimport Q_BLOCKED, Q_NONE, Q_RUN, Q_WAITING, Worker


cdef inline void run_later(Worker *w, Transfer *t) noexcept nogil:
    if t.queued != Q_NONE:
        return
    t.queued = Q_RUN
    t.queue_next = NULL
    if w.waiters.run_head == NULL:
        w.waiters.run_head = t
    else:
        w.waiters.run_tail.queue_next = t
    w.waiters.run_tail = t


cdef inline void wait_for_chunk(Worker *w, Transfer *t) noexcept nogil:
    if t.queued != Q_NONE:
        return
    t.queued = Q_WAITING
    if t.held_ns == 0:
        t.held_ns = w.now_ns
    t.queue_next = w.waiters.for_chunk
    w.waiters.for_chunk = t


cdef inline void wait_for_socket(Worker *w, Transfer *t) noexcept nogil:
    """The socket is full: EPOLLOUT brings the transfer back."""
    cdef epoll_event event
    cdef Socket *s = &w.sockets.entries[t.socket]
    if t.queued != Q_NONE:
        return
    t.queued = Q_BLOCKED
    t.queue_next = w.waiters.for_socket
    w.waiters.for_socket = t
    if not s.awaits_writable:
        s.awaits_writable = 1
        event.events = EPOLLIN | EPOLLOUT
        event.data.u64 = <uint64_t>t.socket
        epoll_ctl(w.epoll_fd, EPOLL_CTL_MOD, s.fd, &event)   # cannot fail: the socket is registered
