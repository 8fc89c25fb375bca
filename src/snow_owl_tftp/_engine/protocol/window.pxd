# The one struct of the two state machines of a transfer, sender and receiver: what they remember, what they say.
#
# Pure: no socket, no clock, no memory.  Time comes in as an argument, decisions go out as ACT_ flags; the worker turns
# them into datagrams.  The rules lie in files that are called like those of the model in Python (protocol/*.py), which
# gives the reasons and is the oracle of the differential test.  Whoever changes a rule here changes it there.
#
#     exchange   what both roles have in common: the first packet, the timer, what is learned
#     sender     blocks, windows, reports of loss
#     receiver   order, gaps, the last ACK
#     timeouts   deadline_ns has passed: whose turn it is
#
# Invariants (checked in debug builds by flight_check):
#   sender:    0 <= window_base <= next <= sent_end <= window_base + windowsize, next <= last + 1
#   receiver:  next >= 1, in_window < windowsize, last is -1 until the short block arrived
# RFC 1350 section 2 (lock-step), RFC 7440 section 4 (windows), RFC 1123 section 4.2.3.1 (the Sorcerer's Apprentice: a
# repeated ACK never makes a lock-step sender send).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from snow_owl_tftp._engine.protocol.burst cimport Burst
from snow_owl_tftp._engine.protocol.patience cimport Patience
from snow_owl_tftp._engine.protocol.rtt cimport Rtt

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


cdef inline bint flight_check(const Flight *f) noexcept nogil:
    """The invariants above; debug builds stop on the first transfer that breaks one."""
    if f.role == RECEIVER:
        return f.next >= 1 and f.in_window < f.windowsize and (f.last == -1 or f.last == f.next - 1)
    return (0 <= f.window_base <= f.next <= f.sent_end <= f.window_base + f.windowsize + f.opening
            and f.next <= f.last + 1 and f.burst.fence >= 256)
