# Completions: how a transfer ended, and what goes up about it.
#
# Exactly one for every transfer that was started.  Memory for it was put by when the transfer began, so the end of a
# transfer asks for none, but for a text.  What the transfer has learned of its client is remembered on the way.
# Must not: free a transfer, or tell its peer anything.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.addresses cimport Peer
from snow_owl_tftp._engine.base.messages cimport Completed, Figures, M_COMPLETION, Message, message_becomes, message_new
from snow_owl_tftp._engine.base.peers cimport address_hash
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.includes.threads cimport owl_add32
from snow_owl_tftp._engine.memory.remembered cimport MEMORY_LEARNED, MEMORY_REPLACED, memory_keep, memory_recall
from snow_owl_tftp._engine.protocol.exchange cimport flight_offset, flight_remember
from snow_owl_tftp._engine.protocol.patience cimport Patience
from snow_owl_tftp._engine.protocol.window cimport SENDER
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline Message *verdict(Transfer *t, int outcome, int error, const uint8_t *text, uint32_t size) noexcept nogil:
    """How it ended, for complete().  Memory for it was put by when the transfer began, but not for a text."""
    cdef Message *m = message_new(M_COMPLETION, t.id, text, size) if size else NULL
    if m == NULL:
        m = t.farewell
        t.farewell = NULL
        message_becomes(m, M_COMPLETION, t.id)
    m.body.completion.outcome = outcome
    m.body.completion.error = error
    return m


cdef inline Figures figures(const Transfer *t) noexcept nogil:
    cdef Figures f
    f.srtt_ns = t.flight.rtt.srtt_ns
    f.blksize_bytes = t.flight.blksize_bytes
    f.windowsize = t.flight.windowsize
    f.retransmits = t.flight.retransmits
    f.blocks = (t.flight.window_base if t.flight.role == SENDER else t.flight.next) - 1
    if f.blocks < 0:
        f.blocks = 0
    return f


cdef inline void keep_memory(Worker *w, Transfer *t) noexcept nogil:
    """What this transfer has learned of its client, for the next one."""
    cdef uint8_t address[16]
    cdef Patience patience
    cdef int what
    flight_remember(&t.flight, &patience)
    t.kept = patience.loses
    what = memory_keep(w.memory, address_hash(&t.peer, w.secret, address), w.now_ns, &patience)
    w.counters.memory_learned += what == MEMORY_LEARNED
    w.counters.memory_replaced += what == MEMORY_REPLACED


cdef inline void recall_memory(Worker *w, const Peer *peer, Patience *patience) noexcept nogil:
    cdef uint8_t address[16]
    w.counters.memory_used += memory_recall(w.memory, address_hash(peer, w.secret, address), w.now_ns, patience)


cdef inline uint64_t payload_acknowledged(const Transfer *t) noexcept nogil:
    """Sender: bytes that the peer has confirmed."""
    cdef uint64_t bytes
    if t.flight.window_base <= 1 or t.recipe == NULL or t.recipe.source == NULL:
        return 0
    bytes = flight_offset(&t.flight, t.flight.window_base)
    return bytes if bytes < t.recipe.source.size_bytes else t.recipe.source.size_bytes


cdef inline void fill(const Worker *w, const Transfer *t, Completed *completion) noexcept nogil:
    """What there is to tell, but for how it ended."""
    completion.figures = figures(t)
    completion.peer = t.peer
    completion.local = t.local
    completion.started_ns = t.started_ns
    completion.ended_ns = w.now_ns
    completion.payload_bytes = t.sink.received_bytes if t.sink != NULL else t.payload_bytes
    completion.datagrams_in = t.datagrams_in
    completion.datagrams_out = t.datagrams_out
    completion.duplicate_acks = t.duplicate_acks
    completion.peak_window = t.peak_window
    completion.flow_hit = t.flow_hit


cdef inline void complete(Worker *w, Transfer *t, Message *m) noexcept nogil:
    """The Completion of a started transfer goes up, and takes its recipe along."""
    keep_memory(w, t)
    w.counters.transfers_ended += 1
    w.counters.retransmits += t.flight.retransmits
    w.counters.duplicate_acks += t.duplicate_acks
    m.recipe = t.recipe
    t.recipe = NULL
    m.worker = w.number
    fill(w, t, &m.body.completion)
    owl_add32(&w.undelivered, 1)
    queue_push(w.outbox, m)
