# Limits: whether one more transfer may begin, who makes room for it, and what is told where it may not.
#
# Whoever comes may be a client; who has answered nothing is less likely to be one with every moment, and gives way.
# Each refusal is answered at once, counted by its reason, and told upwards once a second.

from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from libc.string cimport strlen
from snow_owl_tftp._engine.base.accounts cimport ACCOUNT_TRANSFERS, account_rejoin
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.messages cimport M_REFUSED, Message, OUT_ABORTED, message_new
from snow_owl_tftp._engine.base.queue cimport queue_push
from snow_owl_tftp._engine.base.transfer cimport (
    AMONG_ALL, AMONG_CLIENTS, Chain, SUPERSEDED, SUPERSEDED_PERHAPS, Transfer)
from snow_owl_tftp._engine.disk.sources cimport store_is_crowded
from snow_owl_tftp._engine.includes.threads cimport owl_load32
from snow_owl_tftp._engine.memory.chain cimport chain_oldest
from snow_owl_tftp._engine.memory.guesses cimport Guesser, guesser_of
from snow_owl_tftp._engine.memory.history cimport history_has
from snow_owl_tftp._engine.memory.slab cimport transfer_at
from snow_owl_tftp._engine.worker.control cimport send_error
from snow_owl_tftp._engine.worker.life cimport end, fail
from snow_owl_tftp._engine.worker.rates cimport is_beyond_share, is_unknown, note_reached, reason_by_rule
from snow_owl_tftp._engine.worker.state cimport (
    PACED, REFUSED_CLIENT_HALF_OPEN, REFUSED_CLIENT_REQUESTS, REFUSED_CLIENT_TRANSFERS, REFUSED_GUESSES,
    REFUSED_HALF_OPEN, REFUSED_NETWORK_HALF_OPEN, REFUSED_NETWORK_REQUESTS, REFUSED_NETWORK_TRANSFERS,
    REFUSED_PENDING, REFUSED_REQUESTS, REFUSED_RULE_REQUESTS, REFUSED_RULE_TRANSFERS, REFUSED_TRANSFERS,
    REFUSED_UNPROVEN, Refusal, TOLD, Worker)
from snow_owl_tftp._engine.worker.tids cimport reply_socket

cdef enum:
    WRONG_GUESSES = 3             # of one address, before its requests are dropped ...
    KNOWN_WRONG_GUESSES = 30      # ... or so many, where its network has a history
    COMPLETIONS_BEHIND = 100000   # completions that Python may be behind before requests are refused
    CROWD_LOOKS = 256             # at those that might give way, for one that begins
    TELL_REFUSALS_NS = 1000000000  # how often a worker says what it refused for one reason
    TELLS_OF_PACED = 60           # so many times less often that transfers wait for a bucket: nothing is wrong then


cdef inline bint has_guessed_often(Worker *w, const Peer *peer) noexcept nogil:
    cdef Guesser *guesser = guesser_of(&w.guesses, peer, w.now_ns)
    # More for a network of our own clients: whoever forges their addresses must not lock them out that easily.
    return (guesser != NULL and guesser.count >= WRONG_GUESSES
            and (guesser.count >= KNOWN_WRONG_GUESSES or not history_has(&w.history, peer, w.now_ns)))


cdef inline void give_way(Worker *w, Transfer *t) noexcept nogil:
    """Without a word, for the ERROR would hit whoever has the address."""
    w.counters.transfers_gave_way += 1
    end(w, t, OUT_ABORTED, 0, b"gave way to another: its client had answered nothing", 52)


cdef inline const char *gave_way_text(int reason) noexcept nogil:
    """Names the limit to whoever runs the server: nothing else says that it was reached."""
    if reason == REFUSED_HALF_OPEN:
        return b"gave way to another (max_half_open): its client had answered nothing"
    if reason == REFUSED_CLIENT_TRANSFERS:
        return b"gave way to another (max_transfers_per_client): its client had answered nothing"
    if reason == REFUSED_CLIENT_HALF_OPEN:
        return b"gave way to another (max_half_open_per_client): its client had answered nothing"
    if reason == REFUSED_NETWORK_TRANSFERS:
        return b"gave way to another (max_transfers_per_network): its client had answered nothing"
    if reason == REFUSED_NETWORK_HALF_OPEN:
        return b"gave way to another (max_half_open_per_network): its client had answered nothing"
    return b"gave way to another (max_transfers): its client had answered nothing"


cdef inline bint gives_way(Worker *w, const Chain *unproven, int reason) noexcept nogil:
    """Whether one of these could make room: the oldest, which has had the most time to answer.

    One that Python is deciding never gives way: its answer is on its way, and `max_pending_requests` bounds how many
    there are.
    """
    cdef Transfer *t = chain_oldest(&w.slab, unproven)
    cdef const char *text = gave_way_text(reason)
    if t == NULL:
        return False
    w.counters.transfers_gave_way += 1
    end(w, t, OUT_ABORTED, 0, <const uint8_t *>text, <uint32_t>strlen(text))
    return True


cdef inline void give_way_by_rule(Worker *w, const Transfer *newcomer) noexcept nogil:
    """The client has as many transfers as its rule allows, and has not answered each: the oldest of those ends.

    Where that is another worker's the client has one too many, until it is given up.
    """
    cdef uint32_t link = w.clients.entries[newcomer.client].unproven.oldest if newcomer.client >= 0 else 0
    cdef uint32_t looks = CROWD_LOOKS
    cdef Transfer *t
    while link and looks:
        t = transfer_at(&w.slab, link - 1)
        if t.account != NULL and t.account == newcomer.account:
            give_way(w, t)
            return
        link = t.after[AMONG_CLIENTS]
        looks -= 1


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


cdef inline uint32_t transfers_per_client(const Worker *w) noexcept nogil:
    return w.quotas.transfers_per_client if w.quotas.transfers_per_client else w.limits.transfers_per_client


cdef inline int over_limit(Worker *w, const Peer *peer, int32_t client, int32_t network) noexcept nogil:
    """Why no further transfer may begin now, REFUSED_...; -1: it may, with `client` and `network` counting it already.

    Whoever comes may be a client; who has answered nothing is less likely to be one with every moment.
    """
    cdef uint32_t undelivered = owl_load32(&w.undelivered)
    if undelivered > COMPLETIONS_BEHIND or w.pending >= w.limits.pending_requests:
        return REFUSED_PENDING
    if has_guessed_often(w, peer):
        return REFUSED_GUESSES
    if (client >= 0 and w.clients.entries[client].live > transfers_per_client(w)
            and not gives_way(w, &w.clients.entries[client].unproven, REFUSED_CLIENT_TRANSFERS)):
        return REFUSED_CLIENT_TRANSFERS
    if (client >= 0 and w.clients.entries[client].half_open >= w.limits.half_open_per_client
            and not gives_way(w, &w.clients.entries[client].unproven, REFUSED_CLIENT_HALF_OPEN)):
        return REFUSED_CLIENT_HALF_OPEN
    if (network >= 0 and w.quotas.transfers_per_network
            and w.held_by.entries[network].live > w.quotas.transfers_per_network
            and not gives_way(w, &w.held_by.entries[network].unproven, REFUSED_NETWORK_TRANSFERS)):
        return REFUSED_NETWORK_TRANSFERS
    if (network >= 0 and w.quotas.half_open_per_network
            and w.held_by.entries[network].half_open >= w.quotas.half_open_per_network
            and not gives_way(w, &w.held_by.entries[network].unproven, REFUSED_NETWORK_HALF_OPEN)):
        return REFUSED_NETWORK_HALF_OPEN
    # The Completion of one that gives way is undelivered then: COMPLETIONS_BEHIND bounds how many there are.
    if (w.counters.live_transfers + undelivered >= w.limits.transfers
            and not gives_way(w, &w.unproven, REFUSED_TRANSFERS)):
        return REFUSED_TRANSFERS
    if w.counters.half_open_transfers >= w.limits.half_open and not gives_way(w, &w.unproven, REFUSED_HALF_OPEN):
        return REFUSED_HALF_OPEN
    return -1


cdef inline const char *refusal_text(int reason) noexcept nogil:
    if reason == REFUSED_TRANSFERS:
        return b"server busy: too many transfers, try again later"
    if reason == REFUSED_HALF_OPEN:
        return b"server busy: too many unanswered requests, try again later"
    if reason == REFUSED_PENDING:
        return b"server busy: requests are queueing, try again later"
    if reason == REFUSED_CLIENT_TRANSFERS or reason == REFUSED_RULE_TRANSFERS:
        return b"too many transfers from your address, try again later"
    if reason == REFUSED_CLIENT_HALF_OPEN:
        return b"too many unanswered requests from your address, try again later"
    if reason == REFUSED_NETWORK_TRANSFERS:
        return b"too many transfers from your network, try again later"
    if reason == REFUSED_NETWORK_HALF_OPEN:
        return b"too many unanswered requests from your network, try again later"
    if (reason == REFUSED_REQUESTS or reason == REFUSED_CLIENT_REQUESTS or reason == REFUSED_NETWORK_REQUESTS
            or reason == REFUSED_RULE_REQUESTS):
        return b"Too many requests, try again later"
    return b"server busy: out of memory"


cdef inline const char *text_that_fits(int reason, uint32_t size) noexcept nogil:
    """What is told about a rate: no longer than the request of `size` bytes, for its address may be forged."""
    cdef const char *text = refusal_text(reason)
    if strlen(text) + 5 <= size:
        return text
    if size >= 22:
        return b"Too many requests"
    if size >= 9:
        return b"Busy"
    return NULL


cdef inline bint may_go_on(Worker *w, Transfer *t) noexcept nogil:
    """Of one that `recounts`, whose client goes on with it: whether it may; else it has ended."""
    if t.superseded == SUPERSEDED_PERHAPS:
        return True                              # it is not known yet which of both is wanted
    if t.superseded == SUPERSEDED:
        end(w, t, OUT_ABORTED, 0, b"the client sent another request", 31)
        return False
    t.recounts = 0
    if t.account == NULL and account_rejoin(w.accounts, &t.peer, &t.recipe.limits, w.now_ns, &t.account):
        return True
    w.counters.transfers_too_many += 1
    note_reached(w, reason_by_rule(&t.recipe.limits, ACCOUNT_TRANSFERS), &t.peer)
    fail(w, t, OUT_ABORTED, 0, 0, refusal_text(REFUSED_RULE_TRANSFERS))
    return False


cdef inline void refuse_busy(Worker *w, int32_t endpoint, const Peer *peer, const Local *local, int reason,
                             uint32_t size) noexcept nogil:
    """The client, whose request had so many bytes, is told now; whoever runs the server is told by tell_refusals()."""
    cdef const char *text = refusal_text(reason)
    w.counters.requests_refused_busy += 1
    (&w.counters.refused_transfers)[reason] += 1
    note_reached(w, reason, peer)
    if reason == REFUSED_GUESSES or reason == REFUSED_UNPROVEN:
        return                                   # whoever has this address has hardly asked
    if reason >= REFUSED_REQUESTS and reason != REFUSED_RULE_TRANSFERS:
        text = text_that_fits(reason, size)
    if text == NULL:
        return
    if (w.quotas.unproven_bytes_per_s and is_unknown(w, peer)
            and is_beyond_share(w, <uint32_t>strlen(text) + 5)):
        return
    send_error(w, reply_socket(w, endpoint), peer, local, 0, text)


cdef inline void tell_refusals(Worker *w, bint now) noexcept nogil:
    """What was refused goes up, once a second and reason: a flood must not become a flood of events."""
    cdef Message *m
    cdef Refusal *refusal
    cdef uint64_t every_ns = TELL_REFUSALS_NS
    cdef int reason
    for reason in range(TOLD):
        refusal = &w.refusals.by_reason[reason]
        if reason == PACED:
            every_ns = <uint64_t>TELL_REFUSALS_NS * TELLS_OF_PACED
        if refusal.count == 0 or (refusal.told_ns and w.now_ns - refusal.told_ns < every_ns and not now):
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
