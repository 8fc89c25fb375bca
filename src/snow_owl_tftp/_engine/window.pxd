# The two state machines of a transfer, sender and receiver, over one plain struct: the window.
#
# Pure: no socket, no clock, no memory.  Time comes in as an argument, decisions go out as ACT_ flags;
# the worker turns them into datagrams.  protocol/transfer.py is the same machine in readable Python
# and the oracle of the differential test: whoever changes a rule here changes it there.
#
# Invariants (checked in debug builds by flight_check):
#   sender:    0 <= window_base <= next <= sent_end <= window_base + windowsize, next <= last + 1
#   receiver:  next >= 1, in_window < windowsize, last is -1 until the short block arrived
# RFC 1350 section 2 (lock-step), RFC 7440 section 4 (windows), RFC 1123 section 4.2.3.1 (the
# Sorcerer's Apprentice: a repeated ACK never makes a lock-step sender send).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from snow_owl_tftp._engine.rtt cimport Retransmit, Rtt, rtt_back_off, rtt_forgive, rtt_init, rtt_sample
from snow_owl_tftp._engine.seq cimport ROLLOVER_TO_1, seq_ahead, seq_index_from

cdef enum:
    DELICATE_NS = 1000000000  # where speaking too early does harm, a short RTO is stretched up to this

cdef enum:
    SENDER = 0
    RECEIVER = 1

cdef enum:
    ACT_SEND = 1          # sender: send next .. window_end
    ACT_FIRST = 2         # send the first packet (request, OACK, ACK 0) again
    ACT_ACK = 4           # receiver: acknowledge next - 1
    ACT_DELIVER = 8       # receiver: the payload is the next in order
    ACT_FINAL = 16        # receiver: and it is the last one
    ACT_DONE = 32         # sender: everything is acknowledged
    ACT_GIVE_UP = 64      # no progress for too long
    ACT_DUPLICATE = 128   # nothing new: counted, not answered (unless another flag says so)
    ACT_STRAY = 256       # a block that was never sent or cannot be placed: ignored
    ACT_GAP = 512         # a block is missing

cdef struct Flight:
    Rtt rtt
    uint64_t deadline_ns      # when flight_on_timeout is due
    uint64_t progress_ns      # when the peer last moved the transfer on
    uint64_t timed_ns         # when timed_block was sent
    uint64_t sent_ns          # sender: when it last sent DATA, or gave up waiting for the answer to it
    int64_t timed_block       # the block_index whose answer is being timed, -1: none (Karn)
    int64_t window_base       # sender: oldest unacknowledged block_index; 0 while the OACK is in flight
    int64_t next              # sender: next to send; receiver: next expected
    int64_t sent_end          # sender: one past the greatest block_index ever sent
    int64_t last              # block_index of the final block; receiver: -1 until known
    uint32_t blksize_bytes    # 8..65464
    uint32_t windowsize       # blocks, 1..65535
    uint32_t in_window        # receiver: blocks since its last ACK
    uint32_t retries          # timeouts since the last progress
    uint32_t retransmits      # datagrams sent again
    uint8_t role              # SENDER or RECEIVER
    uint8_t opening           # 1 while only the first packet is in flight
    uint8_t proven            # 1 once the peer answered from its address
    uint8_t answered          # sender: the repeated ACK of this window was answered; receiver: the gap was reported
    int64_t twice             # sender: the newest block that was sent more than once
    int64_t recover           # sender: the newest block when the window was last restarted, -1: never mind
    uint8_t resent            # sender: a timeout sent the whole window again, and no ACK has come since
    uint8_t rollover          # ROLLOVER_TO_0 or ROLLOVER_TO_1; whoever knows better sets it after flight_init


cdef inline void flight_init(Flight *f, const Retransmit *policy, int role, uint32_t blksize_bytes,
                             uint32_t windowsize, int64_t last, bint opening, bint proven,
                             uint64_t fixed_ns, uint64_t now_ns) noexcept nogil:
    rtt_init(&f.rtt, policy, fixed_ns)
    f.role = role
    f.opening = opening
    f.proven = proven
    f.progress_ns = now_ns
    f.deadline_ns = now_ns + f.rtt.rto_ns
    f.timed_ns = now_ns
    f.sent_ns = 0
    f.recover = -1
    f.twice = 0
    f.timed_block = 0 if opening else -1
    f.window_base = 0 if opening else 1
    f.next = 1
    f.sent_end = 1
    f.last = last
    f.blksize_bytes = blksize_bytes
    f.windowsize = windowsize
    f.in_window = 0
    f.retries = 0
    f.retransmits = 0
    f.answered = 0
    f.resent = 0
    f.rollover = 0


cdef inline int64_t flight_window_end(const Flight *f) noexcept nogil:
    """The greatest block_index that may be sent now."""
    cdef int64_t end = f.window_base + f.windowsize - 1
    return end if end < f.last else f.last


cdef inline uint64_t flight_offset(const Flight *f, int64_t block_index) noexcept nogil:
    """Where a block begins in the content: past 4 GiB from block_index 65,610 on with the largest blksize."""
    return <uint64_t>(block_index - 1) * f.blksize_bytes


cdef inline uint64_t flight_patience_ns(const Flight *f, const Retransmit *policy) noexcept nogil:
    """How long to wait for the peer.

    A receiver waits four times longer than a sender: its repeated ACK makes the sender restart a
    window, so the sender's own timer, which knows better what is lost, should come first.  A sender
    waits as long for the ACK of the last block: the peer may have it all and have moved on, and a boot
    ROM takes a late DATA for the answer to its next request.
    """
    cdef uint64_t wait_ns = f.rtt.rto_ns
    if f.opening or f.rtt.fixed_ns:
        return wait_ns
    if f.role == RECEIVER or f.sent_end > f.last:
        # Up to a second: a longer RTO has backed off already, and a receiver's dally does not last for ever.
        wait_ns = wait_ns * 4 if wait_ns * 4 < DELICATE_NS else wait_ns if wait_ns > DELICATE_NS else DELICATE_NS
    return wait_ns


cdef inline void flight_progress(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    if f.retries:
        rtt_forgive(&f.rtt, policy)
    f.retries = 0
    f.answered = 0
    f.proven = 1
    f.progress_ns = now_ns
    f.deadline_ns = now_ns + flight_patience_ns(f, policy)


cdef inline void flight_restart_clocks(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """We could not send, for want of bytes from a disk or a pipe: the peer owed us nothing meanwhile, and an
    answer to what left before that measures us, not the path."""
    f.progress_ns = now_ns
    f.timed_block = -1
    f.deadline_ns = now_ns + flight_patience_ns(f, policy)


cdef inline void flight_opened(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """The first packet was answered."""
    if f.opening and f.timed_block == 0:
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
    f.timed_block = -1
    f.opening = 0
    if f.role == SENDER:
        f.window_base = 1
    flight_progress(f, policy, now_ns)


cdef inline bint flight_may_restart(const Flight *f, uint64_t now_ns) noexcept nogil:
    """No answer to what was sent last can be here in less than half the shortest round trip: such an ACK
    was doubled or overtaken on its way, and says nothing about loss."""
    return now_ns - f.sent_ns >= f.rtt.least_ns // 2


cdef inline void flight_restart(Flight *f, uint64_t now_ns) noexcept nogil:
    f.recover = f.sent_end - 1
    f.next = f.window_base
    # The peer has just said that window_base is missing, so an ACK of it answers the copy that is sent now:
    # no ambiguity in Karn's sense.  On a lossy path hardly any window passes whole, and this is the sample.
    f.timed_block = f.window_base
    f.timed_ns = now_ns
    f.sent_ns = now_ns


cdef inline int sender_on_ack(Flight *f, const Retransmit *policy, uint16_t block, uint64_t now_ns) noexcept nogil:
    """ACK of `block`; RFC 7440 section 4: what follows it is sent next."""
    cdef int64_t acked
    if f.opening:
        if block != 0:
            return ACT_STRAY
        flight_opened(f, policy, now_ns)
        return ACT_SEND
    acked = seq_index_from(f.window_base - 1, block, f.rollover)
    if acked >= f.sent_end:
        return ACT_STRAY
    if acked == f.window_base - 1:
        # RFC 1123 section 4.2.3.1: in lock-step a repeated ACK is never answered.  In a window it says
        # that the first block of the window is missing, and is answered once until something moves.  When
        # the acknowledged block was sent twice it may as well be the echo of its second copy, and to answer
        # echoes would double every window from then on; after a timeout the echoes have all been here.
        if (f.windowsize == 1 or f.answered or (acked <= f.twice and f.retries == 0)
                or f.sent_end == f.window_base or not flight_may_restart(f, now_ns)):
            return ACT_DUPLICATE
        f.answered = 1
        flight_restart(f, now_ns)
        return ACT_DUPLICATE | ACT_SEND | ACT_GAP
    # What comes faster than half the shortest round trip answers something older: no sample.
    if f.timed_block >= 0 and acked >= f.timed_block and now_ns - f.timed_ns >= f.rtt.least_ns // 2:
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
        f.timed_block = -1
    flight_progress(f, policy, now_ns)
    f.window_base = acked + 1
    if f.next <= acked:
        f.next = acked + 1
    if acked == f.last:
        return ACT_DONE
    if f.window_base < f.next:
        if f.resent or acked == f.recover:
            # No gap: the peer met the block that it had received last, said so, and is taking what follows
            # at this moment.  To send that again would make it acknowledge there too, for ever.
            f.resent = 0
            f.recover = -1
            return ACT_SEND
        if not flight_may_restart(f, now_ns):
            return 0
        flight_restart(f, now_ns)
        return ACT_SEND | ACT_GAP
    f.resent = 0
    return ACT_SEND


cdef inline void sender_sent(Flight *f, const Retransmit *policy, int64_t count, uint64_t now_ns) noexcept nogil:
    """Blocks next .. next + count - 1 were handed to the kernel."""
    cdef int64_t end = f.next + count
    if f.next < f.sent_end:
        f.retransmits += <uint32_t>((end if end < f.sent_end else f.sent_end) - f.next)
        f.twice = (end if end < f.sent_end else f.sent_end) - 1
    if end > f.sent_end:
        if f.timed_block < 0:
            f.timed_block = f.sent_end
            f.timed_ns = now_ns
        f.sent_end = end
    f.next = end
    f.sent_ns = now_ns
    f.deadline_ns = now_ns + flight_patience_ns(f, policy)


cdef inline int receiver_on_data(Flight *f, const Retransmit *policy, uint16_t block, uint32_t payload_bytes,
                                 uint64_t now_ns) noexcept nogil:
    """DATA `block` with `payload_bytes` (at most blksize_bytes; the caller has checked)."""
    cdef uint32_t ahead
    if f.opening:
        if block == 0 or block > f.windowsize:
            return ACT_STRAY
        flight_opened(f, policy, now_ns)
    ahead = seq_ahead(f.next, block, f.rollover)
    if ahead == 1 and f.next == 65536 and f.windowsize == 1 and f.rollover != ROLLOVER_TO_1:
        # In lock-step nobody can send block_index 65537 before 65536 was acknowledged: this sender
        # goes on with 1.  In a window it could as well be a lost block 0, so there it stays a gap.
        f.rollover = ROLLOVER_TO_1
        ahead = 0
    if ahead == 0:
        return receiver_accept(f, policy, payload_bytes, now_ns)
    if ahead == 65535 and f.in_window == 0:
        # The last block again, and it was acknowledged: that ACK was lost.  Within a window nothing was
        # said about it yet; then it is a doubled datagram, or a window sent again that goes on anyway.
        f.deadline_ns = now_ns + flight_patience_ns(f, policy)
        return ACT_DUPLICATE | ACT_ACK
    if ahead < f.windowsize:
        if f.answered:
            return ACT_DUPLICATE
        f.answered = 1
        f.in_window = 0
        f.timed_block = -1
        return ACT_GAP | ACT_ACK
    return ACT_DUPLICATE


cdef inline int receiver_accept(Flight *f, const Retransmit *policy, uint32_t payload_bytes,
                                uint64_t now_ns) noexcept nogil:
    if f.timed_block == f.next:
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
        f.timed_block = -1
    flight_progress(f, policy, now_ns)
    f.next += 1
    f.in_window += 1
    if payload_bytes < f.blksize_bytes:
        f.last = f.next - 1
        f.in_window = 0
        return ACT_DELIVER | ACT_FINAL
    if f.in_window >= f.windowsize:
        f.in_window = 0
        f.timed_block = f.next
        f.timed_ns = now_ns
        return ACT_DELIVER | ACT_ACK
    return ACT_DELIVER


cdef inline uint64_t flight_half_open_ns(const Flight *f, const Retransmit *policy) noexcept nogil:
    """How long an unproven peer is waited for: long enough for its share at the `timeout` it asked for."""
    cdef uint64_t asked_ns = f.rtt.fixed_ns * policy.half_open_datagrams
    return asked_ns if asked_ns > policy.half_open_give_up_ns else policy.half_open_give_up_ns


cdef inline int flight_on_timeout(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """deadline_ns has passed.  Sets the next deadline."""
    cdef uint64_t silent_ns = now_ns - f.progress_ns
    if f.proven:
        if silent_ns >= policy.give_up_ns and f.retries >= policy.min_retries:
            return ACT_GIVE_UP
    else:
        if silent_ns >= flight_half_open_ns(f, policy):
            return ACT_GIVE_UP
        if f.retries + 1 >= policy.half_open_datagrams:
            # An unproven peer may be a forged address: it has had its share.
            f.deadline_ns = f.progress_ns + flight_half_open_ns(f, policy)
            return 0
    f.retries += 1
    rtt_back_off(&f.rtt, policy)
    f.timed_block = -1
    f.sent_ns = now_ns
    f.answered = 0
    f.in_window = 0
    f.deadline_ns = now_ns + flight_patience_ns(f, policy)
    if f.opening:
        f.retransmits += 1
        return ACT_FIRST
    if f.role == SENDER:
        # First only the newest block of a window: whatever the receiver has, it answers with the ACK that
        # tells (a gap, or the last block again).  The whole window at once would make it acknowledge in
        # the middle of what it is receiving, and both sides would be out of step from then on.
        f.resent = f.retries > 1 and f.windowsize > 1
        f.next = f.sent_end - 1 if f.retries == 1 and f.sent_end > f.window_base else f.window_base
        return ACT_SEND
    f.retransmits += 1
    return ACT_ACK


cdef inline bint flight_check(const Flight *f) noexcept nogil:
    """The invariants above; debug builds stop on the first transfer that breaks one."""
    if f.role == RECEIVER:
        return f.next >= 1 and f.in_window < f.windowsize and (f.last == -1 or f.last == f.next - 1)
    return (0 <= f.window_base <= f.next <= f.sent_end <= f.window_base + f.windowsize + f.opening
            and f.next <= f.last + 1)
