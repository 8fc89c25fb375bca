# Sending: what a transfer may send now, put into batches; what the kernel refused, put right.
#
# pump_file() walks a sender's window; flush() hands the batch to the kernel and deals with the three ways it
# can refuse: a full socket (the transfer waits for EPOLLOUT), a train that it does not want (plain
# datagrams from now on, for this transfer), a file that became shorter (the transfer is doomed).
# The final block never travels with the others: it is copied, then the file is asked whether it is still
# the one that was opened, and only then does the block leave.  A client can never hold a complete file
# that was not one file.
#
# A message with DATA points into the source of its transfer, so whoever lets a transfer go sends its DATA
# first: flush_own().
#
# Must not: end a transfer (it may be in use by the caller), wait for anything, or read a mapping.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.content cimport (
    CHUNK_ABSENT, CHUNK_BYTES, CHUNK_FAILED, CHUNK_OWNED, CHUNK_READY, Source)
from snow_owl_tftp._engine.base.transfer cimport T_ACTIVE, T_FREE, Transfer
from snow_owl_tftp._engine.disk.jobs cimport store_load
from snow_owl_tftp._engine.disk.resident cimport is_lost
from snow_owl_tftp._engine.disk.sources cimport source_is_changed
from snow_owl_tftp._engine.includes.files cimport pread
from snow_owl_tftp._engine.includes.net cimport (
    EAGAIN, EFAULT, EINVAL, EIO, EMSGSIZE, ENOBUFS, EPOLLIN, EPOLLOUT, EPOLL_CTL_MOD, epoll_ctl, epoll_event, errno)
from snow_owl_tftp._engine.includes.threads cimport owl_load8
from snow_owl_tftp._engine.memory.networks cimport Network, network_find
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.net.batch cimport (
    SCRATCH_BYTES, SEND_MESSAGES, STAGING_BYTES, SendItem, TRAIN_BYTES, TRAIN_SEGMENTS, send_control, send_data,
    send_forget, send_from, send_has_room)
from snow_owl_tftp._engine.net.sockets cimport Socket
from snow_owl_tftp._engine.protocol.exchange cimport flight_offset
from snow_owl_tftp._engine.protocol.sender cimport flight_is_pausing, flight_rest, flight_send_end, sender_sent
from snow_owl_tftp._engine.protocol.seq cimport seq_block
from snow_owl_tftp._engine.worker.rates cimport is_withheld
from snow_owl_tftp._engine.worker.state cimport FINALS, Final, Q_BLOCKED, Q_NONE, Q_RUN, Q_WAITING, Worker

cdef enum:
    # A transfer sends no more in one turn while others wait (fairness).
    QUANTUM_BYTES = 262144
    QUANTUM_BLOCKS = 256          # a datagram costs the worker about the same, however small it is
    FREE_BYTES = 1472             # what fits an Ethernet frame


# --- queues ------------------------------------------------------------------------------------------

cdef inline void run_later(Worker *w, Transfer *t) noexcept nogil:
    if t.queued != Q_NONE:
        return
    t.queued = Q_RUN
    t.queue_next = NULL
    if w.waiters.run_head == NULL:
        w.waiters.run_head = t
    else:
        w.waiters.run_tail.queue_next = t
    w.waiters.run_tail = t


cdef inline void wait_for_chunk(Worker *w, Transfer *t) noexcept nogil:
    if t.queued != Q_NONE:
        return
    t.queued = Q_WAITING
    if t.held_ns == 0:
        t.held_ns = w.now_ns
    t.queue_next = w.waiters.for_chunk
    w.waiters.for_chunk = t


cdef inline void wait_for_socket(Worker *w, Transfer *t) noexcept nogil:
    """The socket is full: EPOLLOUT brings the transfer back."""
    cdef epoll_event event
    cdef Socket *s = &w.sockets.entries[t.socket]
    if t.queued != Q_NONE:
        return
    t.queued = Q_BLOCKED
    t.queue_next = w.waiters.for_socket
    w.waiters.for_socket = t
    if not s.awaits_writable:
        s.awaits_writable = 1
        event.events = EPOLLIN | EPOLLOUT
        event.data.u64 = <uint64_t>t.socket
        epoll_ctl(w.epoll_fd, EPOLL_CTL_MOD, s.fd, &event)   # cannot fail: the socket is registered


# --- the batch ---------------------------------------------------------------------------------------

cdef inline void rewind_item(Transfer *t, const SendItem *item) noexcept nogil:
    """The blocks of `item` did not leave: they are the next to be sent again.

    Of several items the last one first, or blocks behind `sent_end` would count as sent.
    """
    if item.first < t.flight.next and item.first >= t.flight.window_base:
        t.flight.next = item.first
        t.flight.timed_block = -1
        if item.first + item.count == t.flight.sent_end:
            t.flight.sent_end = item.sent_end


cdef inline void on_refused(Worker *w, uint32_t at, int error) noexcept nogil:
    """What becomes of message `at`, which the kernel did not take."""
    cdef SendItem *item = &w.out.items[at]
    cdef Transfer *t = item.owner
    if error == EAGAIN or error == ENOBUFS:
        w.counters.send_would_block += 1
    else:
        w.counters.send_errors += 1
    if t == NULL or t.id != item.owner_id or t.state == T_FREE:
        return
    if error == EAGAIN:
        if item.first >= 0:
            rewind_item(t, item)
        else:
            t.owes_first = 1
        wait_for_socket(w, t)
    elif error == EFAULT:
        t.doomed = 1
        run_later(w, t)
    # Anything else (no route, a firewall, ENOBUFS): the datagram is lost, as on the wire; timers repeat it.


cdef inline bint is_train_refused(Worker *w, uint32_t at, int error) noexcept nogil:
    return w.out.items[at].count > 1 and (error == EMSGSIZE or error == EINVAL or error == EIO)


cdef inline void on_train_refused(Worker *w, uint32_t at) noexcept nogil:
    """Message `at` is a train that the kernel does not want.  It goes, and all DATA of its transfer behind it, which
    would arrive before it: everything is sent again in order, as plain datagrams."""
    cdef Transfer *t = w.out.items[at].owner
    cdef uint32_t i
    w.counters.send_errors += 1
    for i in range(w.out.count, at, -1):
        if w.out.items[i - 1].owner == t and w.out.items[i - 1].first >= 0:
            rewind_item(t, &w.out.items[i - 1])
    send_forget(&w.out, at, t)
    t.no_gso = 1
    w.counters.gso_refused += 1
    run_later(w, t)


cdef inline void flush(Worker *w) noexcept nogil:
    cdef uint32_t at = 0, i
    cdef int error
    while at < w.out.count:
        error = send_from(&w.out, &at, &w.tuning, &w.counters)
        if error == 0:
            break
        if error == EAGAIN:
            for i in range(w.out.count, at, -1):
                on_refused(w, i - 1, EAGAIN)
            break
        if is_train_refused(w, at, error):
            on_train_refused(w, at)
        else:
            on_refused(w, at, error)
            at += 1
    w.out.serial += 1
    w.out.count = 0
    w.out.iov_used = 0
    w.out.staging_used = 0


cdef inline void flush_own(Worker *w, const Transfer *t) noexcept nogil:
    """Before the source of `t` goes: nothing in the batch may point into it any more."""
    if t.batch == w.out.serial:
        flush(w)


cdef inline void use_socket(Worker *w, int32_t socket, uint32_t segments) noexcept nogil:
    """Makes room for a message of `segments` that leaves from `socket`."""
    if w.out.count and (w.out.socket != socket or not send_has_room(&w.out, segments)):
        flush(w)
    w.out.socket = socket
    w.out.fd = w.sockets.entries[socket].fd


# --- control packets ---------------------------------------------------------------------------------

cdef inline void send_bytes(Worker *w, int32_t socket, const Peer *peer, const Local *local, Transfer *owner,
                            const uint8_t *bytes, uint32_t size) noexcept nogil:
    if size > SCRATCH_BYTES:
        return
    use_socket(w, socket, 1)
    memcpy(send_control(&w.out, peer, local, owner, size), bytes, size)
    if owner != NULL:
        owner.datagrams_out += 1


cdef inline void send_ack(Worker *w, Transfer *t, int64_t block_index) noexcept nogil:
    """RFC 1350, figure 5-3."""
    cdef uint16_t block = seq_block(block_index, t.flight.rollover)
    cdef uint8_t packet[4]
    packet[0] = 0
    packet[1] = 4
    packet[2] = block >> 8
    packet[3] = block & 0xff
    send_bytes(w, t.socket, &t.peer, &t.local, t, packet, 4)


cdef inline void send_error(Worker *w, int32_t socket, const Peer *peer, const Local *local, int code,
                            const char *text) noexcept nogil:
    """RFC 1350, figure 5-4.  Nobody's: an ERROR is never repeated."""
    cdef uint8_t packet[256]
    cdef size_t size = strlen(text)
    if size > 250:
        size = 250
    packet[0] = 0
    packet[1] = 5
    packet[2] = 0
    packet[3] = <uint8_t>code
    memcpy(packet + 4, text, size)
    packet[4 + size] = 0
    send_bytes(w, socket, peer, local, NULL, packet, <uint32_t>size + 5)


cdef inline void send_first(Worker *w, Transfer *t) noexcept nogil:
    """The OACK, the ACK 0 of an upload without options, or our own request."""
    if w.quotas.unproven_bytes_per_s and is_withheld(w, t, t.recipe.first_bytes if t.recipe.first_bytes else 4):
        return
    if t.recipe.first_bytes:
        send_bytes(w, t.socket, &t.peer, &t.local, t, t.recipe.first, t.recipe.first_bytes)
    else:
        send_ack(w, t, 0)


cdef inline bint use_socket_for(Worker *w, Transfer *t) noexcept nogil:
    """Makes room for any DATA of `t`.  A flush may have to, and the kernel may refuse what it sends: then `t` may be
    back at an earlier block, so nothing about the message may be computed before.  False: `t` waits for its turn."""
    use_socket(w, t.socket, TRAIN_SEGMENTS)
    return t.queued == Q_NONE


# --- DATA --------------------------------------------------------------------------------------------

cdef inline int chunk_state(Worker *w, Source *source, uint64_t chunk, uint64_t start, uint64_t end) noexcept nogil:
    """Whether bytes start .. end - 1 of a chunk may be sent; asks for it, and for the one behind, when it is needed."""
    cdef int state = owl_load8(&source.chunks[chunk])
    if state == CHUNK_READY and is_lost(&w.errands, source, chunk, start, end, w.now_ns):
        state = CHUNK_ABSENT
    if state == CHUNK_ABSENT:
        w.errands.owes_kick = 1
        if store_load(w.errands.store, source, <uint32_t>chunk, w.number) < 0:
            w.errands.owes_look = 1
    if chunk + 1 < source.chunk_count and owl_load8(&source.chunks[chunk + 1]) == CHUNK_ABSENT:
        w.errands.owes_kick = 1
        store_load(w.errands.store, source, <uint32_t>chunk + 1, w.number)
    return state


cdef inline bint resident(Worker *w, Transfer *t, uint64_t start, uint64_t end) noexcept nogil:
    """True when bytes start .. end - 1 are in memory; else the transfer waits (or is doomed)."""
    cdef Source *source = t.recipe.source
    cdef uint64_t chunk = start // CHUNK_BYTES
    cdef int state
    while chunk * CHUNK_BYTES < end:
        state = chunk_state(w, source, chunk, start, end)
        if state == CHUNK_FAILED or (state != CHUNK_READY and state != CHUNK_OWNED and source.failed_errno):
            t.doomed = 1
            run_later(w, t)
            return False
        if state != CHUNK_READY and state != CHUNK_OWNED:
            wait_for_chunk(w, t)
            return False
        chunk += 1
    return True


cdef inline void add_final(Worker *w, Transfer *t) noexcept nogil:
    if w.finals.count == FINALS:
        flush_finals(w)
    w.finals.entries[w.finals.count].transfer = t
    w.finals.entries[w.finals.count].id = t.id
    w.finals.count += 1


cdef inline uint32_t train_length(Worker *w, Transfer *t, int64_t end) noexcept nogil:
    """How many blocks from `next` to `end` (not the final one) fit one message."""
    cdef uint32_t segment = t.flight.blksize_bytes + 4, most = 1
    cdef int64_t blocks = end - t.flight.next + 1
    if w.tuning.gso and w.tuning.sendmmsg and not t.no_gso:
        most = TRAIN_BYTES // segment
        if most > TRAIN_SEGMENTS:
            most = TRAIN_SEGMENTS
        if most < 1:
            most = 1
    return most if blocks > most else <uint32_t>blocks


cdef inline uint32_t quantum_blocks(const Transfer *t) noexcept nogil:
    """How many blocks a transfer may send in one turn."""
    cdef uint32_t blocks = QUANTUM_BYTES // t.flight.blksize_bytes + 1
    return blocks if blocks < QUANTUM_BLOCKS else QUANTUM_BLOCKS


cdef inline uint32_t turn_blocks(const Worker *w, const Transfer *t) noexcept nogil:
    """The same, and no more than its buckets have granted."""
    cdef uint32_t blocks = quantum_blocks(t)
    if w.quotas.paces and t.credit_blocks < blocks:
        return t.credit_blocks
    return blocks


cdef inline void pump_file(Worker *w, Transfer *t) noexcept nogil:
    """Puts what the window allows into the batch, at most a quantum of it."""
    cdef Source *source = t.recipe.source
    cdef uint32_t blksize = t.flight.blksize_bytes, count, budget = turn_blocks(w, t)
    cdef int64_t end = flight_send_end(&t.flight)
    cdef uint64_t offset
    while t.flight.next <= end:
        if budget == 0:
            run_later(w, t)
            break
        if t.flight.next == t.flight.last:
            offset = flight_offset(&t.flight, t.flight.next)
            if offset == source.size_bytes or resident(w, t, offset, source.size_bytes):
                add_final(w, t)
            break
        if not use_socket_for(w, t):
            break
        offset = flight_offset(&t.flight, t.flight.next)
        count = train_length(w, t, end if end < t.flight.last else t.flight.last - 1)
        count = count if count < budget else budget
        if not resident(w, t, offset, offset + <uint64_t>count * blksize):
            break
        send_data(&w.out, t, t.flight.next, count, source.map + offset, <uint64_t>count * blksize,
                  source.copied)
        note_sent(w, t, count)
        budget -= count
    rest(w, t)


cdef inline void rest(Worker *w, Transfer *t) noexcept nogil:
    """What a turn or a burst allows was sent: when to look again."""
    if flight_is_pausing(&t.flight):
        flight_rest(&t.flight, &w.retransmit, w.now_ns)
    wheel_update(&w.wheel, t)


cdef inline void charge(Worker *w, Transfer *t, uint32_t count) noexcept nogil:
    """DATA to a network that has not shown yet that it hears us.  The first block of a usual size is free, as it is for
    who has answered nothing: a network of small files has a share for its larger ones."""
    cdef uint32_t bytes = count * (t.flight.blksize_bytes + 4)
    cdef Network *n
    if count == 1 and t.flight.next == 1 and bytes <= FREE_BYTES:
        return
    n = network_find(w.networks, t.hash_network, w.now_ns)
    if n != NULL:
        n.left_bytes -= bytes
        t.trial_bytes += bytes


cdef inline void note_sent(Worker *w, Transfer *t, uint32_t count) noexcept nogil:
    if t.doubted:
        charge(w, t, count)
    if t.credit_blocks:
        t.credit_blocks -= count if count < t.credit_blocks else t.credit_blocks
    t.datagrams_out += count
    sender_sent(&t.flight, &w.retransmit, count, w.now_ns)
    if t.flight.next - t.flight.window_base > t.peak_window:
        t.peak_window = <uint32_t>(t.flight.next - t.flight.window_base)


cdef inline bint final_is_due(const Transfer *t, uint64_t id) noexcept nogil:
    """Still waiting to send its last block?  Much may have happened since it was put on the list."""
    return (t.id == id and t.state == T_ACTIVE and not t.doomed and t.flight.next == t.flight.last
            and t.flight.last <= flight_send_end(&t.flight))


cdef inline int stage_final(Worker *w, Transfer *t) noexcept nogil:
    """Copies the last block out of the file; its size, or -1 when the file is not what it was."""
    cdef Source *source = t.recipe.source
    cdef uint64_t offset = flight_offset(&t.flight, t.flight.last)
    cdef uint64_t size = source.size_bytes - offset
    cdef ssize_t n
    if size == 0:
        return 0
    if source.copied:
        memcpy(w.out.staging + w.out.staging_used, source.map + offset, size)
        return <int>size
    n = pread(source.fd, w.out.staging + w.out.staging_used, size, <int64_t>offset)
    if n < 0:
        source.failed_errno = errno
    return <int>size if n == <ssize_t>size else -1


cdef inline bint source_holds(Worker *w, Source *source) noexcept nogil:
    """One look at a source and round, after the last block of every transfer in the round was copied."""
    cdef uint64_t token = w.finals.check_round << 8 | w.number
    if source.checked == token:
        return True
    w.counters.file_checks += 1
    if source_is_changed(source):
        return False
    source.checked = token
    return True


cdef inline void order_finals(Worker *w) noexcept nogil:
    """By socket, those of one as they came: one call sends from one socket, and transfers are spread over several."""
    cdef Final moved
    cdef uint32_t i, at
    for i in range(1, w.finals.count):           # at most 128, which are mostly in order where ACKs brought them
        moved = w.finals.entries[i]
        at = i
        while at > 0 and w.finals.entries[at - 1].transfer.socket > moved.transfer.socket:
            w.finals.entries[at] = w.finals.entries[at - 1]
            at -= 1
        w.finals.entries[at] = moved


cdef inline void flush_finals(Worker *w) noexcept nogil:
    """Sends the final blocks that are due: copy all, check the files, send all."""
    cdef uint32_t first = 0, used
    cdef int sizes[128]
    cdef Transfer *t
    flush(w)                                     # the blocks before them leave first
    order_finals(w)
    while first < w.finals.count:
        used = first
        while used < w.finals.count:
            t = w.finals.entries[used].transfer
            if used > first and w.out.staging_used + t.flight.blksize_bytes > STAGING_BYTES:
                break
            sizes[used] = -2
            if final_is_due(t, w.finals.entries[used].id):
                sizes[used] = stage_final(w, t)
                if sizes[used] > 0:
                    w.out.staging_used += <uint32_t>sizes[used]
            used += 1
        w.finals.check_round += 1
        send_staged(w, first, used, sizes)
        first = used
    w.finals.count = 0


cdef inline void send_staged(Worker *w, uint32_t first, uint32_t end, const int *sizes) noexcept nogil:
    """Sends finals first .. end - 1, whose payloads lie in the staging area in this order."""
    cdef uint8_t *payload = w.out.staging
    cdef uint32_t i, used = w.out.staging_used
    cdef Transfer *t
    for i in range(first, end):
        if sizes[i] == -2:
            continue
        t = w.finals.entries[i].transfer
        if sizes[i] < 0 or not source_holds(w, t.recipe.source):
            t.doomed = 1
            run_later(w, t)
        elif final_is_due(t, w.finals.entries[i].id):
            # Changing the socket flushes, and a flush resets the staging area: keep what is still needed.
            use_socket(w, t.socket, 1)
            w.out.staging_used = used
            send_data(&w.out, t, t.flight.last, 1, payload, <uint64_t>sizes[i], True)
            note_sent(w, t, 1)
            wheel_update(&w.wheel, t)
        payload += sizes[i] if sizes[i] > 0 else 0
    flush(w)
