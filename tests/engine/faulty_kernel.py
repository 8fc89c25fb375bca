"""Scenes for test_kernel_faults: `python -m tests.engine.faulty_kernel SCENE`, with tests/support/faults.c preloaded.

Each function is one scene; it raises when the engine does not bear the fault. The accounts of conftest.Served are
checked at the end of each.
"""

import contextlib
import ctypes
import errno
import hashlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import Served
from tests.support.client import Client, Refused

from snow_owl_tftp.plan.transfer import Outcome
from snow_owl_tftp.protocol.packets import Oack, build_error

CONTENT = random.Random(1).randbytes(300_000)
LIBRARY = ctypes.CDLL(None)
LONG = {
    *("faults_write_after", "faults_slow_inode", "faults_stat_inode", "faults_map_inode"),
    "faults_close_inode",
}
SCENES: dict[str, Callable[[Path], None]] = {}


def scene(function: Callable[[Path], None]) -> Callable[[Path], None]:
    SCENES[function.__name__] = function
    return function


def fault(**values: int) -> None:
    for name, value in values.items():
        kind = ctypes.c_ulong if f"faults_{name}" in LONG else ctypes.c_uint
        kind.in_dll(LIBRARY, f"faults_{name}").value = value


def hits() -> int:
    return int(ctypes.c_uint.in_dll(LIBRARY, "faults_hits").value)


class Scene:
    """Served, with the accounts checked at the end."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.served = Served(root, **options)

    def __enter__(self) -> Served:
        return self.served

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.served.stop()
        if error is None:
            self.served.check_accounts()


def get(
    served: Served, name: str = "file", windowsize: int = 16, expected: bytes = CONTENT, timeout_s: float = 0.5
) -> None:
    with Client(served.address, timeout_s=timeout_s) as client:
        got = client.get(name, options={"blksize": 1428, "windowsize": windowsize})
    assert hashlib.sha256(got.payload).digest() == hashlib.sha256(expected).digest()


def in_parallel(served: Served, count: int, **options: Any) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            get(served, **options)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems


# --- sendmmsg --------------------------------------------------------------------------------------------


@scene
def a_full_socket_buffer_waits_and_loses_nothing(root: Path) -> None:
    with Scene(root) as served:
        fault(send_errno=errno.EAGAIN, send_every=3)
        in_parallel(served, 6)
        assert hits() > 5
        assert served.counter("send_would_block") > 5
        served.wait(lambda: served.outcomes() == {"OK": 6})


@scene
def no_buffers_loses_a_datagram_and_timers_repeat_it(root: Path) -> None:
    # Every seventh message is lost, and six clients ask at once: three copies of one OACK may be among those.
    with Scene(root, half_open_datagrams=30, half_open_give_up_ns=40 * 10**9) as served:
        fault(send_errno=errno.ENOBUFS, send_every=7)
        in_parallel(served, 6, timeout_s=60)  # no client repeats anything: the server's timers do it alone
        assert hits() > 5
        assert served.counter("send_would_block") > 5
        served.wait(lambda: served.outcomes() == {"OK": 6})
        assert served.counter("timeouts") > 0


@scene
def a_partial_batch_is_continued(root: Path) -> None:
    with Scene(root, gso=False) as served:
        fault(send_partial=1)
        in_parallel(served, 6)
        assert hits() > 50
        assert served.counter("retransmits") < 50


@scene
def a_refused_train_leaves_as_plain_datagrams_and_is_remembered(root: Path) -> None:
    for error in (errno.EMSGSIZE, errno.EINVAL, errno.EIO):
        with Scene(root) as served:
            fault(train_errno=error)
            get(served)
            served.completion()
            assert served.counter("gso_refused") == 1, "once a transfer, not once a train"
            assert served.counter("gso_trains") == 0
            assert served.completions[0].retransmits == 0
            fault(train_errno=0)
            get(served)
            assert served.counter("gso_trains") > 10, "remembered for that transfer alone"


PATIENT: dict[str, Any] = {"initial_ns": 20 * 10**9, "floor_ns": 20 * 10**9, "ceiling_ns": 20 * 10**9}


@scene
def a_train_refused_in_mid_transfer_repeats_nothing(root: Path) -> None:
    for error, passed in ((errno.EMSGSIZE, 0), (errno.EINVAL, 1), (errno.EIO, 4)):
        with Scene(root, **PATIENT) as served:
            fault(train_errno=error, train_pass=passed)
            get(served, windowsize=64, timeout_s=60)  # two trains a window
            served.completion()
            assert served.counter("gso_refused") == 1
            assert served.counter("gso_trains") == passed
            assert served.completions[0].retransmits == 0, "a block that never left is not sent again"


@scene
def a_full_socket_buffer_repeats_nothing(root: Path) -> None:
    with Scene(root, gso=False, **PATIENT) as served:
        fault(send_errno=errno.EAGAIN, send_every=3)
        get(served, windowsize=64, timeout_s=60)
        assert hits() > 1
        assert served.completion().retransmits == 0


@scene
def a_full_socket_buffer_in_the_middle_of_a_window_mixes_no_blocks(root: Path) -> None:
    """A window of more messages than one batch holds: the first batch leaves while the second is being filled."""
    for windowsize in (150, 210, 1000):
        with Scene(root, gso=False, **PATIENT) as served:
            fault(send_errno=errno.EAGAIN, send_every=2)
            get(served, windowsize=windowsize, timeout_s=60)
            assert served.completion().retransmits == 0


@scene
def one_bad_destination_does_not_lose_the_batch(root: Path) -> None:
    with Scene(root, give_up_ns=10**9, half_open_give_up_ns=10**9, initial_ns=5 * 10**7) as served:
        with Client(served.address) as bad:
            fault(bad_errno=errno.ENETUNREACH, bad_port=bad.port)
            bad.request("file")
            in_parallel(served, 6)
            served.wait(lambda: served.outcomes()["TIMED_OUT"] == 1)
        assert served.outcomes() == {"OK": 6, "TIMED_OUT": 1}
        # Three tries each: the error could have been another peer's, left on the socket by an ICMP.
        assert served.counter("send_errors") * 3 == hits() >= 9


@scene
def a_dead_peer_at_the_head_of_a_batch_costs_the_others_nothing(root: Path) -> None:
    """One batch, lingered for: the first message goes to a peer that the kernel cannot reach."""
    with Scene(root, linger_us=10_000, adaptive=False, **PATIENT) as served, contextlib.ExitStack() as opened:
        clients = [opened.enter_context(Client(served.address)) for _ in range(8)]
        get(served)
        fault(bad_errno=errno.EHOSTUNREACH, bad_port=clients[0].port)
        for client in clients:
            client.request("file", options={"blksize": 1428})
        for client in clients[1:]:
            packet, peer = client.receive_packet(5)
            assert isinstance(packet, Oack)
            client.send(build_error(0, "enough"), peer)
        served.wait(lambda: served.outcomes()["PEER_ERROR"] == 7)
        assert served.counter("send_errors") == 1
        assert [c.retransmits for c in served.completions] == [0] * 8
        assert max(i for i, n in enumerate(served.engine.counters()["send_histogram"]) if n) >= 2, "one batch of many"


# --- the disk that is read -----------------------------------------------------------------------------------


def hang(path: Path) -> None:
    """Whoever reads this file waits until `go_on`, however long a busy machine takes for what comes between."""
    fault(slow_inode=path.stat().st_ino, slow_hangs=1)


def go_on() -> None:
    fault(slow_hangs=0)


def others_do_not_wait_for_a_slow_disk(root: Path, names: list[str]) -> None:
    (root / "slow").write_bytes(CONTENT * 4)
    with Scene(root, io_patience_ns=60 * 10**9) as served:
        if "file" in names:
            get(served)  # it is in memory
        hang(root / "slow")
        thread = threading.Thread(target=get, args=(served, "slow"), kwargs={"expected": CONTENT * 4, "timeout_s": 60})
        thread.start()
        served.wait(lambda: served.counter("live_transfers") == 1)
        for name in names:
            get(served, name)
        assert thread.is_alive()
        assert hits() == 0
        go_on()
        thread.join()
        served.wait(lambda: served.outcomes() == {"OK": len(names) + 1 + ("file" in names)})
        assert hits() > 0


@scene
def a_slow_disk_makes_its_own_transfers_wait_and_no_others(root: Path) -> None:
    others_do_not_wait_for_a_slow_disk(root, ["file"] * 20)


@scene
def files_not_read_before_do_not_wait_for_a_slow_one(root: Path) -> None:
    names = [f"cold{i}" for i in range(10)]
    for name in names:
        (root / name).write_bytes(CONTENT)
    others_do_not_wait_for_a_slow_disk(root, names)


@scene
def who_waits_for_a_read_that_hangs_is_told_in_time(root: Path) -> None:
    """Its thread is replaced, so what else lies on the disk is served; and the file itself, once the disk is back."""
    (root / "hangs").write_bytes(CONTENT)
    for number in range(4):
        (root / f"cold{number}").write_bytes(CONTENT)
    with Scene(root, io_threads=1, io_patience_ns=500_000_000, give_up_ns=60_000_000_000) as served:
        hang(root / "hangs")
        began = time.monotonic()
        with Client(served.address, timeout_s=60) as client, pytest.raises(Refused, match="Server busy") as refused:
            client.get("hangs")
        assert refused.value.code == 0
        assert time.monotonic() - began >= 0.5
        completion = served.completion()
        assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.EBUSY)
        assert served.engine.counters()["file_threads_hung"] == 1
        assert served.engine.counters()["file_jobs_expired"] == 1
        for number in range(4):
            get(served, f"cold{number}")
        assert served.engine.counters()["file_threads_hung"] == 1
        go_on()
        get(served, "hangs")
        served.wait(lambda: served.engine.counters()["file_threads_hung"] == 0)


@scene
def so_much_hangs_on_a_device_that_its_files_are_refused(root: Path) -> None:
    (root / "hangs").write_bytes(CONTENT)
    device = root.stat().st_dev
    with Scene(root, io_threads=1, io_patience_ns=200_000_000, give_up_ns=60_000_000_000) as served:

        def try_to_start(event: Any, request: Any) -> None:
            try:
                served.engine.start(served.send_plan(event, request))
            except OSError as error:
                served.engine.refuse(event.transfer_id, build_error(0, f"start raises {errno.errorcode[error.errno]}"))

        hang(root / "hangs")
        assert not served.engine.is_sick(device)
        for _ in range(8):
            with Client(served.address, timeout_s=60) as client, pytest.raises(Refused, match="Server busy"):
                client.get("hangs")  # each has a source of its own, since the one before has failed
        served.wait(lambda: served.engine.is_sick(device))
        assert served.engine.counters()["file_threads"] <= 1 + 8 + 1 + 1  # of the device; spares; idle
        served.on_request = try_to_start
        with Client(served.address) as client, pytest.raises(Refused, match="start raises EBUSY"):
            client.get("hangs")
        served.on_request = None
        go_on()
        served.wait(lambda: not served.engine.is_sick(device))
        get(served, "hangs")
        served.wait(lambda: served.engine.counters()["file_threads_hung"] == 0)


@scene
def stop_leaves_behind_what_hangs_and_frees_it_later(root: Path) -> None:
    (root / "hangs").write_bytes(CONTENT)
    served = Served(root, io_threads=1)
    hang(root / "hangs")
    with Client(served.address) as client:
        client.request("hangs")
        served.wait(lambda: served.counter("live_transfers") == 1)
        time.sleep(0.2)
        served.stop()  # which returns although it hangs
    assert served.engine.hung_threads == 1
    assert [one.outcome for one in served.completions] == [Outcome.ABORTED]
    descriptor = next(Path("/proc/self/fd").iterdir()).parent
    names = lambda: [str(one.readlink()) for one in descriptor.iterdir() if one.exists()]  # noqa: E731
    served.completions.clear()
    del served.engine
    assert any("hangs" in name for name in names())
    go_on()
    end = time.monotonic() + 10
    while any("hangs" in name for name in names()):
        assert time.monotonic() < end, "its descriptor is still open"
        time.sleep(0.05)


@scene
def a_slow_disk_is_not_charged_to_the_peer(root: Path) -> None:
    """Each chunk takes longer than a peer may; the first window that waits has 15 of its 16 blocks in flight."""
    content = CONTENT * 4
    (root / "slow").write_bytes(content)
    with Scene(root, initial_ns=400_000_000, give_up_ns=800_000_000, half_open_give_up_ns=900_000_000) as served:
        fault(slow_inode=(root / "slow").stat().st_ino, slow_ms=1300)
        get(served, "slow", expected=content, timeout_s=60)
        completion = served.completion()
        assert (completion.outcome, completion.retransmits) == (Outcome.OK, 0)
        assert served.counter("timeouts") == 0
        assert completion.srtt_ns < 800_000_000, "the disk's time is no round trip"


@scene
def a_worker_asks_no_file_server_whether_a_file_is_the_same(root: Path) -> None:
    """fstat of a file on NFS or FUSE may wait for another machine; the worker looks at what the kernel knows."""
    with Scene(root, flows=True) as served:
        fault(stat_inode=(root / "file").stat().st_ino)
        get(served)
        asked = hits()
        assert asked == 1, "the test's own server"
        for _ in range(10):
            get(served)
        assert served.counter("flow_hits") == 10
        assert served.counter("file_checks") >= 21
        assert hits() == asked


@scene
def a_kernel_without_statx_still_tells_that_a_file_changed(root: Path) -> None:
    with Scene(root, flows=True) as served:
        fault(statx_errno=errno.ENOSYS)
        for _ in range(2):
            get(served)
        assert served.counter("flow_hits") == 1
        (root / "file").write_bytes(CONTENT + b"+")
        get(served, expected=CONTENT + b"+")
        assert served.requests == 2


@scene
def a_disk_that_cannot_be_read_ends_the_transfer_with_an_error(root: Path) -> None:
    (root / "broken").write_bytes(CONTENT)
    with Scene(root) as served:
        fault(slow_inode=(root / "broken").stat().st_ino, slow_ms=0, read_errno=errno.EFAULT)
        with pytest.raises(Refused, match="ERROR 0: I/O error while reading the file"):
            get(served, "broken")
        completion = served.completion()
        assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, errno.EIO)
        get(served)


@scene
def a_read_error_that_went_away_is_not_repeated(root: Path) -> None:
    (root / "broken").write_bytes(CONTENT)
    with Scene(root, flows=True) as served:
        fault(slow_inode=(root / "broken").stat().st_ino, slow_ms=0, read_errno=errno.EFAULT)
        for _ in range(2):
            with pytest.raises(Refused, match="I/O error"):
                get(served, "broken")
        fault(read_errno=0)
        get(served, "broken")
        get(served, "broken")
        assert served.requests == 3, "the last one is a flow's again"


@scene
def a_file_that_cannot_be_mapped_is_read(root: Path) -> None:
    """FUSE with direct I/O."""
    large = CONTENT * 5 + b"end"
    (root / "large").write_bytes(large)
    for options in ({}, {"sendmmsg": False}, {"gso": False}):
        fault(map_inode=(root / "large").stat().st_ino, map_errno=errno.ENODEV)
        with Scene(root, flows=True, **options) as served:
            for windowsize in (1, 16):
                get(served, "large", windowsize=windowsize, expected=large)
            assert served.counter("file_copies") >= 3
            get(served)


@scene
def without_a_page_map_nothing_is_looked_at(root: Path) -> None:
    """No /proc, or a process with file capabilities: served all the same, as before there were looks."""
    fault(pagemap_errno=errno.EACCES)
    with Scene(root) as served:
        assert hits() == 1
        for windowsize in (1, 16):
            get(served, windowsize=windowsize)
        assert served.counter("page_looks") == 0
        assert served.counter("file_loads") == 1


@scene
def a_file_on_a_file_server_is_never_mapped(root: Path) -> None:
    """Its server may drop the pages of a mapping, and then the worker's own sendmmsg would wait for it."""
    for magic in (0x65735546, 0x6969):
        fault(map_inode=(root / "file").stat().st_ino, map_errno=errno.ENODEV, file_system=magic)
        with Scene(root) as served:
            get(served)
            assert served.counter("file_copies") == 1
    assert hits() == 0, "not even tried"


@scene
def a_file_that_can_neither_be_mapped_nor_read_is_told_as_an_error(root: Path) -> None:
    fault(map_inode=(root / "file").stat().st_ino, map_errno=errno.ENODEV, pread_errno=errno.EIO)
    with Scene(root, flows=True) as served:
        with pytest.raises(Refused, match="ERROR 0: I/O error while reading the file"):
            get(served)
        assert served.completion().error == errno.EIO
        fault(pread_errno=0)
        get(served)


@scene
def starting_a_transfer_asks_no_file_server(root: Path) -> None:
    """On FUSE or NFS close() waits for the server, as fstat() does, and on overlayfs for that of a file below:
    that is for the I/O threads. On ext4 it waits for nobody, and to wake a thread would cost each request of a storm.
    """
    for magic, asks in ((0x65735546, True), (0x6969, True), (0x794C7630, True), (0xEF53, False)):
        closer = ctypes.c_int.in_dll(LIBRARY, "faults_closer")
        closer.value = 0
        fault(close_inode=0, map_inode=(root / "file").stat().st_ino, file_system=magic)
        with Scene(root, flows=False, source_linger_ns=10**12) as served:
            get(served)
            fault(close_inode=(root / "file").stat().st_ino)
            get(served)  # its descriptor is not needed: the first one is open yet
            served.wait(lambda closer=closer: closer.value, "the close")
            is_ours = closer.value in {served._thread.native_id, threading.get_native_id()}
            assert is_ours != asks, hex(magic)
            fault(close_inode=0)


# --- the disk that is written --------------------------------------------------------------------------------


def upload_fails(root: Path, error: int, code: int, after: int) -> None:
    with Scene(root) as served:
        fault(write_errno=error, write_after=after)
        with Client(served.address) as client, pytest.raises(Refused, match=f"ERROR {code}"):
            client.put("up", CONTENT * 4, options={"blksize": 1428, "windowsize": 16})
        completion = served.completion()
        assert (completion.outcome, completion.error) == (Outcome.LOCAL_IO_ERROR, error)


@scene
def a_disk_that_cannot_be_written_is_told_as_an_error(root: Path) -> None:
    for after in (0, 500_000, len(CONTENT) * 4 - 1):
        upload_fails(root, errno.EIO, 0, after)


@scene
def a_disk_that_fills_up_is_told_as_error_3(root: Path) -> None:
    for error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        upload_fails(root, error, 3, 500_000)


@scene
def short_writes_are_continued(root: Path) -> None:
    with Scene(root) as served:
        fault(write_short=1)
        with Client(served.address) as client:
            client.put("up", CONTENT * 2, options={"blksize": 1428, "windowsize": 16})
        assert (root / "up").read_bytes() == CONTENT * 2
        served.completion()
        assert hits() > 0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "file").write_bytes(CONTENT)
        SCENES[sys.argv[1]](root)
    print("played")


if __name__ == "__main__":
    main()
