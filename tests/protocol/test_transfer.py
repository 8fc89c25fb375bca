"""The transfer as a protocol checklist: what the RFCs ask for, and what clients have been seen to do."""

import itertools

import pytest

from snow_owl_tftp.protocol.constants import ErrorCode
from snow_owl_tftp.protocol.packets import build_ack, build_data, build_error
from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.rtt import RetransmitPolicy, RoundTrip
from snow_owl_tftp.protocol.seq import Rollover, block_of, index_from
from snow_owl_tftp.protocol.transfer import DALLY_NS, ExchangeOutcome, Receiver, Sender, Terms

MS = 1_000_000
S = 1_000_000_000
OACK = b"\0\6blksize\0008\0"
TIMED_OUT = build_error(0, "timed out: no answer")


def blocks(datagrams):
    """Block numbers of DATA or ACK packets."""
    assert all(datagram[1] in (3, 4) for datagram in datagrams)
    return [int.from_bytes(datagram[2:4], "big") for datagram in datagrams]


def sender(size, windowsize=1, *, oack=False, **terms):
    """A sender of `size` bytes in blocks of 8, started at 0; with `oack`, its OACK is acknowledged after 1 ms."""
    machine = Sender(bytes(i % 251 for i in range(size)), Terms(b"", 8, windowsize, **terms))
    if oack:
        machine = Sender(bytes(i % 251 for i in range(size)), Terms(OACK, 8, windowsize, **terms))
        assert machine.start(0) == [OACK]
        return machine, machine.receive(build_ack(0), MS)
    return machine, machine.start(0)


def receiver(windowsize=1, **terms):
    machine = Receiver(Terms(OACK, 8, windowsize, **terms))
    assert machine.start(0) == [OACK]
    return machine


def full(block_index, rollover=Rollover.TO_0):
    return build_data(block_of(block_index, rollover), b"8 bytes!")


def give_up(machine):
    """Ticks until the end; returns (time of each datagram, datagram)."""
    log = []
    while not machine.done:
        now = machine.deadline_ns
        log += [(now, datagram) for datagram in machine.tick(now)]
    return log


# --- lock-step: RFC 1350 -----------------------------------------------------------------------------------


def test_lock_step_sends_one_block_per_ack():
    machine, sent = sender(20)
    assert sent == [build_data(1, bytes(range(8)))]
    assert machine.receive(build_ack(1), MS) == [build_data(2, bytes(range(8, 16)))]
    assert machine.receive(build_ack(2), 2 * MS) == [build_data(3, bytes(range(16, 20)))]
    assert machine.receive(build_ack(3), 3 * MS) == []
    assert (machine.done, machine.outcome, machine.deadline_ns) == (True, ExchangeOutcome.OK, None)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("windowsize", [1, 2, 3, 65535])
def test_every_size_arrives_whole_and_ends_with_a_short_block(size, windowsize):
    source, sent = sender(size, windowsize, oack=True)
    sink, now, payloads = receiver(windowsize), MS, []
    while sent:
        now += MS
        payloads += [datagram[4:] for datagram in sent]
        answers = [answer for datagram in sent for answer in sink.receive(datagram, now)]
        if sink.received:
            answers += sink.commit(now)
        sent = [datagram for answer in answers for datagram in source.receive(answer, now)]
    assert bytes(sink.delivered) == bytes(range(size))
    assert source.outcome is sink.outcome is ExchangeOutcome.OK
    assert [len(payload) for payload in payloads] == [8] * (size // 8) + [size % 8]
    assert source.retransmits == sink.retransmits == 0


def test_a_repeated_ack_in_lock_step_sends_nothing_sorcerers_apprentice():
    machine, _ = sender(100)
    assert blocks(machine.receive(build_ack(1), MS)) == [2]
    deadline = machine.deadline_ns
    for late in range(2, 50):
        assert machine.receive(build_ack(1), late * MS) == []
    assert machine.deadline_ns == deadline
    assert blocks(machine.tick(deadline)) == [2]


def test_stale_acks_and_acks_of_blocks_never_sent_change_nothing():
    machine, _ = sender(100)
    machine.receive(build_ack(1), MS)
    before = (machine.window_base, machine.next, machine.deadline_ns)
    for block in (0, 3, 4, 100, 32768, 65535):
        assert machine.receive(build_ack(block), 2 * MS) == []
    assert (machine.window_base, machine.next, machine.deadline_ns) == before


def test_malformed_and_foreign_packets_are_dropped():
    machine, _ = sender(100)
    sink = receiver()
    for datagram in (b"", b"\0\4", b"\0\4\0", b"\1\4\0\1", b"\0\7\0\1", OACK, b"\0\1a\0octet\0"):
        assert machine.receive(datagram, MS) == []
        assert sink.receive(datagram, MS) == []
    assert machine.receive(full(1), MS) == []
    assert sink.receive(build_ack(1), MS) == []
    assert machine.window_base == sink.next == 1


# --- the first packet: RFC 2347 ------------------------------------------------------------------------------


def test_the_oack_is_repeated_until_ack_0_and_data_waits_for_it():
    machine = Sender(b"x" * 20, Terms(OACK, 8))
    assert machine.start(0) == [OACK]
    assert machine.receive(build_ack(1), MS) == []
    assert machine.tick(S - 1) == []
    assert machine.tick(S) == [OACK]
    assert machine.deadline_ns == 3 * S
    assert machine.retransmits == 1
    assert blocks(machine.receive(build_ack(0), 2 * S)) == [1]
    assert machine.proven


def test_ack_0_twice_sends_block_1_once():
    machine, sent = sender(20, oack=True)
    assert blocks(sent) == [1]
    assert machine.receive(build_ack(0), 2 * MS) == []


def test_a_receiver_repeats_oack_or_ack_0_until_data_comes():
    for first, expected in ((OACK, OACK), (b"", build_ack(0))):
        machine = Receiver(Terms(first, 8))
        assert machine.start(0) == [expected]
        assert machine.tick(S) == [expected]
        assert machine.receive(full(1), S + MS) == [build_ack(1)]


def test_an_opening_receiver_ignores_blocks_beyond_its_window():
    machine = receiver(4)
    assert machine.receive(full(5), MS) == []
    assert machine.receive(full(0), MS) == []
    assert machine.opening
    assert machine.receive(full(3), MS) == [build_ack(0)]
    assert not machine.opening


def test_a_receiver_whose_request_was_granted_acknowledges_the_oack_as_often_as_it_comes():
    machine = Receiver(Terms(b"", 8, proven=True), opening=False)
    assert machine.start(0) == [build_ack(0)]
    assert machine.receive(OACK, MS) == [build_ack(0)]
    assert machine.receive(full(1), 2 * MS) == [build_ack(1)]
    assert machine.receive(OACK, 3 * MS) == []


# --- windows: RFC 7440 ---------------------------------------------------------------------------------------


def test_a_window_is_sent_at_once_and_acknowledged_once():
    machine, sent = sender(100, 4, oack=True)
    assert blocks(sent) == [1, 2, 3, 4]
    assert blocks(machine.receive(build_ack(4), 2 * MS)) == [5, 6, 7, 8]
    sink = receiver(4)
    assert [sink.receive(full(i), MS) for i in range(1, 9)] == [[], [], [], [build_ack(4)], [], [], [], [build_ack(8)]]


def test_the_last_window_ends_with_the_file():
    machine, _ = sender(8 * 5 + 1, 4, oack=True)
    assert blocks(machine.receive(build_ack(4), 2 * MS)) == [5, 6]
    assert machine.receive(build_ack(6), 3 * MS) == []
    assert machine.outcome is ExchangeOutcome.OK


def test_a_partial_ack_restarts_the_window_behind_it():
    machine, _ = sender(1000, 4, oack=True)
    assert blocks(machine.receive(build_ack(2), 2 * MS)) == [3, 4, 5, 6]
    assert machine.retransmits == 2


def test_a_window_is_sent_again_at_most_once_a_round_trip():
    machine, _ = sender(1000, 8, oack=True)
    machine.receive(build_ack(8), 2 * MS)  # a round trip takes 1 ms
    assert blocks(machine.receive(build_ack(10), 3 * MS))[0] == 11
    # Block 11 had been under way all along, and 12 was sent again a moment ago.
    assert 12 not in blocks(machine.receive(build_ack(11), 3 * MS + MS // 2))
    assert machine.window_base == 12, "the progress is real all the same"
    assert blocks(machine.receive(build_ack(12), 4 * MS))[0] == 13


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_client_that_acknowledges_within_the_window_is_soon_known(every):
    """One window is sent again in vain, for the first of its ACKs looks like a report; none after that."""
    machine, sent = sender(8 * 400 - 3, 16, oack=True)
    now, path, received = MS, [(2 * MS, block) for block in blocks(sent)], 0
    while path:
        now, block = path.pop(0)
        if block == received + 1:
            received += 1
            if received % every == 0 or received == 400:
                path += [(now + MS, block) for block in blocks(machine.receive(build_ack(received), now))]
    assert (received, machine.outcome) == (400, ExchangeOutcome.OK)
    assert machine.retransmits <= 16


def test_a_doubled_ack_right_after_a_window_was_sent_is_no_gap():
    machine, _ = sender(1000, 4, oack=True)  # the shortest round trip: 1 ms
    assert blocks(machine.receive(build_ack(4), 10 * MS)) == [5, 6, 7, 8]
    assert machine.receive(build_ack(4), 10 * MS + MS // 2 - 1) == []


@pytest.mark.parametrize(("timeout_ns", "again"), [(0, [1, 8]), (3 * S, [1, 2, 3, 4, 5, 6, 7, 8])])
def test_a_first_report_as_prompt_as_a_doubled_ack_costs_a_round_trip_and_no_timeout(timeout_ns, again):
    """Over loopback, and in a rack, a report that block 1 is missing comes sooner than some ACKs that were doubled."""
    machine, _ = sender(800, 8, oack=True, timeout_ns=timeout_ns)  # the OACK took 1 ms
    assert machine.receive(build_ack(0), MS + 20_000) == []
    assert machine.deadline_ns == MS + 20_000 + 11 * MS, "a round trip and what a scheduler may add to it"
    sent = machine.tick(machine.deadline_ns)
    while machine.pausing:
        sent += machine.tick(machine.deadline_ns)
    assert blocks(sent) == again


def test_such_a_report_is_not_forgotten_between_two_bursts():
    machine, sent = sender(800, 8, oack=True, timeout_ns=3 * S, patience=Patience(loses=True, burst_blocks=4))
    assert blocks(sent) == [1, 2, 3, 4]
    assert machine.receive(build_ack(0), MS + 20_000) == []
    now = machine.deadline_ns
    while machine.pausing:
        now = machine.deadline_ns
        sent += machine.tick(now)
    assert blocks(sent) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert machine.deadline_ns <= now + 11 * MS


@pytest.mark.parametrize("timeout_ns", [0, 3 * S])
def test_a_doubled_first_ack_makes_nobody_impatient_once_the_window_is_acknowledged(timeout_ns):
    machine, _ = sender(800, 8, oack=True, timeout_ns=timeout_ns)
    assert machine.receive(build_ack(0), MS) == []
    assert blocks(machine.receive(build_ack(8), 2 * MS)) == [9, 10, 11, 12, 13, 14, 15, 16]
    assert machine.deadline_ns == 2 * MS + (timeout_ns or S)


def test_within_a_window_a_receiver_does_not_answer_a_doubled_block():
    machine = receiver(4)
    machine.receive(full(1), MS)
    assert machine.receive(full(1), MS) == [], "nothing was said about block 1 yet, and nothing is missing"
    for block in (2, 3):
        assert machine.receive(full(block), MS) == []
    assert machine.receive(full(4), MS) == [build_ack(4)]
    assert machine.receive(full(4), MS) == [build_ack(4)], "that ACK may have been lost"


def test_repeated_gap_ack_is_answered_once_a_round_trip():
    machine, _ = sender(1000, 4, oack=True)
    assert blocks(machine.receive(build_ack(4), 2 * MS)) == [5, 6, 7, 8]
    assert blocks(machine.receive(build_ack(4), 3 * MS))[0] == 5
    for late in range(5):
        assert machine.receive(build_ack(4), 3 * MS + late * MS // 10) == []
    assert blocks(machine.receive(build_ack(4), 4 * MS))[0] == 5, "what was sent again was lost again"
    machine.receive(build_ack(8), 5 * MS)
    assert machine.receive(build_ack(8), 5 * MS) == [], "nothing of the new window can have arrived yet"


def test_the_answer_to_a_probe_is_answered():
    machine, _ = sender(1000, 4, oack=True)
    machine.receive(build_ack(4), 2 * MS)
    probe_ns = machine.deadline_ns
    assert blocks(machine.tick(probe_ns)) == [8], "the probe asks what is missing"
    assert blocks(machine.receive(build_ack(4), probe_ns + MS))[0] == 5


def test_the_probe_of_a_gap_that_was_reported_is_its_first_block_too():
    """Many receivers report a gap once: if what was sent again is lost again, they say nothing."""
    machine, _ = sender(1000, 4, oack=True)
    machine.receive(build_ack(4), 2 * MS)
    machine.receive(build_ack(5), 3 * MS)  # 6 is missing
    assert machine.window_base == 6
    while not (sent := machine.tick(machine.deadline_ns)):
        pass
    while machine.retries == 0:
        sent = machine.tick(machine.deadline_ns)
    assert blocks(sent) == [6]
    assert blocks(machine.tick(machine.deadline_ns)) == [9]


def test_a_gap_is_reported_once_until_something_moves():
    machine = receiver(4)
    machine.receive(full(1), MS)
    assert machine.receive(full(3), MS) == [build_ack(1)]
    assert machine.receive(full(4), MS) == []
    assert machine.receive(full(2), 2 * MS) == []
    assert machine.receive(full(4), 2 * MS) == [build_ack(2)]


def test_the_window_of_the_receiver_starts_anew_after_each_of_its_acks():
    machine = receiver(4)
    machine.receive(full(1), MS)
    machine.receive(full(3), MS)
    assert [machine.receive(full(i), MS) for i in (2, 3, 4, 5)] == [[], [], [], [build_ack(5)]]


def test_a_block_beyond_the_window_or_long_received_is_dropped():
    machine = receiver(4)
    for i in range(1, 5):
        machine.receive(full(i), MS)
    assert machine.receive(full(9), MS) == []
    assert machine.receive(full(2), MS) == []
    assert machine.next == 5


def test_the_last_block_again_is_acknowledged_again_each_time():
    machine = receiver()
    machine.receive(full(1), MS)
    for _ in range(3):
        assert machine.receive(full(1), 2 * MS) == [build_ack(1)]
    assert machine.delivered == b"8 bytes!"


def test_a_timeout_probes_with_the_newest_block_and_then_repeats_the_window():
    machine, _ = sender(1000, 4, oack=True)
    assert blocks(machine.tick(machine.deadline_ns)) == [4]
    assert blocks(machine.tick(machine.deadline_ns)) == [1, 2, 3, 4]
    assert machine.retransmits == 5
    assert blocks(machine.receive(build_ack(4), machine.deadline_ns)) == [5, 6, 7, 8]


def test_an_ack_after_a_timeout_takes_back_what_it_covers():
    machine, _ = sender(1000, 4, oack=True)
    machine.tick(machine.deadline_ns)
    machine.next = 1  # as after a restart whose blocks could not leave yet
    assert blocks(machine.receive(build_ack(4), 2 * S)) == [5, 6, 7, 8]


def test_a_receivers_timeout_says_again_what_it_has():
    machine = receiver(4)
    machine.receive(full(1), MS)
    machine.receive(full(2), MS)
    assert machine.tick(machine.deadline_ns) == [build_ack(2)]
    assert machine.retransmits == 1
    assert [machine.receive(full(i), S) for i in range(3, 7)] == [[], [], [], [build_ack(6)]], "a new window"


# --- block numbers -----------------------------------------------------------------------------------------------


def at(machine, block_index):
    """Puts a receiver before block `block_index`, or a sender's window there, without sending it all."""
    machine.opening = False
    machine.next = block_index
    if isinstance(machine, Sender):
        machine.window_base = machine.sent_end = block_index
        machine.burst_end = machine.last
    return machine


@pytest.mark.parametrize("windowsize", [1, 16, 65535])
def test_block_65535_is_followed_by_0(windowsize):
    machine, _ = sender(8 * 65600, windowsize, oack=True)
    sent = at(machine, 65534)._send_window(MS)
    assert blocks(sent)[:4] == [65534, 65535, 0, 1][:windowsize]
    if windowsize == 1:
        assert blocks(machine.receive(build_ack(65534), 2 * MS)) == [65535]
        assert blocks(machine.receive(build_ack(65535), 3 * MS)) == [0]
        assert blocks(machine.receive(build_ack(0), 4 * MS)) == [1]
    else:
        assert blocks(machine.receive(build_ack(0), 2 * MS))[:2] == [1, 2]
    assert machine.window_base in (65537, 65538)


@pytest.mark.parametrize("windowsize", [1, 16, 65535])
def test_a_receiver_follows_a_rollover_to_0(windowsize):
    machine = at(receiver(windowsize), 65535)
    answers = [datagram for i in range(65535, 65539) for datagram in machine.receive(full(i), MS)]
    assert machine.next == 65539
    assert blocks(answers) == ([65535, 0, 1, 2] if windowsize == 1 else [])


def test_a_lock_step_receiver_follows_a_rollover_to_1():
    machine = at(receiver(), 65535)
    answers = [machine.receive(full(i, Rollover.TO_1), MS) for i in range(65535, 65539)]
    assert [blocks(answer) for answer in answers] == [[65535], [1], [2], [3]]
    machine = at(machine, 2 * 65535)
    answers = [machine.receive(full(i, Rollover.TO_1), MS) for i in (131070, 131071, 131072)]
    assert [blocks(answer) for answer in answers] == [[65535], [1], [2]]


def test_in_a_window_block_1_after_65535_is_a_gap():
    machine = at(receiver(4), 65536)
    assert machine.receive(full(65537), MS) == [build_ack(65535)]
    assert machine.next == 65536


def test_block_1_again_is_no_rollover_at_the_start():
    machine = receiver()
    machine.receive(full(1), MS)
    assert machine.receive(full(1), MS) == [build_ack(1)]
    assert machine.rollover is Rollover.TO_0


def test_block_numbers_and_indexes():
    assert [block_of(i) for i in (0, 1, 65535, 65536, 65537, 131072)] == [0, 1, 65535, 0, 1, 0]
    assert [block_of(i, Rollover.TO_1) for i in (0, 1, 65535, 65536, 131070, 131071)] == [0, 1, 65535, 1, 65535, 1]
    assert index_from(65530, 65535) == 65535
    assert index_from(65530, 3) == 65539
    assert index_from(65530, 65529) == 65529 + 65536


# --- the end -----------------------------------------------------------------------------------------------------


def test_a_peers_error_ends_at_once_and_is_not_answered():
    for machine in (sender(100)[0], receiver()):
        assert machine.receive(b"\0\5\0\3disk full\0junk", MS) == []
        assert (machine.outcome, machine.peer_error) == (ExchangeOutcome.PEER_ERROR, (3, b"disk full"))
        assert machine.done
        assert machine.receive(build_ack(1), MS) == machine.receive(full(1), MS) == machine.tick(99 * S) == []


def test_data_longer_than_the_block_size_is_refused():
    machine = receiver()
    assert machine.receive(build_data(1, b"9 bytes!!"), MS) == [build_error(4, "DATA longer than the block size")]
    assert machine.outcome is ExchangeOutcome.ABORTED


def test_the_last_ack_waits_for_the_commit_and_is_repeated_while_dallying():
    machine = receiver()
    machine.receive(full(1), MS)
    assert machine.receive(build_data(2, b"end"), 2 * MS) == []
    assert machine.received
    assert machine.deadline_ns is None
    assert machine.tick(50 * S) == []
    assert machine.receive(build_data(2, b"end"), 3 * MS) == [], "not safe yet: no ACK"
    assert machine.commit(4 * MS) == [build_ack(2)]
    assert machine.receive(build_data(2, b"end"), 5 * MS) == [build_ack(2)]
    assert machine.receive(full(1), 5 * MS) == []
    assert machine.tick(4 * MS + DALLY_NS - 1) == []
    assert not machine.done
    assert machine.tick(4 * MS + DALLY_NS) == []
    assert (machine.done, machine.outcome) == (True, ExchangeOutcome.OK)
    assert machine.delivered == b"8 bytes!end"


def test_an_error_while_dallying_does_not_undo_success():
    machine = receiver()
    machine.receive(build_data(1, b""), MS)
    machine.commit(2 * MS)
    machine.receive(build_error(0, "bye"), 3 * MS)
    assert (machine.done, machine.outcome) == (True, ExchangeOutcome.OK)


def test_a_file_that_cannot_be_kept_is_refused():
    machine = receiver()
    machine.receive(build_data(1, b""), MS)
    assert machine.refuse(ErrorCode.DISK_FULL, "disk full") == [build_error(3, "disk full")]
    assert (machine.done, machine.outcome) == (True, ExchangeOutcome.ABORTED)


# --- giving up ---------------------------------------------------------------------------------------------------


def test_a_silent_peer_that_never_answered_gets_three_datagrams_and_an_error_after_ten_seconds():
    machine, sent = sender(100)
    log = give_up(machine)
    assert [(now, blocks([datagram])) for now, datagram in log[:-1]] == [(1 * S, [1]), (3 * S, [1])]
    assert log[-1] == (10 * S, TIMED_OUT)
    assert machine.outcome is ExchangeOutcome.TIMED_OUT
    assert len(sent) + len(log) == 4


def test_a_proven_peer_is_given_up_after_thirty_seconds_without_progress():
    machine, _ = sender(100)
    machine.receive(build_ack(1), MS)
    log = give_up(machine)
    assert log[-1][1] == TIMED_OUT
    assert log[-1][0] >= 30 * S + MS
    waits = [b - a for (a, _), (b, _) in itertools.pairwise(log)]
    assert max(waits) == 3 * S, "back-off ends at the ceiling"
    assert waits == sorted(waits)


def test_progress_resets_the_patience_of_a_transfer():
    machine, _ = sender(8 * 40)
    now = 0
    for block in range(1, 40):
        now = machine.deadline_ns
        assert blocks(machine.tick(now)) == [block]
        assert blocks(machine.receive(build_ack(block), now + MS)) == [block + 1]
    assert machine.outcome is None, "forty timeouts, but never three in a row"


def test_however_slow_the_timer_a_proven_peer_gets_three_retransmissions():
    machine, _ = sender(100, timeout_ns=100 * S)
    machine.receive(build_ack(1), MS)
    log = give_up(machine)
    assert [blocks([datagram]) for _, datagram in log[:-1]] == [[2], [2], [2]]
    assert [now - MS for now, _ in log] == [100 * S, 200 * S, 300 * S, 400 * S]


@pytest.mark.parametrize("timeout_s", [1, 6, 9, 255])
@pytest.mark.parametrize("windowsize", [1, 4])
@pytest.mark.parametrize("is_read", [True, False])
def test_whatever_timeout_was_agreed_a_silent_peer_is_given_up_after_ten_seconds(is_read, windowsize, timeout_s):
    terms = Terms(OACK, 8, windowsize, timeout_ns=timeout_s * S)
    machine = Sender(bytes(100), terms) if is_read else Receiver(terms)
    machine.start(0)
    log = give_up(machine)
    assert log[-1] == (10 * S, TIMED_OUT)
    assert [now for now, _ in log[:-1]] == [lap * timeout_s * S for lap in (1, 2) if lap * timeout_s < 10]


def test_a_peer_that_we_asked_is_proven_from_the_start():
    machine = Receiver(Terms(b"request", 8, proven=True))
    machine.start(0)
    log = give_up(machine)
    assert log[-1] == (30 * S, TIMED_OUT)
    assert [datagram for _, datagram in log[:-1]] == [b"request"] * 10


# --- the timer: RFC 6298 -----------------------------------------------------------------------------------------


def test_the_first_sample_and_the_next_follow_rfc_6298():
    rtt = RoundTrip(RetransmitPolicy())
    assert rtt.rto_ns == S
    rtt.sample(100 * MS)
    assert (rtt.srtt_ns, rtt.rttvar_ns, rtt.rto_ns) == (100 * MS, 50 * MS, 300 * MS)
    rtt.sample(60 * MS)
    assert (rtt.srtt_ns, rtt.rttvar_ns) == (95 * MS, 47_500_000)
    assert rtt.rto_ns == 285 * MS


def test_the_rto_keeps_to_its_floor_and_ceiling_and_survives_a_clock_that_stood_still():
    rtt = RoundTrip(RetransmitPolicy())
    rtt.sample(0)
    assert (rtt.srtt_ns, rtt.rto_ns) == (1, 10 * MS + 1)
    rtt.sample(0)
    assert rtt.srtt_ns == 1
    rtt.sample(3600 * S)
    assert rtt.rto_ns < S, "one sample counts for twice the RTO at most"
    for _ in range(40):
        rtt.sample(3600 * S)
    assert rtt.rto_ns == 3 * S


def test_a_negotiated_timeout_neither_follows_the_round_trip_nor_backs_off():
    machine, _ = sender(100, timeout_ns=5 * S)
    assert machine.deadline_ns == 5 * S
    machine.receive(build_ack(1), MS)
    assert machine.deadline_ns == 5 * S + MS
    for lap in (2, 3, 4):
        assert blocks(machine.tick(machine.deadline_ns)) == [2]
        assert machine.deadline_ns == lap * 5 * S + MS
    sink = receiver(4, timeout_ns=5 * S)
    sink.receive(full(1), MS)
    assert sink.deadline_ns == 5 * S + MS, "a receiver too: as asked, not four times"


def test_a_negotiated_timeout_below_a_second_doubles_up_to_it_while_nothing_comes():
    machine, _ = sender(100, timeout_ns=200 * MS)
    machine.receive(build_ack(1), MS)
    waits = []
    for _ in range(5):
        before = machine.deadline_ns
        assert blocks(machine.tick(before)) == [2]
        waits.append(machine.deadline_ns - before)
    assert waits == [400 * MS, 800 * MS, S, S, S]
    machine.receive(build_ack(2), before)
    assert machine.deadline_ns == before + 200 * MS


def test_karn_a_block_sent_twice_is_no_sample():
    machine, _ = sender(100)
    machine.receive(build_ack(1), MS)
    before = machine.rtt.srtt_ns
    machine.tick(machine.deadline_ns)
    machine.receive(build_ack(2), 5 * S)
    assert machine.rtt.srtt_ns == before == MS
    assert machine.rtt.rto_ns == 11 * MS, "progress ends the back-off, with what was measured before"
    machine.receive(build_ack(3), 5 * S + MS)
    assert machine.rtt.rto_ns == 11 * MS


def test_the_first_ack_after_a_window_was_resent_extends_it_and_never_restarts_it():
    machine, _ = sender(100 * 8, 4, oack=True)
    assert blocks(machine.tick(machine.deadline_ns)) == [4], "first a probe"
    assert blocks(machine.tick(machine.deadline_ns)) == [1, 2, 3, 4], "then the window"
    # The receiver had 1 and 2: block 2 made it acknowledge, and it is taking 3 and 4 now.
    assert blocks(machine.receive(build_ack(2), 2 * S)) == [5, 6]
    # Another stop within the window is a gap again.
    assert blocks(machine.receive(build_ack(3), 3 * S)) == [4, 5, 6, 7]


def test_the_last_window_cannot_be_extended():
    machine, _ = sender(30, 4, oack=True)  # four blocks of at most 8 bytes
    machine.tick(machine.deadline_ns)
    machine.tick(machine.deadline_ns)
    assert machine.receive(build_ack(2), 2 * S) == []
    machine.receive(build_ack(4), 2 * S)
    assert machine.outcome is ExchangeOutcome.OK


def test_a_window_that_was_resent_and_acknowledged_whole_leaves_nothing_behind():
    machine, _ = sender(100 * 8, 4, oack=True)
    machine.tick(machine.deadline_ns)
    machine.tick(machine.deadline_ns)
    assert blocks(machine.receive(build_ack(4), 2 * S)) == [5, 6, 7, 8]
    assert blocks(machine.receive(build_ack(6), 3 * S)) == [7, 8, 9, 10], "a gap, restarted as ever"


def test_karn_an_oack_sent_twice_is_no_sample():
    machine = Sender(b"", Terms(OACK, 8))
    machine.start(0)
    machine.tick(S)
    machine.receive(build_ack(0), 4 * S)
    assert machine.rtt.srtt_ns == 0
    machine, _ = sender(0, oack=True)
    assert machine.rtt.srtt_ns == MS


def test_the_block_that_was_reported_missing_is_timed_from_its_second_copy():
    machine, _ = sender(1000, 4, oack=True)
    machine.receive(build_ack(2), 21 * MS)  # 1 and 2 took 20 ms; 3 is missing and sent again now
    assert machine.rtt.srtt_ns == (7 * MS + 20 * MS) // 8
    before = machine.rtt.srtt_ns
    machine.receive(build_ack(5), 43 * MS)
    assert machine.rtt.srtt_ns == (7 * before + 22 * MS) // 8, "Karn: nothing else can have been answered"


def test_an_ack_that_is_too_fast_to_answer_a_restart_is_no_sample():
    machine, _ = sender(1000, 4, oack=True)  # the shortest round trip: 1 ms
    machine.receive(build_ack(2), 2 * MS)
    machine.receive(build_ack(3), 2 * MS + MS // 2 - 1)
    assert machine.rtt.least_ns == MS
    machine.receive(build_ack(5), 3 * MS)
    assert machine.rtt.srtt_ns == MS, "the restart is still being timed"


def test_karn_a_window_that_a_timeout_sent_again_is_no_sample():
    machine, _ = sender(1000, 4, oack=True)
    machine.tick(machine.deadline_ns)
    machine.tick(machine.deadline_ns)
    machine.receive(build_ack(4), 5 * S)
    assert machine.rtt.srtt_ns == MS


def test_a_receiver_times_its_ack_against_the_next_block():
    machine = receiver(2)
    machine.receive(full(1), 10 * MS)
    machine.receive(full(2), 10 * MS)
    machine.receive(full(3), 18 * MS)
    assert machine.rtt.srtt_ns == 8 * MS, "the first replaces what an OACK took: a client may think about options"
    machine.receive(full(4), 18 * MS)
    machine.receive(full(5), 34 * MS)
    assert machine.rtt.srtt_ns == (7 * 8 * MS + 16 * MS) // 8


def test_a_receiver_waits_four_times_longer_than_a_sender():
    machine = receiver(4, patience=Patience(loses=True))
    machine.receive(full(1), 10 * MS)
    assert machine.rto_ns == 30 * MS
    assert machine.deadline_ns == 10 * MS + 4 * 30 * MS
    slow = receiver(4)
    slow.receive(full(1), 3 * S)
    assert slow.deadline_ns == 3 * S + 3 * S, "but not beyond the ceiling"


def test_a_receiver_that_is_out_of_step_says_what_it_has():
    """Its report was lost, and began a new window here: no window that the sender repeats completes it."""
    machine = receiver(4, patience=Patience(loses=True))
    machine.receive(full(1), 10 * MS)
    assert machine.receive(full(3), 11 * MS) == [build_ack(1)], "lost on its way"
    assert machine.receive(full(2), 12 * MS) == []
    assert machine.receive(full(1), 13 * MS) == [], "it may only be doubled"
    assert machine.receive(full(1), 11 * MS + machine.rto_ns) == [build_ack(2)]


def test_nothing_is_due_before_the_deadline_or_without_one():
    machine = Sender(b"x", Terms())
    assert machine.tick(99 * S) == []
    machine.start(0)
    assert machine.tick(machine.deadline_ns - 1) == []


@pytest.mark.parametrize("timeout_ns", [0, 5 * S])
@pytest.mark.parametrize("lost", [1, 3, 4, 9])
def test_who_has_acknowledged_nothing_is_sent_a_part_of_its_window_each_time_and_all_of_it_in_the_end(lost, timeout_ns):
    """Its address may be forged, so it is sent little; but it may also have lost the first windows, and says nothing
    before it has one whole."""
    policy = RetransmitPolicy(give_up_ns=3600 * S)
    machine, sent = sender(8 * 100, 16, oack=True, timeout_ns=timeout_ns, policy=policy)
    received = 0
    for lap in range(1, 30):
        for block in blocks(sent) if lap > lost else []:
            received += block == received + 1
        if lap > 4:
            assert len(sent) <= 8
        if received == 16:
            break
        now_ns = machine.deadline_ns
        sent = machine.tick(now_ns)
    assert received == 16
    assert blocks(machine.receive(build_ack(16), now_ns + MS))[0] == 17
