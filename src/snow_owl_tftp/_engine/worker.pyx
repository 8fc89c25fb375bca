# A worker: one thread that owns sockets, transfers and timers, and never waits for anything but epoll.
#
# A turn of the loop: what Python and the disk sent (inbox) - what the peers sent, socket by socket, in
# batches - transfers with more to send - timers - flush.  Requests go up to Python unless a flow answers
# them; everything else ends here.
#
# Must not: take the GIL, take a lock on the packet path, touch a disk, loop on a full socket.
# Every transfer that was started gets exactly one M_COMPLETION, also when the engine stops.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from snow_owl_tftp._engine.batch cimport (
    Tuning, may_be_anothers, receive, receive_error, receive_free, receive_init, received_local, received_segment,
    send_free, send_init)
from snow_owl_tftp._engine.buffers cimport buffers_free
from snow_owl_tftp._engine.chain cimport chain_join, chain_leave, chain_oldest
from snow_owl_tftp._engine.data cimport *
from snow_owl_tftp._engine.flows cimport flow_find, flow_keep, flows_forget
from snow_owl_tftp._engine.includes.net cimport *
from snow_owl_tftp._engine.includes.threads cimport PR_SET_TIMERSLACK, prctl, so_add32, so_load32, so_swap8, so_turn
from snow_owl_tftp._engine.index cimport hash_bytes, index_free, index_init
from snow_owl_tftp._engine.linger cimport (
    MODE_AT_ONCE, MODE_HOLD_NS, MODE_UNKNOWN, RATE_WINDOW_NS, linger_law_ns, smooth_rate)
from snow_owl_tftp._engine.memory cimport (
    MEMORY_LEARNED, MEMORY_REPLACED, MEMORY_SETS, MEMORY_WAYS, Remembered, memory_keep, memory_recall)
from snow_owl_tftp._engine.networks cimport (
    FREE_PARTS, LARGE_PARTS, NETWORK_SETS, NETWORK_WAYS, Network, answer_is_usual, answer_slack_ns, learn_answer,
    network_fill, network_find, network_of, network_on_doubt, network_on_evidence, network_on_forgery,
    network_takes_turn, trial_bits, trial_step_ns)
from snow_owl_tftp._engine.patience cimport Patience
from snow_owl_tftp._engine.queue cimport message_new, queue_push, queue_take_all
from snow_owl_tftp._engine.resident cimport note_waits
from snow_owl_tftp._engine.send cimport (
    flush, flush_finals, flush_own, pump_file, send_ack, send_bytes, send_error, send_first)
from snow_owl_tftp._engine.sink cimport (
    SINK_DIFFERS, SINK_OK, SINK_TOO_LARGE, sink_deliver, sink_free, sink_submit, sink_write, sink_written)
from snow_owl_tftp._engine.seq cimport seq_block, seq_index_from
from snow_owl_tftp._engine.slab cimport (
    add_by_local, add_by_request, add_by_tid, client_hash, client_leave, client_of, find_by_local, find_by_request,
    find_by_tid, peer_equal, peer_hash, peer_same_host, remove_by_local, remove_by_request, remove_by_tid,
    slot, transfer_by_id, transfer_new, transfer_slot_free)
from snow_owl_tftp._engine.store cimport recipe_release, source_is_changed, store_is_crowded, store_kick, store_use
from snow_owl_tftp._engine.stream cimport pump_stream, stream_idle
from snow_owl_tftp._engine.timers cimport (
    wheel_init, wheel_next_ns, wheel_remove, wheel_take_due, wheel_update)
from snow_owl_tftp._engine.window cimport *

cdef extern from "errno.h" nogil:
    int EDQUOT, EFBIG, ENOSPC, ETIMEDOUT

cdef extern from * nogil:
    """
    #ifdef SNOW_OWL_DEBUG
    #include <stdio.h>
    #include <stdlib.h>
    #define SO_INVARIANT(what) \\
        do { if (!(what)) { fprintf(stderr, "invariant broken: %s\\n", #what); abort(); } } while (0)
    #else
    #define SO_INVARIANT(what) ((void)0)
    #endif
    """
    void SO_INVARIANT(bint)

cdef extern from *:
    """
    /* An entry of `ended`: hash << 32 | whose | second, the second being of 2^30 ns. */
    #define ENDED_SECOND 0x3fffffffU
    #define OF_ENDED 0x40000000U
    #define OF_STRANGER 0x80000000U
    """
    const uint32_t ENDED_SECOND, OF_ENDED, OF_STRANGER

cdef extern from *:
    """
    static const unsigned char so_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};   /* ::ffff:0:0/96 */
    """
    const uint8_t *MAPPED "so_mapped"

cdef enum:
    OP_RRQ = 1                    # RFC 1350 section 5
    OP_WRQ = 2
    OP_DATA = 3
    OP_ACK = 4
    OP_ERROR = 5
    OP_OACK = 6                   # RFC 2347
    RECEIVES_A_TURN = 8           # batches from one socket before the others have their turn
    ERRORS_A_TURN = 256           # and errors
    INBOX = 0x7fffffff            # epoll data of the inbox
    STRAYS_PER_SECOND = 100       # ERROR 5 to strangers, at most
    COPY_NS = 700000000           # how long a client is given to go on with the transfer whose request came again
    COPIES = 4096                 # at most so many wait for that
    TID_EPOCH_NS = 10000000000    # how long new transfers prefer the same TID sockets
    LEAST_TIDS = 2                # where several transfers run new ones are spread over so many TID sockets ...
    TRANSFERS_A_TID = 25          # ... or one for so many transfers
    WRONG_GUESSES = 3             # of one address, before its requests are dropped ...
    KNOWN_WRONG_GUESSES = 30      # ... or so many, where its network has a history ...
    GUESS_MEMORY_NS = 60000000000  # ... until none has come for so long
    HISTORY_SECONDS = 3600        # how long it counts that a network's transfer ended well
    COMPLETIONS_BEHIND = 100000   # completions that Python may be behind before requests are refused
    CROWD_LOOKS = 256             # at those that might give way, for one that begins
    EMPTYING_ANSWERS = 8          # how long all that was sent may take to be acknowledged, in usual answers
    CAPPED_NS = 16000000          # how soon it is looked again whether a network's share has grown
    TELL_REFUSALS_NS = 1000000000  # how often a worker says what it refused for one reason


cdef uint64_t clock_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)           # cannot fail: the clock exists
    return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec


# --- life and death of a transfer ----------------------------------------------------------------------

cdef Recipe *recipe_new(int role, uint32_t blksize_bytes, uint32_t windowsize, uint64_t fixed_ns,
                        const uint8_t *first, uint32_t first_bytes, const uint8_t *expected,
                        uint32_t expected_bytes) noexcept nogil:
    """A recipe with one reference; NULL when there is no memory."""
    cdef Recipe *recipe = <Recipe *>calloc(1, sizeof(Recipe) + first_bytes + expected_bytes + 1)
    if recipe == NULL:
        return NULL
    recipe.refs = 1
    recipe.role = role
    recipe.blksize_bytes = blksize_bytes
    recipe.windowsize = windowsize
    recipe.fixed_ns = fixed_ns
    recipe.first = <uint8_t *>(recipe + 1)
    recipe.first_bytes = first_bytes
    if first_bytes:
        memcpy(recipe.first, first, first_bytes)
    recipe.expected = recipe.first + first_bytes
    recipe.expected_bytes = expected_bytes
    if expected_bytes:
        memcpy(recipe.expected, expected, expected_bytes)
    return recipe


cdef void count_half_open(Worker *w, Transfer *t) noexcept nogil:
    t.counted_half_open = 1
    w.counters.half_open_transfers += 1
    if t.client >= 0:
        w.clients[t.client].half_open += 1


cdef void uncount_half_open(Worker *w, Transfer *t) noexcept nogil:
    """The peer answered, or the transfer is over."""
    if not t.counted_half_open:
        return
    t.counted_half_open = 0
    w.counters.half_open_transfers -= 1
    if t.client >= 0:
        w.clients[t.client].half_open -= 1
    if t.may_give_way:
        t.may_give_way = 0
        chain_leave(w, &w.unproven, t, AMONG_ALL)
        if t.client >= 0:
            chain_leave(w, &w.clients[t.client].unproven, t, AMONG_CLIENTS)


cdef void let_give_way(Worker *w, Transfer *t) noexcept nogil:
    """It has begun: from now on it ends where a newcomer needs its place, until its peer answers."""
    t.may_give_way = 1
    chain_join(w, &w.unproven, t, AMONG_ALL)
    if t.client >= 0:
        chain_join(w, &w.clients[t.client].unproven, t, AMONG_CLIENTS)


cdef Transfer *shared_owner(Worker *w, const Local *local, const Peer *peer) noexcept nogil:
    """As private_owner, on a shared socket: the address that the datagram came to tells whose it is."""
    cdef Transfer *t = find_by_local(w, local)
    if t == NULL:
        return NULL
    if t.state == T_ASKING and peer_same_host(&t.peer, peer):
        t.peer = peer[0]
        return t
    return t if peer_equal(&t.peer, peer) else NULL


cdef void close_private(Worker *w, Transfer *t) noexcept nogil:
    """The socket of a transfer that we asked for goes with it."""
    cdef Socket *s
    if t.socket < 0 or w.sockets[t.socket].kind != S_PRIVATE:
        return
    flush(w)                                     # what is still in the batch leaves from it
    s = &w.sockets[t.socket]
    close(s.fd)                                  # takes it out of epoll
    s.kind = S_FREE
    s.next_free = w.free_socket
    w.free_socket = t.socket
    t.socket = -1


cdef void remember(Worker *w, uint32_t hash, uint32_t whose) noexcept nogil:
    """A TID pair whose packets are not answered with ERROR 5 for a while; the oldest of its set gives way."""
    cdef uint64_t *entries = w.ended + (hash & (ENDED_SETS - 1)) * ENDED_WAYS
    cdef uint32_t second = <uint32_t>(w.now_ns >> 30) & ENDED_SECOND, i, oldest = 0
    for i in range(<uint32_t>ENDED_WAYS):
        if <uint32_t>(entries[i] >> 32) == hash:
            oldest = i
            break
        if (<uint32_t>entries[i] & ENDED_SECOND) < (<uint32_t>entries[oldest] & ENDED_SECOND):
            oldest = i
    entries[oldest] = <uint64_t>hash << 32 | whose | second


cdef uint32_t recall(Worker *w, uint32_t hash) noexcept nogil:
    """OF_ENDED, OF_STRANGER, or 0: nothing is known of this TID pair."""
    cdef uint64_t *entries = w.ended + (hash & (ENDED_SETS - 1)) * ENDED_WAYS
    cdef uint32_t i
    for i in range(<uint32_t>ENDED_WAYS):
        if <uint32_t>(entries[i] >> 32) == hash:
            if (<uint32_t>(w.now_ns >> 30) - <uint32_t>entries[i] & ENDED_SECOND) < ENDED_SECONDS:
                return <uint32_t>entries[i] & ~ENDED_SECOND
            return 0
    return 0


cdef uint32_t network_hash(Worker *w, const Peer *peer) noexcept nogil:
    """The hash of the peer's network, a /24 or a /56."""
    cdef uint8_t address[16]
    client_hash(w, peer, address)
    if peer.address.family == AF_INET:
        address[3] = 0
    elif memcmp(address, MAPPED, 12) == 0:       # IPv4 on a dual-stack socket
        address[15] = 0
    else:
        memset(address + 7, 0, 9)
    return <uint32_t>hash_bytes(address, 16, w.secret)


cdef uint64_t *network_history(Worker *w, const Peer *peer, uint32_t *hash) noexcept nogil:
    """The entry where the history of the peer's network may stand."""
    hash[0] = network_hash(w, peer)
    return &w.history[hash[0] & (HISTORY - 1)]


cdef void note_history(Worker *w, const Peer *peer) noexcept nogil:
    """A transfer with a peer of this network ended well."""
    cdef uint32_t hash
    cdef uint64_t *entry = network_history(w, peer, &hash)
    entry[0] = <uint64_t>hash << 32 | <uint32_t>(w.now_ns // 1000000000 + 1)


cdef bint has_history(Worker *w, const Peer *peer) noexcept nogil:
    cdef uint32_t hash
    cdef uint64_t *entry = network_history(w, peer, &hash)
    return (<uint32_t>(entry[0] >> 32) == hash and <uint32_t>entry[0] != 0
            and <uint32_t>(w.now_ns // 1000000000 + 1) - <uint32_t>entry[0] < HISTORY_SECONDS)


cdef void begin_dally(Worker *w, Transfer *t) noexcept nogil:
    """Its file is stored and its last ACK sent: that this ACK may be repeated is no transfer, and uses up no limit."""
    t.state = T_DALLY
    note_history(w, &t.peer)
    w.counters.live_transfers -= 1
    w.counters.dallying_transfers += 1
    client_leave(w, t.client)
    t.client = -1
    chain_join(w, &w.dallying, t, AMONG_ALL)


cdef void end_dally(Worker *w, Transfer *t) noexcept nogil:
    chain_leave(w, &w.dallying, t, AMONG_ALL)
    w.counters.dallying_transfers -= 1


cdef void part_rivals(Worker *w, Transfer *t) noexcept nogil:
    """One of two transfers of the same request ends: the other one is wanted, if it was not sure."""
    cdef Transfer *other = transfer_by_id(w, t.rival)
    t.rival = 0
    if other == NULL:
        return
    other.rival = 0
    if other.superseded == SUPERSEDED_PERHAPS:
        other.superseded = SUPERSEDED_NOT
        add_by_request(w, other, other.hash_request)   # no memory: a copy of its request counts as a new one


cdef void prefer(Worker *w, Transfer *t) noexcept nogil:
    """The client has gone on with `t`: its other transfer of the same request is over."""
    cdef Transfer *other = transfer_by_id(w, t.rival)
    if other == NULL:
        t.rival = 0
    elif other.state == T_REQUESTED:
        w.pending -= 1                           # Python's answer will find nobody
        release(w, other)
    else:
        end(w, other, OUT_ABORTED, 0, b"the client sent another request", 31)


cdef void forget(Worker *w, Transfer *t) noexcept nogil:
    """Every index, timer and count forgets the transfer."""
    if t.in_tids and t.flight.proven:
        remember(w, t.hash_tid, OF_ENDED)        # a late echo of it is no stranger's; of who never spoke there is none
    if t.rival:
        part_rivals(w, t)
    uncount_half_open(w, t)
    remove_by_request(w, t)
    remove_by_tid(w, t)
    remove_by_local(w, t)
    wheel_remove(&w.wheel, t)
    close_private(w, t)
    if t.state == T_DALLY:
        end_dally(w, t)
    else:
        client_leave(w, t.client)
        t.client = -1
        w.counters.live_transfers -= 1


cdef void release(Worker *w, Transfer *t) noexcept nogil:
    """The slot becomes free, and the transfer is forgotten."""
    forget(w, t)
    free_slot(w, t)


cdef void free_slot(Worker *w, Transfer *t) noexcept nogil:
    recipe_release(w.store, t.recipe, t.farewell, w.outbox)
    t.recipe = NULL
    t.farewell = NULL
    sink_free(t.sink)
    t.sink = NULL
    t.state = T_FREE
    if t.queued == Q_NONE:
        transfer_slot_free(w, t)                 # else the queue does when it comes to it


cdef Message *verdict(Transfer *t, int outcome, int error, const uint8_t *text, uint32_t size) noexcept nogil:
    """How it ended, for complete().  Memory for it was put by when the transfer began, but not for a text."""
    cdef Message *m = message_new(M_COMPLETION, t.id, text, size) if size else NULL
    if m == NULL:
        m = t.farewell
        t.farewell = NULL
        m.kind = M_COMPLETION
        m.id = t.id
        m.bytes_used = 0
    m.outcome = outcome
    m.error = error
    return m


cdef Figures figures(const Transfer *t) noexcept nogil:
    cdef Figures f
    f.srtt_ns = t.flight.rtt.srtt_ns
    f.blksize_bytes = t.flight.blksize_bytes
    f.windowsize = t.flight.windowsize
    f.retransmits = t.flight.retransmits
    f.blocks = (t.flight.window_base if t.flight.role == SENDER else t.flight.next) - 1
    if f.blocks < 0:
        f.blocks = 0
    return f


cdef void keep_memory(Worker *w, Transfer *t) noexcept nogil:
    """What this transfer has learned of its client, for the next one."""
    cdef uint8_t address[16]
    cdef Patience patience
    cdef int what
    flight_remember(&t.flight, &patience)
    t.kept = patience.loses
    what = memory_keep(w.memory, client_hash(w, &t.peer, address), w.now_ns, &patience)
    w.counters.memory_learned += what == MEMORY_LEARNED
    w.counters.memory_replaced += what == MEMORY_REPLACED


cdef void recall_memory(Worker *w, const Peer *peer, Patience *patience) noexcept nogil:
    cdef uint8_t address[16]
    w.counters.memory_used += memory_recall(w.memory, client_hash(w, peer, address), w.now_ns, patience)


cdef void complete(Worker *w, Transfer *t, Message *m) noexcept nogil:
    """The Completion of a started transfer goes up, and takes its recipe along."""
    keep_memory(w, t)
    w.counters.transfers_ended += 1
    w.counters.retransmits += t.flight.retransmits
    w.counters.duplicate_acks += t.duplicate_acks
    m.recipe = t.recipe
    t.recipe = NULL
    m.worker = w.number
    m.figures = figures(t)
    m.peer = t.peer
    m.local = t.local
    m.started_ns = t.started_ns
    m.ended_ns = w.now_ns
    m.payload_bytes = t.sink.received_bytes if t.sink != NULL else t.payload_bytes
    m.datagrams_in = t.datagrams_in
    m.datagrams_out = t.datagrams_out
    m.duplicate_acks = t.duplicate_acks
    m.peak_window = t.peak_window
    m.flow_hit = t.flow_hit
    so_add32(&w.undelivered, 1)
    queue_push(w.outbox, m)


cdef uint64_t payload_acknowledged(const Transfer *t) noexcept nogil:
    """Sender: bytes that the peer has confirmed."""
    cdef uint64_t bytes
    if t.flight.window_base <= 1 or t.recipe == NULL or t.recipe.source == NULL:
        return 0
    bytes = flight_offset(&t.flight, t.flight.window_base)
    return bytes if bytes < t.recipe.source.size_bytes else t.recipe.source.size_bytes


cdef void end(Worker *w, Transfer *t, int outcome, int error, const uint8_t *text, uint32_t size) noexcept nogil:
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


cdef void leave_stuck(Worker *w, Transfer *t) noexcept nogil:
    """It has ended, and a write that was waited for long enough may never return: the Completion goes up, says that the
    descriptor is still in use, and Released follows when it is not.  Only of what was supplied: who gave a descriptor
    with the plan waits for the Completion."""
    cdef Recipe *recipe = t.recipe
    if t.ending == NULL or not t.sink.asked:
        wheel_remove(&w.wheel, t)
        return
    so_add32(&recipe.refs, 1)                    # for Released
    t.ending.state = T_STUCK
    complete(w, t, t.ending)
    t.recipe = recipe
    forget(w, t)
    t.state = T_STUCK


cdef void tell_released(Worker *w, Transfer *t) noexcept nogil:
    """The disk came back after all."""
    cdef Message *m = message_new(M_RELEASED, t.id, NULL, 0)
    if m != NULL:                                # else the descriptor stays open, for want of 500 bytes
        m.worker = w.number
        m.recipe = t.recipe
        t.recipe = NULL
        queue_push(w.outbox, m)
    free_slot(w, t)


cdef void fail(Worker *w, Transfer *t, int outcome, int error, int code, const char *text) noexcept nogil:
    """Ends the transfer and tells the peer why: RFC 1350 section 7, premature termination."""
    if t.socket >= 0:
        send_error(w, t.socket, &t.peer, &t.local, code, text)
    end(w, t, outcome, error, <const uint8_t *>text, <uint32_t>strlen(text))


cdef void fail_source(Worker *w, Transfer *t) noexcept nogil:
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


# --- requests ------------------------------------------------------------------------------------------

cdef int32_t reply_socket(Worker *w, int32_t group) noexcept nogil:
    """Where an ERROR to a request leaves from: any TID, or the listener in single-port mode."""
    cdef Group *g = &w.groups[group]
    return g.first_tid if g.tid_count else g.listener


cdef uint32_t random_below(Worker *w, uint32_t limit) noexcept nogil:
    """0 .. limit - 1 (limit at most 256), which nobody outside can foretell from those before."""
    if w.random_left == 0:
        if getrandom(w.random, RANDOM_BYTES, GRND_NONBLOCK) != RANDOM_BYTES:
            return <uint32_t>(hash_bytes(<uint8_t *>&w.now_ns, 8, w.secret) % limit)   # early in the boot
        w.random_left = RANDOM_BYTES
    w.random_left -= 1
    return w.random[w.random_left] % limit


cdef uint32_t tid_spread(Worker *w, const Group *g) noexcept nogil:
    """Over how many TID sockets new transfers are spread.

    Whoever forges an address must guess its TID to go on.  All sockets are used where no other transfer runs, for then
    there is nothing to batch, and for a while after a wrong guess.  Otherwise so few that each has many datagrams.
    """
    cdef uint64_t spread = w.counters.live_transfers // TRANSFERS_A_TID
    if w.counters.live_transfers <= 1 or (w.guessed_ns and w.now_ns - w.guessed_ns < GUESS_MEMORY_NS):
        return <uint32_t>g.tid_count
    if spread < LEAST_TIDS:
        spread = LEAST_TIDS
    return <uint32_t>spread if spread < <uint64_t>g.tid_count else <uint32_t>g.tid_count


cdef uint8_t tid_bits(uint32_t spread, bint one_is_out) noexcept nogil:
    """How unlikely it is to guess one of so many TIDs; the one next to a TID that is out is twice as likely."""
    cdef uint8_t bits = 0
    if one_is_out:
        spread //= 2
    while spread >= 2:
        spread //= 2
        bits += 1
    return bits


cdef int32_t choose_socket(Worker *w, Transfer *t, uint32_t of_peer, int32_t group) noexcept nogil:
    """The TID socket of a new transfer; -1 when the peer has a live transfer on each of them.

    Never the one of the peer's last transfer: boot ROMs keep their port for every file, and a stale
    packet must not be taken for the new transfer's (RFC 1350 section 4).  Otherwise one that nobody can foretell of
    those that are in use, which change every ten seconds: a TID that is learned by a transfer of one's own is no
    proof of another's address.
    """
    cdef Group *g = &w.groups[group]
    cdef uint8_t *last = &w.tid_history[of_peer & (TID_HISTORY - 1)]
    cdef uint32_t spread, first, offset, i, at
    cdef const Peer *peer = &t.peer
    cdef uint64_t epoch = w.now_ns // TID_EPOCH_NS
    if g.tid_count == 0:
        return g.listener
    spread = tid_spread(w, g)
    first = <uint32_t>(hash_bytes(<uint8_t *>&epoch, 8, w.secret) % <uint32_t>g.tid_count)
    offset = random_below(w, spread)
    for i in range(<uint32_t>g.tid_count):
        # Those in use first, from a random one on; the others when the peer has a transfer on each of these.
        at = (first + (offset + i) % spread if i < spread else first + i) % <uint32_t>g.tid_count
        if (at + 1 != last[0] or g.tid_count == 1) and find_by_tid(w, peer, of_peer, g.first_tid + <int32_t>at) == NULL:
            t.tid_bits = tid_bits(spread, last[0] != 0)
            last[0] = <uint8_t>(at + 1)
            return g.first_tid + <int32_t>at
    return -1


cdef void note_guess(Worker *w, const Peer *peer) noexcept nogil:
    """A TID was guessed wrongly in the name of this address."""
    cdef uint8_t address[16]
    cdef uint32_t hash = client_hash(w, peer, address)
    cdef Guesser *guesser = &w.guessers[hash & (GUESSES - 1)]
    w.guessed_ns = w.now_ns
    if w.limits.network_bytes:
        network_on_forgery(network_entry(w, network_hash(w, peer)))
    if guesser.hash != hash or w.now_ns - guesser.last_ns >= GUESS_MEMORY_NS:
        guesser.hash = hash                      # of two that share an entry the later one counts
        guesser.count = 0
    guesser.count += 1
    guesser.last_ns = w.now_ns


cdef Guesser *guesser_of(Worker *w, const Peer *peer) noexcept nogil:
    """What is known of guesses in the name of this address; NULL: none for long."""
    cdef uint8_t address[16]
    cdef uint32_t hash
    cdef Guesser *guesser
    if w.guessed_ns == 0 or w.now_ns - w.guessed_ns >= GUESS_MEMORY_NS:
        return NULL
    hash = client_hash(w, peer, address)
    guesser = &w.guessers[hash & (GUESSES - 1)]
    return guesser if guesser.hash == hash and w.now_ns - guesser.last_ns < GUESS_MEMORY_NS else NULL


cdef bint has_guessed_often(Worker *w, const Peer *peer) noexcept nogil:
    cdef Guesser *guesser = guesser_of(w, peer)
    # More for a network of our own clients: whoever forges their addresses must not lock them out that easily.
    return (guesser != NULL and guesser.count >= WRONG_GUESSES
            and (guesser.count >= KNOWN_WRONG_GUESSES or not has_history(w, peer)))


cdef uint64_t guessed_since(Worker *w, const Peer *peer) noexcept nogil:
    """When the last wrong guess in the name of this address came; 0: none for long."""
    cdef Guesser *guesser = guesser_of(w, peer)
    return guesser.last_ns if guesser != NULL else 0


cdef void give_way(Worker *w, Transfer *t) noexcept nogil:
    """Without a word, for the ERROR would hit whoever has the address."""
    w.counters.transfers_gave_way += 1
    end(w, t, OUT_ABORTED, 0, b"gave way to another: its client had answered nothing", 52)


cdef bint gives_way(Worker *w, const Chain *unproven) noexcept nogil:
    """Whether one of these could make room: the oldest, which has had the most time to answer.

    One that Python is deciding never gives way: its answer is on its way, and `max_pending_requests` bounds how many
    there are.
    """
    cdef Transfer *t = chain_oldest(w, unproven)
    if t == NULL:
        return False
    give_way(w, t)
    return True


cdef void leave_descriptors(Worker *w) noexcept nogil:
    """Another file is going to be in use: where that is more than may be, one who has answered nothing lets his go.

    Only who is alone with a file, since nothing is gained by the others; of the oldest, which such a flood consists of.
    One for each that comes: the file is in use until Python has taken its Completion.
    """
    cdef uint32_t link = w.unproven.oldest if store_is_crowded(w.store) else 0, looks = CROWD_LOOKS
    cdef Transfer *t
    while link and looks:
        t = slot(w, link - 1)
        if t.recipe.source != NULL and so_load32(&t.recipe.source.users) == 1:
            give_way(w, t)
            return
        link = t.after[AMONG_ALL]
        looks -= 1


cdef int over_limit(Worker *w, const Peer *peer, int32_t client) noexcept nogil:
    """Why no further transfer may begin now, REFUSED_...; -1: it may, with `client` counting it already.

    Whoever comes may be a client; who has answered nothing is less likely to be one with every moment.
    """
    cdef uint32_t undelivered = so_load32(&w.undelivered)
    if undelivered > COMPLETIONS_BEHIND or w.pending >= w.limits.pending_requests:
        return REFUSED_PENDING
    if has_guessed_often(w, peer):
        return REFUSED_GUESSES
    if (client >= 0 and w.clients[client].live > w.limits.transfers_per_client
            and not gives_way(w, &w.clients[client].unproven)):
        return REFUSED_CLIENT_TRANSFERS
    if (client >= 0 and w.clients[client].half_open >= w.limits.half_open_per_client
            and not gives_way(w, &w.clients[client].unproven)):
        return REFUSED_CLIENT_HALF_OPEN
    # The Completion of one that gives way is undelivered then: COMPLETIONS_BEHIND bounds how many there are.
    if w.counters.live_transfers + undelivered >= w.limits.transfers and not gives_way(w, &w.unproven):
        return REFUSED_TRANSFERS
    if w.counters.half_open_transfers >= w.limits.half_open and not gives_way(w, &w.unproven):
        return REFUSED_HALF_OPEN
    return -1


cdef const char *refusal_text(int reason) noexcept nogil:
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


cdef void refuse_busy(Worker *w, int32_t group, const Peer *peer, const Local *local, int reason) noexcept nogil:
    """The client is told now; whoever runs the server is told by tell_refusals()."""
    w.counters.requests_refused_busy += 1
    (&w.counters.refused_transfers)[reason] += 1
    if w.refusals[reason].count == 0:
        w.untold += 1
    w.refusals[reason].count += 1
    w.refusals[reason].last = peer[0]
    if reason == REFUSED_GUESSES:
        return                                   # whoever has this address has hardly asked
    send_error(w, reply_socket(w, group), peer, local, 0, refusal_text(reason))


cdef void tell_refusals(Worker *w, bint now) noexcept nogil:
    """What was refused goes up, once a second and reason: a flood must not become a flood of events."""
    cdef Message *m
    cdef Refusal *refusal
    cdef int reason
    for reason in range(REFUSALS):
        refusal = &w.refusals[reason]
        if refusal.count == 0 or (w.now_ns - refusal.told_ns < TELL_REFUSALS_NS and not now):
            continue
        m = message_new(M_REFUSED, 0, NULL, 0)
        if m == NULL:
            return                               # told at another turn
        m.worker = w.number
        m.error = reason
        m.payload_bytes = refusal.count
        m.peer = refusal.last
        refusal.count = 0
        refusal.told_ns = w.now_ns
        w.untold -= 1
        queue_push(w.outbox, m)


cdef Transfer *admit(Worker *w, int32_t listener, const Peer *peer, const Local *local, uint32_t of_peer,
                     uint64_t hash) noexcept nogil:
    """A slot for a new request, counted as half-open; NULL when it was refused or dropped."""
    cdef int32_t client = client_of(w, peer), group = w.sockets[listener].group
    cdef Transfer *t = NULL
    cdef int reason
    if client >= 0:
        w.clients[client].live += 1              # first: its entry must not go with one that gives way
    reason = over_limit(w, peer, client)
    if reason < 0:
        t = chain_oldest(w, &w.dallying)
        if t != NULL and w.counters.live_transfers + w.counters.dallying_transfers >= w.limits.transfers:
            release(w, t)                        # its ACK was hardly lost, and here is somebody who needs the place
        t = transfer_new(w)
        reason = REFUSED_MEMORY
    if t == NULL:
        client_leave(w, client)
        refuse_busy(w, group, peer, local, reason)
        return NULL
    t.state = T_REQUESTED
    t.peer = peer[0]
    t.local = local[0]
    t.request_hash = hash
    t.client = client
    t.started_ns = w.now_ns
    t.flight.progress_ns = w.now_ns
    t.socket = -1
    t.group = group                          # until it begins: which address was asked
    w.counters.live_transfers += 1
    count_half_open(w, t)
    if add_by_request(w, t, of_peer) < 0:
        w.counters.requests_dropped += 1
        release(w, t)
        return NULL
    return t


cdef bint is_repeated(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size, const Peer *peer,
                      const Local *local, uint32_t of_peer, uint64_t hash) noexcept nogil:
    """A request from a TID that we know: the same one again, or the sign that the peer has moved on."""
    cdef Transfer *t = find_by_request(w, peer, of_peer)
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
        repeat_first(w, t)
    elif t.flight.role == SENDER and t.flight.next > t.flight.last:
        # Everything was sent: most likely the client has it all, and wants it again.
        ask_again(w, t, listener, bytes, size, peer, local)
    else:
        put_copy_aside(w, t, listener, bytes, size, local)
    return True


cdef void supersede(Worker *w, Transfer *t, int32_t listener, int how) noexcept nogil:
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
        remove_by_request(w, t)
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

cdef void put_copy_aside(Worker *w, Transfer *t, int32_t listener, const uint8_t *bytes, uint32_t size,
                         const Local *local) noexcept nogil:
    cdef Message *m
    if t.has_copy or w.copy_count >= COPIES:
        return
    m = message_new(M_REQUEST, t.id, bytes, size)
    if m == NULL:
        return                                   # the client asks again
    m.peer = t.peer
    m.local = local[0]
    m.socket = listener
    m.started_ns = w.now_ns
    m.next = NULL
    t.has_copy = 1
    if w.copies == NULL:
        w.copies = m
    else:
        w.copies_end.next = m
    w.copies_end = m
    w.copy_count += 1


cdef void forget_copy(Worker *w) noexcept nogil:
    """The oldest."""
    cdef Message *m = w.copies
    w.copies = m.next
    w.copy_count -= 1
    free(m)


cdef void judge_copies(Worker *w) noexcept nogil:
    """Those whose time is over: has the client gone on with its transfer since?"""
    cdef Message *m
    cdef Transfer *t
    while w.copies != NULL and w.now_ns - w.copies.started_ns >= COPY_NS:
        m = w.copies
        t = transfer_by_id(w, m.id)
        if t != NULL:
            t.has_copy = 0
            if t.state == T_ACTIVE and not t.superseded and t.flight.progress_ns <= m.started_ns and not w.draining:
                ask_again(w, t, m.socket, m.bytes, m.bytes_used, &m.peer, &m.local)
        forget_copy(w)


cdef void ask_again(Worker *w, Transfer *elder, int32_t listener, const uint8_t *bytes, uint32_t size,
                    const Peer *peer, const Local *local) noexcept nogil:
    """The client seems to have done with `elder`, or to have forgotten it: its request is a new one."""
    cdef uint64_t id = elder.id
    cdef Transfer *t
    w.counters.requests_revived += 1
    supersede(w, elder, listener, SUPERSEDED_PERHAPS)
    t = take_request(w, listener, bytes, size, peer, local, peer_hash(peer, w.secret),
                     request_hash(w, listener, bytes, size))
    elder = transfer_by_id(w, id)
    if elder == NULL:
        return
    if t == NULL:
        elder.superseded = SUPERSEDED_NOT        # refused by a limit
        add_by_request(w, elder, elder.hash_request)
    else:
        t.rival = id
        elder.rival = t.id


cdef void pump(Worker *w, Transfer *t) noexcept nogil:
    """Sends what may be sent now, of a file or of a pipe."""
    if t.queued != Q_NONE or t.held:
        return                                   # its turn will come
    if t.doubted and share_is_spent(w, t):
        w.counters.sends_capped += 1
        t.trial_ns = 0
        hold(w, t, HELD_CAPPED, CAPPED_NS)
        return
    if t.recipe.source.stream:
        pump_stream(w, t)
    else:
        pump_file(w, t)


cdef void repeat_first(Worker *w, Transfer *t) noexcept nogil:
    if t.flight.opening:
        t.flight.retransmits += 1
        t.flight.timed_block = -1
        send_first(w, t)
    elif t.recipe.role == SENDER:
        t.flight.next = t.flight.window_base
        pump(w, t)


cdef void on_request(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size, const Peer *peer,
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


cdef uint64_t request_hash(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size) noexcept nogil:
    return hash_bytes(bytes, size, w.secret) + <uint32_t>w.sockets[listener].group


cdef Transfer *take_request(Worker *w, int32_t listener, const uint8_t *bytes, uint32_t size, const Peer *peer,
                            const Local *local, uint32_t of_peer, uint64_t hash) noexcept nogil:
    """Begun by a flow, or with Python; NULL when it was refused or dropped."""
    cdef int32_t group = w.sockets[listener].group
    cdef Recipe *recipe = NULL
    cdef Transfer *t
    cdef Message *m
    cdef uint64_t id
    if w.tuning.flows:
        recipe = flow_find(w, bytes, size, <uint32_t>hash, group)
    t = admit(w, listener, peer, local, of_peer, hash)
    if t == NULL:
        return NULL
    if recipe != NULL:
        t.farewell = message_new(M_COMPLETION, t.id, NULL, 0)
    if t.farewell != NULL and store_use(w.store, recipe.source):   # it may have been closed just now
        w.counters.flow_hits += 1
        so_add32(&recipe.refs, 1)
        t.flow_hit = 1
        id = t.id
        begin(w, t, recipe, NULL)
        return transfer_by_id(w, id)
    m = message_new(M_REQUEST, t.id, bytes, size)
    if m == NULL:
        w.counters.requests_dropped += 1
        release(w, t)
        return NULL
    w.counters.flow_misses += 1
    m.worker = w.number
    m.peer = peer[0]
    m.local = local[0]
    m.socket = group
    m.hash = hash
    m.started_ns = w.now_ns
    w.pending += 1
    queue_push(w.outbox, m)
    return t


cdef int64_t final_block(const Recipe *recipe, uint32_t blksize_bytes) noexcept nogil:
    if recipe.role == RECEIVER:
        return -1
    if recipe.source.stream:
        return <int64_t>1 << 62                  # until the pipe ends
    return <int64_t>(recipe.source.size_bytes // blksize_bytes) + 1


cdef void begin(Worker *w, Transfer *t, Recipe *recipe, Sink *sink) noexcept nogil:
    """The request was accepted: a TID, a window, the first packet.  Takes over the references."""
    cdef uint32_t of_peer = peer_hash(&t.peer, w.secret)
    cdef int32_t group = t.group
    cdef Patience patience
    t.recipe = recipe
    t.sink = sink
    t.group = 0
    t.state = T_ACTIVE
    if not t.flow_hit:
        leave_descriptors(w)
    let_give_way(w, t)
    w.counters.transfers_started += 1
    recall_memory(w, &t.peer, &patience)
    flight_init(&t.flight, &w.retransmit, &patience, recipe.role, recipe.blksize_bytes, recipe.windowsize,
                final_block(recipe, recipe.blksize_bytes), recipe.first_bytes > 0 or recipe.role == RECEIVER,
                False, recipe.fixed_ns, w.now_ns)
    t.flight.rollover = recipe.rollover
    doubt(w, t)
    t.socket = choose_socket(w, t, of_peer, group)
    if t.socket < 0 or add_by_tid(w, t, of_peer) < 0:
        send_error(w, reply_socket(w, group), &t.peer, &t.local, 0, b"too many transfers from your port")
        end(w, t, OUT_ABORTED, 0, b"too many transfers from one port", 32)
        return
    if t.flight.opening:
        send_first(w, t)
    else:
        pump(w, t)
    wheel_update(&w.wheel, t)


# --- who does not hear us: networks.pxd ----------------------------------------------------------------------

cdef Network *network_entry(Worker *w, uint32_t hash) noexcept nogil:
    return network_of(w.networks, hash, w.now_ns, w.limits.network_bytes, &w.counters.networks_replaced)


cdef void doubt(Worker *w, Transfer *t) noexcept nogil:
    """Whether the network of a new transfer has shown already that it hears us."""
    cdef Network *n
    if not w.limits.network_bytes:
        return
    t.hash_network = network_hash(w, &t.peer)
    n = network_find(w.networks, t.hash_network, w.now_ns)
    t.doubted = t.flight.role == SENDER and (n == NULL or not n.is_proven)


cdef void note_evidence(Worker *w, Network *n, uint32_t bits) noexcept nogil:
    w.counters.networks_proven += network_on_evidence(n, bits, w.now_ns)


cdef bint share_is_spent(Worker *w, Transfer *t) noexcept nogil:
    """Whether the network of a transfer has had its share; then the transfer waits.

    Who has answered nothing is sent its first packets all the same: these are few.
    """
    cdef Network *n = network_entry(w, t.hash_network)
    if n.is_proven:
        t.doubted = 0
        return False
    network_fill(n, w.limits.network_bytes, w.now_ns)
    return n.left_bytes <= 0 and t.flight.proven


cdef void hold(Worker *w, Transfer *t, uint8_t why, uint64_t ns) noexcept nogil:
    t.held = why
    t.held_until_ns = w.now_ns + ns
    t.flight.deadline_ns = t.held_until_ns
    wheel_update(&w.wheel, t)


cdef int64_t window_bytes(const Transfer *t) noexcept nogil:
    return <int64_t>t.flight.windowsize * (t.flight.blksize_bytes + 4)


cdef bint takes_turn(Worker *w, Transfer *t, Network *n) noexcept nogil:
    return network_takes_turn(n, t.answer_ns, answer_slack_ns(t.answer_spread_ns),
                              w.limits.network_bytes // window_bytes(t), w.now_ns)


cdef void on_due_held(Worker *w, Transfer *t) noexcept nogil:
    """Sends what was held back, unless the network's share is still spent."""
    cdef uint64_t silent_ns = w.now_ns - t.flight.progress_ns
    cdef Network *n
    if t.held == HELD_CAPPED and silent_ns >= w.retransmit.give_up_ns:
        fail(w, t, OUT_TIMED_OUT, 0, 0, b"timed out: nobody of this network was seen to hear us")
        return
    if t.held != HELD_EMPTYING and t.doubted and share_is_spent(w, t):
        t.trial_ns = 0                           # others took it meanwhile
        hold(w, t, HELD_CAPPED, CAPPED_NS + silent_ns // 4)
        return
    if t.held == HELD_CAPPED and t.doubted:
        n = network_entry(w, t.hash_network)
        if not takes_turn(w, t, n):
            hold(w, t, HELD_CAPPED, n.turn_ns - w.now_ns)
            return
        if hold_for_trial(w, t):
            return                               # or a client whose network had its share would have no way out
    t.held = HELD_NOT
    flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    pump(w, t)
    wheel_update(&w.wheel, t)


cdef bint is_too_early(Worker *w, Transfer *t, uint16_t block) noexcept nogil:
    """An ACK of a block of the window that was not sent yet: no client's.  The transfer has ended then."""
    cdef int64_t acked
    if t.flight.opening:
        return False
    acked = seq_index_from(t.flight.window_base - 1, block, t.flight.rollover)
    if acked < t.flight.sent_end or acked >= t.flight.window_base + t.flight.windowsize:
        return False
    w.counters.acks_too_early += 1
    note_guess(w, &t.peer)
    end(w, t, OUT_ABORTED, 0, b"an ACK came before its block was sent", 37)
    return True


cdef void judge_answer(Worker *w, Transfer *t, bint is_whole, uint64_t answer_ns) noexcept nogil:
    """The peer has acknowledged all that was sent, the last of it so long ago; or a part, the first so long ago."""
    cdef Network *n
    if t.trial_ns:
        n = network_entry(w, t.hash_network)
        if answer_is_usual(answer_ns, t.answer_ns, t.trial_ns):
            n.left_bytes += t.trial_bytes        # at most what was taken: somebody got it
            note_evidence(w, n, trial_bits(t.trial_ns))
        else:
            network_on_doubt(n, trial_bits(t.trial_ns), w.limits.network_bytes)
    t.trial_ns = 0
    if is_whole:
        learn_answer(&t.answer_ns, &t.answer_spread_ns, answer_ns)


cdef bint hold_for_trial(Worker *w, Transfer *t) noexcept nogil:
    """Holds back for a random while what follows; not if nothing is known of the client, or it is too erratic."""
    cdef uint64_t slack_ns = answer_slack_ns(t.answer_spread_ns)
    if t.answer_ns == 0 or trial_bits(slack_ns) == 0 or t.flight.window_base != t.flight.sent_end:
        return False
    w.counters.sends_tried += 1
    t.trial_ns = slack_ns
    t.trial_bytes = 0
    hold(w, t, HELD_TRIAL, trial_step_ns(slack_ns) * random_below(w, <uint32_t>1 << trial_bits(slack_ns)))
    return True


cdef bint try_answer(Worker *w, Transfer *t, bint is_report) noexcept nogil:
    """Whether what may be sent next is held back for a random while, to see whether its ACK waits for it.

    First everything must be acknowledged: there are clients that acknowledge within the window.
    """
    cdef uint64_t slack_ns
    cdef int64_t share_bytes = w.limits.network_bytes
    cdef Network *n = network_entry(w, t.hash_network)
    if t.answer_ns == 0 and t.flight.rtt.srtt_ns:
        learn_answer(&t.answer_ns, &t.answer_spread_ns, t.flight.rtt.srtt_ns)   # that to the options
    slack_ns = answer_slack_ns(t.answer_spread_ns)
    if t.held == HELD_EMPTYING and (is_report or t.flight.window_base == t.flight.sent_end):
        t.held = HELD_NOT
    if t.held:
        t.flight.deadline_ns = t.held_until_ns   # an ACK has moved it
        return True
    if n.is_proven or t.queued != Q_NONE or is_report:
        return False
    if window_bytes(t) <= share_bytes // LARGE_PARTS and n.left_bytes > share_bytes - share_bytes // FREE_PARTS:
        return False
    if n.left_bytes <= 0 or trial_bits(slack_ns) == 0:
        return False
    if t.flight.window_base != t.flight.sent_end:
        hold(w, t, HELD_EMPTYING, EMPTYING_ANSWERS * (t.answer_ns + slack_ns))
        return True
    if not takes_turn(w, t, n):
        hold(w, t, HELD_CAPPED, n.turn_ns - w.now_ns)
        return True
    return hold_for_trial(w, t)


# --- packets of transfers --------------------------------------------------------------------------------

cdef void end_guessed(Worker *w, const Peer *peer) noexcept nogil:
    """An answer in a peer's name came to another TID than that of its unanswered request.

    The peer itself would have answered where it was spoken to; so somebody else asked in its name, and guesses.  Its
    transfer ends without a word: if it was the peer after all, it asks again.
    """
    cdef Transfer *t = find_by_request(w, peer, peer_hash(peer, w.secret))
    if t == NULL:
        return
    if t.state == T_REQUESTED:
        w.counters.wrong_guesses += 1
        note_guess(w, peer)
        w.pending -= 1                           # Python's answer will find nobody
        release(w, t)
    elif t.state == T_ACTIVE and not t.flight.proven:
        w.counters.wrong_guesses += 1
        note_guess(w, peer)
        end(w, t, OUT_ABORTED, 0, b"an answer came to another TID", 29)


cdef void reject_stray(Worker *w, int32_t socket, const Peer *peer, const Local *local, uint8_t opcode,
                       uint32_t hash) noexcept nogil:
    """ERROR 5 to a stranger: never to an ERROR, never to an echo, once, and not many a second."""
    cdef uint32_t known = recall(w, hash)
    w.counters.strays += 1
    if known == OF_ENDED:
        return
    # An ERROR too: the one that hits ends a transfer whose TID would pass for an echo's from then on.
    if opcode == OP_DATA or opcode == OP_ACK or opcode == OP_ERROR:
        end_guessed(w, peer)
    if (opcode != OP_DATA and opcode != OP_ACK and opcode != OP_OACK) or known == OF_STRANGER:
        return
    if w.now_ns - w.stray_refill_ns >= 1000000000:
        w.stray_refill_ns = w.now_ns
        w.stray_tokens = STRAYS_PER_SECOND
    if w.stray_tokens == 0:
        return
    w.stray_tokens -= 1
    w.counters.strays_answered += 1
    remember(w, hash, OF_STRANGER)
    send_error(w, socket, peer, local, 5, b"unknown transfer ID")


cdef bint may_be_guessed(Worker *w, Transfer *t, uint16_t block) noexcept nogil:
    """Whether the first answer in a peer's name proves nothing; the transfer has ended then.

    Since it began a TID was guessed wrongly in the name of this address: this may be the next guess.  Or the peer has
    sent another request since, and would not answer this one, but for the ACK of the one block that it got.
    """
    if t.superseded and block != seq_block(t.flight.last, t.flight.rollover):
        end_guessed(w, &t.peer)
    elif not w.guessed_ns or guessed_since(w, &t.peer) < t.started_ns:
        return False
    end(w, t, OUT_ABORTED, 0, b"an answer came to another TID", 29)
    return True


cdef void on_spoken(Worker *w, Transfer *t, bint is_done) noexcept nogil:
    """The peer has spoken."""
    if t.counted_half_open and t.flight.proven:
        uncount_half_open(w, t)
        if t.tid_bits and w.limits.network_bytes:
            note_evidence(w, network_entry(w, t.hash_network), t.tid_bits)
    if t.rival and t.flight.progress_ns == w.now_ns and not is_done:
        prefer(w, t)                             # else it has the file, and the other request may be its next
    if t.flight.patience.loses and not t.kept:
        keep_memory(w, t)                        # its other transfers need not learn it again


cdef void on_ack(Worker *w, Transfer *t, uint16_t block) noexcept nogil:
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
    SO_INVARIANT(flight_check(&t.flight))
    on_spoken(w, t, act & ACT_DONE)
    if act & (ACT_DUPLICATE | ACT_STRAY):
        t.duplicate_acks += 1
    if t.doubted and t.flight.window_base > window_base:
        if t.flight.window_base == sent_end:
            judge_answer(w, t, True, w.now_ns - sent_ns)
        else:
            judge_answer(w, t, False, w.now_ns - progress_ns)   # which was when it was sent, in a trial
    if act & ACT_DONE:
        note_history(w, &t.peer)
        end(w, t, OUT_OK, 0, NULL, 0)
    elif act & ACT_SEND:
        if not t.doubted or not try_answer(w, t, act & ACT_GAP):
            pump(w, t)
    elif not act & ACT_STRAY:
        wheel_update(&w.wheel, t)                # a doubted report is looked into sooner


cdef void acknowledge(Worker *w, Transfer *t) noexcept nogil:
    """The ACK that is due, unless the disk is behind."""
    if t.sink.buffers >= t.sink.max_buffers:
        t.sink.ack_owed = 1
        if t.held_ns == 0:
            t.held_ns = w.now_ns
        return
    send_ack(w, t, t.flight.next - 1)


cdef void owe_verdict(Worker *w, Transfer *t, int state) noexcept nogil:
    """All is here, and the peer waits for our disk, or for Python: on_due() ends what takes too long."""
    t.state = state
    t.flight.deadline_ns = w.now_ns + w.limits.stalled_ns
    wheel_update(&w.wheel, t)


cdef int ask_for_sink(Worker *w, Transfer *t) noexcept nogil:
    """The first DATA of a file that is not open yet: Python opens it.  -1 when there is no memory."""
    cdef Message *m = message_new(M_FIRST_DATA, t.id, NULL, 0)
    if m == NULL:
        return -1
    t.sink.asked = 1
    m.worker = w.number
    m.recipe = t.recipe                          # borrowed: its Completion comes behind
    queue_push(w.outbox, m)
    return 0


cdef void flush_sink(Worker *w, Transfer *t) noexcept nogil:
    """The last block is here: write what is left, then let Python commit."""
    cdef Message *m
    if t.sink.compared != NULL:
        send_ack(w, t, t.flight.last)
        if t.sink.received_bytes != t.sink.compared.size_bytes:
            fail(w, t, OUT_CHANGED, 0, 0, b"content differs")
        else:
            end(w, t, OUT_OK, 0, NULL, 0)
        return
    if sink_submit(w, t, 1) != SINK_OK or sink_write(w, t, 1) != SINK_OK:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
        return
    owe_verdict(w, t, T_FLUSHING)
    if t.sink.buffers or t.sink.fd < 0:
        return
    owe_verdict(w, t, T_COMMITTING)
    m = message_new(M_RECEIVED, t.id, NULL, 0)
    if m == NULL:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
        return
    m.worker = w.number
    m.payload_bytes = t.sink.received_bytes
    m.recipe = t.recipe                          # borrowed: the transfer keeps its reference until the commit
    queue_push(w.outbox, m)


cdef void on_data(Worker *w, Transfer *t, uint16_t block, const uint8_t *payload, uint32_t size) noexcept nogil:
    cdef int act, result
    if t.flight.role != RECEIVER:
        return
    if t.state == T_DALLY:
        if block == seq_block(t.flight.last, t.flight.rollover):
            send_ack(w, t, t.flight.last)
        return
    if t.state != T_ACTIVE:
        return
    if size > t.flight.blksize_bytes:
        fail(w, t, OUT_ABORTED, 0, 4, b"DATA longer than the block size")
        return
    act = receiver_on_data(&t.flight, &w.retransmit, block, size, w.now_ns)
    SO_INVARIANT(flight_check(&t.flight))
    on_spoken(w, t, act & ACT_FINAL)
    if act & ACT_DUPLICATE:
        t.duplicate_acks += 1
    if act & ACT_DELIVER:
        w.counters.blocks_received += 1
        if t.sink.fd < 0 and not t.sink.asked and ask_for_sink(w, t) < 0:
            fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
            return
        result = sink_deliver(w, t, payload, size)
        if result == SINK_DIFFERS:
            fail(w, t, OUT_CHANGED, 0, 0, b"content differs")
            return
        if result == SINK_TOO_LARGE:
            fail(w, t, OUT_ABORTED, EFBIG, 3, b"more data than announced or allowed")
            return
        if result != SINK_OK:
            fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
            return
    if act & ACT_FINAL:
        flush_sink(w, t)
        return
    if act & ACT_ACK:
        acknowledge(w, t)
    wheel_update(&w.wheel, t)


cdef void on_oack(Worker *w, Transfer *t, const uint8_t *bytes, uint32_t size) noexcept nogil:
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
    t.state = T_ANSWERED
    wheel_remove(&w.wheel, t)
    m.worker = w.number
    m.peer = t.peer
    m.recipe = t.recipe                          # borrowed: whatever ends the transfer comes up behind this
    queue_push(w.outbox, m)


cdef void on_error(Worker *w, Transfer *t, const uint8_t *bytes, uint32_t size) noexcept nogil:
    """The peer ends the transfer; the text is its own, at most 511 bytes of it."""
    cdef uint32_t length = 0
    cdef int code = bytes[2] << 8 | bytes[3]
    while 4 + length < size and length < 511 and bytes[4 + length]:
        length += 1
    t.flight.proven = 1                          # it has spoken: what else it says to this TID is an echo
    end(w, t, OUT_PEER_ERROR, code, bytes + 4, length)


cdef void on_packet(Worker *w, Transfer *t, const uint8_t *bytes, uint32_t size) noexcept nogil:
    """A datagram from the peer of `t`.  What is no packet of its phase is dropped: it may be forged."""
    cdef uint16_t block
    t.datagrams_in += 1
    if size < 4 or bytes[0] != 0:
        w.counters.malformed += 1
        return
    block = <uint16_t>(bytes[2] << 8 | bytes[3])
    if t.state == T_ASKING and ((bytes[1] == OP_DATA and t.flight.role == RECEIVER)
                                or (bytes[1] == OP_ACK and t.flight.role == SENDER)):
        t.state = T_ACTIVE                       # a server without options: RFC 1350 as it is
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


cdef Transfer *private_owner(Worker *w, Socket *s, const Peer *peer) noexcept nogil:
    """The transfer of a private socket, when `peer` may speak to it: RFC 1350 section 4 fixes the TID
    with the first answer; another address than the one that was asked is a stranger."""
    cdef Transfer *t = transfer_by_id(w, s.owner)
    if t == NULL:
        return NULL
    if t.state == T_ASKING and peer_same_host(&t.peer, peer):
        t.peer = peer[0]
        return t
    return t if peer_equal(&t.peer, peer) else NULL


cdef void on_datagram(Worker *w, int32_t socket, const uint8_t *bytes, uint32_t size, const Peer *peer,
                      const Local *local) noexcept nogil:
    cdef Socket *s = &w.sockets[socket]
    cdef uint32_t of_peer
    cdef Transfer *t
    if s.kind == S_PRIVATE:
        t = private_owner(w, s, peer)
        of_peer = 0 if t != NULL else peer_hash(peer, w.secret)
    elif s.kind == S_SHARED:
        t = shared_owner(w, local, peer)
        if t == NULL:
            return                               # an echo of a transfer that is over
        of_peer = 0
    elif s.kind == S_LISTENER and (w.groups[s.group].tid_count or size < 2 or bytes[1] <= OP_WRQ):
        on_request(w, socket, bytes, size, peer, local)
        return
    else:
        of_peer = peer_hash(peer, w.secret)
        t = find_by_tid(w, peer, of_peer, socket)
    if t != NULL:
        on_packet(w, t, bytes, size)
    elif s.kind == S_LISTENER:
        on_request(w, socket, bytes, size, peer, local)
    elif size >= 2 and bytes[0] == 0:
        reject_stray(w, socket, peer, local, bytes[1], of_peer ^ (<uint32_t>socket * <uint32_t>0x9E3779B1))
    else:
        w.counters.malformed += 1                # nobody's, and no packet either


cdef void on_slot(Worker *w, int32_t socket, uint32_t i) noexcept nogil:
    """One received message: a datagram, or several joined by UDP_GRO."""
    cdef Socket *s = &w.sockets[socket]
    cdef uint8_t *bytes = w.received.buffers + <size_t>i * w.received.stride_bytes
    cdef uint32_t size = w.received.messages[i].msg_len, segment = 0, part
    cdef Local local
    local.family = 0
    if w.received.messages[i].msg_hdr.msg_flags & MSG_TRUNC:
        # Longer than anything that we negotiated; the beginning is enough to refuse it.
        w.counters.malformed += 1
        if s.kind != S_LISTENER:
            return
    if s.wants_control:
        segment = received_segment(&w.received, i)
        if s.wildcard:
            received_local(&w.received, i, &local)
    if segment == 0:
        segment = size
    while True:
        part = segment if segment < size else size
        on_datagram(w, socket, bytes, part, &w.received.peers[i], &local)
        bytes += part
        size -= part
        if size == 0 or w.sockets[socket].kind == S_FREE:
            return
        w.counters.datagrams_received += 1


cdef void drain_errors(Worker *w, int32_t socket) noexcept nogil:
    """What ICMP says of peers.  A peer whose host says that nobody has its port will never answer: it has vanished, or
    somebody forged its address and we are bothering a stranger.  Hosts and networks that cannot be reached may be back
    at the next repetition."""
    cdef Socket *s = &w.sockets[socket]
    cdef Transfer *t
    cdef Peer peer
    cdef int error, _round
    for _round in range(ERRORS_A_TURN):
        w.counters.error_queue_calls += 1
        error = receive_error(s.fd, &peer)
        if error < 0:
            return
        w.counters.errors_heard += 1
        if error != ECONNREFUSED:
            continue
        if s.kind == S_PRIVATE:
            t = transfer_by_id(w, s.owner)
            if t != NULL and not peer_equal(&t.peer, &peer):
                t = NULL
        else:
            t = find_by_tid(w, &peer, peer_hash(&peer, w.secret), socket)
        if t != NULL and (t.state == T_ACTIVE or t.state == T_ASKING or t.state == T_DALLY):
            end(w, t, OUT_UNREACHABLE, error, b"nobody has the peer's port", 26)
            if w.sockets[socket].kind == S_FREE:
                return
            s = &w.sockets[socket]               # what it was for is over, but the array may have moved


cdef void drain_socket(Worker *w, int32_t socket) noexcept nogil:
    """Takes what is queued, a batch at a time; a socket that never empties waits for its next turn."""
    cdef int n, i, _round
    cdef uint32_t asked
    for _round in range(RECEIVES_A_TURN):
        if w.sockets[socket].kind == S_FREE:
            return
        asked = w.tuning.max_batch if w.tuning.recvmmsg else 1
        w.receives += 1
        n = receive(&w.received, w.sockets[socket].fd, w.sockets[socket].wants_control, &w.tuning, &w.counters)
        if n == -EINTR or (n < 0 and may_be_anothers(-n)):
            continue                             # what is queued is still there
        if n <= 0:
            return
        for i in range(n):
            on_slot(w, socket, <uint32_t>i)
        if w.tuning.recvmmsg:
            if w.final_count:
                flush_finals(w)
            flush(w)
            if <uint32_t>n < asked:
                return                           # a short batch: the queue was empty


# --- what comes from Python and from the disk --------------------------------------------------------------

cdef void on_start(Worker *w, Message *m) noexcept nogil:
    """A plan for a request that is waiting.  The message stays with the transfer, for its Completion."""
    cdef Transfer *t = transfer_by_id(w, m.id)
    if t == NULL or t.state != T_REQUESTED:
        # The client gave up or moved on: the plan ends before it began, with its one Completion.
        never_began(w, m, OUT_ABORTED, 0, b"the client sent another request", 31)
        return
    free(t.farewell)                             # of a flow whose file was closed just then
    t.farewell = m
    w.pending -= 1
    if m.flow_dir >= 0 and w.tuning.flows:
        flow_keep(w, m.recipe, m.flow_dir, m.bytes, m.split, m.bytes + m.split, m.bytes_used - m.split,
                  <uint32_t>t.request_hash, t.group, m.flow_ctime_ns)
    begin(w, t, m.recipe, m.sink)


cdef void never_began(Worker *w, Message *m, int outcome, int error, const uint8_t *text,
                      uint32_t size) noexcept nogil:
    """The Completion of a plan that never became a transfer; its message takes it up, where memory is short."""
    cdef Message *up = message_new(M_COMPLETION, m.id, text, size)
    sink_free(m.sink)
    if up == NULL:
        up = m
        up.kind = M_COMPLETION
        up.bytes_used = 0
    up.recipe = m.recipe
    up.outcome = outcome
    up.error = error
    up.started_ns = w.now_ns
    up.ended_ns = w.now_ns
    up.worker = w.number
    if up != m:
        free(m)
    so_add32(&w.undelivered, 1)
    queue_push(w.outbox, up)


cdef void on_refuse(Worker *w, Message *m) noexcept nogil:
    """Python's ERROR to a request, or silence."""
    cdef Transfer *t = transfer_by_id(w, m.id)
    if t == NULL or t.state != T_REQUESTED:
        return
    w.pending -= 1
    if m.bytes_used:
        send_bytes(w, reply_socket(w, t.group), &t.peer, &t.local, NULL, m.bytes, m.bytes_used)
    release(w, t)


cdef void on_ask(Worker *w, Message *m) noexcept nogil:
    """A transfer of our own asking, on a socket of its own (m.socket: its descriptor)."""
    cdef Transfer *t = transfer_new(w)
    cdef int32_t socket
    cdef Patience patience
    if m.socket < 0:
        socket = w.shared_socket
    else:
        socket = worker_add_socket(w, m.socket, S_PRIVATE, -1, False, m.state)
    if t == NULL or socket < 0:
        # Without a slot there is no id: the client's own limit of transfers keeps this from happening.
        if m.socket >= 0:
            close(m.socket)
        if t != NULL:
            transfer_slot_free(w, t)
        m.id = 0
        never_began(w, m, OUT_LOCAL_IO_ERROR, ENOMEM, b"out of memory", 13)
        return
    t.farewell = m
    t.peer = m.peer
    t.recipe = m.recipe
    t.sink = m.sink
    t.socket = socket
    t.state = T_ASKING
    t.started_ns = w.now_ns
    w.counters.live_transfers += 1
    w.counters.transfers_started += 1
    if w.sockets[socket].kind == S_PRIVATE:
        w.sockets[socket].owner = t.id
    else:
        t.local = m.local
        add_by_local(w, t)                       # no memory: the transfer times out
    recall_memory(w, &t.peer, &patience)
    flight_init(&t.flight, &w.retransmit, &patience, m.recipe.role, 512, 1, final_block(m.recipe, 512), True, True,
                m.recipe.fixed_ns, w.now_ns)
    send_first(w, t)
    wheel_update(&w.wheel, t)


cdef void on_resume(Worker *w, Message *m) noexcept nogil:
    """Python has read the OACK: m.recipe carries what was granted (a reference of ours).  Takes the message along."""
    cdef Transfer *t = transfer_by_id(w, m.id)
    cdef Recipe *granted = m.recipe
    if t == NULL or t.state != T_ANSWERED:
        recipe_release(w.store, granted, m, w.outbox)
        return
    granted.source = t.recipe.source             # moves over; the context is the same object on both
    t.recipe.source = NULL
    if m.payload_bytes and t.sink != NULL:
        t.sink.declared_bytes = m.payload_bytes - 1
    recipe_release(w.store, t.recipe, m, w.outbox)
    t.recipe = granted
    resume(w, t, t.recipe.fixed_ns)


cdef void resume(Worker *w, Transfer *t, uint64_t fixed_ns) noexcept nogil:
    """The options are settled: the data begins."""
    cdef Rtt measured = t.flight.rtt
    cdef Patience patience = t.flight.patience
    flight_init(&t.flight, &w.retransmit, &patience, t.recipe.role, t.recipe.blksize_bytes, t.recipe.windowsize,
                final_block(t.recipe, t.recipe.blksize_bytes), False, True, fixed_ns, w.now_ns)
    t.flight.rollover = t.recipe.rollover
    t.flight.rtt = measured
    flight_rest(&t.flight, &w.retransmit, w.now_ns)
    t.state = T_ACTIVE
    if t.flight.role == RECEIVER:
        send_ack(w, t, 0)                        # RFC 2347: the ACK of an OACK
        wheel_update(&w.wheel, t)
    else:
        pump(w, t)


cdef bint awaits_sink(const Transfer *t) noexcept nogil:
    """Whether Python was told of its first DATA, and has not answered."""
    return (t.state == T_ACTIVE or t.state == T_FLUSHING) and t.sink != NULL and t.sink.fd < 0 and t.sink.asked


cdef void on_supply(Worker *w, Message *m) noexcept nogil:
    """The file is open: what has arrived can be written."""
    cdef Transfer *t = transfer_by_id(w, m.id)
    if t == NULL or not awaits_sink(t):
        return
    t.sink.fd = m.socket
    if m.payload_bytes:
        t.sink.limit_bytes = m.payload_bytes
        if t.sink.received_bytes > m.payload_bytes:
            fail(w, t, OUT_ABORTED, EFBIG, 3, b"more data than announced or allowed")
            return
    write_on(w, t)


cdef void on_commit(Worker *w, Message *m) noexcept nogil:
    """The upload is durable and visible (m.error < 0), or could not be made so (the TFTP error code)."""
    cdef Transfer *t = transfer_by_id(w, m.id)
    if t == NULL or (t.state != T_COMMITTING and not (m.error >= 0 and awaits_sink(t))):
        return
    if m.error >= 0:
        m.bytes[m.bytes_used] = 0
        fail(w, t, OUT_LOCAL_IO_ERROR, m.socket, m.error, <char *>m.bytes)
        return
    send_ack(w, t, t.flight.last)
    complete(w, t, verdict(t, OUT_OK, 0, NULL, 0))
    begin_dally(w, t)
    t.flight.deadline_ns = w.now_ns + flight_dally_ns(&t.flight)
    wheel_update(&w.wheel, t)


cdef void on_abort(Worker *w, Message *m) noexcept nogil:
    cdef Transfer *t = transfer_by_id(w, m.id)
    if t == NULL or t.state == T_REQUESTED:
        return
    m.bytes[m.bytes_used] = 0
    if t.state == T_DALLY:
        release(w, t)                            # it went well: nothing to tell, the socket is wanted back
    elif t.state != T_ENDING and t.state != T_STUCK:
        fail(w, t, OUT_ABORTED, 0, m.error, <char *>m.bytes)


cdef Transfer *asked_with(Worker *w, uint64_t context) noexcept nogil:
    """The transfer of our own asking with this context.  Before the first answer nobody above knows its id.

    A walk over the slab: for a cancellation and for ten progress reports a second, not for datagrams.
    """
    cdef uint32_t i
    cdef Transfer *t
    for i in range(w.slab_chunks * <uint32_t>SLAB_CHUNK):
        t = slot(w, i)
        if T_ASKING <= t.state < T_ENDING and t.recipe != NULL and <uint64_t>t.recipe.context == context:
            return t
    return NULL


cdef void on_abort_asked(Worker *w, Message *m) noexcept nogil:
    cdef Transfer *t = asked_with(w, m.hash)
    if t == NULL:
        return
    m.bytes[m.bytes_used] = 0
    fail(w, t, OUT_ABORTED, 0, m.error, <char *>m.bytes)


cdef void on_ask_progress(Worker *w, Message *m) noexcept nogil:
    cdef Transfer *t = asked_with(w, m.hash)
    cdef Message *up
    if t == NULL:
        return
    up = message_new(M_PROGRESS, t.id, NULL, 0)
    if up == NULL:
        return                                   # the next one may tell
    up.worker = w.number
    up.recipe = t.recipe                         # borrowed: its Completion comes behind
    up.payload_bytes = t.sink.received_bytes if t.sink != NULL else payload_acknowledged(t)
    up.datagrams_in = t.datagrams_in
    up.datagrams_out = t.datagrams_out
    queue_push(w.outbox, up)


cdef void abort_all(Worker *w) noexcept nogil:
    """Every live transfer is told; those whose buffers are with the disk follow when they are back."""
    cdef uint32_t i
    cdef Transfer *t
    for i in range(w.slab_chunks * <uint32_t>SLAB_CHUNK):
        t = slot(w, i)
        if t.state == T_FREE or t.state == T_ENDING or t.state == T_STUCK:
            continue
        if t.state == T_REQUESTED:
            w.pending -= 1
            release(w, t)
        elif t.state == T_DALLY:
            release(w, t)                        # complete, and its peer was told
        else:
            fail(w, t, OUT_ABORTED, 0, 0, b"server is shutting down")


cdef void on_written(Worker *w, Message *m) noexcept nogil:
    """Buffers came back from the disk."""
    cdef Transfer *t = transfer_by_id(w, m.id)
    if t == NULL or t.sink == NULL:
        buffers_free(m.buffer)
        return
    sink_written(t.sink, m.buffer, t.state == T_ACTIVE)
    if m.error and not t.sink.error:
        t.sink.error = m.error
    if t.state == T_STUCK:
        tell_released(w, t)
    elif t.state == T_ENDING:
        complete(w, t, t.ending)
        release(w, t)
    elif t.sink.error:
        fail_sink(w, t)
    else:
        write_on(w, t)


cdef void write_on(Worker *w, Transfer *t) noexcept nogil:
    """The disk has done something, or the file is open: the next buffers, and what was held back meanwhile."""
    if sink_write(w, t, 1 if t.state == T_FLUSHING else t.sink.gathered) != SINK_OK:
        fail(w, t, OUT_LOCAL_IO_ERROR, ENOMEM, 3, b"out of memory")
    elif t.state == T_FLUSHING:
        owe_verdict(w, t, T_FLUSHING)
        if t.sink.buffers == 0:
            flush_sink(w, t)
    elif t.sink.ack_owed and t.state == T_ACTIVE and t.sink.buffers < t.sink.max_buffers:
        t.sink.ack_owed = 0
        t.held_ns = 0
        # Its silence was ours: from here on it has all the time there is.
        flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
        acknowledge(w, t)
        wheel_update(&w.wheel, t)
    elif t.sink.ack_owed:
        t.held_ns = w.now_ns                     # it is slow, but it goes on


cdef void end_all(Worker *w) noexcept nogil:
    """The last Completions: of transfers whose write hangs for ever.  Its buffers belong to the I/O thread."""
    cdef uint32_t i
    cdef Transfer *t
    for i in range(w.slab_chunks * <uint32_t>SLAB_CHUNK):
        t = slot(w, i)
        if t.state == T_ENDING:
            complete(w, t, t.ending)
            release(w, t)


cdef void fail_sink(Worker *w, Transfer *t) noexcept nogil:
    cdef int error = t.sink.error
    if error == ENOSPC or error == EDQUOT or error == EFBIG:
        fail(w, t, OUT_LOCAL_IO_ERROR, error, 3, b"disk full or allocation exceeded")
    else:
        fail(w, t, OUT_LOCAL_IO_ERROR, error, 0, b"I/O error while writing the file")


cdef void resume_list(Worker *w, Transfer *t) noexcept nogil:
    """Transfers that waited: each looks again whether it may send."""
    cdef Transfer *following
    cdef bint waited
    while t != NULL:
        following = t.queue_next
        waited = t.queued == Q_WAITING
        t.queued = Q_NONE
        if t.state == T_FREE:
            transfer_slot_free(w, t)
        elif t.doomed:
            fail_source(w, t)
        elif t.state != T_ACTIVE:
            if t.owes_first and t.state == T_ASKING:
                t.owes_first = 0
                send_first(w, t)
        elif t.owes_first:
            t.owes_first = 0
            if t.flight.role == RECEIVER and not t.flight.opening:
                send_ack(w, t, t.flight.next - 1)
            elif t.flight.opening:
                send_first(w, t)
        elif t.flight.role == SENDER and not t.flight.opening:
            if waited:
                look_again(w, t)
            else:
                pump(w, t)
        t = following


cdef void look_again(Worker *w, Transfer *t) noexcept nogil:
    """A chunk was loaded: perhaps the one that this transfer waits for."""
    cdef int64_t next = t.flight.next
    flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
    pump(w, t)
    if t.queued != Q_WAITING:
        t.held_ns = 0
    elif t.flight.next != next:
        t.held_ns = w.now_ns                     # the disk goes on, slowly


cdef void on_loaded(Worker *w) noexcept nogil:
    cdef Transfer *t = w.waiting
    w.waiting = NULL
    resume_list(w, t)


cdef void on_message(Worker *w, Message *m) noexcept nogil:
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


cdef void on_small_message(Worker *w, Message *m) noexcept nogil:
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
        flows_forget(w)
    elif m.kind == M_ABORT_ALL:
        w.draining = 1
        abort_all(w)
    elif m.kind == M_FORGET_FLOWS:
        flows_forget(w)
    elif m.kind == M_STOP:
        flows_forget(w)
        end_all(w)
        w.stopping = 1


cdef void read_inbox(Worker *w) noexcept nogil:
    cdef Message *m = queue_take_all(w.inbox)
    cdef Message *following
    while m != NULL:
        following = m.next
        on_message(w, m)
        m = following
    if so_swap8(&w.inbox.is_noted, 1, 0):
        on_loaded(w)


# --- the loop ------------------------------------------------------------------------------------------------

cdef void on_due_superseded(Worker *w, Transfer *t) noexcept nogil:
    """It never speaks again by itself; one that may still be wanted waits for that without a word."""
    if t.superseded == SUPERSEDED_PERHAPS and w.now_ns - t.flight.progress_ns < w.retransmit.give_up_ns:
        t.flight.deadline_ns = w.now_ns + w.retransmit.initial_ns
        wheel_update(&w.wheel, t)
        return
    end(w, t, OUT_ABORTED, 0, b"the client sent another request", 31)


cdef bint is_stalled(Worker *w, Transfer *t) noexcept nogil:
    """Our own disk, or Python, has held it up for too long; it has ended then."""
    if t.state != T_FLUSHING and t.state != T_COMMITTING:
        if t.held_ns == 0 or w.now_ns - t.held_ns < w.limits.stalled_ns:
            return False
    w.counters.transfers_stalled += 1
    fail(w, t, OUT_LOCAL_IO_ERROR, ETIMEDOUT, 0, b"Server busy, try again")
    return True


cdef bint is_held(const Transfer *t) noexcept nogil:
    """Whether the peer waits for us, and not we for the peer."""
    return t.queued == Q_WAITING or stream_idle(t) or (t.sink != NULL and t.sink.ack_owed)


cdef void on_due(Worker *w, Transfer *t) noexcept nogil:
    """The deadline of a transfer has passed."""
    cdef int act
    if t.state == T_DALLY:
        release(w, t)
        return
    if t.state == T_ENDING:
        leave_stuck(w, t)
        return
    if (t.state == T_FLUSHING or t.state == T_COMMITTING or is_held(t)) and is_stalled(w, t):
        return
    if t.state != T_ACTIVE and t.state != T_ASKING:
        return
    if t.superseded:
        on_due_superseded(w, t)
        return
    if t.queued == Q_WAITING and w.owes_look:
        w.owes_look = 0
        on_loaded(w)                             # there was no memory to ask for a chunk
        wheel_update(&w.wheel, t)
        return
    if t.held:
        on_due_held(w, t)
        return
    if is_held(t):
        flight_restart_clocks(&t.flight, &w.retransmit, w.now_ns)
        if t.flight.role == SENDER:
            pump(w, t)                           # a pipe that could not be watched is looked at again
        wheel_update(&w.wheel, t)
        return
    act = flight_on_timeout(&t.flight, &w.retransmit, w.now_ns)
    SO_INVARIANT(flight_check(&t.flight))
    if act & ACT_GIVE_UP:
        fail(w, t, OUT_TIMED_OUT, 0, 0, b"timed out: no answer")
        return
    if act and not act & ACT_GO_ON:
        w.counters.timeouts += 1
        t.trial_ns = 0                           # which copy will be answered?
    if act & ACT_FIRST:
        send_first(w, t)
    elif act & ACT_ACK:
        acknowledge(w, t)
    elif act & ACT_SEND:
        pump(w, t)
    wheel_update(&w.wheel, t)


cdef void run_timers(Worker *w) noexcept nogil:
    cdef Transfer *t
    while True:
        t = wheel_take_due(&w.wheel, w.now_ns)
        if t == NULL:
            return
        on_due(w, t)


cdef void run_queue(Worker *w) noexcept nogil:
    """One quantum for every transfer that had more to send than its last turn allowed."""
    cdef Transfer *t = w.run_head
    w.run_head = NULL
    w.run_tail = NULL
    resume_list(w, t)


cdef void on_writable(Worker *w, int32_t socket) noexcept nogil:
    cdef epoll_event event
    cdef Transfer *t = w.blocked
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>socket
    w.sockets[socket].awaits_writable = 0
    epoll_ctl(w.epoll_fd, EPOLL_CTL_MOD, w.sockets[socket].fd, &event)   # cannot fail: it is registered
    w.blocked = NULL
    resume_list(w, t)                            # those of other sockets find out and wait again


cdef int wait_ms(Worker *w) noexcept nogil:
    cdef uint64_t due
    if w.run_head != NULL:
        return 0
    due = wheel_next_ns(&w.wheel)
    if w.copies != NULL and w.copies.started_ns + COPY_NS < due:
        due = w.copies.started_ns + COPY_NS
    if w.untold and due > w.now_ns + TELL_REFUSALS_NS:
        due = w.now_ns + TELL_REFUSALS_NS
    if due == <uint64_t>-1:
        return -1
    if due <= w.now_ns:
        return 0
    due = (due - w.now_ns + 999999) // 1000000
    return <int>due if due < 60000 else 60000


cdef void measure_rate(Worker *w) noexcept nogil:
    """The arrival rate over the last milliseconds."""
    cdef uint64_t elapsed = w.now_ns - w.rate_at_ns
    if elapsed < RATE_WINDOW_NS:
        return
    w.rate_per_ns = smooth_rate(w.rate_per_ns, w.counters.datagrams_received - w.rate_seen, elapsed)
    w.rate_seen = w.counters.datagrams_received
    w.rate_at_ns = w.now_ns


cdef void tell_mode(Worker *w, uint64_t linger_ns) noexcept nogil:
    """The mode goes up, with what it was decided from."""
    cdef Message *m = message_new(M_MODE, 0, NULL, 0)
    if m == NULL:
        return                                   # told at the next turn
    w.mode_told = w.mode
    m.worker = w.number
    m.state = w.mode
    m.payload_bytes = w.counters.live_transfers
    m.started_ns = linger_ns
    m.ended_ns = <uint64_t>(w.rate_per_ns * 1e9)
    queue_push(w.outbox, m)


cdef uint64_t choose_mode(Worker *w) noexcept nogil:
    """Follows the law, but changes the mode no sooner than MODE_HOLD_NS after the last change."""
    cdef uint8_t mode = MODE_AT_ONCE
    cdef uint64_t ns = linger_law_ns(&w.tuning, w.counters.live_transfers, w.rate_per_ns, &mode)
    if mode != w.mode:
        if w.mode != MODE_UNKNOWN and w.now_ns - w.mode_since_ns < MODE_HOLD_NS:
            return 0                             # to linger too little is the harmless error
        w.mode = mode
        w.mode_since_ns = w.now_ns
    if not w.tuning.tell_modes:
        w.mode_told = MODE_UNKNOWN               # who begins to listen is told where things stand
    elif w.mode_told != w.mode:
        tell_mode(w, ns)
    return ns


cdef void linger(Worker *w) noexcept nogil:
    cdef uint64_t ns, began_ns = w.now_ns
    cdef timespec pause
    measure_rate(w)
    ns = choose_mode(w)
    if ns == 0:
        return
    pause.tv_sec = 0
    pause.tv_nsec = <long>ns                     # at most 10 ms
    nanosleep(&pause, NULL)                      # a signal may cut it short: harmless
    w.now_ns = clock_ns()
    w.counters.lingers += 1
    w.counters.linger_ns += w.now_ns - began_ns


cdef void on_stream(Worker *w, Transfer *t) noexcept nogil:
    """A pipe has bytes, or has ended.  The slot may belong to another transfer by now: it looks again."""
    if t.state == T_ACTIVE and t.flight.role == SENDER and not t.flight.opening:
        pump(w, t)


cdef void take_tuning(Worker *w) noexcept nogil:
    """Settings have changed.  Between turns only: the batch is empty, so all that is queued leaves as it was queued."""
    SO_INVARIANT(w.out.count == 0)
    w.tuning = w.live_tuning[0]
    w.mode = MODE_UNKNOWN                        # decided anew, without waiting for MODE_HOLD_NS


cdef void turn(Worker *w) noexcept nogil:
    cdef epoll_event events[128]
    cdef int n, i
    w.counters.epoll_wait_calls += 1
    n = epoll_wait(w.epoll_fd, events, EVENTS, wait_ms(w))
    so_turn(&w.store.turns[w.number])            # from here on it may send from a chunk ...
    w.now_ns = clock_ns()
    if memcmp(&w.tuning, w.live_tuning, sizeof(Tuning)) != 0:
        take_tuning(w)
    if n > 0 and (n > 1 or events[0].data.u64 != INBOX):
        linger(w)
    for i in range(n):
        if events[i].data.u64 == INBOX:
            read_inbox(w)
            continue
        if events[i].data.u64 & STREAM_EVENT:
            on_stream(w, slot(w, <uint32_t>events[i].data.u64))
            continue
        if events[i].events & EPOLLERR:
            drain_errors(w, <int32_t>events[i].data.u64)
        if events[i].events & EPOLLOUT:
            on_writable(w, <int32_t>events[i].data.u64)
        if events[i].events & ~<uint32_t>EPOLLOUT and w.sockets[events[i].data.u64].kind != S_LISTENER:
            drain_socket(w, <int32_t>events[i].data.u64)
    # Requests last: the ACK that ended the peer's transfer was sent before its next request.
    for i in range(n):
        if events[i].data.u64 < INBOX and w.sockets[events[i].data.u64].kind == S_LISTENER:
            drain_socket(w, <int32_t>events[i].data.u64)
    if w.run_head != NULL:
        run_queue(w)
    run_timers(w)
    if w.copies != NULL:
        judge_copies(w)
    if w.final_count:
        flush_finals(w)
    flush(w)
    if w.untold:
        tell_refusals(w, False)
    if w.owes_kick:
        w.owes_kick = 0
        store_kick(w.store)
    note_waits(w)
    so_turn(&w.store.turns[w.number])            # ... and now it has


cdef void worker_run(Worker *w) noexcept nogil:
    """Until M_STOP."""
    # A linger of 300 us must not become 350: threads have 50 us of slack by default (prctl(2)).
    prctl(PR_SET_TIMERSLACK, 1)                  # cannot fail: the argument is positive
    w.now_ns = clock_ns()
    wheel_init(&w.wheel, w.now_ns)
    while not w.stopping:
        turn(w)
    tell_refusals(w, True)


# --- set-up ----------------------------------------------------------------------------------------------------

cdef int worker_init(Worker *w, uint32_t number, Queue *inbox, Queue *outbox, Store *store,
                     const Tuning *tuning, const Retransmit *retransmit, const Limits *limits, uint32_t max_batch,
                     uint32_t slot_bytes, uint64_t secret) noexcept nogil:
    """`w` is zeroed.  Returns -1 when memory or descriptors are missing (errno says which)."""
    cdef epoll_event event
    w.number = number
    w.inbox = inbox
    w.outbox = outbox
    w.store = store
    w.live_tuning = tuning
    w.tuning = tuning[0]
    w.retransmit = retransmit[0]
    w.limits = limits[0]
    w.secret = secret
    w.free_socket = -1
    w.shared_socket = -1
    w.free_client = -1
    w.mode = MODE_UNKNOWN
    w.mode_told = MODE_UNKNOWN
    w.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    w.tid_history = <uint8_t *>calloc(TID_HISTORY, 1)
    w.guessers = <Guesser *>calloc(GUESSES, sizeof(Guesser))
    w.history = <uint64_t *>calloc(HISTORY, sizeof(uint64_t))
    w.networks = <Network *>calloc(NETWORK_SETS * NETWORK_WAYS, sizeof(Network))
    w.memory = <Remembered *>calloc(MEMORY_SETS * MEMORY_WAYS, sizeof(Remembered))
    w.ended = <uint64_t *>calloc(ENDED_SETS * ENDED_WAYS, sizeof(uint64_t))
    w.flow_entries = <Flow *>calloc(limits.flows + 1, sizeof(Flow))
    if (w.epoll_fd < 0 or w.tid_history == NULL or w.guessers == NULL or w.history == NULL or w.ended == NULL
            or w.flow_entries == NULL or w.memory == NULL or w.networks == NULL
            or index_init(&w.by_tid, 1024) < 0 or index_init(&w.by_request, 1024) < 0
            or index_init(&w.by_client, 1024) < 0 or index_init(&w.by_flow, 1024) < 0
            or index_init(&w.by_local, 1024) < 0
            or send_init(&w.out) < 0 or receive_init(&w.received, max_batch, slot_bytes) < 0):
        return -1
    event.events = EPOLLIN
    event.data.u64 = INBOX
    return epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, w.inbox.wake_fd, &event)


cdef int32_t socket_entry(Worker *w) noexcept nogil:
    cdef void *larger
    cdef int32_t i = w.free_socket
    if i >= 0:
        w.free_socket = w.sockets[i].next_free
        return i
    if w.socket_count == w.socket_capacity:
        larger = realloc(w.sockets, (w.socket_capacity * 2 + 32) * sizeof(Socket))
        if larger == NULL:
            return -1
        w.sockets = <Socket *>larger
        w.socket_capacity = w.socket_capacity * 2 + 32
    w.socket_count += 1
    return w.socket_count - 1


cdef void let_routers_fragment(int fd) noexcept nogil:
    """No "don't fragment" bit: some boot ROMs discard datagrams that have it, and behind a firewall that swallows
    ICMP a block that is larger than the path's MTU would never arrive.  A train that the kernel would have to
    fragment is refused as ever (EMSGSIZE), and goes as plain datagrams."""
    cdef int never4 = IP_PMTUDISC_DONT, never6 = IPV6_PMTUDISC_DONT
    # Each fails on a socket of the other family, and a dual-stack socket needs both: nothing depends on the rest.
    setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &never4, sizeof(never4))
    setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &never6, sizeof(never6))


cdef void hear_icmp(int fd) noexcept nogil:
    """Errors that ICMP brings are queued with the peer's address; drain_errors() reads them."""
    cdef int on = 1
    # As above: a dual-stack socket needs both, and a socket of one family refuses the other's.
    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on))
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(on))


cdef int worker_add_socket(Worker *w, int fd, int kind, int group, bint wildcard, bint wants_control) noexcept nogil:
    """Its index; -1 when there is no memory or epoll refuses it (the descriptor stays the caller's)."""
    cdef epoll_event event
    cdef int32_t i = socket_entry(w)
    if i < 0:
        return -1
    memset(&w.sockets[i], 0, sizeof(Socket))
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>i
    if epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
        w.sockets[i].next_free = w.free_socket
        w.free_socket = i
        return -1
    w.sockets[i].fd = fd
    w.sockets[i].kind = kind
    w.sockets[i].group = group
    w.sockets[i].wildcard = wildcard
    w.sockets[i].wants_control = wants_control
    let_routers_fragment(fd)
    if kind != S_SHARED:                         # its transfers are told apart by what an error does not say
        hear_icmp(fd)
    if kind == S_LISTENER:
        w.groups[group].listener = i
        if group >= w.group_count:
            w.group_count = group + 1
    elif kind == S_TID:
        if w.groups[group].tid_count == 0:
            w.groups[group].first_tid = i
        w.groups[group].tid_count += 1
    elif kind == S_SHARED:
        w.shared_socket = i
    return i


cdef void worker_free(Worker *w) noexcept nogil:
    """After its thread has left.  Transfers were ended by M_ABORT_ALL; what is left is memory."""
    cdef int32_t i
    cdef uint32_t chunk
    for i in range(w.socket_count):
        if w.sockets[i].kind != S_FREE:
            close(w.sockets[i].fd)
    for chunk in range(w.slab_chunks):
        free(w.slab[chunk])
    free(w.slab)
    free(w.sockets)
    free(w.clients)
    free(w.flow_entries)
    free(w.tid_history)
    free(w.guessers)
    free(w.history)
    free(w.networks)
    free(w.memory)
    while w.copies != NULL:
        forget_copy(w)
    free(w.ended)
    index_free(&w.by_tid)
    index_free(&w.by_request)
    index_free(&w.by_client)
    index_free(&w.by_flow)
    index_free(&w.by_local)
    send_free(&w.out)
    receive_free(&w.received)
    if w.epoll_fd >= 0:
        close(w.epoll_fd)
