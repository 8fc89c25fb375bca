# Packets without data: ACK, ERROR, and the first packet of a transfer.
#
# They are copied into the batch, so nothing that they were made of has to live on.

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy, strlen
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.net.batch cimport SCRATCH_BYTES, send_control
from snow_owl_tftp._engine.protocol.opcodes cimport OP_ACK, OP_ERROR
from snow_owl_tftp._engine.protocol.seq cimport seq_block
from snow_owl_tftp._engine.worker.outbox cimport use_socket
from snow_owl_tftp._engine.worker.rates cimport is_withheld
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void send_bytes(Worker *w, int32_t socket, const Peer *peer, const Local *local, Transfer *owner,
                            const uint8_t *bytes, uint32_t size) noexcept nogil:
    if size > SCRATCH_BYTES:
        return
    use_socket(w, socket, 1)
    memcpy(send_control(&w.out, peer, local, owner, size), bytes, size)
    if owner != NULL:
        owner.datagrams_out += 1


cdef inline void send_ack(Worker *w, Transfer *t, int64_t block_index) noexcept nogil:
    """RFC 1350, figure 5-3."""
    cdef uint16_t block = seq_block(block_index, t.flight.rollover)
    cdef uint8_t packet[4]
    packet[0] = 0
    packet[1] = OP_ACK
    packet[2] = block >> 8
    packet[3] = block & 0xff
    send_bytes(w, t.socket, &t.peer, &t.local, t, packet, 4)


cdef inline void send_error(Worker *w, int32_t socket, const Peer *peer, const Local *local, int code,
                            const char *text) noexcept nogil:
    """RFC 1350, figure 5-4.  Nobody's: an ERROR is never repeated."""
    cdef uint8_t packet[256]
    cdef size_t size = strlen(text)
    if size > 250:
        size = 250
    packet[0] = 0
    packet[1] = OP_ERROR
    packet[2] = 0
    packet[3] = <uint8_t>code
    memcpy(packet + 4, text, size)
    packet[4 + size] = 0
    send_bytes(w, socket, peer, local, NULL, packet, <uint32_t>size + 5)


cdef inline void send_first(Worker *w, Transfer *t) noexcept nogil:
    """The OACK, the ACK 0 of an upload without options, or our own request."""
    if w.quotas.unproven_bytes_per_s and is_withheld(w, t, t.recipe.first_bytes if t.recipe.first_bytes else 4):
        return
    if t.recipe.first_bytes:
        send_bytes(w, t.socket, &t.peer, &t.local, t, t.recipe.first, t.recipe.first_bytes)
    else:
        send_ack(w, t, 0)
