# Sending what is still being made: a pipe whose length nobody knows yet.
#
# A ring of one window and one block holds what may have to be sent again.  The pipe is read only as far
# as the ring has room, so a generator that is faster than the client stops at a full pipe: its memory is
# bounded by the window.  The end of the pipe makes the last block; without a tsize nobody misses it.
#
# Must not: block (the pipe is non-blocking), or send a short block before the pipe has ended.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc, free
from snow_owl_tftp._engine.net.batch cimport send_data
from snow_owl_tftp._engine.base.data cimport Source, Transfer
from snow_owl_tftp._engine.includes.net cimport (
    EAGAIN, EINTR, EPOLLIN, EPOLLONESHOT, EPOLL_CTL_ADD, EPOLL_CTL_MOD, epoll_ctl, epoll_event, errno, read)
from snow_owl_tftp._engine.worker.send cimport (
    note_sent, quantum_blocks, rest, run_later, train_length, use_socket_for)
from snow_owl_tftp._engine.protocol.window cimport flight_offset, flight_restart_clocks, flight_send_end
from snow_owl_tftp._engine.worker.loop cimport Q_NONE, STREAM_EVENT, Worker


cdef inline Source *stream_new(int fd, uint32_t blksize_bytes, uint32_t windowsize) noexcept nogil:
    """A source with one reference that owns `fd`; NULL when there is no memory."""
    cdef Source *source = <Source *>calloc(1, sizeof(Source))
    if source == NULL:
        return NULL
    source.ring_bytes = <uint64_t>blksize_bytes * (windowsize + 1)
    source.map = <uint8_t *>malloc(source.ring_bytes)
    if source.map == NULL:
        free(source)
        return NULL
    source.fd = fd
    source.refs = 1
    source.stream = 1
    return source


cdef inline void stream_fill(Transfer *t) noexcept nogil:
    """Reads as much of the pipe as the ring has room for; at its end the last block becomes known."""
    cdef Source *source = t.recipe.source
    cdef int64_t base = t.flight.window_base - 1 if t.flight.window_base > 0 else 0
    cdef uint64_t kept_from = <uint64_t>base * t.flight.blksize_bytes, at, room
    cdef ssize_t n
    while not source.ended:
        room = source.ring_bytes - (source.size_bytes - kept_from)
        at = source.size_bytes % source.ring_bytes
        if room > source.ring_bytes - at:
            room = source.ring_bytes - at
        if room == 0:
            return
        n = read(source.fd, source.map + at, room)
        if n > 0:
            source.size_bytes += <uint64_t>n
        elif n == 0:
            source.ended = 1
            t.flight.last = <int64_t>(source.size_bytes // t.flight.blksize_bytes) + 1
        elif errno != EINTR:
            if errno != EAGAIN:
                t.doomed = 1
            return


cdef inline void stream_watch(Worker *w, Transfer *t) noexcept nogil:
    """Once more readable, the pipe brings the transfer back."""
    cdef Source *source = t.recipe.source
    cdef epoll_event event
    event.events = EPOLLIN | EPOLLONESHOT
    event.data.u64 = STREAM_EVENT | <uint32_t>t.id
    epoll_ctl(w.epoll_fd, EPOLL_CTL_MOD if source.watched else EPOLL_CTL_ADD, source.fd, &event)
    source.watched = 1                           # a failure (no memory) is caught by the timer, which pumps


cdef inline bint stream_idle(const Transfer *t) noexcept nogil:
    """Waiting for the pipe, not for the peer: nothing is in flight."""
    return (t.recipe.source != NULL and t.recipe.source.stream and not t.flight.opening
            and t.flight.sent_end == t.flight.window_base)


cdef inline void pump_stream(Worker *w, Transfer *t) noexcept nogil:
    """pump() for a pipe: whole blocks as they come, the rest when the pipe has ended."""
    cdef Source *source = t.recipe.source
    cdef uint64_t offset, size, to_wrap
    cdef uint32_t blksize = t.flight.blksize_bytes, count, budget = quantum_blocks(t)
    cdef int64_t end, whole
    if stream_idle(t):
        flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    stream_fill(t)
    if t.doomed:
        run_later(w, t)
        return
    end = flight_send_end(&t.flight)
    while t.flight.next <= end:
        if budget == 0:
            run_later(w, t)
            break
        if not use_socket_for(w, t):
            break
        offset = flight_offset(&t.flight, t.flight.next)
        whole = <int64_t>((source.size_bytes - offset) // blksize) if source.size_bytes > offset else 0
        if whole == 0 and not source.ended:
            stream_watch(w, t)
            break
        if whole == 0:
            count = 1
            size = source.size_bytes - offset
        else:
            to_wrap = (source.ring_bytes - offset % source.ring_bytes) // blksize
            count = train_length(w, t, t.flight.next + whole - 1 if t.flight.next + whole - 1 < end else end)
            count = count if count < to_wrap else <uint32_t>to_wrap
            count = count if count < budget else budget
            size = <uint64_t>count * blksize
        send_data(&w.out, t, t.flight.next, count, source.map + offset % source.ring_bytes, size, True)
        note_sent(w, t, count)
        budget -= count
    rest(w, t)
