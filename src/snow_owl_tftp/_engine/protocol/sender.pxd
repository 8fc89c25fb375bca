# The sender of a transfer, RFC 7440's DSND, over a Flight.
#
# protocol/sender.py is the same in Python, with the reasons.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from snow_owl_tftp._engine.protocol.burst cimport (
    burst_after, burst_forget, burst_limit, burst_lost, burst_lost_behind_pause, burst_shrink, burst_whole,
    burst_whole_behind_pause)
from snow_owl_tftp._engine.protocol.exchange cimport (
    flight_on_loss, flight_on_second_answer, flight_opened, flight_progress, flight_wait_ns)
from snow_owl_tftp._engine.protocol.patience cimport patience_on_answer, patience_on_loss
from snow_owl_tftp._engine.protocol.rtt cimport (
    Retransmit, rtt_is_about_one, rtt_is_too_soon, rtt_rto_ns, rtt_sample, rtt_soonest_ns)
from snow_owl_tftp._engine.protocol.seq cimport seq_index_from
from snow_owl_tftp._engine.protocol.window cimport ACT_DONE, ACT_DUPLICATE, ACT_GAP, ACT_SEND, ACT_STRAY, Flight

cdef enum:
    SHORT_PAUSE_NS = 2000000  # between bursts of a client that has lost nothing: time to empty a socket buffer
    DOUBLED_NS = 50000        # an ACK that comes again sooner may have been doubled on its way
    FEELING_NS = 250000000    # a first pause is no longer: the answer to an OACK may have taken seconds
    FEW_BLOCKS = 8            # 12 KB on Ethernet; TCP sends 10 to a peer of which it knows nothing (RFC 6928)
    DEAF_PROBES = 3           # so many probes without an answer: this client answers none
    NUMBERS = 65535           # block numbers, but one
    RECENT = 1024             # an ACK of one of so many blocks before the window has been overtaken


cdef inline int64_t flight_window_end(const Flight *f) noexcept nogil:
    """The greatest block_index that the window allows."""
    cdef int64_t end = f.window_base + f.windowsize - 1
    return end if end < f.last else f.last


cdef inline int64_t flight_send_end(const Flight *f) noexcept nogil:
    """The greatest block_index that may be sent now: that of the window, or of the burst."""
    cdef int64_t end = flight_window_end(f)
    return end if end < f.burst_end else f.burst_end


cdef inline bint flight_is_pausing(const Flight *f) noexcept nogil:
    """Whether the window allows more, but the burst does not."""
    return not f.opening and not f.holds and f.burst_end < f.next <= flight_window_end(f)


cdef inline uint64_t flight_pause_ns(const Flight *f, const Retransmit *policy) noexcept nogil:
    """How long the path's queue needs for a burst: by so much an ACK takes longer than the shortest round trip."""
    cdef uint64_t pause_ns
    if f.rtt.srtt_ns == 0:
        return policy.floor_ns
    if f.feels and not f.burst.is_learned:
        # The first loss on an unknown path: what would follow is in vain where blocks overtake one another.
        pause_ns = f.rtt.srtt_ns + f.rtt.rttvar_ns
        if pause_ns > FEELING_NS:
            pause_ns = FEELING_NS
        return pause_ns if pause_ns > f.burst.least_pause_ns else f.burst.least_pause_ns
    pause_ns = f.rtt.srtt_ns - (f.rtt.least_ns if f.rtt.least_ns < f.rtt.srtt_ns else f.rtt.srtt_ns) + f.rtt.rttvar_ns
    if pause_ns > f.rtt.srtt_ns:
        pause_ns = f.rtt.srtt_ns
    if f.burst.is_learned:
        return pause_ns if pause_ns > f.burst.least_pause_ns else f.burst.least_pause_ns
    return pause_ns if pause_ns < SHORT_PAUSE_NS else SHORT_PAUSE_NS


cdef inline uint64_t flight_rest_ns(const Flight *f, const Retransmit *policy) noexcept nogil:
    """What may be sent was sent: how long until it goes on.  ACK 0 that came again at once may be doubled, or the only
    report that block 1 is missing: the answer to the window tells."""
    cdef uint64_t wait_ns, rto_ns
    if flight_is_pausing(f):
        return flight_pause_ns(f, policy)
    wait_ns = flight_wait_ns(f, policy)
    if f.window_base == 1 and f.doubted == 1 and not f.restarted and f.retries == 0 and f.rtt.srtt_ns:
        rto_ns = rtt_rto_ns(&f.rtt, policy)
        return rto_ns if rto_ns < wait_ns else wait_ns
    return wait_ns


cdef inline void flight_rest(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    f.deadline_ns = now_ns + flight_rest_ns(f, policy)


cdef inline void sender_allow_burst(Flight *f) noexcept nogil:
    f.holds = 0
    f.burst_end = (f.window_base if f.window_base > f.presumed else f.presumed) + f.burst.now - 1


cdef inline void sender_begin_unit(Flight *f) noexcept nogil:
    """What is sent from here on meets an empty path."""
    f.unit_base = f.window_base
    f.unit_blocks = f.burst.now
    f.unit_is_first = 1


cdef inline void sender_note_arrived(Flight *f) noexcept nogil:
    """Bursts that were acknowledged whole."""
    while f.window_base - f.unit_base >= f.unit_blocks:
        f.unit_base += f.unit_blocks
        if f.unit_blocks >= burst_limit(&f.burst):
            burst_whole(&f.burst)
        f.unit_blocks = burst_after(&f.burst, f.unit_blocks)
        if f.unit_blocks > f.burst.now:
            f.burst.now = f.unit_blocks
        if not f.unit_is_first:
            burst_whole_behind_pause(&f.burst)
        f.unit_is_first = 0
    if f.window_base == f.next:
        sender_begin_unit(f)


cdef inline void sender_expect_echoes(Flight *f, int64_t first, int64_t last, uint32_t count,
                                      uint64_t now_ns) noexcept nogil:
    """Blocks `first` to `last` were sent again, perhaps in vain: so many ACKs of one of them may be repeated."""
    if f.echoes == 0 or first < f.echo_first:
        f.echo_first = first
    f.echo_last = last
    f.echo_ns = now_ns
    f.echoes += count


cdef inline bint sender_is_echo(Flight *f, uint64_t now_ns) noexcept nogil:
    """Whether the ACK before the window may be the second answer to a block that was sent twice.  Not
    sooner than a round trip after the copies; but perhaps much later."""
    if not f.echo_first <= f.window_base - 1 <= f.echo_last or f.echoes == 0:
        return False
    if rtt_is_too_soon(&f.rtt, now_ns - f.echo_ns):
        return False
    f.echoes -= 1
    return True


cdef inline bint sender_could_be_missing(const Flight *f, uint64_t now_ns) noexcept nogil:
    """Whether an ACK could say so by now of block `window_base`: it was sent a round trip ago.

    ACK 0 is different, if the OACK was sent once: whoever repeats it misses block 1, and no round trip is known.
    """
    cdef uint64_t sent_ns = f.sent_ns if f.window_base >= f.run_first else f.restart_ns
    if f.window_base == 1 and not f.restarted:
        return now_ns - sent_ns >= DOUBLED_NS
    return now_ns - sent_ns >= rtt_soonest_ns(&f.rtt)


cdef inline void sender_hasten(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """An ACK came again too soon to be believed: see flight_rest_ns."""
    cdef uint64_t soon_ns = now_ns + flight_rest_ns(f, policy)
    if not flight_is_pausing(f) and soon_ns < f.deadline_ns:
        f.deadline_ns = soon_ns


cdef inline int sender_restart(Flight *f, const Retransmit *policy, bint is_silent, uint64_t now_ns) noexcept nogil:
    """What was reported missing is sent again, and what follows it: the receiver has discarded that.  `is_silent`: it
    took a timeout to hear of it."""
    cdef int64_t arrived = f.window_base - f.unit_base
    cdef uint64_t answer_ns = now_ns - f.timed_ns
    if arrived > burst_limit(&f.burst):
        arrived = burst_limit(&f.burst)
    if f.unit_is_first:
        burst_lost(&f.burst, <uint32_t>arrived, is_silent)
    else:
        burst_lost_behind_pause(&f.burst, <uint32_t>arrived, flight_pause_ns(f, policy), rtt_rto_ns(&f.rtt, policy))
    f.feels = not f.has_lost or (is_silent and arrived >= FEW_BLOCKS)
    f.has_lost = 1
    f.window_resent = 0
    if (f.timed_block == f.window_base and not f.timed_resent and f.rtt.srtt_ns // 2 <= answer_ns
            and rtt_is_about_one(&f.rtt, policy, answer_ns)):
        # What told of the loss was sent with the lost block.
        rtt_sample(&f.rtt, policy, answer_ns)
    sender_begin_unit(f)
    f.presumed = f.window_base
    f.restarted = f.window_base
    f.restart_end = f.sent_end - 1
    f.restart_ns = now_ns
    f.restart_is_open = 1
    f.is_vain = 0
    f.next = f.window_base
    # The peer has just said that window_base is missing, so an ACK of it answers the copy that is sent now:
    # no ambiguity in Karn's sense.  On a lossy path hardly any window passes whole, and this is the sample.
    f.timed_block = f.window_base
    f.timed_resent = 1
    f.timed_ns = now_ns
    sender_allow_burst(f)
    return ACT_SEND | ACT_GAP


cdef inline void sender_on_overtaken(Flight *f) noexcept nogil:
    """Datagrams overtake one another on this path: less must be in flight."""
    if not f.is_vain and f.windowsize > 1:
        f.is_vain = 1
        burst_shrink(&f.burst, False)


cdef inline bint sender_judge_restart(Flight *f, const Retransmit *policy, int64_t acked,
                                      uint64_t now_ns) noexcept nogil:
    """Whether this ACK came too early for an answer to the last restart: then that was in vain."""
    if not f.restart_is_open or acked < f.restarted:
        return False
    if not rtt_is_too_soon(&f.rtt, now_ns - f.restart_ns):
        f.restart_is_open = 0
        if rtt_is_about_one(&f.rtt, policy, now_ns - f.restart_ns):
            patience_on_loss(&f.patience, policy)
        return False
    if not f.is_vain and (f.repeated_ns == 0 or f.restart_ns > f.repeated_ns + rtt_rto_ns(&f.rtt, policy)):
        sender_on_overtaken(f)
        sender_expect_echoes(f, f.restarted, f.restart_end, <uint32_t>(f.next - f.restarted), f.restart_ns)
    return True


cdef inline void sender_take_sample(Flight *f, const Retransmit *policy, int64_t acked, uint64_t now_ns) noexcept nogil:
    """A block that was sent once is timed by its first ACK, however soon that comes; the second copy of one that was
    reported missing may have been overtaken by the first."""
    if f.timed_block < 0 or acked < f.timed_block:
        return
    if not f.timed_resent or now_ns - f.timed_ns >= rtt_soonest_ns(&f.rtt):
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
    f.timed_block = -1


cdef inline void sender_take_back_restart(Flight *f) noexcept nogil:
    """Nothing was missing: goes on behind what was sent."""
    f.echoes = 0
    sender_expect_echoes(f, f.restarted, f.sent_end - 1,
                         <uint32_t>(f.next - f.restarted) if f.next > f.restarted else 0, f.restart_ns)
    f.restart_is_open = 0
    f.restart_ns = 0
    f.run_first = f.sent_end
    f.next = f.sent_end


cdef inline void sender_note_advance(Flight *f, uint32_t advance, bint is_early) noexcept nogil:
    """A client that acknowledges within the window: what it says there is no report."""
    if advance != f.advance:
        f.advances = 0
        f.early = 0
    f.advance = advance
    f.advances += 1
    f.early |= is_early
    if f.early and f.advances > f.habit and advance < f.stride:
        f.stride = advance
        burst_forget(&f.burst)
        is_early = True
    if is_early and f.stride < f.windowsize:
        sender_take_back_restart(f)


cdef inline int sender_on_repeated_ack(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """RFC 1123 section 4.2.3.1: in lock-step a repeated ACK is never answered.  In a window it says that the first
    block of the window is missing."""
    f.advance = 0
    if sender_is_echo(f, now_ns):
        if f.window_base == 1:
            f.trial_repeats = 0                  # it had thought about the options, not about blocks
        else:
            flight_on_second_answer(f, policy)
        return ACT_DUPLICATE
    if f.windowsize == 1 or f.sent_end == f.window_base:
        return ACT_DUPLICATE
    if not sender_could_be_missing(f, now_ns):
        f.doubted = f.window_base
        sender_hasten(f, policy, now_ns)
        return ACT_DUPLICATE
    if rtt_is_about_one(&f.rtt, policy, now_ns - f.sent_ns):
        f.deaf = 0
    return ACT_DUPLICATE | sender_restart(f, policy, f.retries > 0, now_ns)


cdef inline bint sender_is_taking(const Flight *f, uint64_t now_ns) noexcept nogil:
    """Whether this ACK may only tell that the receiver met the block that it had acknowledged last, in a window that
    was sent again: it is taking what follows at this moment."""
    cdef uint64_t least_ns = f.rtt.least_ns if f.rtt.least_ns else f.rtt.srtt_ns
    return f.window_resent and now_ns - f.repeated_ns <= least_ns + least_ns // 2


cdef inline int sender_on_new_ack(Flight *f, const Retransmit *policy, int64_t acked, uint64_t now_ns) noexcept nogil:
    """RFC 7440 section 4: the window slides, and what follows the acknowledged block is sent next."""
    cdef uint32_t advance = <uint32_t>(acked - f.window_base + 1)
    cdef bint is_report, is_early, is_silent = f.retries > 0
    is_early = sender_judge_restart(f, policy, acked, now_ns)
    sender_note_advance(f, advance, is_early)
    sender_take_sample(f, policy, acked, now_ns)
    is_report = acked + 1 < f.next and advance % f.stride != 0
    if f.retries > 1:
        f.deaf += 1
    elif f.retries and not f.window_resent:
        f.deaf = 0
    if f.windowsize == 1:
        patience_on_answer(&f.patience, f.retries)
    flight_progress(f, policy, now_ns)
    f.window_base = acked + 1
    if f.next < f.window_base:
        f.next = f.window_base
    sender_note_arrived(f)
    if acked == f.last:
        return ACT_DONE
    if is_report and not sender_is_taking(f, now_ns):
        if f.trial_repeats:
            # The probe was answered with what is missing: who had only paused would miss nothing.
            f.trial_repeats = 0
            flight_on_loss(f, policy)
        if sender_could_be_missing(f, now_ns):
            return sender_restart(f, policy, is_silent, now_ns)
        f.doubted = f.window_base
    f.feels = f.feels and is_early
    f.window_resent = 0
    sender_allow_burst(f)
    return ACT_SEND


cdef inline int sender_on_ack(Flight *f, const Retransmit *policy, uint16_t block, uint64_t now_ns) noexcept nogil:
    """ACK of `block`."""
    cdef int64_t acked
    if f.opening:
        if block != 0:
            return ACT_STRAY
        if f.retries:
            sender_expect_echoes(f, 0, 0, f.retries, f.repeated_ns)
        flight_opened(f, policy, now_ns)
        sender_allow_burst(f)
        return ACT_SEND
    acked = seq_index_from(f.window_base - 1, block, f.rollover)
    if acked >= f.sent_end:
        if acked - f.window_base >= NUMBERS - (f.windowsize if f.windowsize < <uint32_t>RECENT else <uint32_t>RECENT):
            sender_on_overtaken(f)
        return ACT_STRAY
    if acked == f.window_base - 1:
        return sender_on_repeated_ack(f, policy, now_ns)
    return sender_on_new_ack(f, policy, acked, now_ns)


cdef inline void sender_sent(Flight *f, const Retransmit *policy, int64_t count, uint64_t now_ns) noexcept nogil:
    """Blocks next .. next + count - 1 were handed to the kernel."""
    cdef int64_t end = f.next + count
    if f.next < f.sent_end:
        f.retransmits += <uint32_t>((end if end < f.sent_end else f.sent_end) - f.next)
    if now_ns != f.sent_ns or f.next < f.run_first:
        f.run_first = f.next
    f.sent_ns = now_ns
    if end > f.sent_end:
        if f.timed_block < 0:
            f.timed_block = f.sent_end
            f.timed_resent = 0
            f.timed_ns = now_ns
        f.sent_end = end
    f.next = end
    flight_rest(f, policy, now_ns)


cdef inline void sender_go_on(Flight *f) noexcept nogil:
    """A pause is over: the path has delivered the last burst, or never will.  It is timed from here."""
    f.timed_block = -1
    f.feels = 0
    if f.skips:
        f.skips = 0
        f.next = f.sent_end - 1
    f.presumed = f.next
    f.burst.now = burst_after(&f.burst, f.burst.now)
    sender_allow_burst(f)


cdef inline void sender_keep_to_few(Flight *f) noexcept nogil:
    """Who has acknowledged no block of the file has shown little: its ACK 0 may be forged.  It is sent its window, and
    that once more; from then on a few of its blocks each time, in turns."""
    cdef uint32_t few = burst_limit(&f.burst) if burst_limit(&f.burst) < <uint32_t>FEW_BLOCKS else <uint32_t>FEW_BLOCKS
    cdef int64_t parts = (f.sent_end - 1 + few - 1) // few
    if f.window_base != 1 or f.retries <= 2 or parts <= 1:
        return
    f.next = 1 + (f.retries - 3) % parts * few
    f.presumed = f.next
    f.burst_end = f.next + few - 1
    f.holds = 1


cdef inline void sender_repeat(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """No ACK came: first a probe, the newest block (behind the oldest, if that was reported), then the window."""
    cdef int64_t newest = f.sent_end - 1
    if f.stride < f.windowsize:
        f.stride = f.windowsize
        f.habit *= 2
    sender_begin_unit(f)
    f.holds = 0
    if f.retries == 1 and not f.timeout_ns and f.deaf < DEAF_PROBES:
        f.skips = (f.window_base == f.restarted or f.window_base == f.doubted) and newest > f.window_base
        f.next = f.window_base if f.skips else newest
        f.presumed = f.next
        f.burst_end = f.next
        sender_expect_echoes(f, f.next, f.next, 1, now_ns)
        return
    f.window_resent = newest > f.window_base
    if f.deaf >= DEAF_PROBES:
        burst_shrink(&f.burst, True)
    f.next = f.window_base
    f.presumed = f.window_base
    sender_allow_burst(f)
    sender_keep_to_few(f)
    sender_expect_echoes(f, f.next, newest, 1, now_ns)
