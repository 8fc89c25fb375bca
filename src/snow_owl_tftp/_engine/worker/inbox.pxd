# What comes from Python and from the disk.
#
# A message is taken over with its memory: M_START and M_ASK stay with their transfer, for its Completion, which must
# not be missing.  What answers a transfer that is over is ignored, but for a plan, which has its Completion at once.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free
from snow_owl_tftp._engine.base.classes cimport class_of
from snow_owl_tftp._engine.base.content cimport Recipe
from snow_owl_tftp._engine.base.messages cimport (
    Ask, M_ABORT, M_ABORT_ALL, M_ABORT_ASKED, M_ASK, M_ASK_PROGRESS, M_CLASSES, M_COMMIT, M_COMPLETION, M_DRAIN,
    M_FORGET_FLOWS, M_LOADED, M_PROGRESS, M_REFUSE, M_RESUME, M_START, M_STOP, M_SUPPLY, M_WRITTEN, Message,
    OUT_ABORTED, OUT_LOCAL_IO_ERROR, OUT_OK, Verdict, message_becomes, message_new)
from snow_owl_tftp._engine.base.queue cimport queue_push, queue_take_all
from snow_owl_tftp._engine.base.transfer cimport (
    T_ANSWERED, T_ASKING, T_COMMITTING, T_DALLY, T_ENDING, T_FREE, T_REQUESTED, T_STUCK, Transfer, move_to)
from snow_owl_tftp._engine.disk.flows cimport flow_keep, flows_forget, flows_forget_told, flows_reclass
from snow_owl_tftp._engine.disk.recipe cimport recipe_release
from snow_owl_tftp._engine.disk.sink cimport sink_free
from snow_owl_tftp._engine.includes.net cimport EFBIG, ENOMEM, close
from snow_owl_tftp._engine.includes.threads cimport owl_add32, owl_swap8
from snow_owl_tftp._engine.memory.slab cimport (
    add_by_local, slab_places, transfer_at, transfer_by_id, transfer_free, transfer_new)
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.net.sockets cimport S_PRIVATE, socket_add
from snow_owl_tftp._engine.protocol.exchange cimport flight_init
from snow_owl_tftp._engine.protocol.patience cimport Patience
from snow_owl_tftp._engine.protocol.receiver cimport flight_dally_ns
from snow_owl_tftp._engine.worker.beginning cimport begin, final_block, resume
from snow_owl_tftp._engine.worker.completions cimport complete, payload_acknowledged, recall_memory, verdict
from snow_owl_tftp._engine.worker.control cimport send_ack, send_bytes, send_first
from snow_owl_tftp._engine.worker.life cimport begin_dally, fail, release
from snow_owl_tftp._engine.worker.rates cimport is_withheld
from snow_owl_tftp._engine.worker.receiving cimport awaits_sink, on_written, write_on
from snow_owl_tftp._engine.worker.state cimport Worker
from snow_owl_tftp._engine.worker.tids cimport reply_socket
from snow_owl_tftp._engine.worker.waiting cimport on_loaded


cdef inline void on_start(Worker *w, Message *m) noexcept nogil:
    """A plan for a request that is waiting.  The message stays with the transfer, for its Completion."""
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    if t == NULL or t.state != T_REQUESTED:
        # The client gave up or moved on: the plan ends before it began, with its one Completion.
        never_began(w, m, OUT_ABORTED, 0, b"the client sent another request", 31)
        return
    free(t.farewell)                             # of a flow whose file was closed just then
    t.farewell = m
    w.pending -= 1
    if m.body.start.has_flow and w.tuning.flows:
        flow_keep(&w.flows, m.recipe, &m.body.start, m.bytes, m.bytes_used, <uint32_t>t.request_hash, t.endpoint,
                  class_of(w.flows.classes, &t.peer))
    begin(w, t, m.recipe, m.sink)


cdef inline void never_began(Worker *w, Message *m, int outcome, int error, const uint8_t *text,
                             uint32_t size) noexcept nogil:
    """The Completion of a plan that never became a transfer; its message takes it up, where memory is short."""
    cdef Message *up = message_new(M_COMPLETION, m.id, text, size)
    sink_free(m.sink)
    if up == NULL:
        up = m
        message_becomes(up, M_COMPLETION, m.id)
    up.recipe = m.recipe
    up.body.completion.outcome = outcome
    up.body.completion.error = error
    up.body.completion.started_ns = w.now_ns
    up.body.completion.ended_ns = w.now_ns
    up.worker = w.number
    if up != m:
        free(m)
    owl_add32(&w.undelivered, 1)
    queue_push(w.outbox, up)


cdef inline void on_refuse(Worker *w, Message *m) noexcept nogil:
    """Python's ERROR to a request, or silence."""
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    if t == NULL or t.state != T_REQUESTED:
        return
    w.pending -= 1
    if m.bytes_used and not is_withheld(w, t, m.bytes_used):
        send_bytes(w, reply_socket(w, t.endpoint), &t.peer, &t.local, NULL, m.bytes, m.bytes_used)
    release(w, t)


cdef inline void on_ask(Worker *w, Message *m) noexcept nogil:
    """A transfer of our own asking, on a socket of its own or on the shared one."""
    cdef Transfer *t = transfer_new(&w.slab)
    cdef const Ask *ask = &m.body.ask
    cdef int32_t socket
    cdef Patience patience
    if ask.fd < 0:
        socket = w.sockets.shared
    else:
        socket = socket_add(&w.sockets, w.epoll_fd, ask.fd, S_PRIVATE, -1, False, ask.has_gro)
    if t == NULL or socket < 0:
        # Without a place there is no id: the client's own limit of transfers keeps this from happening.
        if ask.fd >= 0:
            close(ask.fd)
        if t != NULL:
            transfer_free(&w.slab, t)
        m.id = 0
        never_began(w, m, OUT_LOCAL_IO_ERROR, ENOMEM, b"out of memory", 13)
        return
    t.farewell = m
    t.peer = ask.peer
    t.recipe = m.recipe
    t.sink = m.sink
    t.socket = socket
    move_to(t, T_ASKING)
    t.started_ns = w.now_ns
    w.counters.live_transfers += 1
    w.counters.transfers_started += 1
    if w.sockets.entries[socket].kind == S_PRIVATE:
        w.sockets.entries[socket].owner = t.id
    else:
        t.local = ask.local
        add_by_local(&w.slab, t)                 # no memory: the transfer times out
    recall_memory(w, &t.peer, &patience)
    flight_init(&t.flight, &w.retransmit, &patience, m.recipe.role, 512, 1, final_block(m.recipe, 512), True, True,
                m.recipe.fixed_ns, w.now_ns)
    send_first(w, t)
    wheel_update(&w.wheel, t)


cdef inline void on_resume(Worker *w, Message *m) noexcept nogil:
    """Python has read the OACK: m.recipe carries what was granted (a reference of ours).  Takes the message along."""
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    cdef Recipe *granted = m.recipe
    if t == NULL or t.state != T_ANSWERED:
        recipe_release(w.errands.store, granted, m, w.outbox)
        return
    granted.source = t.recipe.source             # moves over; the context is the same object on both
    t.recipe.source = NULL
    if m.body.resume.is_declared and t.sink != NULL:
        t.sink.declared_bytes = m.body.resume.declared_bytes
    recipe_release(w.errands.store, t.recipe, m, w.outbox)
    t.recipe = granted
    resume(w, t, t.recipe.fixed_ns)


cdef inline void on_supply(Worker *w, Message *m) noexcept nogil:
    """The file is open: what has arrived can be written."""
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    if t == NULL or not awaits_sink(t):
        return
    t.sink.fd = m.body.supply.fd
    if m.body.supply.limit_bytes:
        t.sink.limit_bytes = m.body.supply.limit_bytes
        if t.sink.received_bytes > t.sink.limit_bytes:
            fail(w, t, OUT_ABORTED, EFBIG, 3, b"more data than announced or allowed")
            return
    write_on(w, t)


cdef inline void on_commit(Worker *w, Message *m) noexcept nogil:
    """The upload is durable and visible (code < 0), or could not be made so (the TFTP error code)."""
    cdef const Verdict *told = &m.body.verdict
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    if t == NULL or (t.state != T_COMMITTING and not (told.code >= 0 and awaits_sink(t))):
        return
    if told.code >= 0:
        m.bytes[m.bytes_used] = 0
        fail(w, t, OUT_LOCAL_IO_ERROR, told.error, told.code, <char *>m.bytes)
        return
    send_ack(w, t, t.flight.last)
    complete(w, t, verdict(t, OUT_OK, 0, NULL, 0))
    begin_dally(w, t)
    t.flight.deadline_ns = w.now_ns + flight_dally_ns(&t.flight)
    wheel_update(&w.wheel, t)


cdef inline void on_abort(Worker *w, Message *m) noexcept nogil:
    cdef Transfer *t = transfer_by_id(&w.slab, m.id)
    if t == NULL or t.state == T_REQUESTED:
        return
    m.bytes[m.bytes_used] = 0
    if t.state == T_DALLY:
        release(w, t)                            # it went well: nothing to tell, the socket is wanted back
    elif t.state != T_ENDING and t.state != T_STUCK:
        fail(w, t, OUT_ABORTED, 0, m.body.verdict.code, <char *>m.bytes)


cdef inline Transfer *asked_with(Worker *w, const void *context) noexcept nogil:
    """The transfer of our own asking with this context.  Before the first answer nobody above knows its id.

    A walk over the slab: for a cancellation and for ten progress reports a second, not for datagrams.
    """
    cdef uint32_t i
    cdef Transfer *t
    for i in range(slab_places(&w.slab)):
        t = transfer_at(&w.slab, i)
        if T_ASKING <= t.state < T_ENDING and t.recipe != NULL and <const void *>t.recipe.context == context:
            return t
    return NULL


cdef inline void on_abort_asked(Worker *w, Message *m) noexcept nogil:
    cdef Transfer *t = asked_with(w, m.body.asked.context)
    if t == NULL:
        return
    m.bytes[m.bytes_used] = 0
    fail(w, t, OUT_ABORTED, 0, m.body.asked.code, <char *>m.bytes)


cdef inline void on_ask_progress(Worker *w, Message *m) noexcept nogil:
    cdef Transfer *t = asked_with(w, m.body.asked.context)
    cdef Message *up
    if t == NULL:
        return
    up = message_new(M_PROGRESS, t.id, NULL, 0)
    if up == NULL:
        return                                   # the next one may tell
    up.worker = w.number
    up.recipe = t.recipe                         # borrowed: its Completion comes behind
    up.body.progress.payload_bytes = t.sink.received_bytes if t.sink != NULL else payload_acknowledged(t)
    up.body.progress.datagrams_in = t.datagrams_in
    up.body.progress.datagrams_out = t.datagrams_out
    queue_push(w.outbox, up)


cdef inline void abort_all(Worker *w) noexcept nogil:
    """Every live transfer is told; those whose buffers are with the disk follow when they are back."""
    cdef uint32_t i
    cdef Transfer *t
    for i in range(slab_places(&w.slab)):
        t = transfer_at(&w.slab, i)
        if t.state == T_FREE or t.state == T_ENDING or t.state == T_STUCK:
            continue
        if t.state == T_REQUESTED:
            w.pending -= 1
            release(w, t)
        elif t.state == T_DALLY:
            release(w, t)                        # complete, and its peer was told
        else:
            fail(w, t, OUT_ABORTED, 0, 0, b"server is shutting down")


cdef inline void end_all(Worker *w) noexcept nogil:
    """The last Completions: of transfers whose write hangs for ever.  Its buffers belong to the I/O thread."""
    cdef uint32_t i
    cdef Transfer *t
    for i in range(slab_places(&w.slab)):
        t = transfer_at(&w.slab, i)
        if t.state == T_ENDING:
            complete(w, t, t.ending)
            release(w, t)


cdef inline void on_message(Worker *w, Message *m) noexcept nogil:
    """Takes the message over."""
    if m.kind == M_START:
        on_start(w, m)
    elif m.kind == M_ASK:
        on_ask(w, m)
    elif m.kind == M_RESUME:
        on_resume(w, m)
    else:
        on_small_message(w, m)
        free(m)


cdef inline void on_small_message(Worker *w, Message *m) noexcept nogil:
    if m.kind == M_REFUSE:
        on_refuse(w, m)
    elif m.kind == M_LOADED:
        on_loaded(w)
    elif m.kind == M_WRITTEN:
        on_written(w, m)
    elif m.kind == M_SUPPLY:
        on_supply(w, m)
    elif m.kind == M_COMMIT:
        on_commit(w, m)
    elif m.kind == M_ABORT:
        on_abort(w, m)
    elif m.kind == M_ABORT_ASKED:
        on_abort_asked(w, m)
    elif m.kind == M_ASK_PROGRESS:
        on_ask_progress(w, m)
    elif m.kind == M_DRAIN:
        w.draining = 1
        flows_forget(&w.flows)
    elif m.kind == M_ABORT_ALL:
        w.draining = 1
        abort_all(w)
    elif m.kind == M_FORGET_FLOWS:
        flows_forget_told(&w.flows)
    elif m.kind == M_CLASSES:
        flows_reclass(&w.flows, m.body.reclassed.classes)
        flows_forget_told(&w.flows)
    elif m.kind == M_STOP:
        flows_forget(&w.flows)
        end_all(w)
        w.stopping = 1


cdef inline void read_inbox(Worker *w) noexcept nogil:
    cdef Message *m = queue_take_all(w.inbox)
    cdef Message *following
    while m != NULL:
        following = m.next
        on_message(w, m)
        m = following
    if owl_swap8(&w.inbox.is_noted, 1, 0):
        on_loaded(w)
