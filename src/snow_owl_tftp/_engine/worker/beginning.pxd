# How a transfer begins to send, or goes on: with its first packet, or with what its options allow.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport strlen
from snow_owl_tftp._engine.base.accounts cimport ACCOUNT_CROWDED, ACCOUNT_TRANSFERS, account_open
from snow_owl_tftp._engine.base.content cimport Recipe, Sink
from snow_owl_tftp._engine.base.messages cimport OUT_ABORTED
from snow_owl_tftp._engine.base.peers cimport peer_hash
from snow_owl_tftp._engine.base.quotas cimport OF_CLIENT
from snow_owl_tftp._engine.base.transfer cimport (
    HELD_CAPPED, HELD_NOT, HELD_PACED, HELD_WITHHELD, T_ACTIVE, Transfer, move_to)
from snow_owl_tftp._engine.memory.slab cimport add_by_tid
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.protocol.exchange cimport flight_init, flight_offset
from snow_owl_tftp._engine.protocol.patience cimport Patience
from snow_owl_tftp._engine.protocol.rtt cimport Rtt
from snow_owl_tftp._engine.protocol.sender cimport flight_rest, flight_send_end
from snow_owl_tftp._engine.protocol.window cimport RECEIVER, SENDER
from snow_owl_tftp._engine.worker.completions cimport recall_memory
from snow_owl_tftp._engine.worker.control cimport send_ack, send_error, send_first
from snow_owl_tftp._engine.worker.doubt cimport CAPPED_NS, doubt, share_is_spent
from snow_owl_tftp._engine.worker.life cimport end, let_give_way
from snow_owl_tftp._engine.worker.limits cimport give_way_by_rule, leave_descriptors, refusal_text
from snow_owl_tftp._engine.worker.pacing cimport at_once, hold, in_turn, keep_held, pace
from snow_owl_tftp._engine.worker.piping cimport pump_stream
from snow_owl_tftp._engine.worker.rates cimport is_withheld, note_reached, reason_by_rule
from snow_owl_tftp._engine.worker.send cimport pump_file, quantum_blocks
from snow_owl_tftp._engine.worker.state cimport Q_NONE, REFUSED_RULE_TRANSFERS, Worker
from snow_owl_tftp._engine.worker.tids cimport choose_socket, reply_socket


cdef enum:
    WITHHELD_NS = 250000000       # how soon it is looked again whether a stranger may be answered


cdef inline void pump(Worker *w, Transfer *t) noexcept nogil:
    """Sends what may be sent now, of a file or of a pipe."""
    if t.queued != Q_NONE:
        return                                   # its turn will come
    if t.held:
        if t.held == HELD_PACED or t.held == HELD_WITHHELD:
            keep_held(w, t)
        return
    if t.doubted and share_is_spent(w, t):
        w.counters.sends_capped += 1
        t.trial_ns = 0
        hold(w, t, HELD_CAPPED, CAPPED_NS)
        return
    if w.quotas.bounds and not may_go(w, t):
        return
    if t.recipe.source.stream:
        pump_stream(w, t)
    else:
        pump_file(w, t)


cdef inline bint may_go(Worker *w, Transfer *t) noexcept nogil:
    """Whether the limits let DATA of it leave now; else its deadline brings it back."""
    cdef int64_t blocks = flight_send_end(&t.flight) - t.flight.next + 1
    cdef uint64_t size = t.flight.blksize_bytes
    if t.flight.next == t.flight.last and not t.recipe.source.stream:
        size = t.recipe.source.size_bytes - flight_offset(&t.flight, t.flight.last)
    if blocks <= 0 or t.credit_blocks:
        return True                              # granted before, and it had to wait for its file
    if t.paced_stage == OF_CLIENT and is_withheld(w, t, <uint32_t>size + 4):
        hold(w, t, HELD_WITHHELD, WITHHELD_NS)
        return False
    if w.quotas.paces:
        return pace(w, t, in_turn(w, t, at_once(w, t, blocks, quantum_blocks(t))))
    t.credit_blocks = not t.flight.proven
    return True


cdef inline void repeat_first(Worker *w, Transfer *t) noexcept nogil:
    if t.held == HELD_WITHHELD:
        t.held = HELD_NOT                        # its client still wants it
    if t.flight.opening:
        t.flight.retransmits += 1
        t.flight.timed_block = -1
        send_first(w, t)
    elif t.recipe.role == SENDER:
        t.flight.next = t.flight.window_base
        pump(w, t)


cdef inline int64_t final_block(const Recipe *recipe, uint32_t blksize_bytes) noexcept nogil:
    if recipe.role == RECEIVER:
        return -1
    if recipe.source.stream:
        return <int64_t>1 << 62                  # until the pipe ends
    return <int64_t>(recipe.source.size_bytes // blksize_bytes) + 1


cdef inline bint open_account(Worker *w, Transfer *t) noexcept nogil:
    """Whether its client may have one transfer more by the rule that decided about it, which counts it then."""
    cdef int answer = account_open(w.accounts, &t.peer, &t.recipe.limits, w.now_ns, &t.account)
    if answer == ACCOUNT_CROWDED:
        give_way_by_rule(w, t)
    return answer != ACCOUNT_TRANSFERS


cdef inline void begin_too_many(Worker *w, Transfer *t, int32_t endpoint) noexcept nogil:
    """Others of its client have begun since it was looked whether it may: over at once, with its Completion."""
    cdef const char *text = refusal_text(REFUSED_RULE_TRANSFERS)
    w.counters.transfers_too_many += 1
    note_reached(w, reason_by_rule(&t.recipe.limits, ACCOUNT_TRANSFERS), &t.peer)
    send_error(w, reply_socket(w, endpoint), &t.peer, &t.local, 0, text)
    end(w, t, OUT_ABORTED, 0, <const uint8_t *>text, <uint32_t>strlen(text))


cdef inline void begin(Worker *w, Transfer *t, Recipe *recipe, Sink *sink) noexcept nogil:
    """The request was accepted: a TID, a window, the first packet.  Takes over the references."""
    cdef uint32_t of_peer = peer_hash(&t.peer, w.secret)
    cdef int32_t endpoint = t.endpoint
    cdef Patience patience
    t.recipe = recipe
    t.sink = sink
    t.endpoint = 0
    move_to(t, T_ACTIVE)
    w.counters.transfers_started += 1
    if recipe.limits.transfers and not open_account(w, t):
        begin_too_many(w, t, endpoint)
        return
    if not t.flow_hit:
        leave_descriptors(w)
    let_give_way(w, t)
    recall_memory(w, &t.peer, &patience)
    flight_init(&t.flight, &w.retransmit, &patience, recipe.role, recipe.blksize_bytes, recipe.windowsize,
                final_block(recipe, recipe.blksize_bytes), recipe.first_bytes > 0 or recipe.role == RECEIVER,
                False, recipe.fixed_ns, w.now_ns)
    t.flight.rollover = recipe.rollover
    doubt(w, t)
    t.socket = choose_socket(w, t, of_peer, endpoint)
    if t.socket < 0 or add_by_tid(&w.slab, t, of_peer) < 0:
        send_error(w, reply_socket(w, endpoint), &t.peer, &t.local, 0, b"too many transfers from your port")
        end(w, t, OUT_ABORTED, 0, b"too many transfers from one port", 32)
        return
    if t.flight.opening:
        send_first(w, t)
    else:
        pump(w, t)
    wheel_update(&w.wheel, t)


cdef inline void resume(Worker *w, Transfer *t, uint64_t fixed_ns) noexcept nogil:
    """The options are settled: the data begins."""
    cdef Rtt measured = t.flight.rtt
    cdef Patience patience = t.flight.patience
    flight_init(&t.flight, &w.retransmit, &patience, t.recipe.role, t.recipe.blksize_bytes, t.recipe.windowsize,
                final_block(t.recipe, t.recipe.blksize_bytes), False, True, fixed_ns, w.now_ns)
    t.flight.rollover = t.recipe.rollover
    t.flight.rtt = measured
    flight_rest(&t.flight, &w.retransmit, w.now_ns)
    move_to(t, T_ACTIVE)
    if t.flight.role == RECEIVER:
        send_ack(w, t, 0)                        # RFC 2347: the ACK of an OACK
        wheel_update(&w.wheel, t)
    else:
        pump(w, t)
