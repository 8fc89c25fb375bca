# Requests: a datagram on a listener is a flow's, a question for Python, or one that came before.
#
# A TID carries one transfer at a time, so what comes from a known TID is the same request again, or the sign that the
# client has moved on.  Must not: look into a request; its bytes are compared, and Python parses them.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.classes cimport class_of, limits_of_class
from snow_owl_tftp._engine.base.content cimport Recipe
from snow_owl_tftp._engine.base.index cimport hash_bytes
from snow_owl_tftp._engine.base.messages cimport M_COMPLETION, M_REQUEST, Message, OUT_ABORTED, Requested, message_new
from snow_owl_tftp._engine.base.peers cimport peer_hash
from snow_owl_tftp._engine.base.queue cimport queue_append, queue_wake
from snow_owl_tftp._engine.base.quotas cimport ClientLimits
from snow_owl_tftp._engine.base.transfer cimport (
    SUPERSEDED, SUPERSEDED_NOT, SUPERSEDED_PERHAPS, T_ACTIVE, T_COMMITTING, T_DALLY, T_FLUSHING, T_REQUESTED, Transfer,
    move_to)
from snow_owl_tftp._engine.disk.flows cimport flow_find
from snow_owl_tftp._engine.disk.sources cimport store_use
from snow_owl_tftp._engine.includes.threads cimport owl_add32
from snow_owl_tftp._engine.memory.chain cimport chain_oldest
from snow_owl_tftp._engine.memory.clients cimport client_leave, client_of, network_at
from snow_owl_tftp._engine.memory.slab cimport (
    add_by_request, find_by_request, remove_by_request, transfer_by_id, transfer_new)
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.protocol.opcodes cimport OP_DATA, OP_OACK
from snow_owl_tftp._engine.protocol.window cimport SENDER
from snow_owl_tftp._engine.worker.beginning cimport begin, repeat_first
from snow_owl_tftp._engine.worker.life cimport count_half_open, end, leave_account, release
from snow_owl_tftp._engine.worker.limits cimport over_limit, refuse_busy
from snow_owl_tftp._engine.worker.rates cimport is_unknown, over_rate, over_rule
from snow_owl_tftp._engine.worker.state cimport REFUSED_MEMORY, Worker

cdef enum:
    COPY_NS = 700000000           # how long a client is given to go on with the transfer whose request came again
    COPIES = 4096                 # at most so many wait for that


cdef inline int32_t count_network(Worker *w, const Peer *peer) noexcept nogil:
    """The counters of its network, which count one more transfer; -1: nobody asks for them, or there is no memory."""
    cdef int32_t network = -1
    if w.quotas.transfers_per_network or w.quotas.half_open_per_network:
        network = network_at(&w.held_by, peer)
    if network >= 0:
        w.held_by.entries[network].live += 1
    return network


cdef inline Transfer *admit(Worker *w, int32_t listener, uint32_t size, const Peer *peer, const Local *local,
                            uint32_t of_peer, uint64_t hash) noexcept nogil:
    """A place for a new request of `size` bytes, counted as half-open; NULL when it was refused or dropped."""
    cdef int32_t client = client_of(&w.clients, peer), endpoint = w.sockets.entries[listener].endpoint
    cdef int32_t network = count_network(w, peer)
    cdef Transfer *t = NULL
    cdef int reason
    if client >= 0:
        w.clients.entries[client].live += 1     # first: its entry must not go with one that gives way
    reason = over_limit(w, peer, client, network)
    if reason < 0:
        t = chain_oldest(&w.slab, &w.dallying)
        if t != NULL and w.counters.live_transfers + w.counters.dallying_transfers >= w.limits.transfers:
            release(w, t)                        # its ACK was hardly lost, and here is somebody who needs the place
        t = transfer_new(&w.slab)
        reason = REFUSED_MEMORY
    if t == NULL:
        client_leave(&w.clients, client)
        client_leave(&w.held_by, network)
        refuse_busy(w, endpoint, peer, local, reason, size)
        return NULL
    move_to(t, T_REQUESTED)
    t.peer = peer[0]
    t.local = local[0]
    t.request_hash = hash
    t.client = client
    t.network = network
    t.unknown = w.quotas.unproven_bytes_per_s and is_unknown(w, peer)
    t.started_ns = w.now_ns
    t.flight.progress_ns = w.now_ns
    t.socket = -1
    t.endpoint = endpoint                        # until it begins: which address was asked
    w.counters.live_transfers += 1
    count_half_open(w, t)
    if add_by_request(&w.slab, t, of_peer) < 0:
        w.counters.requests_dropped += 1
        release(w, t)
        return NULL
    return t


cdef inline bint is_copy_beyond(Worker *w, const Transfer *t) noexcept nogil:
    """Whether a copy of its request is one too many; how many transfers there are is of no account for that."""
    cdef ClientLimits limits = t.recipe.limits
    limits.transfers = 0
    if limits.requests_per_s and over_rule(w, &t.peer, &limits) >= 0:
        return True
    return w.quotas.asks and over_rate(w, &t.peer) >= 0


cdef inline bint is_repeated(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size, const Peer *peer,
                             const Local *local, uint32_t of_peer, uint64_t hash) noexcept nogil:
    """A request from a TID that we know: the same one again, or the sign that the peer has moved on."""
    cdef Transfer *t = find_by_request(&w.slab, peer, of_peer)
    if t == NULL:
        return False
    if t.request_hash != hash:
        supersede(w, t, listener, SUPERSEDED)
        return False
    w.counters.requests_repeated += 1
    if t.state == T_REQUESTED or t.state == T_FLUSHING or t.state == T_COMMITTING:
        return True
    if t.state != T_ACTIVE:
        w.counters.requests_revived += 1
        supersede(w, t, listener, SUPERSEDED)
        return False
    if not t.flight.proven:
        if is_copy_beyond(w, t):
            w.counters.answers_withheld += 1     # an ERROR would end what it has begun
        else:
            repeat_first(w, t)
    elif t.flight.role == SENDER and t.flight.next > t.flight.last:
        # Everything was sent: most likely the client has it all, and wants it again.
        ask_again(w, t, listener, bytes, size, peer, local)
    else:
        put_copy_aside(w, t, listener, bytes, size, local)
    return True


cdef inline void supersede(Worker *w, Transfer *t, int32_t listener, int how) noexcept nogil:
    """The peer has sent another request."""
    if t.state == T_REQUESTED:
        w.pending -= 1                           # Python's answer to the old one will find nobody
        release(w, t)
    elif t.state == T_DALLY:
        release(w, t)                            # its peer has the last ACK, or would not ask for more
    elif t.socket == listener:
        end(w, t, OUT_ABORTED, 0, b"the client sent another request", 31)
    else:
        # A TID carries one transfer at a time.  The ACK of the last block may still be under way, so the
        # old transfer may end well, but it never speaks again by itself: a boot ROM that waits for its
        # next file takes whatever comes first for the answer.
        remove_by_request(&w.slab, t)
        t.recounts |= t.account != NULL          # should its client go on with it after all
        leave_account(w, t)
        t.superseded = how
        if t.flight.deadline_ns > w.now_ns + w.retransmit.ceiling_ns:
            # A negotiated timeout may be 255 s, and who does not speak has nothing to wait for so long.
            t.flight.deadline_ns = w.now_ns + w.retransmit.ceiling_ns
            wheel_update(&w.wheel, t)


# --- a request that comes again while its transfer runs -------------------------------------------------------
#
# It may be a copy that was long under way, while the client is busy with the transfer: then it means nothing.  Or the
# client was reset, has forgotten the transfer, and asks again from the same port: then it wants to be served, soon.
# Which of both shows in what the client does next.  If it does not go on with the transfer within COPY_NS, the request
# is taken for a new one, and the old transfer falls silent, until the client has answered one of both.

cdef inline void put_copy_aside(Worker *w, Transfer *t, int32_t listener, const uint8_t *bytes, uint32_t size,
                                const Local *local) noexcept nogil:
    cdef Message *m
    if t.has_copy or w.aside.count >= COPIES:
        return
    m = message_new(M_REQUEST, t.id, bytes, size)
    if m == NULL:
        return                                   # the client asks again
    m.body.request.peer = t.peer
    m.body.request.local = local[0]
    m.body.request.listener = listener
    m.body.request.received_ns = w.now_ns
    m.next = NULL
    t.has_copy = 1
    if w.aside.oldest == NULL:
        w.aside.oldest = m
    else:
        w.aside.newest.next = m
    w.aside.newest = m
    w.aside.count += 1


cdef inline void forget_copy(Worker *w) noexcept nogil:
    """The oldest."""
    cdef Message *m = w.aside.oldest
    w.aside.oldest = m.next
    w.aside.count -= 1
    free(m)


cdef inline void judge_copies(Worker *w) noexcept nogil:
    """Those whose time is over: has the client gone on with its transfer since?"""
    cdef Message *m
    cdef Requested *request
    cdef Transfer *t
    cdef bint waits
    while w.aside.oldest != NULL and w.now_ns - w.aside.oldest.body.request.received_ns >= COPY_NS:
        m = w.aside.oldest
        request = &m.body.request
        t = transfer_by_id(&w.slab, m.id)
        if t != NULL:
            t.has_copy = 0
            waits = t.state == T_ACTIVE and t.flight.progress_ns <= request.received_ns
            if waits and not t.superseded and not w.draining:
                ask_again(w, t, request.listener, m.bytes, m.bytes_used, &request.peer, &request.local)
        forget_copy(w)


cdef inline void ask_again(Worker *w, Transfer *elder, int32_t listener, const uint8_t *bytes, uint32_t size,
                           const Peer *peer, const Local *local) noexcept nogil:
    """The client seems to have done with `elder`, or to have forgotten it: its request is a new one."""
    cdef uint64_t id = elder.id
    cdef Transfer *t
    w.counters.requests_revived += 1
    supersede(w, elder, listener, SUPERSEDED_PERHAPS)
    t = take_request(w, listener, bytes, size, peer, local, peer_hash(peer, w.secret),
                     request_hash(w, listener, bytes, size))
    elder = transfer_by_id(&w.slab, id)
    if elder == NULL:
        return
    if t == NULL:
        elder.superseded = SUPERSEDED_NOT        # refused by a limit
        add_by_request(&w.slab, elder, elder.hash_request)
    else:
        t.rival = id
        elder.rival = t.id


cdef inline void on_request(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size, const Peer *peer,
                            const Local *local) noexcept nogil:
    """A datagram on a listener: a flow's, a repeated one, or a question for Python."""
    cdef uint32_t of_peer = peer_hash(peer, w.secret)
    cdef uint64_t hash = request_hash(w, listener, bytes, size)
    w.counters.requests += 1
    # ERROR, DATA, ACK and OACK are answers: to answer them would set two servers on each other for ever.
    if w.draining or size < 2 or (bytes[0] == 0 and OP_DATA <= bytes[1] <= OP_OACK):
        w.counters.requests_dropped += 1
        return
    if not is_repeated(w, listener, bytes, size, peer, local, of_peer, hash):
        take_request(w, listener, bytes, size, peer, local, of_peer, hash)


cdef inline uint64_t request_hash(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size) noexcept nogil:
    return hash_bytes(bytes, size, w.secret) + <uint32_t>w.sockets.entries[listener].endpoint


cdef inline Transfer *take_request(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size, const Peer *peer,
                                   const Local *local, uint32_t of_peer, uint64_t hash) noexcept nogil:
    """Begun by a flow, or with Python; NULL when it was refused or dropped."""
    cdef int32_t endpoint = w.sockets.entries[listener].endpoint
    cdef uint32_t client_class = 0
    cdef const ClientLimits *limits = NULL       # of its client's class
    cdef Recipe *recipe = NULL
    cdef Transfer *t
    cdef Message *m
    cdef uint64_t id
    cdef int reason = -1
    if w.flows.classes != NULL:
        client_class = class_of(w.flows.classes, peer)
        limits = limits_of_class(w.flows.classes, client_class)
        if limits != NULL:
            reason = over_rule(w, peer, limits)
    if reason < 0 and w.quotas.asks:
        reason = over_rate(w, peer)
    if reason < 0 and w.tuning.flows:
        recipe = flow_find(&w.flows, bytes, size, <uint32_t>hash, endpoint, client_class)
        if recipe != NULL and limits == NULL and (recipe.limits.requests_per_s or recipe.limits.transfers):
            reason = over_rule(w, peer, &recipe.limits)
    if reason >= 0:
        refuse_busy(w, endpoint, peer, local, reason, size)
        return NULL
    t = admit(w, listener, size, peer, local, of_peer, hash)
    if t == NULL:
        return NULL
    if recipe != NULL:
        t.farewell = message_new(M_COMPLETION, t.id, NULL, 0)
    if t.farewell != NULL and store_use(w.errands.store, recipe.source):  # it may have been closed just now
        w.counters.flow_hits += 1
        owl_add32(&recipe.refs, 1)
        t.flow_hit = 1
        id = t.id
        begin(w, t, recipe, NULL)
        return transfer_by_id(&w.slab, id)
    m = message_new(M_REQUEST, t.id, bytes, size)
    if m == NULL:
        w.counters.requests_dropped += 1
        release(w, t)
        return NULL
    w.counters.flow_misses += 1
    m.worker = w.number
    m.body.request.peer = peer[0]
    m.body.request.local = local[0]
    m.body.request.endpoint = endpoint
    m.body.request.listener = listener
    m.body.request.received_ns = w.now_ns
    m.body.request.is_counted = limits != NULL or (
        recipe != NULL and (recipe.limits.requests_per_s != 0 or recipe.limits.transfers != 0))
    w.pending += 1
    w.owes_wake |= queue_append(w.outbox, m, m)
    return t


cdef inline void wake_python(Worker *w) noexcept nogil:
    """Once for all requests of a batch: who is woken for each of a flood takes the core from everybody."""
    if w.owes_wake:
        w.owes_wake = 0
        queue_wake(w.outbox)
