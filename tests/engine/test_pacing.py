"""Bytes a second: held back and never dropped, fair among those who share a bucket, and nobody's silence."""

import contextlib
import threading
import time

import pytest
from tests.support.client import Client

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, Data, build_ack, build_data

pytestmark = pytest.mark.quiet("measures how fast a transfer goes")
SLACK_S = 0.5
"""What a busy machine and the sanitizers add; tests/server/test_pacing_served.py has the bars of a quiet one."""
SIZES = {"lock-step": {}, "windows": {"blksize": 1428, "windowsize": 16}}


def get(address, name, options, times, source=None):
    with Client(address, source=source, timeout_s=10.0, give_up_s=60.0) as client:
        transfer = client.get(name, options=options)
    times.append((time.monotonic(), len(transfer.payload)))


def load(served, name, clients, options, source="127.0.0.1"):
    """So many at once; how long all of them took, and the first of them."""
    times, began_s = [], time.monotonic()
    arguments = (served.address, name, options, times, source)
    threads = [threading.Thread(target=get, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == clients
    return max(at_s for at_s, _ in times) - began_s, min(at_s for at_s, _ in times) - began_s


def on_the_wire(size, blksize=512):
    return size + 4 * (size // blksize + 1)


@pytest.mark.parametrize("options", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("limit", ["max_bytes_per_s_per_client", "max_bytes_per_s_per_network", "max_bytes_per_s"])
def test_a_transfer_goes_as_fast_as_its_bucket_fills_and_loses_nothing(serve, tmp_path, limit, options):
    rate = 150_000
    (tmp_path / "file").write_bytes(bytes(450_000))
    served = serve()
    served.engine.set_limits(**{limit: rate, "max_unproven_bytes_per_s": 10**9})
    took_s, _ = load(served, "file", 1, options)
    expected_s = on_the_wire(450_000, int(options.get("blksize", 512))) / rate - 1
    assert expected_s * 0.95 < took_s < expected_s * 1.05 + SLACK_S
    completion = served.completion()
    assert (completion.outcome, completion.retransmits) == (Outcome.OK, 0)
    assert served.counter("timeouts") == 0
    served.engine.stop()
    paced = served.counter("sends_paced")
    served.wait(lambda: sum(told.count for told in served.refusals) == paced > 0, "all of it told")
    assert {told.limit for told in served.refusals} == {limit}
    assert len(served.refusals) == 2, "at once, and then once a minute: nothing is wrong"
    assert served.counter("requests_refused_busy") == 0


@pytest.mark.alone("twenty clients are no quiet test")
@pytest.mark.parametrize("options", SIZES.values(), ids=SIZES)
def test_who_share_a_bucket_take_turns(serve, tmp_path, options):
    rate, clients = 500_000, 20
    (tmp_path / "file").write_bytes(bytes(75_000))
    served = serve()
    served.engine.set_limits(max_bytes_per_s=rate, max_unproven_bytes_per_s=10**9)
    (tmp_path / "first").write_bytes(bytes(2 * rate))
    load(served, "first", 1, {"blksize": 1428, "windowsize": 16})  # the bucket is empty, or the first would be quicker
    took_s, first_s = load(served, "file", clients, options)
    expected_s = clients * on_the_wire(75_000, int(options.get("blksize", 512))) / rate
    assert expected_s * 0.95 < took_s < expected_s * 1.05 + SLACK_S
    assert first_s > expected_s * 0.6, "none before the others"
    assert served.counter("timeouts") == 0


def test_windows_do_not_starve_a_client_in_lock_step(serve, tmp_path):
    """Of ten windows of 16 a block would wait for 0.46 s each time, of ten turns for 0.12 s."""
    rate = 500_000
    (tmp_path / "file").write_bytes(bytes(2_000_000))
    (tmp_path / "small").write_bytes(bytes(10_000))
    served = serve()
    served.engine.set_limits(max_bytes_per_s=rate, max_unproven_bytes_per_s=10**9)
    times = []
    arguments = (served.address, "file", SIZES["windows"], times)
    others = [threading.Thread(target=get, args=arguments) for _ in range(10)]
    for thread in others:
        thread.start()
    served.wait(lambda: served.counter("sends_paced") > 50, "the bucket is empty")
    took_s, _ = load(served, "small", 1, {})
    assert not times
    assert took_s < 4.5
    served.engine.set_limits()
    for thread in others:
        thread.join()


def test_one_clients_limit_takes_nothing_from_another(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(300_000))
    served = serve()
    served.engine.set_limits(max_bytes_per_s_per_client=100_000, max_bytes_per_s=10**8)
    slow = threading.Thread(target=load, args=(served, "file", 4, {}, "127.0.0.1"))
    slow.start()
    (tmp_path / "small").write_bytes(bytes(50_000))
    for number in range(5):
        took_s, _ = load(served, "small", 1, {}, f"127.0.0.{number + 2}")
        assert took_s < 1
    served.engine.set_limits()
    slow.join()


def test_no_burst_is_larger_than_a_seconds_tokens(serve, tmp_path):
    rate = 50_000
    (tmp_path / "file").write_bytes(bytes(2_000_000))
    served = serve()
    served.engine.set_limits(max_bytes_per_s=rate, max_unproven_bytes_per_s=10**9)
    with Client(served.address) as client:
        client.request("file", options={"blksize": 1428, "windowsize": 64})
        _, tid = client.receive_packet()
        client.send(build_ack(0), tid)
        came = []
        began_s = time.monotonic()
        while time.monotonic() < began_s + 3:
            with contextlib.suppress(Exception):
                datagram, _ = client.receive(0.2)
                came.append((time.monotonic() - began_s, len(datagram)))
                block = int.from_bytes(datagram[2:4], "big")
                if block % 64 == 0:
                    client.send(build_ack(block), tid)
    for first, (from_s, _) in enumerate(came):
        total = 0
        for at_s, size in came[first:]:
            total += size
            assert total <= rate * (at_s - from_s + 1) + 0.02 * rate + 1432, "and what 20 ms of a scheduler are"


def test_an_upload_is_held_back_by_its_acks(serve, tmp_path):
    rate, blocks = 100_000, 500
    served = serve()
    served.engine.set_limits(max_bytes_per_s_per_client=rate, max_unproven_bytes_per_s=10**9)
    began_s = time.monotonic()
    with Client(served.address, timeout_s=10.0) as client:
        client.put("up", bytes(512 * blocks))
    took_s = time.monotonic() - began_s
    expected_s = on_the_wire(512 * blocks) / rate - 1
    assert expected_s * 0.95 < took_s < expected_s * 1.05 + SLACK_S
    assert (tmp_path / "up").read_bytes() == bytes(512 * blocks)
    assert served.counter("timeouts") == 0


def test_an_upload_in_windows_is_charged_for_all_of_each(serve, tmp_path):
    rate = 40_000
    served = serve()
    served.engine.set_limits(max_bytes_per_s=rate, max_unproven_bytes_per_s=10**9)
    began_s = time.monotonic()
    with Client(served.address, timeout_s=10.0) as client:
        client.put("up", bytes(160_000), options={"blksize": 1428, "windowsize": 32})
    took_s = time.monotonic() - began_s
    assert 2.0 < took_s < 4.5, "the last window is acknowledged when it is stored"


# --- silence ----------------------------------------------------------------------------------------------------


def test_what_is_held_back_for_longer_than_a_client_may_be_silent_goes_on(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(2_500))
    served = serve(give_up_ns=300 * 10**6, min_retries=0, initial_ns=100 * 10**6, ceiling_ns=100 * 10**6)
    served.engine.set_limits(max_bytes_per_s=1_000, max_unproven_bytes_per_s=10**9)
    with Client(served.address, timeout_s=10.0) as client:
        assert client.get("file").payload == bytes(2_500)
    completion = served.completion()
    assert (completion.outcome, completion.retransmits) == (Outcome.OK, 0)
    assert served.counter("sends_paced") >= 2


def test_a_client_that_has_vanished_is_given_up_although_it_is_held_back(serve, tmp_path):
    """Each repetition waits for the bucket that others keep empty; what it waits is not its silence, the rest is."""
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    served = serve(give_up_ns=500 * 10**6, min_retries=2, initial_ns=100 * 10**6, ceiling_ns=100 * 10**6)
    served.engine.set_limits(max_bytes_per_s=100_000, max_unproven_bytes_per_s=10**9)
    going = threading.Thread(target=get, args=(served.address, "file", {}, []))
    going.start()
    with Client(served.address) as client:
        client.request("file")
        packet, tid = client.receive_packet()
        assert isinstance(packet, Data)
        client.send(build_ack(1), tid)
        vanished = client.port
    served.wait(lambda: any(ended.peer[1] == vanished for ended in served.completions), "its end")
    ended = next(ended for ended in served.completions if ended.peer[1] == vanished)
    assert ended.outcome in (Outcome.TIMED_OUT, Outcome.UNREACHABLE)
    served.engine.set_limits()
    going.join()


def test_who_would_be_held_back_for_longer_than_a_disk_is_told_so(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    served = serve(stalled_give_up_ns=200 * 10**6)
    served.engine.set_limits(max_bytes_per_s=10, max_unproven_bytes_per_s=10**9)
    with Client(served.address) as client:
        client.request("file")
        packet, tid = client.receive_packet()
        assert isinstance(packet, Data), "a full bucket, whatever it costs"
        client.send(build_ack(1), tid)
        assert client.receive_packet()[0].text == "Server busy, try again"
    assert served.completion().outcome == Outcome.LOCAL_IO_ERROR
    assert served.counter("transfers_stalled") == 1


def test_acks_that_come_while_it_is_held_back_neither_hasten_nor_delay_it(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(5_000))
    served = serve()
    served.engine.set_limits(max_bytes_per_s=1_000, max_unproven_bytes_per_s=10**9)
    with Client(served.address) as client:
        client.request("file")
        _, tid = client.receive_packet()
        arrived_s = [time.monotonic()]
        for block in range(1, 5):
            client.send(build_ack(block), tid)
            while not client.has_heard():
                client.send(build_ack(block), tid)
                time.sleep(0.02)
            packet, _ = client.receive_packet()
            assert packet.block == block + 1
            arrived_s.append(time.monotonic())
    assert 1.4 < arrived_s[-1] - arrived_s[0] < 1.8, "2,580 bytes in 1,580 ms"


def test_without_limits_those_that_wait_go_on_when_it_is_their_turn(serve, tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    served = serve()
    served.engine.set_limits(max_bytes_per_s=50_000, max_unproven_bytes_per_s=10**9)
    times = []
    thread = threading.Thread(target=get, args=(served.address, "file", {}, times))
    thread.start()
    served.wait(lambda: served.counter("sends_paced") > 3, "it is held back")
    served.engine.set_limits()
    thread.join(1)
    assert times


def test_an_upload_that_is_superseded_while_it_is_held_back_ends(serve, tmp_path):
    served = serve()
    served.engine.set_limits(max_bytes_per_s=600, max_unproven_bytes_per_s=10**9)
    with Client(served.address) as client:
        client.request("up", kind=Opcode.WRQ)
        packet, tid = client.receive_packet()
        assert packet == Ack(0)
        for block in (1, 2):
            client.send(build_data(block, bytes(512)), tid)
            if block == 1:
                assert client.receive_packet()[0] == Ack(1)
        client.request("up2", kind=Opcode.WRQ)
        served.completion()
    assert served.completions[0].outcome == Outcome.ABORTED
