"""The Python face of the engine: plans go down, events come up.

`Engine` owns workers, I/O threads, sources and, once handed over, sockets and source descriptors.  The
contract of every call and event is docs/engine-contract.md.  Nothing here runs per datagram, and nothing
here decides anything about TFTP: a plan says it all.
"""

import os
import socket as _socket
import threading

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from snow_owl_tftp._engine.batch cimport Tuning
from snow_owl_tftp._engine.counters cimport HISTOGRAM, Counters
from snow_owl_tftp._engine.data cimport *
from snow_owl_tftp._engine.includes.files cimport so_file, so_look
from snow_owl_tftp._engine.includes.net cimport AF_INET, AF_INET6, ntohs, sockaddr_in6
from snow_owl_tftp._engine.includes.threads cimport so_add32
from snow_owl_tftp._engine.queue cimport (
    Queue, message_new, queue_append, queue_close, queue_init, queue_push, queue_take_all, queue_wake)
from snow_owl_tftp._engine.rtt cimport Retransmit
from snow_owl_tftp._engine.seq cimport ROLLOVER_TO_1
from snow_owl_tftp._engine.store cimport (
    Store, store_abandon, store_discard, store_init, store_is_sick, store_open, store_release, store_stop, store_unuse,
    store_watch)
from snow_owl_tftp._engine.stream cimport stream_new
from snow_owl_tftp._engine.window cimport RECEIVER, SENDER
from snow_owl_tftp._engine.worker cimport (
    Limits, MAX_GROUPS, Recipe, S_LISTENER, S_SHARED, S_TID, Worker, recipe_new, worker_add_socket, worker_free,
    worker_init, worker_run)

CONTRACT_VERSION = 2

OUTCOMES = ("OK", "TIMED_OUT", "PEER_ERROR", "LOCAL_IO_ERROR", "CHANGED", "ABORTED", "UNREACHABLE")

COUNTERS = (
    "epoll_wait_calls",
    "recvmmsg_calls", "recvmmsg_empty", "recvfrom_calls", "recvfrom_empty",
    "sendmmsg_calls", "sendto_calls",
    "datagrams_received", "datagrams_sent",
    "bytes_received", "bytes_sent",
    "blocks_sent", "blocks_received",
    "gso_trains", "gso_refused",
    "send_would_block", "send_errors",
    "requests", "requests_repeated", "requests_revived", "requests_dropped", "requests_refused_busy",
    "refused_transfers", "refused_half_open", "refused_pending",
    "refused_client_transfers", "refused_client_half_open", "refused_memory", "refused_guesses",
    "flow_hits", "flow_misses",
    "strays", "strays_answered", "malformed", "error_queue_calls", "errors_heard", "wrong_guesses", "acks_too_early",
    "sends_tried", "sends_capped", "networks_proven", "networks_replaced",
    "memory_learned", "memory_replaced", "memory_used",
    "retransmits", "duplicate_acks", "timeouts",
    "transfers_started", "transfers_ended", "transfers_gave_way", "transfers_stalled",
    "lingers", "linger_ns",
    "file_checks",
    "page_looks", "chunks_lost", "page_waits",
    "live_transfers", "half_open_transfers", "dallying_transfers",
)
# In the order of REFUSED_... in worker.pxd: the limit, by its name in Engine().
LIMITS = (
    "max_transfers", "max_half_open", "max_pending_requests", "max_transfers_per_client", "max_half_open_per_client",
    "memory", "wrong_guesses",
)
if (len(COUNTERS) + 2 * HISTOGRAM) * sizeof(uint64_t) != sizeof(Counters):
    raise ImportError("the names of the counters do not match the engine's struct")

cdef enum:
    SPARES = 64                   # answers that can be given while there is no memory
    SPARE_BYTES = 520             # an ERROR with the longest text

cdef bytes SPARE_ROOM = bytes(SPARE_BYTES)


# --- events ----------------------------------------------------------------------------------------------

cdef tuple peer_tuple(const Peer *peer):
    """(host, port) as the socket module writes them; v4 in a v6 socket stays ::ffff:…"""
    cdef const sockaddr_in6 *six = <const sockaddr_in6 *>peer.address.raw
    if peer.address.family == AF_INET:
        host = _socket.inet_ntop(_socket.AF_INET, (<const char *>peer.address.raw)[4:8])
    elif peer.address.family == AF_INET6:
        host = _socket.inet_ntop(_socket.AF_INET6, (<const char *>peer.address.raw)[8:24])
        if six.sin6_scope_id:
            host = f"{host}%{six.sin6_scope_id}"
    else:
        return ("", 0)
    return (host, ntohs(six.sin6_port))


cdef object local_host(const Local *local):
    if local.family == 0:
        return None
    if local.family == <uint32_t>AF_INET:
        return _socket.inet_ntop(_socket.AF_INET, (<const char *>local.address)[:4])
    return _socket.inet_ntop(_socket.AF_INET6, (<const char *>local.address)[:16])


cdef class Request:
    """A datagram on a listener that may be an RRQ or WRQ.  Answer with start() or refuse(), once."""
    cdef readonly uint64_t transfer_id
    cdef readonly int group
    cdef readonly bytes datagram
    cdef readonly uint64_t received_ns
    cdef Peer _peer
    cdef Local _local

    @property
    def peer(self):
        """(host, TID) of the client."""
        return peer_tuple(&self._peer)

    @property
    def local_address(self):
        """The address that was asked, or None when the listener is bound to that one address."""
        return local_host(&self._local)


cdef class Completion:
    """How a started transfer ended.  Times in nanoseconds of the monotonic clock, sizes in bytes."""
    cdef readonly uint64_t transfer_id
    cdef readonly int worker, outcome, error, role
    cdef readonly bytes text
    cdef readonly object context
    cdef readonly uint64_t payload_bytes, duration_ns, started_ns, srtt_ns
    cdef readonly int64_t blocks
    cdef readonly uint32_t datagrams_in, datagrams_out, retransmits, duplicate_acks, peak_window_blocks
    cdef readonly uint32_t blksize_bytes, windowsize_blocks
    cdef readonly bint flow_hit, is_stuck
    cdef Peer _peer
    cdef Local _local

    @property
    def peer(self):
        """(host, TID) of the peer."""
        return peer_tuple(&self._peer)

    @property
    def local_address(self):
        """The address that was asked, or None when the socket is bound to one."""
        return local_host(&self._local)


cdef class Answer:
    """An OACK for a transfer that we asked for.  Answer with resume() or abort(), once."""
    cdef readonly uint64_t transfer_id
    cdef readonly bytes datagram
    cdef readonly object context
    cdef Peer _peer

    @property
    def peer(self):
        """(host, TID) of the server."""
        return peer_tuple(&self._peer)


cdef class Progress:
    """How far a transfer of our own asking is: payload received or acknowledged, datagrams of the server and to it."""
    cdef readonly uint64_t transfer_id
    cdef readonly uint64_t payload_bytes
    cdef readonly uint32_t datagrams_in, datagrams_out
    cdef readonly object context


cdef class FirstData:
    """An upload whose plan had no descriptor begins to arrive.  Answer once: supply(), or commit() with an ERROR."""
    cdef readonly uint64_t transfer_id
    cdef readonly object context


cdef class Released:
    """Nothing is written any more to the descriptor of an upload whose Completion said is_stuck."""
    cdef readonly uint64_t transfer_id
    cdef readonly object context


cdef class Received:
    """Every byte of an upload is written.  Answer with commit(), once."""
    cdef readonly uint64_t transfer_id
    cdef readonly uint64_t payload_bytes
    cdef readonly object context


cdef class Refusals:
    """Requests that a worker refused by itself since it last said so, all for one reason."""
    cdef readonly int worker
    cdef readonly str limit
    cdef readonly uint64_t count
    cdef Peer _peer

    @property
    def peer(self):
        """(host, TID) of the client that was refused last."""
        return peer_tuple(&self._peer)


cdef class ModeChange:
    """A worker began to answer at once (0), to batch (1) or to linger (2), and why."""
    cdef readonly int worker, mode
    cdef readonly uint64_t live_transfers, linger_ns, datagrams_per_s


# --- the engine --------------------------------------------------------------------------------------------

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
    cdef Message *_spares
    cdef uint32_t _spare_count
    cdef Store *_store            # it outlives the engine while a thread of it hangs
    cdef Tuning _tuning
    cdef uint32_t _count, _io_threads, _live_sinks, _sink_buffer_bytes, _slot_bytes
    cdef int64_t _live_recipes
    cdef bint _ready, _running, _stopped
    cdef list _threads
    cdef uint32_t _next_worker

    def __cinit__(self, *, uint32_t workers=1, uint32_t io_threads=2, uint32_t max_batch=64,
                  uint32_t slot_bytes=2048, uint32_t linger_us=0, bint adaptive=True,
                  uint32_t adaptive_threshold=8, bint recvmmsg=True, bint sendmmsg=True, bint gso=True,
                  bint flows=True, uint32_t max_transfers=200000, uint32_t max_transfers_per_client=1000,
                  uint32_t max_half_open=131072, uint32_t max_half_open_per_client=1000,
                  uint32_t max_pending_requests=16384, uint32_t max_flows=4096, uint32_t network_bytes=0,
                  uint64_t initial_ns=1000000000, uint64_t floor_ns=10000000, uint64_t ceiling_ns=3000000000,
                  uint64_t give_up_ns=30000000000, uint64_t half_open_give_up_ns=10000000000,
                  uint32_t half_open_datagrams=3, uint32_t min_retries=3, uint64_t stalled_give_up_ns=300000000000,
                  uint64_t source_linger_ns=10000000000, uint32_t sink_buffer_bytes=65536,
                  uint64_t io_patience_ns=10000000000, bint tell_modes=False):
        cdef Retransmit retransmit
        cdef Limits limits
        cdef uint64_t secret
        cdef uint32_t i
        if not 1 <= workers <= 64 or not 1 <= io_threads <= 64:
            raise ValueError("workers and io_threads must be 1..64")
        if not 1 <= max_batch <= 1024 or not 600 <= slot_bytes <= 65536:
            raise ValueError("max_batch must be 1..1024 and slot_bytes 600..65536")
        if not 4096 <= sink_buffer_bytes <= 16777216:
            raise ValueError("sink_buffer_bytes must be 4 KiB..16 MiB")
        if not 1000000 <= io_patience_ns <= 3600000000000:
            raise ValueError("io_patience_ns must be a millisecond to an hour")
        self._threads = []
        self._sink_buffer_bytes = sink_buffer_bytes
        self._slot_bytes = slot_bytes
        self._count = workers
        self._io_threads = io_threads
        self._tuning = Tuning(recvmmsg, sendmmsg, gso, flows, max_batch, linger_us, adaptive, adaptive_threshold,
                              tell_modes)
        retransmit = Retransmit(initial_ns, floor_ns, ceiling_ns, give_up_ns, half_open_give_up_ns,
                                half_open_datagrams, min_retries)
        limits = Limits(share(max_transfers, workers), max_transfers_per_client, share(max_half_open, workers),
                        max_half_open_per_client, share(max_pending_requests, workers), max_flows,
                        stalled_give_up_ns, network_bytes)
        entropy = os.urandom(8)
        memcpy(&secret, <const char *>entropy, 8)
        self._workers = <Worker *>calloc(workers, sizeof(Worker))
        self._inboxes = <Queue *>calloc(workers, sizeof(Queue))
        self._store = <Store *>calloc(1, sizeof(Store))
        if self._workers == NULL or self._inboxes == NULL or self._store == NULL:
            raise MemoryError()
        if queue_init(&self._outbox) < 0 or store_init(self._store, self._inboxes, workers, source_linger_ns,
                                                       io_threads, io_patience_ns) != 0:
            raise OSError(ENOMEM, "the engine could not get its descriptors")
        for i in range(workers):
            if (queue_init(&self._inboxes[i]) < 0
                    or worker_init(&self._workers[i], i, &self._inboxes[i], &self._outbox, self._store,
                                   &self._tuning, &retransmit, &limits, 1024, slot_bytes, secret) < 0):
                raise OSError(ENOMEM, "the engine could not get its memory or descriptors")
        self._put_by()
        self._ready = True

    def __dealloc__(self):
        cdef uint32_t i
        cdef Message *m
        if self._ready and not self._running:
            for i in range(self._count):
                worker_free(&self._workers[i])
            with nogil:
                store_abandon(self._store, 1000000000)
            queue_close(&self._outbox)
        else:
            free(self._inboxes)
            free(self._store)
        while self._spares != NULL:
            m = self._spares
            self._spares = m.next
            free(m)
        free(self._workers)

    # --- set-up

    def add_listener(self, int worker, int group, int fd, *, bint wildcard=False, bint wants_control=False):
        """Takes over a bound, non-blocking UDP socket for requests of address `group` (0..63)."""
        self._add(worker, S_LISTENER, group, fd, wildcard, wants_control)

    def add_tid(self, int worker, int group, int fd, *, bint wildcard=False, bint wants_control=False):
        """Takes over a socket that transfers of `group` share.  All of a group are added in a row."""
        self._add(worker, S_TID, group, fd, wildcard, wants_control)

    def add_shared(self, int worker, int fd):
        """Takes over a wildcard-bound IPv4 socket with IP_PKTINFO (UDP_GRO as well, if it is on).

        Transfers of our own share it and are told apart by their local address: ask(…, local=…).  This
        is how one process plays many clients.
        """
        self._add(worker, S_SHARED, 0, fd, True, True)

    def _add(self, int worker, int kind, int group, int fd, bint wildcard, bint wants_control):
        if self._running or not 0 <= worker < <int>self._count or not 0 <= group < MAX_GROUPS:
            raise ValueError("sockets are added before start, to an existing worker, in groups 0..63")
        if worker_add_socket(&self._workers[worker], fd, kind, group, wildcard, wants_control) < 0:
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
            store_watch(self._store)

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

    # --- events

    def fileno(self):
        """Readable while poll() has something to return."""
        return self._outbox.wake_fd

    def poll(self):
        """Every event so far, in order: Request, Completion, Answer, FirstData, Received, Released, Progress,
        Refusals, ModeChange."""
        cdef Message *m = queue_take_all(&self._outbox)
        cdef Message *following
        cdef list events = []
        if self._spare_count < SPARES:
            self._put_by()
        while m != NULL:
            following = m.next
            if m.kind == M_COMPLETION:
                events.append(self._completion(m))
            elif m.kind == M_REQUEST:
                events.append(request_event(m))
            elif m.kind == M_ANSWER:
                events.append(self._answer(m))
            elif m.kind == M_FIRST_DATA:
                events.append(first_data_event(m))
            elif m.kind == M_RECEIVED:
                events.append(received_event(m))
            elif m.kind == M_RELEASED:
                events.append(self._released(m))
            elif m.kind == M_PROGRESS:
                events.append(progress_event(m))
            elif m.kind == M_REFUSED:
                events.append(refusals_event(m))
            elif m.kind == M_MODE:
                events.append(mode_event(m))
            elif m.kind == M_RETIRED:
                self._free_recipe(m.recipe)
            free(m)
            m = following
        return events

    cdef Completion _completion(self, Message *m):
        cdef Completion c = Completion.__new__(Completion)
        so_add32(&self._workers[m.worker].undelivered, -1)
        c.transfer_id = m.id
        c.worker = m.worker
        c.outcome = m.outcome
        c.error = m.error
        c.text = PyBytes_FromStringAndSize(<char *>m.bytes, m.bytes_used)
        c.role = m.recipe.role
        c.context = <object>m.recipe.context
        c.blksize_bytes = m.figures.blksize_bytes
        c.windowsize_blocks = m.figures.windowsize
        c.payload_bytes = m.payload_bytes
        c.started_ns = m.started_ns
        c.duration_ns = m.ended_ns - m.started_ns
        c.srtt_ns = m.figures.srtt_ns
        c.blocks = m.figures.blocks
        c.datagrams_in = m.datagrams_in
        c.datagrams_out = m.datagrams_out
        c.retransmits = m.figures.retransmits
        c.duplicate_acks = m.duplicate_acks
        c.peak_window_blocks = m.peak_window
        c.flow_hit = m.flow_hit
        c.is_stuck = m.state == T_STUCK
        c._peer = m.peer
        c._local = m.local
        self._drop_recipe(m.recipe)
        return c

    cdef Released _released(self, Message *m):
        cdef Released r = Released.__new__(Released)
        r.transfer_id = m.id
        r.context = <object>m.recipe.context
        self._drop_recipe(m.recipe)
        return r

    cdef Answer _answer(self, Message *m):
        cdef Answer a = Answer.__new__(Answer)
        a.transfer_id = m.id
        a.datagram = PyBytes_FromStringAndSize(<char *>m.bytes, m.bytes_used)
        a.context = <object>m.recipe.context if m.recipe != NULL else None
        a._peer = m.peer
        return a

    cdef void _drop_recipe(self, Recipe *recipe):
        """The reference of a transfer, which uses the source no more."""
        store_unuse(self._store, recipe.source)
        if so_add32(&recipe.refs, -1) == 0:
            self._free_recipe(recipe)

    cdef void _free_recipe(self, Recipe *recipe):
        """Nobody refers to it any more: the source and Python's object are let go."""
        store_release(recipe.source)
        Py_DECREF(<object>recipe.context)
        free(recipe)
        self._live_recipes -= 1

    # --- answers

    cdef Recipe *_recipe(self, int role, plan) except NULL:
        cdef bytes first = plan.first_packet
        cdef bytes expected = plan.expected_oack
        cdef Recipe *recipe
        cdef uint32_t blksize = plan.blksize_bytes, windowsize = plan.windowsize_blocks
        cdef uint8_t rollover = plan.rollover
        if not 8 <= blksize <= 65464 or not 1 <= windowsize <= 65535 or PyBytes_GET_SIZE(first) > 1024:
            raise ValueError("blksize must be 8..65464, windowsize 1..65535, first_packet at most 1024 bytes")
        if rollover > ROLLOVER_TO_1 or windowsize + rollover > 65535:
            raise ValueError("rollover must be 0 or 1, and windowsize at most 65534 where it is 1")
        recipe = recipe_new(role, blksize, windowsize, plan.timeout_ns,
                            <const uint8_t *>PyBytes_AS_STRING(first), <uint32_t>PyBytes_GET_SIZE(first),
                            <const uint8_t *>PyBytes_AS_STRING(expected), <uint32_t>PyBytes_GET_SIZE(expected))
        if recipe == NULL:
            raise MemoryError()
        recipe.rollover = rollover
        context = plan.context
        recipe.context = <PyObject *>context
        Py_INCREF(context)
        self._live_recipes += 1
        return recipe

    cdef int _attach(self, Message *m, plan) except -1:
        """Recipe, and source or sink, of a plan.  A source descriptor is ours from here on, come what may."""
        cdef int role = plan.role, fd = plan.fd
        cdef bint is_ours = role == SENDER or plan.compare
        try:
            if role != SENDER and role != RECEIVER:
                raise ValueError("role must be SENDER or RECEIVER")
            m.recipe = self._recipe(role, plan)
            if role == RECEIVER:
                if m.recipe.blksize_bytes + 4 > self._slot_bytes:
                    raise ValueError("blksize needs larger slot_bytes")
                m.sink = self._sink(fd, plan.size_bytes, plan)
        except BaseException:
            if is_ours:
                store_discard(self._store, fd)
            raise
        if is_ours:
            self._open_source(m, fd, plan.size_bytes, plan.stream, plan.compare)
            if m.sink != NULL:
                m.sink.compared = m.recipe.source
        return 0

    cdef int _open_source(self, Message *m, int fd, uint64_t size, bint is_stream, bint is_compared) except -1:
        cdef int error
        if is_stream:
            m.recipe.source = stream_new(fd, m.recipe.blksize_bytes, m.recipe.windowsize)
            if m.recipe.source == NULL:
                os.close(fd)
                raise MemoryError()
            return 0
        with nogil:
            error = store_open(self._store, fd, size, is_compared, &m.recipe.source)
        if error:
            raise OSError(error, "the file cannot be sent")
        return 0

    cdef Sink *_sink(self, int fd, uint64_t limit, plan) except NULL:
        cdef Sink *sink = <Sink *>calloc(1, sizeof(Sink))
        cdef uint32_t size = self._sink_buffer_bytes
        cdef uint32_t windows = <uint32_t>(2 * <uint64_t>plan.blksize_bytes * plan.windowsize_blocks // size)
        declared = plan.declared_bytes
        if sink == NULL:
            raise MemoryError()
        sink.fd = fd
        sink.limit_bytes = limit
        sink.declared_bytes = <uint64_t>-1 if declared is None else declared
        sink.buffer_bytes = size
        sink.gathered = max(1, min(windows, <uint32_t>(262144 // size)))
        sink.max_buffers = max(<uint32_t>4, windows, 2 * sink.gathered)
        sink.live = &self._live_sinks
        so_add32(&self._live_sinks, 1)
        return sink

    cdef _undo(self, Message *m):
        if m.recipe != NULL:
            self._drop_recipe(m.recipe)
        if m.sink != NULL:
            so_add32(&self._live_sinks, -1)
            free(m.sink)
        free(m)

    def start(self, plan, flow=None):
        """Starts the transfer of a Request.

        Args:
            plan: a TransferPlan; its source descriptor is the engine's from here on, also on failure.
                A sink descriptor stays the caller's, who closes it after the Completion; -1: FirstData asks for
                it.
            flow: None, or (directory descriptor, path beneath it, the request's datagram): the engine may
                repeat this decision by itself while the path leads to the same unchanged file.

        Raises:
            OSError: the file has not the size that the plan says.
            ValueError: a number is out of range.
        """
        cdef bytes data = b""
        cdef bytes path = b""
        cdef int fd = plan.fd
        cdef so_file file
        cdef Message *m
        if flow is not None:
            path = flow[1] + b"\0"
            data = path + flow[2]
        m = message_new(M_START, plan.transfer_id, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if m == NULL:
            if plan.role == SENDER or plan.compare:
                store_discard(self._store, fd)
            raise MemoryError()
        if flow is not None and so_look(fd, &file) == 0:
            m.flow_dir = flow[0]
            m.flow_ctime_ns = file.ctime_ns
            m.split = <uint32_t>PyBytes_GET_SIZE(path)
        try:
            self._attach(m, plan)
            self._push(m)
        except BaseException:
            self._undo(m)
            raise

    def refuse(self, uint64_t transfer_id, bytes datagram):
        """Answers a Request with a ready-made ERROR; b"" answers with silence."""
        self._send_down(M_REFUSE, transfer_id, datagram, -1, 0)

    def refuse_all(self, answers):
        """Does so for several, (transfer_id, datagram) each; a worker is woken once for all of its own."""
        cdef uint32_t i
        cdef Message *m
        cdef uint8_t owed[64]                    # workers that are to be woken; there are at most so many
        memset(owed, 0, sizeof(owed))
        try:
            for transfer_id, datagram in answers:
                m = self._message(M_REFUSE, transfer_id, datagram)
                i = <uint32_t>(m.id >> 56)
                if i >= self._count or self._stopped:
                    free(m)
                    raise ValueError("the engine has stopped" if self._stopped else "no such transfer")
                owed[i] |= queue_append(&self._inboxes[i], m, m)
        finally:
            for i in range(self._count):
                if owed[i]:
                    queue_wake(&self._inboxes[i])

    def supply(self, uint64_t transfer_id, int fd, uint64_t limit_bytes=0):
        """After FirstData: what to write to, and the most bytes that are accepted (0: as the plan says)."""
        cdef Message *m
        if fd < 0:
            raise ValueError("fd must be a descriptor")
        m = self._message(M_SUPPLY, transfer_id, b"")
        m.socket = fd
        m.payload_bytes = limit_bytes
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
            m.hash = <uint64_t><PyObject *>context
            m.error = code
            queue_push(&self._inboxes[i], m)

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
                store_discard(self._store, plan.fd)
            if fd is not None:
                os.close(fd)
            raise MemoryError()
        try:
            if PyBytes_GET_SIZE(peer) not in (16, 28):
                raise ValueError("peer must be a sockaddr_in or sockaddr_in6")
            memcpy(m.peer.address.raw, PyBytes_AS_STRING(peer), PyBytes_GET_SIZE(peer))
            m.peer.size = <uint32_t>PyBytes_GET_SIZE(peer)
            m.socket = -1 if fd is None else fd
            m.state = gro
            if fd is None:
                if PyBytes_GET_SIZE(local) != 4:
                    raise ValueError("local must be an IPv4 address of four bytes where fd is None")
                memcpy(m.local.address, PyBytes_AS_STRING(local), 4)
                m.local.family = <uint32_t>AF_INET
            m.id = <uint64_t>(self._next_worker % self._count if worker < 0 else worker) << 56
            self._next_worker += 1
            self._attach(m, plan)
            self._push(m)
        except BaseException:
            self._undo(m)
            if fd is not None:
                os.close(fd)
            raise

    def resume(self, uint64_t transfer_id, plan):
        """After Answer: goes on with what the OACK granted (plan: sizes, timeout, context; no descriptor)."""
        cdef Message *m = message_new(M_RESUME, transfer_id, NULL, 0)
        if m == NULL:
            raise MemoryError()
        try:
            m.recipe = self._recipe(plan.role, plan)
            if plan.declared_bytes is not None:
                m.payload_bytes = <uint64_t>plan.declared_bytes + 1
            self._push(m)
        except BaseException:
            self._undo(m)
            raise

    cdef _send_down(self, uint32_t kind, uint64_t transfer_id, bytes data, int code, int error):
        cdef Message *m = self._message(kind, transfer_id, data)
        m.error = code
        m.socket = error
        try:
            self._push(m)
        except BaseException:
            free(m)
            raise

    cdef _push(self, Message *m):
        cdef uint32_t worker = <uint32_t>(m.id >> 56)
        if worker >= self._count:
            raise ValueError("no such transfer")
        if self._stopped:
            raise ValueError("the engine has stopped")
        queue_push(&self._inboxes[worker], m)

    cdef _tell_all(self, uint32_t kind):
        cdef uint32_t i
        for i in range(self._count):
            queue_push(&self._inboxes[i], self._message(kind, <uint64_t>i << 56, b""))

    cdef Message *_message(self, uint32_t kind, uint64_t transfer_id, bytes data) except NULL:
        """A message down that must not be missing: an answer that never comes holds a client, and what it has open."""
        cdef Message *m = message_new(kind, transfer_id, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if m != NULL:
            return m
        m = self._spares
        if m == NULL or PyBytes_GET_SIZE(data) > SPARE_BYTES:
            raise MemoryError()
        self._spares = m.next
        self._spare_count -= 1
        m.next = NULL
        m.kind = kind
        m.id = transfer_id
        m.bytes_used = <uint32_t>PyBytes_GET_SIZE(data)
        memcpy(m.bytes, PyBytes_AS_STRING(data), m.bytes_used)
        return m

    cdef void _put_by(self):
        """Fills up the messages that are kept for when memory is short, as far as there is some."""
        cdef Message *m
        while self._spare_count < SPARES:
            m = message_new(0, 0, PyBytes_AS_STRING(SPARE_ROOM), SPARE_BYTES)
            if m == NULL:
                return
            m.next = self._spares
            self._spares = m
            self._spare_count += 1

    # --- life

    def drain(self):
        """Takes no more requests; running transfers go on."""
        if self._running:
            self._tell_all(M_DRAIN)

    def forget_flows(self):
        """Every following request is decided by Python again (policy or content changed)."""
        if self._running:
            self._tell_all(M_FORGET_FLOWS)

    def stop(self):
        """Ends every transfer, then the threads.  poll() still returns the last Completions."""
        if not self._running or self._stopped:
            self._stopped = True
            return
        self._tell_all(M_ABORT_ALL)
        with nogil:
            store_stop(self._store, 1000000000)
        self._tell_all(M_STOP)
        self._stopped = True
        for thread in self._threads:
            thread.join()
        self._running = False

    def is_sick(self, uint64_t device):
        """True while so much hangs on a device (st_dev) that a file of it would be waited for in vain."""
        return store_is_sick(self._store, device)

    @property
    def hung_threads(self):
        """I/O threads that do not return; after stop() all that were left behind."""
        return self._store.thread_count if self._stopped else self._store.hung_threads

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
        result["file_loads"] = self._store.loads_total
        result["file_writes"] = self._store.writes_total
        result["file_copies"] = self._store.copies_total
        result["files_open"] = self._store.source_count
        result["files_evicted"] = self._store.evictions_total
        result["file_jobs_expired"] = self._store.expired_total
        result["file_threads"] = self._store.thread_count
        result["file_threads_hung"] = self._store.hung_threads
        return result

    def live_objects(self):
        """What is alive, by kind; after stop() and poll() every figure is zero (tests insist on it)."""
        cdef uint32_t sources = self._store.source_count - self._store.idle_count, i
        cdef uint64_t transfers = 0
        for i in range(self._count):
            transfers += self._workers[i].counters.live_transfers + self._workers[i].counters.dallying_transfers
        return {"transfers": transfers, "recipes": self._live_recipes, "sinks": self._live_sinks, "sources": sources}


cdef uint32_t share(uint32_t total, uint32_t workers):
    """One worker's part of a limit, never zero."""
    return (total + workers - 1) // workers if total else 1


cdef Request request_event(Message *m):
    cdef Request r = Request.__new__(Request)
    r.transfer_id = m.id
    r.group = m.socket
    r.datagram = PyBytes_FromStringAndSize(<char *>m.bytes, m.bytes_used)
    r.received_ns = m.started_ns
    r._peer = m.peer
    r._local = m.local
    return r


cdef FirstData first_data_event(Message *m):
    cdef FirstData f = FirstData.__new__(FirstData)
    f.transfer_id = m.id
    f.context = <object>m.recipe.context
    return f


cdef Received received_event(Message *m):
    cdef Received r = Received.__new__(Received)
    r.transfer_id = m.id
    r.payload_bytes = m.payload_bytes
    r.context = <object>m.recipe.context
    return r


cdef Progress progress_event(Message *m):
    cdef Progress p = Progress.__new__(Progress)
    p.transfer_id = m.id
    p.payload_bytes = m.payload_bytes
    p.datagrams_in = m.datagrams_in
    p.datagrams_out = m.datagrams_out
    p.context = <object>m.recipe.context
    return p


cdef Refusals refusals_event(Message *m):
    cdef Refusals r = Refusals.__new__(Refusals)
    r.worker = m.worker
    r.limit = LIMITS[m.error]
    r.count = m.payload_bytes
    r._peer = m.peer
    return r


cdef ModeChange mode_event(Message *m):
    cdef ModeChange c = ModeChange.__new__(ModeChange)
    c.worker = m.worker
    c.mode = m.state
    c.live_transfers = m.payload_bytes
    c.linger_ns = m.started_ns
    c.datagrams_per_s = m.ended_ns
    return c
