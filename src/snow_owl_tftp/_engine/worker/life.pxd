# Life and death of a transfer: who counts it, who may be asked to make room for it, and how it is forgotten.
#
#   end()  ─► complete() ─► release() ─► forget(), free_place()     its buffers are all back
#          └► T_ENDING ─► on_written(), or leave_stuck()            an I/O thread still has some of them
#
# Invariant: whoever leaves the slab is in no list, index, wheel or count any more.
# Must not: begin anything.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport strlen
from snow_owl_tftp._engine.base.accounts cimport account_close, account_prove
from snow_owl_tftp._engine.base.content cimport Recipe, Source
from snow_owl_tftp._engine.base.messages cimport (
    M_RELEASED, Message, OUT_ABORTED, OUT_CHANGED, OUT_LOCAL_IO_ERROR, message_new)
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.base.transfer cimport (
    AMONG_ALL, AMONG_CLIENTS, AMONG_NETWORKS, SUPERSEDED_NOT, SUPERSEDED_PERHAPS, T_DALLY, T_ENDING, T_FREE,
    T_REQUESTED, T_STUCK, Transfer, move_to)
from snow_owl_tftp._engine.disk.recipe cimport recipe_release
from snow_owl_tftp._engine.disk.sink cimport sink_free
from snow_owl_tftp._engine.disk.sources cimport source_is_changed
from snow_owl_tftp._engine.includes.net cimport EBUSY, EIO, ETIMEDOUT
from snow_owl_tftp._engine.includes.threads cimport owl_add32
from snow_owl_tftp._engine.memory.chain cimport chain_join, chain_leave
from snow_owl_tftp._engine.memory.clients cimport client_leave
from snow_owl_tftp._engine.memory.history cimport history_note
from snow_owl_tftp._engine.memory.slab cimport (
    add_by_request, remove_by_local, remove_by_request, remove_by_tid, transfer_by_id, transfer_free)
from snow_owl_tftp._engine.memory.strays cimport OF_ENDED, strays_remember
from snow_owl_tftp._engine.memory.timers cimport wheel_remove, wheel_update
from snow_owl_tftp._engine.net.sockets cimport S_PRIVATE, socket_close
from snow_owl_tftp._engine.worker.completions cimport complete, payload_acknowledged, verdict
from snow_owl_tftp._engine.worker.control cimport send_error
from snow_owl_tftp._engine.worker.outbox cimport flush, flush_own
from snow_owl_tftp._engine.worker.state cimport Q_NONE, Worker


cdef inline void count_half_open(Worker *w, Transfer *t) noexcept nogil:
    t.counted_half_open = 1
    w.counters.half_open_transfers += 1
    if t.client >= 0:
        w.clients.entries[t.client].half_open += 1
    if t.network >= 0:
        w.held_by.entries[t.network].half_open += 1


cdef inline void uncount_half_open(Worker *w, Transfer *t) noexcept nogil:
    """The peer answered, or the transfer is over."""
    cdef uint32_t proven
    if not t.counted_half_open:
        return
    t.counted_half_open = 0
    w.counters.half_open_transfers -= 1
    if t.account != NULL:
        proven = account_prove(w.accounts, t.account)
        t.recounts = t.recipe != NULL and proven > t.recipe.limits.transfers
    if t.client >= 0:
        w.clients.entries[t.client].half_open -= 1
    if t.network >= 0:
        w.held_by.entries[t.network].half_open -= 1
    if t.may_give_way:
        t.may_give_way = 0
        chain_leave(&w.slab, &w.unproven, t, AMONG_ALL)
        if t.client >= 0:
            chain_leave(&w.slab, &w.clients.entries[t.client].unproven, t, AMONG_CLIENTS)
        if t.network >= 0:
            chain_leave(&w.slab, &w.held_by.entries[t.network].unproven, t, AMONG_NETWORKS)


cdef inline void let_give_way(Worker *w, Transfer *t) noexcept nogil:
    """It has begun: from now on it ends where a newcomer needs its place, until its peer answers."""
    t.may_give_way = 1
    chain_join(&w.slab, &w.unproven, t, AMONG_ALL)
    if t.client >= 0:
        chain_join(&w.slab, &w.clients.entries[t.client].unproven, t, AMONG_CLIENTS)
    if t.network >= 0:
        chain_join(&w.slab, &w.held_by.entries[t.network].unproven, t, AMONG_NETWORKS)


cdef inline void close_private(Worker *w, Transfer *t) noexcept nogil:
    """The socket of a transfer that we asked for goes with it."""
    if t.socket < 0 or w.sockets.entries[t.socket].kind != S_PRIVATE:
        return
    flush(w)                                     # what is still in the batch leaves from it
    socket_close(&w.sockets, t.socket)
    t.socket = -1


cdef inline void leave_account(Worker *w, Transfer *t) noexcept nogil:
    """It is over, or its client has asked for something else instead: what a rule allows it may have anew."""
    if t.account == NULL:
        return
    if t.counted_half_open:
        account_prove(w.accounts, t.account)
    account_close(w.accounts, t.account)
    t.account = NULL


cdef inline void leave_counts(Worker *w, Transfer *t) noexcept nogil:
    """It is its client's, and its network's, no longer."""
    leave_account(w, t)
    client_leave(&w.clients, t.client)
    client_leave(&w.held_by, t.network)
    t.client = -1
    t.network = -1


cdef inline void begin_dally(Worker *w, Transfer *t) noexcept nogil:
    """Its file is stored and its last ACK sent: that this ACK may be repeated is no transfer, and uses up no limit."""
    move_to(t, T_DALLY)
    history_note(&w.history, &t.peer, w.now_ns)
    w.counters.live_transfers -= 1
    w.counters.dallying_transfers += 1
    leave_counts(w, t)
    chain_join(&w.slab, &w.dallying, t, AMONG_ALL)


cdef inline void end_dally(Worker *w, Transfer *t) noexcept nogil:
    chain_leave(&w.slab, &w.dallying, t, AMONG_ALL)
    w.counters.dallying_transfers -= 1


cdef inline void part_rivals(Worker *w, Transfer *t) noexcept nogil:
    """One of two transfers of the same request ends: the other one is wanted, if it was not sure."""
    cdef Transfer *other = transfer_by_id(&w.slab, t.rival)
    t.rival = 0
    if other == NULL:
        return
    other.rival = 0
    if other.superseded == SUPERSEDED_PERHAPS:
        other.superseded = SUPERSEDED_NOT
        add_by_request(&w.slab, other, other.hash_request)  # no memory: a copy of its request counts as a new one


cdef inline void prefer(Worker *w, Transfer *t) noexcept nogil:
    """The client has gone on with `t`: its other transfer of the same request is over."""
    cdef Transfer *other = transfer_by_id(&w.slab, t.rival)
    if other == NULL:
        t.rival = 0
    elif other.state == T_REQUESTED:
        w.pending -= 1                           # Python's answer will find nobody
        release(w, other)
    else:
        end(w, other, OUT_ABORTED, 0, b"the client sent another request", 31)


cdef inline void forget(Worker *w, Transfer *t) noexcept nogil:
    """Every index, timer and count forgets the transfer."""
    if t.in_tids and t.flight.proven:
        # A late echo of it is no stranger's; of who never spoke there is none.
        strays_remember(&w.strays, w.now_ns, t.hash_tid, OF_ENDED)
    if t.rival:
        part_rivals(w, t)
    uncount_half_open(w, t)
    remove_by_request(&w.slab, t)
    remove_by_tid(&w.slab, t)
    remove_by_local(&w.slab, t)
    wheel_remove(&w.wheel, t)
    close_private(w, t)
    if t.state == T_DALLY:
        end_dally(w, t)
    else:
        leave_counts(w, t)
        w.counters.live_transfers -= 1


cdef inline void release(Worker *w, Transfer *t) noexcept nogil:
    """The place becomes free, and the transfer is forgotten."""
    forget(w, t)
    free_place(w, t)


cdef inline void free_place(Worker *w, Transfer *t) noexcept nogil:
    recipe_release(w.errands.store, t.recipe, t.farewell, w.outbox)
    t.recipe = NULL
    t.farewell = NULL
    sink_free(t.sink)
    t.sink = NULL
    move_to(t, T_FREE)
    if t.queued == Q_NONE:
        transfer_free(&w.slab, t)                # else the queue does when it comes to it


cdef inline void end(Worker *w, Transfer *t, int outcome, int error, const uint8_t *text, uint32_t size) noexcept nogil:
    """The transfer is over.  Its buffers may still be with the I/O threads: then the rest waits for them."""
    if t.state == T_DALLY or t.recipe == NULL:
        release(w, t)                            # its Completion has gone up already
        return
    if t.state == T_ENDING or t.state == T_STUCK:
        return                                   # the first reason counts
    flush_own(w, t)                              # before complete() gives the recipe away
    t.payload_bytes = payload_acknowledged(t)
    if t.sink != NULL and t.sink.writing:
        owe_verdict(w, t, T_ENDING)
        t.ending = verdict(t, outcome, error, text, size)
        if error == ETIMEDOUT:
            leave_stuck(w, t)                    # it has been waited for
        return
    complete(w, t, verdict(t, outcome, error, text, size))
    release(w, t)


cdef inline void owe_verdict(Worker *w, Transfer *t, uint8_t state) noexcept nogil:
    """All is here, and the peer waits for our disk, or for Python: on_due() ends what takes too long."""
    move_to(t, state)
    t.flight.deadline_ns = w.now_ns + w.limits.stalled_ns
    wheel_update(&w.wheel, t)


cdef inline void leave_stuck(Worker *w, Transfer *t) noexcept nogil:
    """It has ended, and a write that was waited for long enough may never return: the Completion goes up, says that the
    descriptor is still in use, and Released follows when it is not.  Only of what was supplied: who gave a descriptor
    with the plan waits for the Completion."""
    cdef Recipe *recipe = t.recipe
    if t.ending == NULL or not t.sink.asked:
        wheel_remove(&w.wheel, t)
        return
    owl_add32(&recipe.refs, 1)                    # for Released
    t.ending.body.completion.is_stuck = 1
    complete(w, t, t.ending)
    t.recipe = recipe
    forget(w, t)
    move_to(t, T_STUCK)


cdef inline void tell_released(Worker *w, Transfer *t) noexcept nogil:
    """The disk came back after all."""
    cdef Message *m = message_new(M_RELEASED, t.id, NULL, 0)
    if m != NULL:                                # else the descriptor stays open, for want of 500 bytes
        m.worker = w.number
        m.recipe = t.recipe
        t.recipe = NULL
        queue_push(w.outbox, m)
    free_place(w, t)


cdef inline void fail(Worker *w, Transfer *t, int outcome, int error, int code, const char *text) noexcept nogil:
    """Ends the transfer and tells the peer why: RFC 1350 section 7, premature termination."""
    if t.socket >= 0:
        send_error(w, t.socket, &t.peer, &t.local, code, text)
    end(w, t, outcome, error, <const uint8_t *>text, <uint32_t>strlen(text))


cdef inline void fail_source(Worker *w, Transfer *t) noexcept nogil:
    """The kernel could not read the file, or it is not the file that was opened."""
    cdef Source *source = t.recipe.source
    if source.stream:
        fail(w, t, OUT_LOCAL_IO_ERROR, EIO, 0, b"I/O error while reading the content")
    elif source.failed_errno == EBUSY:           # its file system hangs: nothing may be asked of it
        fail(w, t, OUT_LOCAL_IO_ERROR, EBUSY, 0, b"Server busy, try again")
    elif source.failed_errno and not source_is_changed(source):
        fail(w, t, OUT_LOCAL_IO_ERROR, source.failed_errno, 0, b"I/O error while reading the file")
    else:
        source.changed = 1                       # for the kernel could not read it: the next request opens it anew
        fail(w, t, OUT_CHANGED, 0, 0, b"file changed during the transfer")
