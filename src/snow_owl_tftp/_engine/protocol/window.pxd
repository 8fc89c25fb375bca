# The two state machines of a transfer, sender and receiver, over one plain struct: the window.
#
# Pure: no socket, no clock, no memory.  Time comes in as an argument, decisions go out as ACT_ flags;
# the worker turns them into datagrams.  protocol/sender.py and receiver.py are the same machine in
# readable Python, with the reasons, and the oracle of the differential test: whoever changes a rule here changes it
# there.
#
# Invariants (checked in debug builds by flight_check):
#   sender:    0 <= window_base <= next <= sent_end <= window_base + windowsize, next <= last + 1
#   receiver:  next >= 1, in_window < windowsize, last is -1 until the short block arrived
# RFC 1350 section 2 (lock-step), RFC 7440 section 4 (windows), RFC 1123 section 4.2.3.1 (the
# Sorcerer's Apprentice: a repeated ACK never makes a lock-step sender send).

from libc.string cimport memset
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from snow_owl_tftp._engine.protocol.burst cimport (
    Burst, burst_after, burst_forget, burst_init, burst_limit, burst_lost, burst_lost_behind_pause, burst_shrink,
    burst_whole, burst_whole_behind_pause)
from snow_owl_tftp._engine.protocol.patience cimport (
    Patience, patience_level, patience_on_answer, patience_on_loss, patience_on_pause, patience_rto_ns)
from snow_owl_tftp._engine.protocol.rtt cimport (
    Retransmit, Rtt, rtt_is_about_one, rtt_rto_ns, rtt_is_too_soon, rtt_sample, rtt_soonest_ns)
from snow_owl_tftp._engine.protocol.seq cimport ROLLOVER_TO_1, seq_ahead, seq_index_from

cdef enum:
    DELICATE_NS = 1000000000  # where speaking too early does harm, a short RTO is stretched up to this
    DOUBLINGS = 10            # of a negotiated timeout of 1 ms or more, to reach a second
    SHORT_PAUSE_NS = 2000000  # between bursts of a client that has lost nothing: time to empty a socket buffer
    DOUBLED_NS = 50000        # an ACK that comes again sooner may have been doubled on its way
    FEELING_NS = 250000000    # a first pause is no longer: the answer to an OACK may have taken seconds
    EQUAL_ADVANCES = 3        # more early ACKs in a row that advance by as many blocks are a client's habit
    FEW_BLOCKS = 8            # 12 KB on Ethernet; TCP sends 10 to a peer of which it knows nothing (RFC 6928)
    DEAF_PROBES = 3           # so many probes without an answer: this client answers none
    NUMBERS = 65535           # block numbers, but one
    RECENT = 1024             # an ACK of one of so many blocks before the window has been overtaken
    DALLY_TIMEOUTS = 3        # the last ACK is repeated on demand for so many negotiated timeouts, and at least ...

cdef extern from *:
    """
    #define DALLY_NS 7000000000ULL   /* ... so long: 1 + 2 + 4 s */
    """
    const uint64_t DALLY_NS

cdef enum:
    SENDER = 0
    RECEIVER = 1

cdef enum:
    ACT_SEND = 1          # sender: send next .. flight_send_end
    ACT_FIRST = 2         # send the first packet (request, OACK, ACK 0) again
    ACT_ACK = 4           # receiver: acknowledge next - 1
    ACT_DELIVER = 8       # receiver: the payload is the next in order
    ACT_FINAL = 16        # receiver: and it is the last one
    ACT_DONE = 32         # sender: everything is acknowledged
    ACT_GIVE_UP = 64      # no progress for too long
    ACT_DUPLICATE = 128   # nothing new: counted, not answered (unless another flag says so)
    ACT_STRAY = 256       # a block that was never sent or cannot be placed: ignored
    ACT_GAP = 512         # a block is missing
    ACT_GO_ON = 1024      # sender: with ACT_SEND, a pause between bursts is over: no timeout

cdef struct Flight:
    Rtt rtt
    Patience patience
    Burst burst
    uint64_t timeout_ns       # as negotiated (RFC 2349), 0: the timer follows `patience`
    uint64_t deadline_ns      # when flight_on_timeout is due
    uint64_t progress_ns      # when the peer last moved the transfer on
    uint64_t timed_ns         # when timed_block was sent
    uint64_t sent_ns          # when it last sent DATA, an ACK or the first packet
    uint64_t asked_ns         # after a timeout: when the first copy was sent ...
    uint64_t repeated_ns      # ... and the last
    uint64_t trial_late_ns    # a repetition that was answered: since the first copy ...
    uint64_t trial_answer_ns  # ... and since the last
    uint64_t echo_ns          # sender: when blocks were sent again, perhaps in vain
    uint64_t restart_ns       # sender: when the window was last restarted
    int64_t timed_block       # the block_index whose answer is being timed, -1: none (Karn)
    int64_t window_base       # sender: oldest unacknowledged block_index; 0 while the OACK is in flight
    int64_t next              # sender: next to send; receiver: next expected
    int64_t sent_end          # sender: one past the greatest block_index ever sent
    int64_t last              # block_index of the final block; receiver: -1 until known
    int64_t burst_end         # sender: the newest block_index that this burst may send
    int64_t presumed          # sender: blocks before it have arrived or never will: they fill no buffer
    int64_t unit_base         # sender: where the burst began whose blocks are being acknowledged
    int64_t run_first         # sender: first of the blocks that were sent at sent_ns, in a row with the newest
    int64_t restarted         # sender: where the window was last restarted, 0: nowhere
    int64_t restart_end       # sender: the newest block then
    int64_t doubted           # sender: a block that was reported missing, but too early to be believed
    int64_t echo_first        # sender: blocks that were sent twice in vain ...
    int64_t echo_last
    uint32_t unit_blocks      # sender: how many blocks that burst has
    uint32_t echoes           # ... and how many ACKs that may bring
    uint32_t trial_repeats    # copies beside the first that have not been answered, 0: no trial
    uint32_t blksize_bytes    # 8..65464
    uint32_t windowsize       # blocks, 1..65535
    uint32_t in_window        # receiver: blocks since its last ACK
    uint32_t retries          # timeouts since the last progress
    uint32_t retransmits      # datagrams sent again
    uint32_t stride           # sender: ACKs that advance by a multiple of this are no reports
    uint32_t advance          # sender: blocks by which the last ACK advanced
    uint32_t advances         # sender: how many ACKs in a row did so
    uint32_t habit            # sender: more than that are one
    uint32_t deaf             # sender: probes in a row that brought no answer
    uint8_t role              # SENDER or RECEIVER
    uint8_t opening           # 1 while only the first packet is in flight
    uint8_t proven            # 1 once the peer answered from its address
    uint8_t reported          # receiver: the gap was reported
    uint8_t window_resent     # sender: a timeout sent several blocks again, and no ACK has come since
    uint8_t holds             # sender: nothing is sent behind this burst before an answer or a timeout
    uint8_t skips             # sender: the probe is not complete, the newest block follows
    uint8_t early             # sender: one of `advances` came too early for what was sent again
    uint8_t timed_resent      # sender: the timed block is the second copy of one that was reported missing
    uint8_t restart_is_open   # sender: nothing has answered the restart yet
    uint8_t is_vain           # sender: blocks were seen to overtake one another since
    uint8_t has_lost          # sender: something was reported missing, or the path is known to lose
    uint8_t feels             # sender: nothing follows this burst before its answer could be here
    uint8_t unit_is_first     # sender: no pause was before the burst that is being acknowledged
    uint8_t rollover          # ROLLOVER_TO_0 or ROLLOVER_TO_1; whoever knows better sets it after flight_init


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


# --- what both roles have in common: protocol/exchange.py ---------------------------------------------------

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


# --- the sender: protocol/sender.py ------------------------------------------------------------------------

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


# --- the receiver: protocol/receiver.py ---------------------------------------------------------------------

cdef inline int receiver_acknowledge(Flight *f, uint64_t now_ns) noexcept nogil:
    f.in_window = 0
    f.sent_ns = now_ns
    return ACT_ACK


cdef inline bint receiver_was_long_silent(const Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """Whether the answer to our last ACK should be here by now."""
    return f.rtt.srtt_ns != 0 and now_ns - f.sent_ns >= rtt_rto_ns(&f.rtt, policy)


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
        flight_on_second_answer(f, policy)
        f.deadline_ns = now_ns + flight_wait_ns(f, policy)
        return ACT_DUPLICATE | receiver_acknowledge(f, now_ns)
    if ahead < f.windowsize:
        # Said once, and again if blocks still come after it a round trip later.
        if f.reported and not receiver_was_long_silent(f, policy, now_ns):
            return ACT_DUPLICATE
        f.reported = 1
        f.timed_block = -1
        return ACT_GAP | receiver_acknowledge(f, now_ns)
    if f.in_window and receiver_was_long_silent(f, policy, now_ns):
        # The sender repeats its window, and may be out of step: the ACK that began ours was lost.
        return ACT_DUPLICATE | receiver_acknowledge(f, now_ns)
    return ACT_DUPLICATE


cdef inline int receiver_accept(Flight *f, const Retransmit *policy, uint32_t payload_bytes,
                                uint64_t now_ns) noexcept nogil:
    if f.timed_block == f.next:
        rtt_sample(&f.rtt, policy, now_ns - f.timed_ns)
        f.timed_block = -1
    flight_progress(f, policy, now_ns)
    f.reported = 0
    f.next += 1
    f.in_window += 1
    if payload_bytes < f.blksize_bytes:
        f.last = f.next - 1
        f.in_window = 0
        return ACT_DELIVER | ACT_FINAL
    if f.in_window >= f.windowsize:
        f.timed_block = f.next
        f.timed_ns = now_ns
        return ACT_DELIVER | receiver_acknowledge(f, now_ns)
    return ACT_DELIVER


cdef inline uint64_t flight_dally_ns(const Flight *f) noexcept nogil:
    """How long the last ACK is repeated on demand."""
    cdef uint64_t asked_ns = f.timeout_ns * DALLY_TIMEOUTS
    return asked_ns if asked_ns > DALLY_NS else DALLY_NS


# --- the timer ---------------------------------------------------------------------------------------------

cdef inline uint64_t flight_end_ns(const Flight *f, const Retransmit *policy, uint64_t deadline_ns) noexcept nogil:
    """`deadline_ns`, unless an unproven peer is given up before: whatever `timeout` it asked for, it may be forged."""
    cdef uint64_t half_open_ns = f.progress_ns + policy.half_open_give_up_ns
    return half_open_ns if not f.proven and half_open_ns < deadline_ns else deadline_ns


cdef inline int flight_on_timeout(Flight *f, const Retransmit *policy, uint64_t now_ns) noexcept nogil:
    """deadline_ns has passed.  Sets the next deadline; sender_sent sets it anew."""
    cdef uint64_t silent_ns = now_ns - f.progress_ns
    if f.role == SENDER and flight_is_pausing(f):
        sender_go_on(f)
        f.deadline_ns = now_ns + flight_wait_ns(f, policy)   # should the caller be unable to send
        return ACT_SEND | ACT_GO_ON
    if f.proven:
        if silent_ns >= policy.give_up_ns and f.retries >= policy.min_retries:
            return ACT_GIVE_UP
    else:
        if silent_ns >= policy.half_open_give_up_ns:
            return ACT_GIVE_UP
        if f.retries + 1 >= policy.half_open_datagrams:
            # An unproven peer may be a forged address: it has had its share.
            f.deadline_ns = f.progress_ns + policy.half_open_give_up_ns
            return 0
    flight_conclude(f, policy)
    if f.retries == 0:
        f.asked_ns = f.sent_ns
    f.repeated_ns = now_ns
    f.retries += 1
    f.timed_block = -1
    f.deadline_ns = flight_end_ns(f, policy, now_ns + flight_wait_ns(f, policy))
    if f.opening:
        f.retransmits += 1
        f.sent_ns = now_ns
        return ACT_FIRST
    if f.role == SENDER:
        sender_repeat(f, policy, now_ns)
        return ACT_SEND
    f.retransmits += 1
    f.reported = 0
    return receiver_acknowledge(f, now_ns)


cdef inline bint flight_check(const Flight *f) noexcept nogil:
    """The invariants above; debug builds stop on the first transfer that breaks one."""
    if f.role == RECEIVER:
        return f.next >= 1 and f.in_window < f.windowsize and (f.last == -1 or f.last == f.next - 1)
    return (0 <= f.window_base <= f.next <= f.sent_end <= f.window_base + f.windowsize + f.opening
            and f.next <= f.last + 1 and f.burst.fence >= 256)
