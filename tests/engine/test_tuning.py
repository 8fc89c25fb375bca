"""Live settings: they change between two turns of a worker, never within one, and cost nothing when nobody listens."""

import itertools
import os
import random
import threading
import time
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.support.client import Client

from snow_owl_tftp.bench.load import Load

CONTENT = random.Random(SEED).randbytes(100_000)


def test_trains_leave_whole_while_sendmmsg_is_turned_off_and_on(serve, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    # No timer may mistake a busy machine for a loss: what is repeated was never sent.
    served = serve(initial_ns=3 * 10**9, floor_ns=3 * 10**9)
    ended = threading.Event()

    def toggle():
        for is_on in itertools.cycle((False, True)):
            served.engine.set_tuning(sendmmsg=is_on)
            if ended.is_set():
                return

    toggling = threading.Thread(target=toggle)
    sizes = {"blksize_bytes": 512, "windowsize_blocks": 64}
    load = Load(*served.address, "file", CONTENT, clients=8, client_timeout_s=5, **sizes)
    try:
        load.learn(10)
        toggling.start()
        result = load.run(300, 60, lambda done: None)
    finally:
        ended.set()
        toggling.join()
        load.close()
    assert result["failures"] == {}
    assert served.counter("gso_trains") > 0, "no train was sent, so this shows nothing"
    assert served.counter("sendto_calls") > 0, "sendmmsg was never off"
    assert (result["client_retransmits"], served.counter("retransmits")) == (0, 0), "the loopback loses nothing"


def modes_told(served) -> list[int]:
    return [change.mode for change in served.mode_changes]


def test_modes_are_told_to_whoever_listens_only(serve, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    served = serve(adaptive=True)
    with Client(served.address) as client:
        client.get("file")
        served.completion(total=1)
        assert modes_told(served) == []
        served.engine.set_tuning(tell_modes=True)
        client.get("file")
        served.wait(lambda: modes_told(served) == [0], "the mode in force is told to a new listener")
        client.get("file")
        served.completion(total=3)
        assert modes_told(served) == [0]


def test_mode_is_kept_for_a_tenth_of_a_second(serve, tmp_path):
    """A law that flips at every turn must not flood the log."""
    (tmp_path / "file").write_bytes(b"content")
    served = serve(tell_modes=True, adaptive=True, adaptive_threshold=1)
    began = time.monotonic()
    with Client(served.address) as client:
        # At every request no transfer is live, at every ACK one is.
        for _ in range(100):
            client.get("file")
    served.completion(total=100)
    assert 1 <= len(served.mode_changes) <= 2 + (time.monotonic() - began) / 0.1


@pytest.mark.skipif(os.geteuid() != 0, reason="the slack of another thread is shown to root only")
def test_workers_sleep_no_longer_than_asked(serve):
    served = serve()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("tftp-worker")]
    assert workers
    for worker in workers:
        slack = Path(f"/proc/{worker.native_id}/timerslack_ns")
        served.wait(lambda path=slack: path.read_text() == "1\n", "a slack of one nanosecond")
