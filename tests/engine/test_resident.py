"""Pages of a mapped file that the kernel drops again are fetched by an I/O thread, not by the worker's sendmmsg.

The kernel drops them here because the test says so: MADV_DONTNEED takes them out of the process's page table, as
reclaim does, and leaves them on the disk and in the page cache. What a slow disk makes of it is in test_evicted.py.
"""

import ctypes
import os
import random
import threading
import time
from pathlib import Path

import pytest
from tests.support.client import Client

CHUNK = 512 << 10
BLKSIZE = 1428
KEEP_AFTER = 2
KEPT = 16
MADV_DONTNEED, MADV_PAGEOUT = 4, 21  # linux/mman.h
LOOK_S = 0.02  # longer than a chunk stays without a look
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def mapped_parts(path):
    """Where this process has parts of a file mapped: (start, end), in the order of their places."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines if line.endswith(str(path))]
    return [tuple(int(number, 16) for number in field[0].split("-")) for field in fields]


def drop(path, advice=MADV_DONTNEED):
    for start, end in mapped_parts(path):
        assert LIBC.madvise(start, end - start, advice) == 0


def content_of(size):
    return random.Random(size).randbytes(size)


@pytest.fixture
def file(tmp_path):
    def make(size):
        with (tmp_path / "file").open("wb") as made:
            made.write(content_of(size))
            os.fsync(made.fileno())
        return tmp_path / "file"

    return make


@pytest.mark.parametrize("options", [{}, {"sendmmsg": False}, {"gso": False}])
def test_dropped_pages_are_fetched_again_and_then_sent(serve, file, options):
    path = file(CHUNK)
    served = serve(**options)

    def drop_once(index):
        if index == 20:
            time.sleep(LOOK_S)
            drop(path)

    with Client(served.address) as client:
        got = client.get("file", options={"blksize": BLKSIZE, "windowsize": 4}, on_block=drop_once)
    assert got.payload == content_of(CHUNK)
    assert served.counter("chunks_lost") == 1
    assert served.counter("file_loads") == 2
    assert served.counter("file_copies") == 0
    assert served.completion().retransmits == 0


def test_pages_that_stay_are_looked_at_once_a_turn_at_most(serve, file):
    file(CHUNK)
    served = serve(gso=False)
    with Client(served.address) as client:
        client.get("file", options={"blksize": 64, "windowsize": 64})
    counters = served.engine.counters()
    assert counters["blocks_sent"] > 8000
    assert 0 < counters["page_looks"] < counters["epoll_wait_calls"]
    assert counters["page_looks"] < 400
    assert counters["chunks_lost"] == 0


def test_once_pages_were_missing_each_message_is_looked_at(serve, file):
    path = file(CHUNK)
    served = serve()

    def drop_once(index):
        if index == 20:
            time.sleep(LOOK_S)
            drop(path)

    with Client(served.address) as client:
        client.get("file", options={"blksize": 512}, on_block=drop_once)
    assert served.counter("page_looks") >= served.counter("blocks_sent") - 20


def test_who_loses_its_pages_again_and_again_goes_on_from_a_copy(serve, file):
    """Each block would wait for a fetch that is undone before it can be sent."""
    path = file(2 * CHUNK + 100)
    served = serve(initial_ns=5 * 10**9, floor_ns=5 * 10**9)  # nobody repeats because the machine is busy
    with Client(served.address) as client:
        got = client.get("file", options={"blksize": BLKSIZE}, on_block=lambda index: drop(path))
    assert got.payload == content_of(2 * CHUNK + 100)
    assert served.counter("chunks_lost") <= 3 * KEEP_AFTER
    assert 2 <= served.counter("file_copies") <= 3
    assert served.completion().retransmits == 0


def test_only_so_many_copies_are_kept_and_the_file_takes_their_place_again(serve, file):
    chunks = KEPT + 8
    path = file(chunks * CHUNK)
    served = serve()
    with Client(served.address) as client:
        got = client.get("file", options={"blksize": 8192}, on_block=lambda index: drop(path))
        assert got.payload == content_of(chunks * CHUNK)
        assert served.counter("file_copies") >= chunks - 1
        mapped = sum(end - start for start, end in mapped_parts(path))
        assert mapped == (chunks - KEPT) * CHUNK, "the rest is memory of the engine's own"
        assert client.get("file", options={"blksize": 8192}).payload == content_of(chunks * CHUNK)
    served.completion(total=2)


def test_many_readers_of_one_file_whose_pages_come_and_go(serve, file):
    """Workers that find the same chunk missing, or send from it while it becomes a copy."""
    path = file(20 * CHUNK)
    served = serve(workers=2, own_ports=True)
    enough = threading.Event()
    failures = []

    def pull(number):
        options = {"blksize": (512, 1428, 8192)[number % 3], "windowsize": (1, 16, 7)[number % 3]}
        with Client(served.addresses[number % 2]) as client:
            if client.get("file", options=options).payload != content_of(20 * CHUNK):
                failures.append(number)

    readers = [threading.Thread(target=pull, args=(number,)) for number in range(6)]
    # Nothing is lost of what has become a copy between the look for what is mapped and the advice.
    dropper = threading.Thread(
        target=lambda: [drop(path, MADV_PAGEOUT) for _ in iter(lambda: enough.wait(0.002), True)]
    )
    for thread in (*readers, dropper):
        thread.start()
    for thread in readers:
        thread.join()
    enough.set()
    dropper.join()
    assert failures == []
    served.completion(total=6)
    assert served.outcomes() == {"OK": 6}
    if served.counter("chunks_lost") == 0:
        pytest.skip("MADV_PAGEOUT drops nothing here: the tests' folder is on tmpfs, or the kernel is older than 5.4")


def test_a_copy_of_a_file_that_changes_never_completes_a_mixture(serve, file):
    path = file(CHUNK)
    served = serve()

    def change(index):
        if index < 20:
            drop(path)
        elif index == 20:
            assert served.counter("file_copies") == 1
            with path.open("r+b") as writing:
                writing.seek(CHUNK - 5000)
                writing.write(bytes(5000))
            os.utime(path, (1, 1))

    with Client(served.address) as client, pytest.raises(Exception, match="file changed during the transfer"):
        client.get("file", options={"blksize": BLKSIZE}, on_block=change)
