# Limits: whether one more transfer may begin, who makes room for it, and what is told where it may not.
#
# Whoever comes may be a client; who has answered nothing is less likely to be one with every moment, and gives way.
# Each refusal is answered at once, counted by its reason, and told upwards once a second.

from libc.stdint cimport int32_t, uint32_t
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.messages cimport M_REFUSED, Message, OUT_ABORTED, message_new
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.base.transfer cimport AMONG_ALL, Chain, Transfer
from snow_owl_tftp._engine.disk.sources cimport store_is_crowded
from snow_owl_tftp._engine.includes.threads cimport owl_load32
from snow_owl_tftp._engine.memory.chain cimport chain_oldest
from snow_owl_tftp._engine.memory.guesses cimport Guesser, guesser_of
from snow_owl_tftp._engine.memory.history cimport history_has
from snow_owl_tftp._engine.memory.slab cimport transfer_at
from snow_owl_tftp._engine.worker.life cimport end
from snow_owl_tftp._engine.worker.send cimport send_error
from snow_owl_tftp._engine.worker.state cimport (
    REFUSALS, REFUSED_CLIENT_HALF_OPEN, REFUSED_CLIENT_TRANSFERS, REFUSED_GUESSES, REFUSED_HALF_OPEN, REFUSED_PENDING,
    REFUSED_TRANSFERS, Refusal, Worker)
from snow_owl_tftp._engine.worker.tids cimport reply_socket

cdef enum:
    WRONG_GUESSES = 3             # of one address, before its requests are dropped ...
    KNOWN_WRONG_GUESSES = 30      # ... or so many, where its network has a history
    COMPLETIONS_BEHIND = 100000   # completions that Python may be behind before requests are refused
    CROWD_LOOKS = 256             # at those that might give way, for one that begins
    TELL_REFUSALS_NS = 1000000000  # how often a worker says what it refused for one reason


cdef inline bint has_guessed_often(Worker *w, const Peer *peer) noexcept nogil:
    cdef Guesser *guesser = guesser_of(&w.guesses, peer, w.now_ns)
    # More for a network of our own clients: whoever forges their addresses must not lock them out that easily.
    return (guesser != NULL and guesser.count >= WRONG_GUESSES
            and (guesser.count >= KNOWN_WRONG_GUESSES or not history_has(&w.history, peer, w.now_ns)))


cdef inline void give_way(Worker *w, Transfer *t) noexcept nogil:
    """Without a word, for the ERROR would hit whoever has the address."""
    w.counters.transfers_gave_way += 1
    end(w, t, OUT_ABORTED, 0, b"gave way to another: its client had answered nothing", 52)


cdef inline bint gives_way(Worker *w, const Chain *unproven) noexcept nogil:
    """Whether one of these could make room: the oldest, which has had the most time to answer.

    One that Python is deciding never gives way: its answer is on its way, and `max_pending_requests` bounds how many
    there are.
    """
    cdef Transfer *t = chain_oldest(&w.slab, unproven)
    if t == NULL:
        return False
    give_way(w, t)
    return True


cdef inline void leave_descriptors(Worker *w) noexcept nogil:
    """Another file is going to be in use: where that is more than may be, one who has answered nothing lets his go.

    Only who is alone with a file, since nothing is gained by the others; of the oldest, which such a flood consists of.
    One for each that comes: the file is in use until Python has taken its Completion.
    """
    cdef uint32_t link = w.unproven.oldest if store_is_crowded(w.errands.store) else 0, looks = CROWD_LOOKS
    cdef Transfer *t
    while link and looks:
        t = transfer_at(&w.slab, link - 1)
        if t.recipe.source != NULL and owl_load32(&t.recipe.source.users) == 1:
            give_way(w, t)
            return
        link = t.after[AMONG_ALL]
        looks -= 1


cdef inline int over_limit(Worker *w, const Peer *peer, int32_t client) noexcept nogil:
    """Why no further transfer may begin now, REFUSED_...; -1: it may, with `client` counting it already.

    Whoever comes may be a client; who has answered nothing is less likely to be one with every moment.
    """
    cdef uint32_t undelivered = owl_load32(&w.undelivered)
    if undelivered > COMPLETIONS_BEHIND or w.pending >= w.limits.pending_requests:
        return REFUSED_PENDING
    if has_guessed_often(w, peer):
        return REFUSED_GUESSES
    if (client >= 0 and w.clients.entries[client].live > w.limits.transfers_per_client
            and not gives_way(w, &w.clients.entries[client].unproven)):
        return REFUSED_CLIENT_TRANSFERS
    if (client >= 0 and w.clients.entries[client].half_open >= w.limits.half_open_per_client
            and not gives_way(w, &w.clients.entries[client].unproven)):
        return REFUSED_CLIENT_HALF_OPEN
    # The Completion of one that gives way is undelivered then: COMPLETIONS_BEHIND bounds how many there are.
    if w.counters.live_transfers + undelivered >= w.limits.transfers and not gives_way(w, &w.unproven):
        return REFUSED_TRANSFERS
    if w.counters.half_open_transfers >= w.limits.half_open and not gives_way(w, &w.unproven):
        return REFUSED_HALF_OPEN
    return -1


cdef inline const char *refusal_text(int reason) noexcept nogil:
    if reason == REFUSED_TRANSFERS:
        return b"server busy: too many transfers, try again later"
    if reason == REFUSED_HALF_OPEN:
        return b"server busy: too many unanswered requests, try again later"
    if reason == REFUSED_PENDING:
        return b"server busy: requests are queueing, try again later"
    if reason == REFUSED_CLIENT_TRANSFERS:
        return b"too many transfers from your address, try again later"
    if reason == REFUSED_CLIENT_HALF_OPEN:
        return b"too many unanswered requests from your address, try again later"
    return b"server busy: out of memory"


cdef inline void refuse_busy(Worker *w, int32_t endpoint, const Peer *peer, const Local *local,
                             int reason) noexcept nogil:
    """The client is told now; whoever runs the server is told by tell_refusals()."""
    w.counters.requests_refused_busy += 1
    (&w.counters.refused_transfers)[reason] += 1
    if w.refusals.by_reason[reason].count == 0:
        w.refusals.untold += 1
    w.refusals.by_reason[reason].count += 1
    w.refusals.by_reason[reason].last = peer[0]
    if reason == REFUSED_GUESSES:
        return                                   # whoever has this address has hardly asked
    send_error(w, reply_socket(w, endpoint), peer, local, 0, refusal_text(reason))


cdef inline void tell_refusals(Worker *w, bint now) noexcept nogil:
    """What was refused goes up, once a second and reason: a flood must not become a flood of events."""
    cdef Message *m
    cdef Refusal *refusal
    cdef int reason
    for reason in range(REFUSALS):
        refusal = &w.refusals.by_reason[reason]
        if refusal.count == 0 or (w.now_ns - refusal.told_ns < TELL_REFUSALS_NS and not now):
            continue
        m = message_new(M_REFUSED, 0, NULL, 0)
        if m == NULL:
            return                               # told at another turn
        m.worker = w.number
        m.body.refused.reason = reason
        m.body.refused.count = refusal.count
        m.body.refused.last = refusal.last
        refusal.count = 0
        refusal.told_ns = w.now_ns
        w.refusals.untold -= 1
        queue_push(w.outbox, m)
