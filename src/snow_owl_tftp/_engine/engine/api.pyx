"""The Python face of the engine: plans go down, events come up.

`Engine` owns workers, I/O threads, sources and, once handed over, sockets and source descriptors.  The
contract of every call and event is docs/engine-contract.md.  Nothing here runs per datagram, and nothing
here decides anything about TFTP: a plan says it all.
"""

import os
import threading

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from snow_owl_tftp._engine.base.classes cimport Classes, classes_keep
from snow_owl_tftp._engine.base.counters cimport Counters, HISTOGRAM
from snow_owl_tftp._engine.base.messages cimport (
    M_ABORT, M_ABORT_ALL, M_ABORT_ASKED, M_ASK, M_ASK_PROGRESS, M_CLASSES, M_COMMIT, M_COMPLETION, M_DRAIN,
    M_FORGET_FLOWS, M_REFUSE, M_RELEASED, M_REQUEST, M_RESUME, M_RETIRED, M_START, M_STOP, M_SUPPLY, Message,
    message_new)
from snow_owl_tftp._engine.base.queue cimport (
    Queue, queue_append, queue_close, queue_init, queue_take_all, queue_wake)
from snow_owl_tftp._engine.base.quotas cimport OF_ALL, OF_CLIENT, OF_NETWORK, Quotas, SharedBuckets
from snow_owl_tftp._engine.disk.flows cimport flows_outdate, flows_reclass
from snow_owl_tftp._engine.disk.state cimport Store
from snow_owl_tftp._engine.disk.store cimport (
    store_abandon, store_discard, store_init, store_is_sick, store_give_up, store_stop, store_watch)
from snow_owl_tftp._engine.engine.classes cimport ClientClasses
from snow_owl_tftp._engine.engine.events cimport Accounts, Completion, Request, client_limits, event_of
from snow_owl_tftp._engine.engine.plans cimport Stock, plan_attach, plan_recipe, plan_undo, recipe_drop, recipe_free
from snow_owl_tftp._engine.engine.spares cimport Spares, message_or_spare, spares_fill, spares_free
from snow_owl_tftp._engine.includes.files cimport owl_file, owl_look
from snow_owl_tftp._engine.includes.net cimport AF_INET, EAGAIN, ENOMEM
from snow_owl_tftp._engine.includes.threads cimport owl_add32
from snow_owl_tftp._engine.net.batch cimport Tuning
from snow_owl_tftp._engine.net.sockets cimport MAX_ENDPOINTS, S_LISTENER, S_SHARED, S_TID, socket_add
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit
from snow_owl_tftp._engine.protocol.window cimport SENDER
from snow_owl_tftp._engine.worker.loop cimport worker_free, worker_init, worker_run
from snow_owl_tftp._engine.worker.state cimport Limits, Worker

from snow_owl_tftp._engine.engine.events import MAX_RATE
from snow_owl_tftp._engine.engine.names import COUNTERS

if (len(COUNTERS) + 2 * HISTOGRAM) * sizeof(uint64_t) != sizeof(Counters):
    raise ImportError("the names of the counters do not match the engine's struct")


cdef class Engine:
    """Workers, their sockets, and the I/O threads.

    Args (keywords; see docs/engine-contract.md for units and ranges): workers, io_threads, max_batch,
    slot_bytes, linger_us, adaptive, adaptive_threshold, tell_modes, recvmmsg, sendmmsg, gso, flows,
    max_transfers, max_transfers_per_client, max_half_open, max_half_open_per_client,
    max_pending_requests, max_flows, network_bytes, initial_ns, floor_ns, ceiling_ns, give_up_ns,
    half_open_give_up_ns, half_open_datagrams, min_retries, stalled_give_up_ns, source_linger_ns,
    sink_buffer_bytes.
    """
    cdef Worker *_workers
    cdef Queue *_inboxes
    cdef Queue _outbox
    cdef Spares _spares
    cdef Stock _stock
    cdef Tuning _tuning
    cdef Quotas _quotas
    cdef SharedBuckets _shared
    cdef Accounts _accounts
    cdef uint32_t _count
    cdef bint _ready, _running, _stopped
    cdef list _threads
    cdef uint32_t _next_worker, _prefix_count
    cdef uint8_t[64] _owed        # a worker (there are at most 64) has something in its inbox and was not told of it

    def __cinit__(self, *, uint32_t workers=1, uint32_t io_threads=4, uint32_t max_batch=64,
                  uint32_t slot_bytes=2048, uint32_t linger_us=0, bint adaptive=False,
                  uint32_t adaptive_threshold=5, bint recvmmsg=True, bint sendmmsg=True, bint gso=True,
                  bint flows=True, uint32_t max_transfers=200000, uint32_t max_transfers_per_client=1000,
                  uint32_t max_half_open=131072, uint32_t max_half_open_per_client=1000,
                  uint32_t max_pending_requests=65536, uint32_t max_flows=4096, uint32_t network_bytes=0,
                  uint64_t initial_ns=1000000000, uint64_t floor_ns=10000000, uint64_t ceiling_ns=3000000000,
                  uint64_t give_up_ns=30000000000, uint64_t half_open_give_up_ns=10000000000,
                  uint32_t half_open_datagrams=3, uint32_t min_retries=3, uint64_t stalled_give_up_ns=300000000000,
                  uint64_t source_linger_ns=5000000000, uint32_t sink_buffer_bytes=65536,
                  uint64_t io_patience_ns=10000000000, bint tell_modes=False):
        cdef Retransmit retransmit = Retransmit(initial_ns, floor_ns, ceiling_ns, give_up_ns, half_open_give_up_ns,
                                                half_open_datagrams, min_retries)
        cdef Limits limits
        check_ranges(workers, io_threads, max_batch, slot_bytes, sink_buffer_bytes, io_patience_ns)
        limits = Limits(share(max_transfers, workers), max_transfers_per_client, share(max_half_open, workers),
                        max_half_open_per_client, share(max_pending_requests, workers), max_flows,
                        stalled_give_up_ns, network_bytes)
        self._threads = []
        self._count = workers
        self._stock.sink_buffer_bytes = sink_buffer_bytes
        self._stock.slot_bytes = slot_bytes
        self._tuning = Tuning(recvmmsg, sendmmsg, gso, flows, max_batch, linger_us, adaptive, adaptive_threshold,
                              tell_modes)
        self._make_store(source_linger_ns, io_threads, io_patience_ns)
        self._make_workers(&retransmit, &limits)
        spares_fill(&self._spares)
        self._ready = True

    cdef _make_store(self, uint64_t linger_ns, uint32_t io_threads, uint64_t patience_ns):
        self._workers = <Worker *>calloc(self._count, sizeof(Worker))
        self._inboxes = <Queue *>calloc(self._count, sizeof(Queue))
        self._stock.store = <Store *>calloc(1, sizeof(Store))
        if self._workers == NULL or self._inboxes == NULL or self._stock.store == NULL:
            raise MemoryError()
        if (queue_init(&self._outbox) < 0
                or store_init(self._stock.store, self._inboxes, self._count, linger_ns, io_threads, patience_ns) != 0):
            raise OSError(ENOMEM, "the engine could not get its descriptors")

    cdef _make_workers(self, const Retransmit *retransmit, const Limits *limits):
        cdef uint64_t secret
        cdef uint32_t i
        entropy = os.urandom(8)
        memcpy(&secret, <const char *>entropy, 8)
        self._accounts = Accounts(secret)
        for i in range(self._count):
            if (queue_init(&self._inboxes[i]) < 0
                    or worker_init(&self._workers[i], i, &self._inboxes[i], &self._outbox, self._stock.store,
                                   &self._tuning, retransmit, limits, &self._quotas, &self._shared,
                                   &self._accounts.table, 1024, self._stock.slot_bytes, secret) < 0):
                raise OSError(ENOMEM, "the engine could not get its memory or descriptors")

    def __dealloc__(self):
        cdef uint32_t i
        if self._ready and not self._running:
            for i in range(self._count):
                worker_free(&self._workers[i])
            with nogil:
                store_abandon(self._stock.store, 1000000000)
            queue_close(&self._outbox)
        else:
            free(self._inboxes)
            free(self._stock.store)
        spares_free(&self._spares)
        free(self._workers)

    # --- set-up

    def add_listener(self, int worker, int endpoint, int fd, *, bint wildcard=False, bint wants_control=False):
        """Takes over a bound, non-blocking UDP socket for requests of address `endpoint` (0..63)."""
        self._add(worker, S_LISTENER, endpoint, fd, wildcard, wants_control)

    def add_tid(self, int worker, int endpoint, int fd, *, bint wildcard=False, bint wants_control=False):
        """Takes over a socket that transfers of `endpoint` share.  All of an endpoint are added in a row."""
        self._add(worker, S_TID, endpoint, fd, wildcard, wants_control)

    def add_shared(self, int worker, int fd):
        """Takes over a wildcard-bound IPv4 socket with IP_PKTINFO (UDP_GRO as well, if it is on).

        Transfers of our own share it and are told apart by their local address: ask(…, local=…).  This
        is how one process plays many clients.
        """
        self._add(worker, S_SHARED, 0, fd, True, True)

    def _add(self, int worker, int kind, int endpoint, int fd, bint wildcard, bint wants_control):
        if self._running or not 0 <= worker < <int>self._count or not 0 <= endpoint < MAX_ENDPOINTS:
            raise ValueError("sockets are added before start, to an existing worker, in endpoints 0..63")
        if socket_add(&self._workers[worker].sockets, self._workers[worker].epoll_fd, fd, kind, endpoint, wildcard,
                      wants_control) < 0:
            raise OSError(ENOMEM, "the engine could not register a socket")

    def run(self):
        """Starts the threads.

        Raises:
            OSError: the system has no thread for it; the engine has stopped then.
        """
        cdef uint32_t i
        if self._running or self._stopped:
            raise ValueError("an engine runs once")
        self._running = True
        try:
            for i in range(self._count):
                self._spawn(f"tftp-worker-{i}", self._run_worker, (i,))
            self._spawn("tftp-io-watch", self._run_io, ())
        except RuntimeError as error:            # Python's word for EAGAIN of pthread_create
            self.stop()
            raise OSError(EAGAIN, "the system has no more threads (ulimit -u, pids.max); lower workers or io_threads"
                          ) from error

    def _spawn(self, name, target, args):
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _run_worker(self, uint32_t i):
        with nogil:
            worker_run(&self._workers[i])

    def _run_io(self):
        with nogil:
            store_watch(self._stock.store)

    def set_tuning(self, *, recvmmsg=None, sendmmsg=None, gso=None, flows=None, max_batch=None, linger_us=None,
                   adaptive=None, adaptive_threshold=None, tell_modes=None):
        """Changes live settings; workers read them at their next turn."""
        if max_batch is not None and not 1 <= max_batch <= 1024:
            raise ValueError("max_batch must be 1..1024")
        if recvmmsg is not None:
            self._tuning.recvmmsg = bool(recvmmsg)
        if sendmmsg is not None:
            self._tuning.sendmmsg = bool(sendmmsg)
        if gso is not None:
            self._tuning.gso = bool(gso)
        if flows is not None:
            self._tuning.flows = bool(flows)
        if max_batch is not None:
            self._tuning.max_batch = max_batch
        if linger_us is not None:
            self._tuning.linger_us = linger_us
        if adaptive is not None:
            self._tuning.adaptive = bool(adaptive)
        if adaptive_threshold is not None:
            self._tuning.adaptive_threshold = adaptive_threshold
        if tell_modes is not None:
            self._tuning.tell_modes = bool(tell_modes)

    def set_limits(self, *, uint64_t max_requests_per_s_per_client=0, uint64_t max_requests_per_s_per_network=0,
                   uint64_t max_requests_per_s=0, uint64_t max_bytes_per_s_per_client=0,
                   uint64_t max_bytes_per_s_per_network=0, uint64_t max_bytes_per_s=0,
                   uint64_t max_unproven_bytes_per_s=0, uint32_t max_transfers_per_network=0,
                   uint32_t max_half_open_per_network=0, uint32_t max_transfers_per_client=0, bint rules_pace=False):
        """Changes live limits, all of them; workers read them at their next turn.  0: no limit.

        max_transfers_per_client: 0: as Engine() was told.  rules_pace: start() is given limits with bytes_per_s.
        """
        cdef Quotas q
        memset(&q, 0, sizeof(q))
        q.requests_per_s[OF_CLIENT] = max_requests_per_s_per_client
        q.requests_per_s[OF_NETWORK] = max_requests_per_s_per_network
        q.requests_per_s[OF_ALL] = max_requests_per_s
        q.bytes_per_s[OF_CLIENT] = max_bytes_per_s_per_client
        q.bytes_per_s[OF_NETWORK] = max_bytes_per_s_per_network
        q.bytes_per_s[OF_ALL] = max_bytes_per_s
        q.unproven_bytes_per_s = max_unproven_bytes_per_s or (max_bytes_per_s + 1) // 2
        q.transfers_per_network = max_transfers_per_network
        q.half_open_per_network = max_half_open_per_network
        q.transfers_per_client = max_transfers_per_client
        rates = list(q.requests_per_s) + list(q.bytes_per_s) + [q.unproven_bytes_per_s]
        if max(rates) > MAX_RATE:
            raise ValueError("a rate must be 0..10,000,000,000 a second")
        q.least_bytes_per_s = min((rate for rate in rates[3:6] if rate), default=0)
        q.paces = rules_pace or any(rates[3:6])
        q.asks = any(rates[:3]) or q.unproven_bytes_per_s != 0
        q.bounds = q.paces or q.unproven_bytes_per_s != 0
        self._quotas = q

    # --- events

    def fileno(self):
        """Readable while poll() has something to return."""
        return self._outbox.wake_fd

    def poll(self):
        """Every event so far, in order: Request, Completion, Answer, FirstData, Received, Released, Retired,
        Progress, Refusals, ModeChange."""
        cdef Message *m = queue_take_all(&self._outbox)
        cdef Message *following
        cdef list events = []
        spares_fill(&self._spares)
        while m != NULL:
            following = m.next
            event = event_of(m)
            if m.kind == M_REQUEST:
                (<Request>event)._accounts = self._accounts
            if event is not None:
                events.append(event)
            if m.kind == M_COMPLETION:
                (<Completion>event).is_last = self._let_go(m)
            else:
                self._let_go(m)
            m = following
        return events

    cdef bint _let_go(self, Message *m) noexcept:
        """A message that was read, and the reference that it brought; True: it was the last one to its recipe."""
        cdef bint is_last = False
        if m.kind == M_COMPLETION:
            owl_add32(&self._workers[m.worker].undelivered, -1)
        if m.kind == M_COMPLETION or m.kind == M_RELEASED:
            is_last = recipe_drop(&self._stock, m.recipe)
        elif m.kind == M_RETIRED:
            recipe_free(&self._stock, m.recipe)
        free(m)
        return is_last

    # --- answers

    def start(self, plan, flow=None, *, bint wake=True, limits=None):
        """Starts the transfer of a Request.

        Args:
            plan: a TransferPlan; its source descriptor is the engine's from here on, also on failure.
                A sink descriptor stays the caller's, who closes it after the Completion; -1: FirstData asks for
                it.
            flow: None, or (directory descriptor, path beneath it, the request's datagram): the engine may
                repeat this decision by itself while the path leads to the same unchanged file.
            wake: False: several begin at once, with the next wake() at the latest.
            limits: None, or what its client may have, (rule, requests_per_s, bytes_per_s, transfers), 0: no limit;
                of a flow everybody's. Where it has all its transfers this one is over as it begins.

        Raises:
            OSError: the file has not the size that the plan says.
            ValueError: a number is out of range.
        """
        cdef bytes data = b""
        cdef bytes path = b""
        cdef int fd = plan.fd
        cdef owl_file file
        cdef Message *m
        if flow is not None:
            path = flow[1] + b"\0"
            data = path + flow[2]
        m = message_new(M_START, plan.transfer_id, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if m == NULL:
            if plan.role == SENDER or plan.compare:
                store_discard(self._stock.store, fd)
            raise MemoryError()
        if flow is not None and owl_look(fd, &file) == 0:
            m.body.start.has_flow = 1
            m.body.start.directory = flow[0]
            m.body.start.ctime_ns = file.ctime_ns
            m.body.start.path_bytes = <uint32_t>PyBytes_GET_SIZE(path)
        try:
            plan_attach(&self._stock, m, plan)
            if limits is not None:
                client_limits(limits, &m.recipe.limits)
            self._append(m)
        except BaseException:
            plan_undo(&self._stock, m)
            raise
        if wake:
            self.wake()

    def wake(self):
        """Tells every worker of what start(…, wake=False) has left it: once for all of its own."""
        cdef uint32_t i
        for i in range(self._count):
            if self._owed[i]:
                self._owed[i] = 0
                queue_wake(&self._inboxes[i])

    def refuse(self, uint64_t transfer_id, bytes datagram):
        """Answers a Request with a ready-made ERROR; b"" answers with silence."""
        self._send_down(M_REFUSE, transfer_id, datagram, -1, 0)

    def refuse_all(self, answers):
        """Does so for several, (transfer_id, datagram) each; a worker is woken once for all of its own.

        Raises:
            MemoryError, ValueError: the first that could not be answered; all the others were.
        """
        failed = None
        try:
            for transfer_id, datagram in answers:
                try:
                    self._refuse_unwoken(transfer_id, datagram)
                except (MemoryError, ValueError) as error:
                    failed = failed or error
        finally:
            self.wake()
        if failed is not None:
            raise failed

    cdef _refuse_unwoken(self, uint64_t transfer_id, bytes datagram):
        cdef Message *m = self._message(M_REFUSE, transfer_id, datagram)
        try:
            self._append(m)
        except ValueError:
            free(m)
            raise

    def supply(self, uint64_t transfer_id, int fd, uint64_t limit_bytes=0):
        """After FirstData: what to write to, and the most bytes that are accepted (0: as the plan says)."""
        cdef Message *m
        if fd < 0:
            raise ValueError("fd must be a descriptor")
        m = self._message(M_SUPPLY, transfer_id, b"")
        m.body.supply.fd = fd
        m.body.supply.limit_bytes = limit_bytes
        try:
            self._push(m)
        except BaseException:
            free(m)
            raise

    def commit(self, uint64_t transfer_id, int code=-1, bytes text=b"", int error=0):
        """After Received: sends the last ACK (code < 0), or ERROR `code` with `text` (errno `error`); the ERROR also
        after FirstData."""
        self._send_down(M_COMMIT, transfer_id, text, code, error)

    def abort(self, uint64_t transfer_id, int code=0, bytes text=b"aborted"):
        """Ends a started transfer with an ERROR to the peer; unknown ids are ignored."""
        self._send_down(M_ABORT, transfer_id, text, code, 0)

    def abort_asked(self, context, int code=0, bytes text=b"aborted"):
        """Ends the transfer that ask() began with this very context object; unknown ones are ignored.

        Unlike abort() it needs no id, which ask() cannot know: a cancelled wait must reach the server
        before its first answer, and a server without options has none before the end.
        """
        self._tell_asked(M_ABORT_ASKED, context, code, text)

    def ask_progress(self, context):
        """Asks for one Progress of the transfer that ask() began with this context, if it still runs."""
        self._tell_asked(M_ASK_PROGRESS, context, 0, b"")

    cdef _tell_asked(self, uint32_t kind, context, int code, bytes text):
        cdef uint32_t i
        cdef Message *m
        if self._stopped:
            return
        for i in range(self._count):
            m = self._message(kind, <uint64_t>i << 56, text)
            m.body.asked.context = <PyObject *>context
            m.body.asked.code = code
            self._owed[i] |= queue_append(&self._inboxes[i], m, m)
        self.wake()

    def ask(self, plan, fd, bytes peer, *, bint gro=False, bytes local=b"", int worker=-1):
        """Starts a transfer of our own: sends plan.first_packet (an RRQ or WRQ) from socket `fd`.

        Args:
            plan: a TransferPlan; role RECEIVER for an RRQ, SENDER for a WRQ.
            fd: a bound, non-blocking UDP socket of its own; the engine's from here on, also on failure.
            peer: the server's sockaddr_in or sockaddr_in6, as the kernel lays it out.
            gro: UDP_GRO is on.
            local: instead of fd (None): the IPv4 address, four bytes, under which the transfer uses the
                shared socket of `worker`; one transfer an address at a time.
            worker: which worker runs it; -1: in turns.
        """
        cdef Message *m = message_new(M_ASK, 0, NULL, 0)
        if m == NULL:
            if plan.role == SENDER or plan.compare:
                store_discard(self._stock.store, plan.fd)
            if fd is not None:
                os.close(fd)
            raise MemoryError()
        try:
            if PyBytes_GET_SIZE(peer) not in (16, 28):
                raise ValueError("peer must be a sockaddr_in or sockaddr_in6")
            memcpy(m.body.ask.peer.address.raw, PyBytes_AS_STRING(peer), PyBytes_GET_SIZE(peer))
            m.body.ask.peer.size = <uint32_t>PyBytes_GET_SIZE(peer)
            m.body.ask.fd = -1 if fd is None else fd
            m.body.ask.has_gro = gro
            if fd is None:
                if PyBytes_GET_SIZE(local) != 4:
                    raise ValueError("local must be an IPv4 address of four bytes where fd is None")
                memcpy(m.body.ask.local.address, PyBytes_AS_STRING(local), 4)
                m.body.ask.local.family = <uint32_t>AF_INET
            m.id = <uint64_t>(self._next_worker % self._count if worker < 0 else worker) << 56
            self._next_worker += 1
            plan_attach(&self._stock, m, plan)
            self._push(m)
        except BaseException:
            plan_undo(&self._stock, m)
            if fd is not None:
                os.close(fd)
            raise

    def resume(self, uint64_t transfer_id, plan):
        """After Answer: goes on with what the OACK granted (plan: sizes, timeout, context; no descriptor)."""
        cdef Message *m = message_new(M_RESUME, transfer_id, NULL, 0)
        if m == NULL:
            raise MemoryError()
        try:
            m.recipe = plan_recipe(&self._stock, plan.role, plan)
            if plan.declared_bytes is not None:
                m.body.resume.declared_bytes = plan.declared_bytes
                m.body.resume.is_declared = 1
            self._push(m)
        except BaseException:
            plan_undo(&self._stock, m)
            raise

    cdef _send_down(self, uint32_t kind, uint64_t transfer_id, bytes data, int code, int error):
        cdef Message *m = self._message(kind, transfer_id, data)
        m.body.verdict.code = code
        m.body.verdict.error = error
        try:
            self._push(m)
        except BaseException:
            free(m)
            raise

    cdef _append(self, Message *m):
        """Hands a message to its worker, which is woken by wake(); raises ValueError, and then `m` is the caller's."""
        cdef uint32_t worker = <uint32_t>(m.id >> 56)
        if worker >= self._count:
            raise ValueError("no such transfer")
        if self._stopped:
            raise ValueError("the engine has stopped")
        self._owed[worker] |= queue_append(&self._inboxes[worker], m, m)

    cdef _push(self, Message *m):
        self._append(m)
        self.wake()

    cdef _tell_all(self, uint32_t kind):
        cdef uint32_t i
        cdef Message *m
        for i in range(self._count):
            m = self._message(kind, <uint64_t>i << 56, b"")
            if kind == M_FORGET_FLOWS:
                flows_outdate(&self._workers[i].flows)
            self._owed[i] |= queue_append(&self._inboxes[i], m, m)
        self.wake()

    cdef Message *_message(self, uint32_t kind, uint64_t transfer_id, bytes data) except NULL:
        """A message down that must not be missing: an answer that never comes holds a client, and what it has open."""
        cdef Message *m = message_or_spare(&self._spares, kind, transfer_id, PyBytes_AS_STRING(data),
                                           <uint32_t>PyBytes_GET_SIZE(data))
        if m == NULL:
            raise MemoryError()
        return m

    # --- life

    def drain(self):
        """Takes no more requests; running transfers go on."""
        if self._running:
            self._tell_all(M_DRAIN)

    def forget_flows(self):
        """Every following request is decided by Python again (policy or content changed)."""
        if self._running:
            self._tell_all(M_FORGET_FLOWS)

    def set_classes(self, ClientClasses classes):
        """Divides clients into classes, whole, or (None) into none: a flow is repeated for the class of who asked.

        What is started from now on belongs to the new classes; every flow is forgotten, as by forget_flows().

        Raises:
            MemoryError: Everything stays as it was.
        """
        cdef Classes *table = NULL if classes is None else classes.table
        cdef uint32_t i
        if self._stopped:
            return
        if self._running:
            self._tell_classes(table)
        else:
            for i in range(self._count):
                classes_keep(table)
                flows_reclass(&self._workers[i].flows, table)
        self._prefix_count = 0 if classes is None else classes.prefix_count

    cdef _tell_classes(self, Classes *table):
        """All workers or none: two that go by different classes would serve two configurations."""
        cdef Message *first = NULL
        cdef Message *m
        cdef uint32_t i
        for i in range(self._count):
            m = message_new(M_CLASSES, <uint64_t>i << 56, NULL, 0)
            if m == NULL:
                while first != NULL:
                    m = first
                    first = m.next
                    free(m)
                raise MemoryError()
            m.next = first
            first = m
        while first != NULL:
            m = first
            first = m.next
            i = <uint32_t>(m.id >> 56)
            classes_keep(table)
            m.body.reclassed.classes = table
            flows_outdate(&self._workers[i].flows)
            self._owed[i] |= queue_append(&self._inboxes[i], m, m)
        self.wake()

    def stop(self):
        """Ends every transfer, then the threads.  poll() still returns the last Completions."""
        if not self._running or self._stopped:
            self._stopped = True
            return
        self._tell_all(M_ABORT_ALL)
        with nogil:
            store_stop(self._stock.store, 1000000000)
        self._tell_all(M_STOP)
        self._stopped = True
        for thread in self._threads:
            thread.join()
        store_give_up(self._stock.store)         # a worker that began a plan meanwhile has asked for its file
        self._running = False

    def is_sick(self, uint64_t device):
        """True while so much hangs on a device (st_dev) that a file of it would be waited for in vain."""
        return store_is_sick(self._stock.store, device)

    @property
    def hung_threads(self):
        """I/O threads that do not return; after stop() all that were left behind."""
        return self._stock.store.thread_count if self._stopped else self._stock.store.hung_threads

    # --- figures

    def counters(self, worker=None):
        """What workers counted, by name, summed or of one worker; `…_histogram`: calls by datagrams moved.

        Histogram buckets: 1, 2, 3-4, 5-8, … up to 1025 and more.
        """
        cdef uint32_t i, k
        cdef uint64_t *numbers
        totals = [0] * (len(COUNTERS) + 2 * HISTOGRAM)
        for i in range(self._count):
            if worker is None or <uint32_t>worker == i:
                numbers = <uint64_t *>&self._workers[i].counters
                for k in range(<uint32_t>len(totals)):
                    totals[k] += numbers[k]
        result = dict(zip(COUNTERS, totals))
        result["receive_histogram"] = totals[len(COUNTERS):len(COUNTERS) + HISTOGRAM]
        result["send_histogram"] = totals[len(COUNTERS) + HISTOGRAM:]
        result["client_prefixes"] = self._prefix_count
        result["accounts_replaced"] = self._accounts.table.replaced
        result["accounts_missed"] = self._accounts.table.missed
        result["file_loads"] = self._stock.store.loads_total
        result["file_writes"] = self._stock.store.writes_total
        result["file_copies"] = self._stock.store.copies_total
        result["files_open"] = self._stock.store.source_count
        result["files_evicted"] = self._stock.store.evictions_total
        result["file_jobs_expired"] = self._stock.store.expired_total
        result["file_threads"] = self._stock.store.thread_count
        result["file_threads_hung"] = self._stock.store.hung_threads
        return result

    def live_objects(self):
        """What is alive, by kind; after stop() and poll() every figure is zero (tests insist on it)."""
        cdef uint32_t sources = self._stock.store.source_count - self._stock.store.idle_count, i
        cdef uint64_t transfers = 0
        for i in range(self._count):
            transfers += self._workers[i].counters.live_transfers + self._workers[i].counters.dallying_transfers
        return {"transfers": transfers, "recipes": self._stock.live_recipes, "sinks": self._stock.live_sinks,
                "sources": sources, "accounts": self._accounts.table.held}


cdef uint32_t share(uint32_t total, uint32_t workers):
    """One worker's part of a limit, never zero."""
    return (total + workers - 1) // workers if total else 1


cdef check_ranges(uint32_t workers, uint32_t io_threads, uint32_t max_batch, uint32_t slot_bytes,
                  uint32_t sink_buffer_bytes, uint64_t io_patience_ns):
    if not 1 <= workers <= 64 or not 1 <= io_threads <= 64:
        raise ValueError("workers and io_threads must be 1..64")
    if not 1 <= max_batch <= 1024 or not 600 <= slot_bytes <= 65536:
        raise ValueError("max_batch must be 1..1024 and slot_bytes 600..65536")
    if not 4096 <= sink_buffer_bytes <= 16777216:
        raise ValueError("sink_buffer_bytes must be 4 KiB..16 MiB")
    if not 1000000 <= io_patience_ns <= 3600000000000:
        raise ValueError("io_patience_ns must be a millisecond to an hour")
