"""Thousands of small transfers through a network that misbehaves: every one arrives whole, and the accounts balance."""

import hashlib
import threading

import pytest
from tests.conftest import SEED
from tests.support.client import Client, Refused, Silence
from tests.support.relay import Relay, Weather

# A client that got its last block leaves; the server, whose last ACK was lost, soon gives up.
# Repeats as in a LAN; gives up on nobody whom a busy machine lets wait.
LAN = {"initial_ns": 60_000_000, "floor_ns": 5_000_000, "give_up_ns": 3 * 10**9, "half_open_give_up_ns": 3 * 10**9}
ROUGH = Weather(loss=0.01, duplicate=0.01, late=0.02, stray=0.01)
THREADS = 8


@pytest.fixture
def files(tmp_path, rng):
    """Name → SHA-256, of sizes around every edge."""
    digests = {}
    for size in (0, 1, 511, 512, 513, 1428, 4 * 512, 5000, 16 * 512 + 1, 20_000):
        content = rng.randbytes(size)
        (tmp_path / f"file{size}").write_bytes(content)
        digests[f"file{size}"] = hashlib.sha256(content).digest()
    return digests


def download(address, files, options, count, salt, failures, timeout_s):
    """`count` transfers, one after another, each from a port of its own.

    A client that keeps its port takes what comes first for the answer to its request, and a network that doubles and
    delays would bring it the last block of the file before: no server can help that.
    """
    names = sorted(files)
    for i in range(count):
        name = names[(i * 7 + salt) % len(names)]
        try:
            with Client(address, timeout_s=timeout_s, give_up_s=20) as client:
                got = client.get(name, options=options)
        except (Silence, Refused) as end:
            failures.append((salt, i, name, repr(end)))
            return
        if hashlib.sha256(got.payload).digest() != files[name]:
            failures.append((salt, i, name, "content differs"))


def storm(address, files, options, total, timeout_s=0.06):
    failures, threads = [], []
    for salt in range(THREADS):
        arguments = (address, files, options, total // THREADS, salt, failures, timeout_s)
        threads.append(threading.Thread(target=download, args=arguments))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert failures == []


def through_relay(serve, files, options, weather, total, **engine):
    served = serve(tids=16, **{**LAN, **engine})
    with Relay(served.address, weather, f"{SEED}{options}{weather}") as relay:
        storm(relay.address, files, options, total)
        served.wait(lambda: served.counter("live_transfers") == 0, "the end of every transfer", 40)
        served.wait(lambda: len(served.completions) == served.counter("transfers_ended"))
    return served, relay


@pytest.mark.parametrize("windowsize", [1, 4, 16])
def test_many_small_transfers_through_a_rough_network(serve, files, windowsize):
    total = 800
    options = {"windowsize": windowsize} if windowsize > 1 else {}
    served, relay = through_relay(serve, files, options, ROUGH, total)
    assert all(relay.counts[what] > 0 for what in ("lost", "duplicated", "late", "stray")), relay.counts
    assert served.outcomes()["OK"] >= total * 0.97, served.outcomes()
    assert all(answer[:4] == b"\0\5\0\5" for answer in relay.stray_answers)


def test_the_same_with_flows_which_repeat_the_decision(serve, files):
    served, _ = through_relay(serve, files, {"blksize": 1428, "windowsize": 4}, ROUGH, 1200, flows=True)
    assert served.requests < 20
    assert served.counter("flow_hits") > 1000


def test_a_clean_network_needs_no_retransmission(serve, files):
    # The clients share one interpreter lock, and a busy machine with others: neither side repeats what is only late.
    served = serve(tids=16, floor_ns=5_000_000_000, initial_ns=5_000_000_000)
    storm(served.address, files, {"blksize": 1428}, 1600, timeout_s=10)
    served.completion(total=1600)
    assert served.outcomes() == {"OK": 1600}
    assert served.counter("retransmits") == 0


def test_single_port_mode_through_a_rough_network(serve, files):
    served, _ = through_relay(serve, files, {"windowsize": 4}, Weather(loss=0.01, duplicate=0.01), 200)
    assert served.outcomes()["OK"] >= 190


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("windowsize", [1, 4, 16])
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_soak_thousands_of_transfers(serve, files, windowsize, loss):
    weather = Weather(loss=loss, duplicate=0.02, late=0.02, stray=0.005)
    total = int(2000 * (0.02 / (0.02 + loss)))
    patient = {"give_up_ns": 6_000_000_000, "half_open_give_up_ns": 6_000_000_000}
    served, _ = through_relay(serve, files, {"windowsize": windowsize}, weather, total, **patient)
    # Every client has its file. The server learns it from an ACK that is lost as often as anything else.
    assert served.outcomes()["OK"] >= total * (1 - loss) * 0.9
