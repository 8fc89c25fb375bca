# Lanes: the jobs of the I/O threads, apart by device, so that one that hangs holds its own threads only.
#
#   append(job of device 7) ─► lane of 7 ─┐ in order within a lane, lanes in turns,
#   append(job of device 9) ─► lane of 9 ─┴► and no more threads for one lane than its share
#
# A lane may have io_threads threads at work, and one more for each that hangs, SPARES at most.  Beyond
# SHARED_THREADS that are at work in all a lane gets its first thread only: so one is left for every other lane.
# Who hangs, and what waited too long, is for the watch thread to say (watching.pxd).
#
# All of it is guarded by the store's mutex.  Must not: wait, allocate, or call anything but what is here.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.base.content cimport Buffer, Source
from snow_owl_tftp._engine.base.messages cimport Message

cdef enum:                        # Job.kind
    JOB_LOAD = 1                  # this chunk of this source
    JOB_WRITE = 2                 # this buffer into this descriptor, for this transfer
    JOB_CLOSE = 3                 # this descriptor
    JOB_EXPIRE = 4                # this source, which nobody uses

cdef enum:
    LANES = 32                    # of devices; more share the first one
    SPARES = 8                    # threads that replace what hangs in a lane
    SHARED_THREADS = 128          # at least twice the largest io_threads
    MAX_THREADS = 160             # SHARED_THREADS + LANES
    JOBS_AT_ONCE = 16
    MANY_JOBS = 64                # that wait in a lane in which something hangs: it takes no more files

cdef struct Job:
    Job *next
    uint32_t kind
    Source *source
    uint32_t chunk
    uint32_t worker               # who asked
    Buffer *buffer
    int fd
    uint64_t device
    uint64_t since_ns             # when it was asked for
    uint64_t transfer_id
    Message *written              # JOB_WRITE: what brings the buffers home
    uint8_t done                  # atomic: nothing is left to be waited for

cdef struct Lane:
    uint64_t device
    Job *head
    Job *tail
    uint32_t waiting              # jobs in the list
    uint32_t busy                 # threads at work, those that hang included
    uint32_t hung                 # ... of them

cdef struct IoThread:
    void *store                   # of the thread in this place, NULL: none
    Lane *lane                    # at which it works, NULL: it is idle
    Job *jobs                     # in its hands; they stay allocated until it has no lane
    uint64_t since_ns             # atomic: when it began the one it is at
    uint8_t hangs                 # and is counted as such
    uint8_t told                  # who waits for it was told that it is in vain

cdef struct Lanes:
    Lane lane[32]
    uint32_t count                # in use; lane 0 is for devices that have none of their own
    uint32_t turn                 # which lane is asked first next time
    uint32_t busy                 # threads at work
    uint32_t share                # threads of one lane: io_threads


cdef inline Lane *lane_of(Lanes *lanes, uint64_t device) noexcept nogil:
    """The lane of a device; an empty one of another if there is no more, or else the common one."""
    cdef Lane *lane
    cdef Lane *empty = NULL
    cdef uint32_t i
    for i in range(1, lanes.count):
        lane = &lanes.lane[i]
        if lane.device == device:
            return lane
        if lane.head == NULL and lane.busy == 0:
            empty = lane
    if lanes.count < LANES:
        empty = &lanes.lane[lanes.count if lanes.count else 1]
        lanes.count = lanes.count + 1 if lanes.count else 2
    if empty == NULL:
        return &lanes.lane[0]
    empty.device = device
    return empty


cdef inline bint lane_may_run(const Lanes *lanes, const Lane *lane) noexcept nogil:
    """Whether another thread may work for it."""
    cdef uint32_t spares = lane.hung if lane.hung < SPARES else <uint32_t>SPARES
    if lane.head == NULL:
        return False
    return lane.busy == 0 or (lane.busy < lanes.share + spares and lanes.busy < SHARED_THREADS)


cdef inline bint lane_is_sick(const Lane *lane) noexcept nogil:
    """What is asked of it now would wait in vain."""
    return lane.hung >= SPARES or (lane.hung and lane.waiting >= MANY_JOBS)


cdef inline Lane *lane_add(Lanes *lanes, Job *job) noexcept nogil:
    cdef Lane *lane = lane_of(lanes, job.device)
    job.next = NULL
    if lane.head == NULL:
        lane.head = job
    else:
        lane.tail.next = job
    lane.tail = job
    lane.waiting += 1
    return lane


cdef inline Lane *next_lane(Lanes *lanes) noexcept nogil:
    """One that may have another thread, each in turn; NULL: none."""
    cdef uint32_t i, at
    for i in range(lanes.count):
        at = (lanes.turn + i) % lanes.count
        if lane_may_run(lanes, &lanes.lane[at]):
            lanes.turn = at + 1
            return &lanes.lane[at]
    return NULL


cdef inline bint any_lane_may_run(const Lanes *lanes) noexcept nogil:
    cdef uint32_t i
    for i in range(lanes.count):
        if lane_may_run(lanes, &lanes.lane[i]):
            return True
    return False


cdef inline Job *lane_take(Lanes *lanes, Lane *lane) noexcept nogil:
    """The oldest load or close, or up to JOBS_AT_ONCE writes, unlinked.

    Those others may wait for a slow disk for seconds, so nothing is taken along with them.
    """
    cdef Job *jobs = lane.head
    cdef Job *last = jobs
    cdef uint32_t n = 1
    while (jobs.kind == JOB_WRITE and last.next != NULL and last.next.kind == JOB_WRITE and n < JOBS_AT_ONCE
            and not lane.hung):
        last = last.next
        n += 1
    lane.head = last.next
    lane.waiting -= n
    lane.busy += 1
    lanes.busy += 1
    last.next = NULL
    return jobs


cdef inline bint waited_in_vain(const Job *job, uint64_t patience_ns, uint64_t now) noexcept nogil:
    """Whether the client of a read has given up, or soon will; for an upload that goes on its transfer decides."""
    # Who has got a part of the file already is worth more, but is told before it would be given up as silent.
    return job.kind == JOB_LOAD and now - job.since_ns > (patience_ns * 5 // 2 if job.source.served else patience_ns)


cdef inline Job *lane_take_out(Lane *lane, bint everything, uint64_t patience_ns, uint64_t now) noexcept nogil:
    """Out of the lane: a list of what has waited too long, or of all that somebody waits for."""
    cdef Job *expired = NULL
    cdef Job *last = NULL
    cdef Job *job
    cdef Job **link = &lane.head
    while link[0] != NULL:
        job = link[0]
        if waited_in_vain(job, patience_ns, now) or (everything and job.kind <= JOB_WRITE):
            link[0] = job.next
            job.next = expired
            expired = job
            lane.waiting -= 1
        else:
            last = job
            link = &job.next
    lane.tail = last
    return expired
