# Packets of a transfer: what a datagram of its peer means.
#
# RFC 1350 section 5.  What is no packet of its phase is dropped in silence: it may be forged.
# The state machine says what to do (protocol/sender.pxd, receiver.pxd); here it is done.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.messages cimport M_ANSWER, Message, OUT_OK, OUT_PEER_ERROR, message_new
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.base.transfer cimport HELD_PACED, T_ACTIVE, T_ANSWERED, T_ASKING, Transfer, move_to
from snow_owl_tftp._engine.memory.history cimport history_note
from snow_owl_tftp._engine.memory.timers cimport wheel_remove, wheel_update
from snow_owl_tftp._engine.protocol.exchange cimport flight_opened
from snow_owl_tftp._engine.protocol.opcodes cimport OP_ACK, OP_DATA, OP_ERROR, OP_OACK
from snow_owl_tftp._engine.protocol.sender cimport sender_on_ack
from snow_owl_tftp._engine.protocol.window cimport (
    ACT_DONE, ACT_DUPLICATE, ACT_GAP, ACT_SEND, ACT_STRAY, RECEIVER, SENDER, flight_check)
from snow_owl_tftp._engine.worker.beginning cimport pump, resume
from snow_owl_tftp._engine.worker.control cimport send_ack
from snow_owl_tftp._engine.worker.doubt cimport is_too_early, judge_answer, try_answer
from snow_owl_tftp._engine.worker.life cimport end
from snow_owl_tftp._engine.worker.limits cimport may_go_on
from snow_owl_tftp._engine.worker.pacing cimport keep_held
from snow_owl_tftp._engine.worker.receiving cimport on_data
from snow_owl_tftp._engine.worker.speakers cimport may_be_guessed, on_spoken
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void on_ack(Worker *w, Transfer *t, uint16_t block) noexcept nogil:
    cdef int64_t window_base = t.flight.window_base, sent_end = t.flight.sent_end
    cdef uint64_t sent_ns = t.flight.sent_ns, progress_ns = t.flight.progress_ns
    cdef int act
    if t.state != T_ACTIVE or t.flight.role != SENDER:
        return
    if not t.flight.proven and may_be_guessed(w, t, block):
        return
    if t.doubted and is_too_early(w, t, block):
        return
    act = sender_on_ack(&t.flight, &w.retransmit, block, w.now_ns)
    OWL_INVARIANT(flight_check(&t.flight))
    on_spoken(w, t, act & ACT_DONE)
    if act & (ACT_DUPLICATE | ACT_STRAY):
        t.duplicate_acks += 1
    if t.doubted and t.flight.window_base > window_base:
        if t.flight.window_base == sent_end:
            judge_answer(w, t, True, w.now_ns - sent_ns)
        else:
            judge_answer(w, t, False, w.now_ns - progress_ns)  # which was when it was sent, in a trial
    if act & ACT_DONE:
        history_note(&w.history, &t.peer, w.now_ns)
        end(w, t, OUT_OK, 0, NULL, 0)
    elif act & ACT_SEND:
        if t.recounts and not may_go_on(w, t):
            return
        if not t.doubted or not try_answer(w, t, act & ACT_GAP):
            pump(w, t)
    elif t.held == HELD_PACED:
        keep_held(w, t)
    elif not act & ACT_STRAY:
        if t.held and t.flight.deadline_ns < t.held_until_ns:
            t.flight.deadline_ns = t.held_until_ns
        wheel_update(&w.wheel, t)                # a doubted report is looked into sooner


cdef inline void on_oack(Worker *w, Transfer *t, const uint8_t *bytes, uint32_t size) noexcept nogil:
    """The answer to our own request: Python reads the options."""
    cdef Message *m
    if t.state == T_ACTIVE and t.flight.role == RECEIVER and t.flight.next == 1:
        send_ack(w, t, 0)                        # our ACK 0 was lost
        return
    if t.state != T_ASKING:
        return
    if (t.recipe.expected_bytes and t.recipe.expected_bytes == size
            and memcmp(t.recipe.expected, bytes, size) == 0):
        resume(w, t, t.recipe.fixed_ns)
        return
    m = message_new(M_ANSWER, t.id, bytes, size)
    if m == NULL:
        return                                   # the server repeats its OACK
    flight_opened(&t.flight, &w.retransmit, w.now_ns)
    move_to(t, T_ANSWERED)
    wheel_remove(&w.wheel, t)
    m.worker = w.number
    m.body.answer.peer = t.peer
    m.recipe = t.recipe                          # borrowed: whatever ends the transfer comes up behind this
    queue_push(w.outbox, m)


cdef inline void on_error(Worker *w, Transfer *t, const uint8_t *bytes, uint32_t size) noexcept nogil:
    """The peer ends the transfer; the text is its own, at most 511 bytes of it."""
    cdef uint32_t length = 0
    cdef int code = bytes[2] << 8 | bytes[3]
    while 4 + length < size and length < 511 and bytes[4 + length]:
        length += 1
    t.flight.proven = 1                          # it has spoken: what else it says to this TID is an echo
    end(w, t, OUT_PEER_ERROR, code, bytes + 4, length)


cdef inline void on_packet(Worker *w, Transfer *t, const uint8_t *bytes, uint32_t size) noexcept nogil:
    """A datagram from the peer of `t`.  What is no packet of its phase is dropped: it may be forged."""
    cdef uint16_t block
    t.datagrams_in += 1
    if size < 4 or bytes[0] != 0:
        w.counters.malformed += 1
        return
    block = <uint16_t>(bytes[2] << 8 | bytes[3])
    if t.state == T_ASKING and ((bytes[1] == OP_DATA and t.flight.role == RECEIVER)
                                or (bytes[1] == OP_ACK and t.flight.role == SENDER)):
        move_to(t, T_ACTIVE)                     # a server without options: RFC 1350 as it is
    if bytes[1] == OP_ACK:
        on_ack(w, t, block)
    elif bytes[1] == OP_DATA:
        on_data(w, t, block, bytes + 4, size - 4)
    elif bytes[1] == OP_ERROR:
        on_error(w, t, bytes, size)
    elif bytes[1] == OP_OACK:
        on_oack(w, t, bytes, size)
    else:
        w.counters.malformed += 1
