# What sender and receiver have in common, over a Flight: the first packet, the timer, what is learned of the peer.
#
# protocol/exchange.py is the same in Python, with the reasons.

from libc.string cimport memset
from libc.stdint cimport int64_t, uint32_t, uint64_t
from snow_owl_tftp._engine.protocol.burst cimport burst_init, burst_limit
from snow_owl_tftp._engine.protocol.patience cimport (
    Patience, patience_level, patience_on_loss, patience_on_pause, patience_rto_ns)
from snow_owl_tftp._engine.protocol.rtt cimport Retransmit, rtt_is_about_one, rtt_sample
from snow_owl_tftp._engine.protocol.window cimport RECEIVER, SENDER, Flight

cdef enum:
    DELICATE_NS = 1000000000  # where speaking too early does harm, a short RTO is stretched up to this
    DOUBLINGS = 10            # of a negotiated timeout of 1 ms or more, to reach a second
    EQUAL_ADVANCES = 3        # more early ACKs in a row that advance by as many blocks are a client's habit


cdef inline void flight_init(Flight *f, const Retransmit *policy, const Patience *patience, int role,
                             uint32_t blksize_bytes, uint32_t windowsize, int64_t last, bint opening, bint proven,
                             uint64_t timeout_ns, uint64_t now_ns) noexcept nogil:
    """`patience`: what is remembered of the client."""
    memset(f, 0, sizeof(Flight))
    f.patience = patience[0]
    if f.patience.srtt_ns:
        f.rtt.srtt_ns = f.patience.srtt_ns
        f.rtt.rttvar_ns = f.patience.rttvar_ns
    burst_init(&f.burst, windowsize, blksize_bytes, f.patience.burst_blocks)
    f.role = role
    f.opening = opening
    f.proven = proven
    f.timeout_ns = timeout_ns
    f.blksize_bytes = blksize_bytes
    f.windowsize = windowsize
    f.last = last
    f.progress_ns = now_ns
    f.timed_ns = now_ns
    f.sent_ns = now_ns
    f.timed_block = 0 if opening else -1
    f.window_base = 0 if opening else 1
    f.next = 1
    f.sent_end = 1
    f.presumed = 1
    f.unit_base = 1
    f.run_first = 1
    f.burst_end = burst_limit(&f.burst)
    f.unit_blocks = f.burst.now
    f.unit_is_first = 1
    f.has_lost = f.patience.loses
    f.echo_last = -1
    f.stride = windowsize
    f.habit = EQUAL_ADVANCES
    f.deadline_ns = flight_end_ns(f, policy, now_ns + flight_wait_ns(f, policy))


cdef inline uint64_t flight_end_ns(const Flight *f, const Retransmit *policy, uint64_t deadline_ns) noexcept nogil:
    """`deadline_ns`, unless an unproven peer is given up before: whatever `timeout` it asked for, it may be forged."""
    cdef uint64_t half_open_ns = f.progress_ns + policy.half_open_give_up_ns
    return half_open_ns if not f.proven and half_open_ns < deadline_ns else deadline_ns


cdef inline uint64_t flight_offset(const Flight *f, int64_t block_index) noexcept nogil:
    """Where a block begins in the content: past 4 GiB from block_index 65,610 on with the largest blksize."""
    return <uint64_t>(block_index - 1) * f.blksize_bytes


cdef inline uint64_t flight_rto_ns(const Flight *f, const Retransmit *policy) noexcept nogil:
    """How long the packet that was sent last is waited for."""
    cdef uint64_t wait_ns
    cdef uint32_t level = 0
    if not f.timeout_ns:
        if f.retries and f.role == SENDER and f.windowsize == 1 and not f.opening:
            level = patience_level(&f.patience)
        return patience_rto_ns(&f.patience, &f.rtt, policy, f.retries - level if f.retries > level else 0)
    if f.timeout_ns >= DELICATE_NS:
        return f.timeout_ns
    # `utimeout`: while nothing comes it doubles, up to a second.
    wait_ns = f.timeout_ns << (f.retries if f.retries < DOUBLINGS else DOUBLINGS)
    return wait_ns if wait_ns < DELICATE_NS else DELICATE_NS


cdef inline uint64_t flight_wait_ns(const Flight *f, const Retransmit *policy) noexcept nogil:
    """The same, stretched where speaking too early does harm: a receiver's repeated ACK makes the sender restart a
    window, and a boot ROM takes a late last block for the answer to its next request."""
    cdef uint64_t wait_ns = flight_rto_ns(f, policy)
    if f.timeout_ns:
        return wait_ns
    if not f.opening and (f.role == RECEIVER or f.sent_end > f.last):
        wait_ns = wait_ns * 4 if wait_ns * 4 < DELICATE_NS else wait_ns if wait_ns > DELICATE_NS else DELICATE_NS
    # In lock-step never sooner than a second: there are senders that answer every ACK with a block.
    if f.role == RECEIVER and f.windowsize == 1 and wait_ns < policy.initial_ns:
        wait_ns = policy.initial_ns
    return wait_ns


cdef inline void flight_conclude(Flight *f, const Retransmit *policy) noexcept nogil:
    """The client has gone on, and did not answer the repetition twice: it was a loss, if the answer was prompt."""
    if f.trial_repeats == 0 or not rtt_is_about_one(&f.rtt, policy, f.trial_answer_ns):
        return
    flight_on_loss(f, policy)
    if f.trial_repeats == 1 and not flight_is_of_first_copy(f, f.trial_answer_ns):
        rtt_sample(&f.rtt, policy, f.trial_answer_ns)
    f.trial_repeats = 0


cdef inline bint flight_is_of_first_copy(const Flight *f, uint64_t answer_ns) noexcept nogil:
    """Whether this came too soon for an answer to a probe: the timer ran out while the window still queued.  Where
    blocks overtake one another nobody knows."""
    cdef uint64_t least_ns = f.rtt.least_ns if f.rtt.least_ns else f.rtt.srtt_ns
    return f.role == SENDER and f.windowsize > 1 and not f.burst.overtakes and answer_ns < least_ns // 2


cdef inline void flight_on_loss(Flight *f, const Retransmit *policy) noexcept nogil:
    """Something was lost, for certain."""
    patience_on_loss(&f.patience, policy)
    f.echoes = 0


cdef inline void flight_on_second_answer(Flight *f, const Retransmit *policy) noexcept nogil:
    """Another copy arrived too.  When all have, the client had only paused."""
    cdef uint64_t least_ns
    if f.trial_repeats == 0:
        return
    f.trial_repeats -= 1
    if f.trial_repeats:
        return
    if rtt_is_about_one(&f.rtt, policy, f.trial_answer_ns) and f.trial_late_ns >= policy.initial_ns:
        return                                   # the peer's timer is a second too, and has met ours
    least_ns = f.rtt.least_ns
    rtt_sample(&f.rtt, policy, f.trial_late_ns)
    f.rtt.least_ns = least_ns                    # a pause is no fact about the path
    patience_on_pause(&f.patience, policy, f.trial_late_ns)


cdef inline void flight_progress(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """The peer has moved the transfer on."""
    if f.retries and not f.window_resent:
        f.trial_late_ns = now_ns - f.asked_ns
        f.trial_answer_ns = now_ns - f.repeated_ns
        f.trial_repeats = f.retries
    elif f.retries == 0:
        flight_conclude(f, policy)
    f.retries = 0
    f.proven = 1
    f.progress_ns = now_ns
    f.deadline_ns = now_ns + flight_wait_ns(f, policy)


cdef inline void flight_restart_clocks(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """We could not send, for want of bytes from a disk or a pipe: the peer owed us nothing meanwhile, and an
    answer to what left before that measures us, not the path."""
    f.progress_ns = now_ns
    f.timed_block = -1
    f.deadline_ns = now_ns + flight_wait_ns(f, policy)


cdef inline void flight_opened(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """The first packet was answered."""
    if f.opening and f.timed_block == 0:
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
        f.rtt.least_ns = 0                       # a client may think about the options for a while
    f.timed_block = -1
    flight_progress(f, policy, now_ns)
    f.opening = 0
    if f.role == SENDER:
        f.window_base = 1
    f.deadline_ns = now_ns + flight_wait_ns(f, policy)


cdef inline void flight_remember(const Flight *f, Patience *patience) noexcept nogil:
    """What the client's next transfer is to know."""
    patience[0] = f.patience
    if f.role == SENDER and f.burst.is_learned:
        patience.burst_blocks = burst_limit(&f.burst)
    if f.rtt.srtt_ns and (patience.loses or patience.burst_blocks):
        patience.srtt_ns = f.rtt.srtt_ns
        patience.rttvar_ns = f.rtt.rttvar_ns
