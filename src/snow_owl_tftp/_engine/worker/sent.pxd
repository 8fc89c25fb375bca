# What is noted of blocks that were put into the batch: in the window, in the shares of a network, in the timer.

from libc.stdint cimport uint32_t
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.memory.networks cimport Network, network_find
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.protocol.sender cimport flight_is_pausing, flight_rest, sender_sent
from snow_owl_tftp._engine.worker.state cimport Worker

cdef enum:
    FREE_BYTES = 1472             # what fits an Ethernet frame


cdef inline void rest(Worker *w, Transfer *t) noexcept nogil:
    """What a turn or a burst allows was sent: when to look again."""
    if flight_is_pausing(&t.flight):
        flight_rest(&t.flight, &w.retransmit, w.now_ns)
    wheel_update(&w.wheel, t)


cdef inline void charge(Worker *w, Transfer *t, uint32_t count) noexcept nogil:
    """DATA to a network that has not shown yet that it hears us.  The first block of a usual size is free, as it is for
    who has answered nothing: a network of small files has a share for its larger ones."""
    cdef uint32_t bytes = count * (t.flight.blksize_bytes + 4)
    cdef Network *n
    if count == 1 and t.flight.next == 1 and bytes <= FREE_BYTES:
        return
    n = network_find(w.networks, t.hash_network, w.now_ns)
    if n != NULL:
        n.left_bytes -= bytes
        t.trial_bytes += bytes


cdef inline void note_sent(Worker *w, Transfer *t, uint32_t count) noexcept nogil:
    if t.doubted:
        charge(w, t, count)
    if t.credit_blocks:
        t.credit_blocks -= count if count < t.credit_blocks else t.credit_blocks
    t.datagrams_out += count
    sender_sent(&t.flight, &w.retransmit, count, w.now_ns)
    if t.flight.next - t.flight.window_base > t.peak_window:
        t.peak_window = <uint32_t>(t.flight.next - t.flight.window_base)
