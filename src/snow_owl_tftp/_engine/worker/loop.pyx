# A worker: one thread that owns sockets, transfers and timers, and never waits for anything but epoll.
#
# A turn of the loop: what Python and the disk sent (inbox) - what the peers sent, socket by socket, in
# batches - transfers with more to send - timers - flush.  Requests go up to Python unless a flow answers
# them; everything else ends here.
#
# The files of this room are compiled into this module: what they hold is inline, and each includes only those below it.
#
# Must not: take the GIL, take a lock on the packet path, touch a disk, loop on a full socket.
# Every transfer that was started gets exactly one M_COMPLETION, also when the engine stops.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp
from snow_owl_tftp._engine.base.clock cimport clock_ns
from snow_owl_tftp._engine.base.invariant cimport OWL_INVARIANT
from snow_owl_tftp._engine.base.queue cimport Queue
from snow_owl_tftp._engine.base.quotas cimport Quotas, SharedBuckets
from snow_owl_tftp._engine.base.transfer cimport T_ACTIVE, Transfer
from snow_owl_tftp._engine.disk.flows cimport flows_free, flows_init
from snow_owl_tftp._engine.disk.jobs cimport store_kick
from snow_owl_tftp._engine.disk.resident cimport note_waits
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.disk.stream cimport STREAM_EVENT
from snow_owl_tftp._engine.includes.net cimport (
    EPOLLERR, EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, close, epoll_create1, epoll_ctl, epoll_event, epoll_wait)
from snow_owl_tftp._engine.includes.threads cimport PR_SET_TIMERSLACK, prctl, owl_turn
from snow_owl_tftp._engine.memory.buckets cimport CLIENT_SETS, NETWORK_BUCKET_SETS, buckets_free, buckets_init
from snow_owl_tftp._engine.memory.clients cimport clients_free, clients_init
from snow_owl_tftp._engine.memory.guesses cimport guesses_free, guesses_init
from snow_owl_tftp._engine.memory.history cimport history_free, history_init
from snow_owl_tftp._engine.memory.networks cimport NETWORK_SETS, NETWORK_WAYS, Network
from snow_owl_tftp._engine.memory.remembered cimport MEMORY_SETS, MEMORY_WAYS, Remembered
from snow_owl_tftp._engine.memory.slab cimport slab_free, slab_init, transfer_at
from snow_owl_tftp._engine.memory.strays cimport strays_free, strays_init
from snow_owl_tftp._engine.memory.timers cimport wheel_init, wheel_next_ns
from snow_owl_tftp._engine.net.adaptive cimport MODE_UNKNOWN
from snow_owl_tftp._engine.net.batch cimport Tuning, receive_free, receive_init, send_free, send_init
from snow_owl_tftp._engine.net.sockets cimport S_LISTENER, sockets_free, sockets_init
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit
from snow_owl_tftp._engine.protocol.window cimport SENDER
from snow_owl_tftp._engine.worker.beginning cimport pump
from snow_owl_tftp._engine.worker.deadlines cimport run_timers
from snow_owl_tftp._engine.worker.finals cimport flush_finals
from snow_owl_tftp._engine.worker.inbox cimport read_inbox
from snow_owl_tftp._engine.worker.ingress cimport drain_errors, drain_socket
from snow_owl_tftp._engine.worker.limits cimport TELL_REFUSALS_NS, tell_refusals
from snow_owl_tftp._engine.worker.linger cimport linger
from snow_owl_tftp._engine.worker.outbox cimport flush
from snow_owl_tftp._engine.worker.requests cimport COPY_NS, forget_copy, judge_copies, wake_python
from snow_owl_tftp._engine.worker.state cimport EVENTS, Limits, TID_HISTORY, Worker
from snow_owl_tftp._engine.worker.waiting cimport on_writable, run_queue

cdef enum:
    INBOX = 0x7fffffff            # epoll data of the inbox


cdef int wait_ms(Worker *w) noexcept nogil:
    cdef uint64_t due
    if w.waiters.run_head != NULL:
        return 0
    due = wheel_next_ns(&w.wheel)
    if w.aside.oldest != NULL and w.aside.oldest.body.request.received_ns + COPY_NS < due:
        due = w.aside.oldest.body.request.received_ns + COPY_NS
    if w.refusals.untold and due > w.now_ns + TELL_REFUSALS_NS:
        due = w.now_ns + TELL_REFUSALS_NS
    if due == <uint64_t>-1:
        return -1
    if due <= w.now_ns:
        return 0
    due = (due - w.now_ns + 999999) // 1000000
    return <int>due if due < 60000 else 60000


cdef void on_stream(Worker *w, Transfer *t) noexcept nogil:
    """A pipe has bytes, or has ended.  The place may belong to another transfer by now: it looks again."""
    if t.state == T_ACTIVE and t.flight.role == SENDER and not t.flight.opening:
        pump(w, t)


cdef void take_tuning(Worker *w) noexcept nogil:
    """Settings have changed.  Between turns only: the batch is empty, so all that is queued leaves as it was queued."""
    OWL_INVARIANT(w.out.count == 0)
    w.tuning = w.live_tuning[0]
    w.lingering.mode = MODE_UNKNOWN              # decided anew, without waiting for MODE_HOLD_NS


cdef void on_event(Worker *w, const epoll_event *event) noexcept nogil:
    """But for requests, which come last."""
    cdef uint64_t what = event.data.u64
    if what == INBOX:
        read_inbox(w)
        return
    if what & STREAM_EVENT:
        on_stream(w, transfer_at(&w.slab, <uint32_t>what))
        return
    if event.events & EPOLLERR:
        drain_errors(w, <int32_t>what)
    if event.events & EPOLLOUT:
        on_writable(w, <int32_t>what)
    if event.events & ~<uint32_t>EPOLLOUT and w.sockets.entries[what].kind != S_LISTENER:
        drain_socket(w, <int32_t>what)


cdef void finish_turn(Worker *w) noexcept nogil:
    """What became due, what had more to send, and what is owed to others."""
    if w.waiters.run_head != NULL:
        run_queue(w)
    run_timers(w)
    if w.aside.oldest != NULL:
        judge_copies(w)
    if w.finals.count:
        flush_finals(w)
    flush(w)
    wake_python(w)
    if w.refusals.untold:
        tell_refusals(w, False)
    if w.errands.owes_kick:
        w.errands.owes_kick = 0
        store_kick(w.errands.store)
    note_waits(&w.errands, w.now_ns)


cdef void turn(Worker *w) noexcept nogil:
    cdef epoll_event events[128]
    cdef int n, i
    w.counters.epoll_wait_calls += 1
    n = epoll_wait(w.epoll_fd, events, EVENTS, wait_ms(w))
    owl_turn(&w.errands.store.turns[w.number])    # from here on it may send from a chunk ...
    w.now_ns = clock_ns()
    if memcmp(&w.tuning, w.live_tuning, sizeof(Tuning)) != 0:
        take_tuning(w)
    if memcmp(&w.quotas, w.live_quotas, sizeof(Quotas)) != 0:
        w.quotas = w.live_quotas[0]
    if n > 0 and (n > 1 or events[0].data.u64 != INBOX):
        linger(w)
    for i in range(n):
        on_event(w, &events[i])
    # Requests last: the ACK that ended the peer's transfer was sent before its next request.
    for i in range(n):
        if events[i].data.u64 < INBOX and w.sockets.entries[events[i].data.u64].kind == S_LISTENER:
            drain_socket(w, <int32_t>events[i].data.u64)
    finish_turn(w)
    owl_turn(&w.errands.store.turns[w.number])    # ... and now it has


cdef void worker_run(Worker *w) noexcept nogil:
    """Until M_STOP."""
    # A linger of 300 us must not become 350: threads have 50 us of slack by default (prctl(2)).
    prctl(PR_SET_TIMERSLACK, 1)                  # cannot fail: the argument is positive
    w.now_ns = clock_ns()
    wheel_init(&w.wheel, w.now_ns)
    while not w.stopping:
        turn(w)
    tell_refusals(w, True)


cdef int tables_init(Worker *w) noexcept nogil:
    """-1: there is no memory."""
    w.tid_history = <uint8_t *>calloc(TID_HISTORY, 1)
    w.networks = <Network *>calloc(NETWORK_SETS * NETWORK_WAYS, sizeof(Network))
    w.memory = <Remembered *>calloc(MEMORY_SETS * MEMORY_WAYS, sizeof(Remembered))
    if (w.tid_history == NULL or w.networks == NULL or w.memory == NULL
            or slab_init(&w.slab, w.number, w.secret) < 0 or clients_init(&w.clients, w.secret) < 0
            or clients_init(&w.held_by, w.secret) < 0 or buckets_init(&w.client_buckets, CLIENT_SETS) < 0
            or buckets_init(&w.network_buckets, NETWORK_BUCKET_SETS) < 0
            or strays_init(&w.strays) < 0 or guesses_init(&w.guesses, w.secret) < 0
            or history_init(&w.history, w.secret) < 0
            or flows_init(&w.flows, w.limits.flows, &w.errands, w.outbox) < 0):
        return -1
    return 0


cdef int worker_init(Worker *w, uint32_t number, Queue *inbox, Queue *outbox, Store *store,
                     const Tuning *tuning, const Retransmit *retransmit, const Limits *limits, const Quotas *quotas,
                     SharedBuckets *shared, AccountTable *accounts, uint32_t max_batch, uint32_t slot_bytes,
                     uint64_t secret) noexcept nogil:
    """`w` is zeroed.  Returns -1 when memory or descriptors are missing (errno says which)."""
    cdef epoll_event event
    w.number = number
    w.inbox = inbox
    w.outbox = outbox
    w.live_tuning = tuning
    w.tuning = tuning[0]
    w.retransmit = retransmit[0]
    w.limits = limits[0]
    w.live_quotas = quotas
    w.quotas = quotas[0]
    w.shared = shared
    w.accounts = accounts
    w.secret = secret
    w.lingering.mode = MODE_UNKNOWN
    w.lingering.mode_told = MODE_UNKNOWN
    w.errands.store = store
    w.errands.counters = &w.counters
    w.errands.worker = number
    sockets_init(&w.sockets)
    w.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    if w.epoll_fd < 0 or tables_init(w) < 0 or send_init(&w.out) < 0:
        return -1
    if receive_init(&w.received, max_batch, slot_bytes) < 0:
        return -1
    event.events = EPOLLIN
    event.data.u64 = INBOX
    return epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, w.inbox.wake_fd, &event)


cdef void worker_free(Worker *w) noexcept nogil:
    """After its thread has left.  Transfers were ended by M_ABORT_ALL; what is left is memory."""
    sockets_free(&w.sockets)
    slab_free(&w.slab)
    clients_free(&w.clients)
    clients_free(&w.held_by)
    buckets_free(&w.client_buckets)
    buckets_free(&w.network_buckets)
    flows_free(&w.flows)
    strays_free(&w.strays)
    guesses_free(&w.guesses)
    history_free(&w.history)
    free(w.tid_history)
    free(w.networks)
    free(w.memory)
    while w.aside.oldest != NULL:
        forget_copy(w)
    send_free(&w.out)
    receive_free(&w.received)
    if w.epoll_fd >= 0:
        close(w.epoll_fd)
