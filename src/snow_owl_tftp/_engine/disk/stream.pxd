# Sending what is still being made: a pipe whose length nobody knows yet.
#
# A ring of one window and one block holds what may have to be sent again.  The pipe is read only as far
# as the ring has room, so a generator that is faster than the client stops at a full pipe: its memory is
# bounded by the window.  The end of the pipe makes the last block; without a tsize nobody misses it.
#
# Must not: block (the pipe is non-blocking), or send a short block before the pipe has ended.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.includes.net cimport (
    EAGAIN, EINTR, EPOLLIN, EPOLLONESHOT, EPOLL_CTL_ADD, EPOLL_CTL_MOD, epoll_ctl, epoll_event, errno, read)

cdef extern from *:
    """
    #define STREAM_EVENT 0x100000000ULL   /* epoll data: the low half is a transfer's place */
    """
    const uint64_t STREAM_EVENT


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


cdef inline void stream_watch(int epoll_fd, Transfer *t) noexcept nogil:
    """Once more readable, the pipe brings the transfer back."""
    cdef Source *source = t.recipe.source
    cdef epoll_event event
    event.events = EPOLLIN | EPOLLONESHOT
    event.data.u64 = STREAM_EVENT | <uint32_t>t.id
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD if source.watched else EPOLL_CTL_ADD, source.fd, &event)
    source.watched = 1                           # a failure (no memory) is caught by the timer, which pumps


cdef inline bint stream_idle(const Transfer *t) noexcept nogil:
    """Waiting for the pipe, not for the peer: nothing is in flight."""
    return (t.recipe.source != NULL and t.recipe.source.stream and not t.flight.opening
            and t.flight.sent_end == t.flight.window_base)
