# The batch of datagrams that is to leave: handed to the kernel, and what the kernel refused, put right.
#
# The kernel can refuse in three ways: a full socket (the transfer waits for EPOLLOUT), a train that it does not want
# (plain datagrams from now on, for this transfer), a file that became shorter (the transfer is doomed).
#
# A message with DATA points into the source of its transfer, so whoever lets a transfer go sends its DATA first:
# flush_own().
#
# Must not: end a transfer (it may be in use by the caller), or wait for anything.

from libc.stdint cimport int32_t, uint32_t
from snow_owl_tftp._engine.base.transfer cimport T_FREE, Transfer
from snow_owl_tftp._engine.includes.net cimport EAGAIN, EFAULT, EINVAL, EIO, EMSGSIZE, ENOBUFS
from snow_owl_tftp._engine.net.batch cimport send_forget, send_from, send_has_room, SendItem
from snow_owl_tftp._engine.worker.queues cimport run_later, wait_for_socket
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void rewind_item(Transfer *t, const SendItem *item) noexcept nogil:
    """The blocks of `item` did not leave: they are the next to be sent again.

    Of several items the last one first, or blocks behind `sent_end` would count as sent.
    """
    if item.first < t.flight.next and item.first >= t.flight.window_base:
        t.flight.next = item.first
        t.flight.timed_block = -1
        if item.first + item.count == t.flight.sent_end:
            t.flight.sent_end = item.sent_end


cdef inline void on_refused(Worker *w, uint32_t at, int error) noexcept nogil:
    """What becomes of message `at`, which the kernel did not take."""
    cdef SendItem *item = &w.out.items[at]
    cdef Transfer *t = item.owner
    if error == EAGAIN or error == ENOBUFS:
        w.counters.send_would_block += 1
    else:
        w.counters.send_errors += 1
    if t == NULL or t.id != item.owner_id or t.state == T_FREE:
        return
    if error == EAGAIN:
        if item.first >= 0:
            rewind_item(t, item)
        else:
            t.owes_first = 1
        wait_for_socket(w, t)
    elif error == EFAULT:
        t.doomed = 1
        run_later(w, t)
    # Anything else (no route, a firewall, ENOBUFS): the datagram is lost, as on the wire; timers repeat it.


cdef inline bint is_train_refused(Worker *w, uint32_t at, int error) noexcept nogil:
    return w.out.items[at].count > 1 and (error == EMSGSIZE or error == EINVAL or error == EIO)


cdef inline void on_train_refused(Worker *w, uint32_t at) noexcept nogil:
    """Message `at` is a train that the kernel does not want.  It goes, and all DATA of its transfer behind it, which
    would arrive before it: everything is sent again in order, as plain datagrams."""
    cdef Transfer *t = w.out.items[at].owner
    cdef uint32_t i
    w.counters.send_errors += 1
    for i in range(w.out.count, at, -1):
        if w.out.items[i - 1].owner == t and w.out.items[i - 1].first >= 0:
            rewind_item(t, &w.out.items[i - 1])
    send_forget(&w.out, at, t)
    t.no_gso = 1
    w.counters.gso_refused += 1
    run_later(w, t)


cdef inline void flush(Worker *w) noexcept nogil:
    cdef uint32_t at = 0, i
    cdef int error
    while at < w.out.count:
        error = send_from(&w.out, &at, &w.tuning, &w.counters)
        if error == 0:
            break
        if error == EAGAIN:
            for i in range(w.out.count, at, -1):
                on_refused(w, i - 1, EAGAIN)
            break
        if is_train_refused(w, at, error):
            on_train_refused(w, at)
        else:
            on_refused(w, at, error)
            at += 1
    w.out.serial += 1
    w.out.count = 0
    w.out.iov_used = 0
    w.out.staging_used = 0


cdef inline void flush_own(Worker *w, const Transfer *t) noexcept nogil:
    """Before the source of `t` goes: nothing in the batch may point into it any more."""
    if t.batch == w.out.serial:
        flush(w)


cdef inline void use_socket(Worker *w, int32_t socket, uint32_t segments) noexcept nogil:
    """Makes room for a message of `segments` that leaves from `socket`."""
    if w.out.count and (w.out.socket != socket or not send_has_room(&w.out, segments)):
        flush(w)
    w.out.socket = socket
    w.out.fd = w.sockets.entries[socket].fd
