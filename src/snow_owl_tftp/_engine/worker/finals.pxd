# The last block of a file: it never travels with the others.
#
# It is copied, then the file is asked whether it is still the one that was opened, and only then does the block leave.
# A client can never hold a complete file that was not one file.  One round does so for all last blocks that are due,
# with one look at each file.
#
# Must not: end a transfer (it may be in use by the caller), wait for anything, or read a mapping that is not a copy.

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.transfer cimport T_ACTIVE, Transfer
from snow_owl_tftp._engine.disk.sources cimport source_is_changed
from snow_owl_tftp._engine.includes.files cimport pread
from snow_owl_tftp._engine.includes.net cimport errno
from snow_owl_tftp._engine.memory.timers cimport wheel_update
from snow_owl_tftp._engine.net.batch cimport send_data, STAGING_BYTES
from snow_owl_tftp._engine.protocol.exchange cimport flight_offset
from snow_owl_tftp._engine.protocol.sender cimport flight_send_end
from snow_owl_tftp._engine.worker.outbox cimport flush, use_socket
from snow_owl_tftp._engine.worker.queues cimport run_later
from snow_owl_tftp._engine.worker.sent cimport note_sent
from snow_owl_tftp._engine.worker.state cimport Final, FINALS, Worker


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


cdef inline void add_final(Worker *w, Transfer *t) noexcept nogil:
    if w.finals.count == FINALS:
        flush_finals(w)
    w.finals.entries[w.finals.count].transfer = t
    w.finals.entries[w.finals.count].id = t.id
    w.finals.count += 1
