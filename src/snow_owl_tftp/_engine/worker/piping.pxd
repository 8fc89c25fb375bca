# pump() for a pipe: what of it may be sent now is put into the batch.
#
# As send.pxd does it for a file, but for the last block: a pipe cannot become another one while it is sent.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.disk.stream cimport stream_fill, stream_idle, stream_watch
from snow_owl_tftp._engine.net.batch cimport send_data
from snow_owl_tftp._engine.protocol.exchange cimport flight_offset, flight_restart_clocks
from snow_owl_tftp._engine.protocol.sender cimport flight_send_end
from snow_owl_tftp._engine.worker.queues cimport run_later
from snow_owl_tftp._engine.worker.send cimport train_length, turn_blocks, use_socket_for
from snow_owl_tftp._engine.worker.sent cimport note_sent, rest
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void pump_stream(Worker *w, Transfer *t) noexcept nogil:
    """pump() for a pipe: whole blocks as they come, the rest when the pipe has ended."""
    cdef Source *source = t.recipe.source
    cdef uint64_t offset, size, to_wrap
    cdef uint32_t blksize = t.flight.blksize_bytes, count, budget = turn_blocks(w, t)
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
            stream_watch(w.epoll_fd, t)
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
