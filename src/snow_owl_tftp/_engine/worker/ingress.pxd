# From sockets to transfers: whose is a datagram, or an error that ICMP brought?
#
# Batches are taken until a socket is empty, or until the others have to have their turn.
# Must not: look further into a datagram than its opcode.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.messages cimport OUT_UNREACHABLE
from snow_owl_tftp._engine.base.peers cimport peer_equal, peer_hash, peer_same_host
from snow_owl_tftp._engine.base.transfer cimport T_ACTIVE, T_ASKING, T_DALLY, Transfer
from snow_owl_tftp._engine.includes.net cimport ECONNREFUSED, EINTR, MSG_TRUNC
from snow_owl_tftp._engine.memory.slab cimport find_by_local, find_by_tid, transfer_by_id
from snow_owl_tftp._engine.net.batch cimport may_be_anothers, receive, receive_error, received_local, received_segment
from snow_owl_tftp._engine.net.sockets cimport S_FREE, S_LISTENER, S_PRIVATE, S_SHARED, Socket
from snow_owl_tftp._engine.protocol.opcodes cimport OP_WRQ
from snow_owl_tftp._engine.worker.finals cimport flush_finals
from snow_owl_tftp._engine.worker.life cimport end
from snow_owl_tftp._engine.worker.outbox cimport flush
from snow_owl_tftp._engine.worker.packets cimport on_packet
from snow_owl_tftp._engine.worker.requests cimport on_request, wake_python
from snow_owl_tftp._engine.worker.speakers cimport reject_stray
from snow_owl_tftp._engine.worker.state cimport Worker

cdef enum:
    RECEIVES_A_TURN = 8           # batches from one socket before the others have their turn
    REQUESTS_A_TURN = 128         # for Python, or refused: who asks waits for who is served, not the other way round
    ERRORS_A_TURN = 256           # and errors


cdef inline Transfer *shared_owner(Worker *w, const Local *local, const Peer *peer) noexcept nogil:
    """As private_owner, on a shared socket: the address that the datagram came to tells whose it is."""
    cdef Transfer *t = find_by_local(&w.slab, local)
    if t == NULL:
        return NULL
    if t.state == T_ASKING and peer_same_host(&t.peer, peer):
        t.peer = peer[0]
        return t
    return t if peer_equal(&t.peer, peer) else NULL


cdef inline Transfer *private_owner(Worker *w, Socket *s, const Peer *peer) noexcept nogil:
    """The transfer of a private socket, when `peer` may speak to it: RFC 1350 section 4 fixes the TID
    with the first answer; another address than the one that was asked is a stranger."""
    cdef Transfer *t = transfer_by_id(&w.slab, s.owner)
    if t == NULL:
        return NULL
    if t.state == T_ASKING and peer_same_host(&t.peer, peer):
        t.peer = peer[0]
        return t
    return t if peer_equal(&t.peer, peer) else NULL


cdef inline void on_datagram(Worker *w, int32_t socket, const uint8_t *bytes, uint32_t size, const Peer *peer,
                             const Local *local) noexcept nogil:
    cdef Socket *s = &w.sockets.entries[socket]
    cdef uint32_t of_peer
    cdef Transfer *t
    if s.kind == S_PRIVATE:
        t = private_owner(w, s, peer)
        of_peer = 0 if t != NULL else peer_hash(peer, w.secret)
    elif s.kind == S_SHARED:
        t = shared_owner(w, local, peer)
        if t == NULL:
            return                               # an echo of a transfer that is over
        of_peer = 0
    elif s.kind == S_LISTENER and (w.sockets.endpoints[s.endpoint].tid_count or size < 2 or bytes[1] <= OP_WRQ):
        on_request(w, socket, bytes, size, peer, local)
        return
    else:
        of_peer = peer_hash(peer, w.secret)
        t = find_by_tid(&w.slab, peer, of_peer, socket)
    if t != NULL:
        on_packet(w, t, bytes, size)
    elif s.kind == S_LISTENER:
        on_request(w, socket, bytes, size, peer, local)
    elif size >= 2 and bytes[0] == 0:
        reject_stray(w, socket, peer, local, bytes[1], of_peer ^ (<uint32_t>socket * <uint32_t>0x9E3779B1))
    else:
        w.counters.malformed += 1                # nobody's, and no packet either


cdef inline void on_slot(Worker *w, int32_t socket, uint32_t i) noexcept nogil:
    """One received message: a datagram, or several joined by UDP_GRO.

    Whatever follows the end of a transfer of our own asking is dropped: its socket is closed, and by now the number of
    it may be another thread's.
    """
    cdef Socket *s = &w.sockets.entries[socket]
    cdef uint8_t *bytes = w.received.buffers + <size_t>i * w.received.stride_bytes
    cdef uint32_t size = w.received.messages[i].msg_len, segment = 0, part
    cdef Local local
    local.family = 0
    if w.received.messages[i].msg_hdr.msg_flags & MSG_TRUNC:
        # Longer than anything that we negotiated; the beginning is enough to refuse it.
        w.counters.malformed += 1
        if s.kind != S_LISTENER:
            return
    if s.wants_control:
        segment = received_segment(&w.received, i)
        if s.wildcard:
            received_local(&w.received, i, &local)
    if segment == 0:
        segment = size
    while True:
        part = segment if segment < size else size
        if w.sockets.entries[socket].kind == S_FREE:
            w.counters.strays += 1
        else:
            on_datagram(w, socket, bytes, part, &w.received.peers[i], &local)
        bytes += part
        size -= part
        if size == 0:
            return
        w.counters.datagrams_received += 1


cdef inline void drain_errors(Worker *w, int32_t socket) noexcept nogil:
    """What ICMP says of peers.  A peer whose host says that nobody has its port will never answer: it has vanished, or
    somebody forged its address and we are bothering a stranger.  Hosts and networks that cannot be reached may be back
    at the next repetition."""
    cdef Socket *s = &w.sockets.entries[socket]
    cdef Transfer *t
    cdef Peer peer
    cdef int error, _round
    for _round in range(ERRORS_A_TURN):
        w.counters.error_queue_calls += 1
        error = receive_error(s.fd, &peer)
        if error < 0:
            return
        w.counters.errors_heard += 1
        if error != ECONNREFUSED:
            continue
        if s.kind == S_PRIVATE:
            t = transfer_by_id(&w.slab, s.owner)
            if t != NULL and not peer_equal(&t.peer, &peer):
                t = NULL
        else:
            t = find_by_tid(&w.slab, &peer, peer_hash(&peer, w.secret), socket)
        if t != NULL and (t.state == T_ACTIVE or t.state == T_ASKING or t.state == T_DALLY):
            end(w, t, OUT_UNREACHABLE, error, b"nobody has the peer's port", 26)
            if w.sockets.entries[socket].kind == S_FREE:
                return
            s = &w.sockets.entries[socket]       # what it was for is over, but the array may have moved


cdef inline void drain_socket(Worker *w, int32_t socket) noexcept nogil:
    """Takes what is queued, a batch at a time; a socket that never empties waits for its next turn."""
    cdef Socket *s
    cdef int n, i, _round
    cdef uint32_t asked
    cdef uint64_t enough = w.counters.flow_misses + w.counters.requests_refused_busy + REQUESTS_A_TURN
    for _round in range(RECEIVES_A_TURN):
        if w.sockets.entries[socket].kind == S_FREE:
            return
        asked = w.tuning.max_batch if w.tuning.recvmmsg else 1
        w.flows.round += 1
        s = &w.sockets.entries[socket]
        n = receive(&w.received, s.fd, s.wants_control, &w.tuning, &w.counters)
        if n == -EINTR or (n < 0 and may_be_anothers(-n)):
            continue                             # what is queued is still there
        if n <= 0:
            return
        for i in range(n):
            on_slot(w, socket, <uint32_t>i)
        wake_python(w)
        if w.tuning.recvmmsg:
            if w.finals.count:
                flush_finals(w)
            flush(w)
            if <uint32_t>n < asked:
                return                           # a short batch: the queue was empty
        if w.counters.flow_misses + w.counters.requests_refused_busy >= enough:
            return                               # those that a flow knows are transfers already
