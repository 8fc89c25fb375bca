"""The kernel evicts pages of a file that is being sent: its client waits for the disk, and nobody else does."""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.client import Client

pytestmark = pytest.mark.once  # what else is in the page path is played by test_resident.py on every build
REPOSITORY = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SLOW_BYTES = 12 * MIB
LOCAL_BYTES = 2 * MIB
READ_S = 1.0  # of 128 KiB
UNDISTURBED = 1.5
NOISE_S = 0.003  # what a machine with other things to do adds to a p99


class EvictedServer:
    """The process of evicted_server.py, and what its files hold."""

    def __init__(self, folder: Path) -> None:
        self.slow = random.Random(1).randbytes(SLOW_BYTES)
        for name, content in (("files/file", self.slow), ("root/local", bytes(LOCAL_BYTES))):
            (folder / name).parent.mkdir()
            (folder / name).write_bytes(content)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.evicted_server", folder],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self.read()
        if "unavailable" in said:
            self.close()
            pytest.skip(f"no slow disk or no cgroup that evicts: {said['unavailable']}")
        self.address = ("127.0.0.1", said["port"])

    def read(self):
        return json.loads(self.process.stdout.readline())

    def do(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        with self.process:  # closes both pipes, and waits
            self.process.stdin.close()
        assert self.process.returncode == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """On tmpfs, which is what makes `local` stay in memory."""
    if os.environ.get("SNOW_OWL_BUILD") == "sanitize":
        pytest.skip("the process with the slow disk does not get ready under ASan's runtime: release and debug run it")
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("/dev/shm is not there to be written to")
    made = Path(tempfile.mkdtemp(prefix="evicted-", dir=shared))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder) -> Iterator[EvictedServer]:
    running = EvictedServer(folder)
    yield running
    running.close()


class Enough(Exception):  # noqa: N818
    """Of blocks."""


def answer_times(address, seconds):
    """How long a lock-step client of `local` waited for each block, in seconds."""
    times = []
    end = time.monotonic() + seconds
    last = 0.0

    def note(index):
        nonlocal last
        now = time.perf_counter()
        times.append(now - last)
        last = time.perf_counter()
        if time.monotonic() > end:
            raise Enough

    while time.monotonic() < end:
        with Client(address, give_up_s=60, timeout_s=60) as client:
            last = time.perf_counter()
            try:
                client.get("local", on_block=note)
            except Enough:
                break
    return times


def p99(times):
    return statistics.quantiles(times, n=100)[98]


class SlowReader:
    """Reads slow/file: some blocks, then the rest when it is told to."""

    FIRST = 20

    def __init__(self, server, windowsize=1):
        self.began, self.go_on = threading.Event(), threading.Event()
        self.payload = b""
        self.thread = threading.Thread(target=self._run, args=(server.address, windowsize))
        self.thread.start()
        assert self.began.wait(30)

    def _run(self, address, windowsize):
        with Client(address, timeout_s=60, give_up_s=60) as client:
            options = {"blksize": 1428, "windowsize": windowsize}
            self.payload = client.get("slow/file", options=options, on_block=self._on_block).payload

    def _on_block(self, index):
        if index == self.FIRST:
            self.began.set()
            self.go_on.wait()

    def finish(self):
        self.go_on.set()
        self.thread.join(60)
        return self.payload


def reports(server, **times):
    counters = server.do("counters")
    for name, one in times.items():
        print(f"{name}: {len(one)} blocks, p99 {p99(one) * 1e6:.0f} us, longest {max(one) * 1e3:.1f} ms")
    shown = ("major_faults", "page_waits", "page_looks", "chunks_lost", "file_loads", "file_copies")
    print({name: counters[name] for name in shown})
    return counters


@pytest.mark.parametrize("windowsize", [1, 16])
def test_who_waits_for_evicted_pages_waits_alone(server, windowsize):
    reader = SlowReader(server, windowsize)
    alone = answer_times(server.address, 2)
    server.do("evict")
    server.do("delay", READ_S)
    reader.go_on.set()
    beside = answer_times(server.address, 3)
    server.do("delay", 0)
    assert reader.finish() == server.slow
    counters = reports(server, alone=alone, beside=beside)
    assert counters["chunks_lost"] > 0, "it was evicted"
    assert max(beside) < READ_S, "no block waited for that disk"
    assert p99(beside) < UNDISTURBED * max(p99(alone), NOISE_S)


def test_evictions_all_the_time_disturb_nobody_else(server):
    """Between two of them comes hardly more than a chunk from this disk."""
    readers = [SlowReader(server, windowsize) for windowsize in (1, 16)]
    alone = answer_times(server.address, 2)
    server.do("evict")
    server.do("delay", 0.04)
    server.do("evict_every", 0.25)
    for reader in readers:
        reader.go_on.set()
    beside = answer_times(server.address, 8)
    counters = reports(server, alone=alone, beside=beside)
    server.do("evict_every", 0)
    server.do("delay", 0)
    assert [reader.finish() for reader in readers] == [server.slow] * 2
    assert counters["chunks_lost"] > 4
    assert counters["file_copies"] > 0, "and the readers go on"
    # A page that goes between a look and its message is rare, and told; pages of our own code are evicted too.
    assert counters["page_waits"] == counters["major_faults"]
    assert p99(beside) < UNDISTURBED * max(p99(alone), NOISE_S)
