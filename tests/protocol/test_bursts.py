"""How much of a window leaves at once, and what tells that it was too much."""

from snow_owl_tftp.protocol.packets import build_ack
from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.transfer import Sender, Terms

MS = 1_000_000
OACK = b"\0\6blksize\0008\0"
WINDOW = 64


def opened(patience=None, windowsize=WINDOW):
    """A sender whose OACK was answered after 20 ms, and which has sent its first window."""
    machine = Sender(bytes(8 * 1000), Terms(OACK, 8, windowsize, patience=patience))
    assert machine.start(0) == [OACK]
    assert len(machine.receive(build_ack(0), 20 * MS)) == windowsize
    return machine


def numbers(datagrams):
    return [int.from_bytes(datagram[2:4], "big") for datagram in datagrams]


def test_behind_a_loss_a_small_burst_leaves_at_once_and_doubles_with_each_pause():
    machine = opened()
    assert numbers(machine.receive(build_ack(2), 40 * MS)) == list(range(3, 15))
    assert machine.pausing
    assert numbers(machine.tick(machine.deadline_ns)) == list(range(15, 47))
    assert numbers(machine.tick(machine.deadline_ns)) == list(range(47, 67))
    assert not machine.pausing


def test_behind_the_first_loss_on_an_unknown_path_nothing_follows_before_a_report_could_be_here():
    machine = opened()
    assert len(machine.receive(build_ack(2), 40 * MS)) == 12
    assert machine.deadline_ns == 40 * MS + 20 * MS + 7_500_000, "SRTT and RTTVAR"
    machine.tick(machine.deadline_ns)
    assert machine.deadline_ns - 67_500_000 <= 2 * MS, "no loss there: it was chance"
    machine.receive(build_ack(5), 100 * MS)
    assert machine.deadline_ns - 100 * MS <= 2 * MS, "and only the first one costs that"


def test_a_path_that_is_known_to_lose_is_not_felt_for():
    machine = opened(Patience(loses=True))
    machine.receive(build_ack(2), 40 * MS)
    assert machine.deadline_ns - 40 * MS <= 2 * MS


def silent_loss(machine, acked, lasts_ns=4 * MS):
    """Nothing comes before a timeout; its probe is answered with `acked`."""
    while machine.pausing:
        machine.tick(machine.deadline_ns)
    now_ns = machine.deadline_ns
    machine.tick(now_ns)
    while machine.pausing:
        now_ns = machine.deadline_ns
        machine.tick(now_ns)
    return machine.receive(build_ack(acked), now_ns + lasts_ns)


def test_a_loss_that_took_a_timeout_to_hear_of_is_followed_by_what_had_arrived():
    machine = opened()
    assert numbers(silent_loss(machine, 32, 20 * MS)) == list(range(33, 65))
    assert not machine.burst.is_learned, "it may have been the report that was lost"


def test_two_of_them_at_the_same_place_are_a_queue():
    machine = opened()
    silent_loss(machine, 32, 20 * MS)
    silent_loss(machine, 64, 20 * MS)
    assert machine.burst.is_learned
    assert machine.burst.limit == 32


def test_an_answer_that_comes_too_soon_for_a_probe_is_no_sample():
    """A window of 64 takes 76 ms at 10 Mbit/s, and the timer of a round trip of 2 ms is 12: each probe is answered
    at once, by what had queued before it."""
    machine = opened(Patience(loses=True))
    silent_loss(machine, 64, MS // 2)  # the whole window, and only late
    machine.receive(build_ack(128), machine.sent_ns + 30 * MS)
    assert machine.rtt.least_ns >= 20 * MS


def test_a_window_that_arrived_whole_is_followed_by_a_whole_one():
    machine = opened()
    machine.receive(build_ack(40), 40 * MS)
    while machine.pausing:
        machine.tick(machine.deadline_ns)
    assert numbers(machine.receive(build_ack(104), 70 * MS)) == list(range(105, 169))


def test_an_ack_that_comes_behind_a_newer_one_tells_of_a_path_that_reorders():
    machine = opened()
    machine.receive(build_ack(10), 40 * MS)
    assert machine.burst.limit == WINDOW
    assert machine.receive(build_ack(9), 41 * MS) == []
    assert machine.burst.limit < WINDOW // 2
    assert machine.burst.is_learned


def test_of_one_late_ack_after_another_only_the_first_counts():
    machine = opened()
    machine.receive(build_ack(10), 40 * MS)
    machine.receive(build_ack(9), 41 * MS)
    limit = machine.burst.limit
    machine.receive(build_ack(8), 41 * MS)
    assert machine.burst.limit == limit


def test_in_lock_step_a_late_ack_teaches_nothing():
    patience = Patience()
    machine = opened(patience, windowsize=1)
    for block in (1, 2):
        machine.receive(build_ack(block), (20 + 20 * block) * MS)
    machine.receive(build_ack(1), 61 * MS)
    assert not machine.burst.is_learned


def test_a_client_that_acknowledges_each_block_is_sent_hardly_anything_twice():
    machine = opened()
    sent = [number for block in range(1, WINDOW + 1) for number in numbers(machine.receive(build_ack(block), 40 * MS))]
    assert len([number for number in sent if number <= WINDOW]) < 20
    assert max(sent) == 2 * WINDOW
    assert not machine.burst.is_learned


def test_a_loss_that_such_a_client_reports_meanwhile_is_answered():
    machine = opened()
    for block in range(1, 31):
        machine.receive(build_ack(block), 40 * MS)
    assert numbers(machine.receive(build_ack(30), 40 * MS))[:2] == [31, 32]


def test_losses_at_chance_teach_no_limit():
    machine = opened()
    now_ns, block = 20 * MS, 0
    for arrived in (30, 3, 17, 50, 9, 25):
        now_ns, block = now_ns + 20 * MS, block + arrived
        machine.receive(build_ack(block), now_ns)
        while machine.pausing:
            now_ns = machine.deadline_ns
            machine.tick(now_ns)
    assert machine.burst.limit == WINDOW
    assert not machine.burst.is_learned


def test_a_client_that_thinks_about_the_options_is_not_thought_slow_in_the_rest():
    patience = Patience()
    machine = Sender(bytes(800), Terms(OACK, 8, 16, patience=patience))
    machine.start(0)
    assert machine.tick(1000 * MS) == [OACK]
    assert len(machine.receive(build_ack(0), 2000 * MS)) == 16
    assert machine.receive(build_ack(0), 2001 * MS) == []  # the second OACK was answered too
    machine.receive(build_ack(16), 2020 * MS)
    assert patience.pause_ns == 0
    assert machine.rtt.srtt_ns == 20 * MS


def test_pauses_are_no_longer_than_a_round_trip():
    machine = opened(Patience(loses=True, srtt_ns=20 * MS, rttvar_ns=200 * MS, burst_blocks=WINDOW))
    machine.receive(build_ack(10), 40 * MS)
    assert machine.pausing
    assert machine.deadline_ns - 40 * MS <= machine.rtt.srtt_ns
