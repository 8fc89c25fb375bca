"""What hangs in the kernel holds its own share of threads, and not the end of the process."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import serve_in_thread, wait_for

from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.source import LATER, Named
from snow_owl_tftp.server import patient
from snow_owl_tftp.server import reads as decide
from snow_owl_tftp.server.patient import PatientThreads

DEADLINE_S = 20


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_what_is_asked_for_is_done_and_its_failure_told() -> None:
    threads = PatientThreads(4, 2, "test")
    assert threads.submit(divmod, 7, 2).result(DEADLINE_S) == (3, 1)
    assert threads.submit_for(b"key", int, "12", base=8).result(DEADLINE_S) == 10
    assert isinstance(threads.submit(int, "x").exception(DEADLINE_S), ValueError)
    names = {threads.submit(lambda: threading.current_thread().name).result(DEADLINE_S) for _ in range(20)}
    assert all(name.startswith("test") for name in names)
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(int)


def test_where_no_thread_is_to_be_had_nothing_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = PatientThreads(4, 2, "test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot_start)
        with pytest.raises(RuntimeError, match="new thread"):
            threads.submit_for(b"key", int)
        assert threads.waiting_for(b"key") == 0
    assert threads.submit_for(b"key", int, 5).result(DEADLINE_S) == 5
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot_start)
        both = [threads.submit_for(b"key", int, number) for number in range(2)]  # the one that there is does both
        assert [future.result(DEADLINE_S) for future in both] == [0, 1]
    threads.shutdown()


def test_request_is_refused_where_no_thread_is_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(b"content")
    monkeypatch.setattr(FileTree, "open_now", lambda self, named: LATER)
    with serve_in_thread(tmp_path / "root") as server, Client(server.address) as client:
        with monkeypatch.context() as patch:
            patch.setattr(patient.apart, "start", _no_thread)
            with pytest.raises(Refused, match="ERROR 0: Server busy, try again"):
                client.get("file")
        assert client.get("file").payload == b"content"
        assert "internal error" not in server.log


def _device(tree: FileTree, named: Named, may_wait_on: int | None = None) -> int:
    return 7 if named.paths[0].startswith(b"dead") else 8


def _no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_one_key_never_has_more_threads_than_it_may_and_others_have_theirs(release: threading.Event) -> None:
    threads, hanging = PatientThreads(5, 2, "test"), threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        release.wait(DEADLINE_S)

    stuck = [threads.submit_for(key, hang) for _ in range(10) for key in (b"dead", b"dying")]
    for _ in range(4):
        assert hanging.acquire(timeout=DEADLINE_S)
    for number in range(50):
        assert threads.submit_for(b"alive", int, number).result(DEADLINE_S) == number
    assert not hanging.acquire(blocking=False)  # no fifth one hangs
    assert threads.waiting_for(b"dead") == 10
    release.set()
    assert all(future.result(DEADLINE_S) is None for future in stuck)
    wait_for(lambda: threads.waiting_for(b"dead") == 0, "the end of the last")
    threads.shutdown()


def test_what_hangs_is_replaced_up_to_a_bound(release: threading.Event) -> None:
    threads, hanging = PatientThreads(9, 1, "test", max_spares=2, hang_s=0.05), threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        release.wait(DEADLINE_S)

    stuck = [threads.submit_for(7, hang) for _ in range(5)]
    for _ in range(3):
        assert hanging.acquire(timeout=DEADLINE_S)
    wait_for(lambda: threads.is_stuck(7), "all three to count as hanging")
    assert not hanging.acquire(timeout=0.3)  # no fourth one
    assert threads.busy_total == 3
    assert not threads.is_stuck(8)
    assert not threads.finish(0.01)
    release.set()
    assert all(future.result(DEADLINE_S) is None for future in stuck)
    assert threads.finish(DEADLINE_S)
    assert not threads.is_stuck(7)
    threads.shutdown()


def test_quick_work_of_one_key_is_done_by_one_thread(release: threading.Event) -> None:
    """Or each look-up of a flood wakes all the threads that there are."""
    threads = PatientThreads(9, 8, "test", help_after_s=DEADLINE_S)
    first = threads.submit_for(7, release.wait, DEADLINE_S)
    futures = [threads.submit_for(7, lambda: threading.current_thread().name) for _ in range(500)]
    assert threads.submit_for(8, int, 5).result(DEADLINE_S) == 5  # another key does not wait for it
    release.set()
    assert first.result(DEADLINE_S)
    assert len({future.result(DEADLINE_S) for future in futures}) == 1
    assert threads._started_total <= 3
    assert threads.finish(DEADLINE_S)
    threads.shutdown()


def test_work_behind_what_takes_long_has_threads_soon(release: threading.Event) -> None:
    threads, hanging = PatientThreads(9, 4, "test", help_after_s=0.001), threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        release.wait(DEADLINE_S)

    stuck = [threads.submit_for(7, hang) for _ in range(6)]
    for _ in range(4):
        assert hanging.acquire(timeout=DEADLINE_S)
    assert not hanging.acquire(timeout=0.1)
    assert threads.submit_for(8, int, 5).result(DEADLINE_S) == 5
    release.set()
    assert all(future.result(DEADLINE_S) is None for future in stuck)
    threads.shutdown()


def test_work_behind_what_takes_long_has_threads_soon_though_another_key_hangs(release: threading.Event) -> None:
    threads, hanging = PatientThreads(9, 2, "test", hang_s=8 * DEADLINE_S, help_after_s=0.5), threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        release.wait(DEADLINE_S)

    for _ in range(3):
        threads.submit_for(7, hang)
    for _ in range(2):
        assert hanging.acquire(timeout=DEADLINE_S)
    assert not hanging.acquire(timeout=1), "the third has to wait until one of them hangs"
    threads.submit_for(8, hang)
    assert hanging.acquire(timeout=DEADLINE_S)
    wait_for(lambda: threads._is_watched, "a thread that looks again, when 7 hangs")
    assert threads.submit_for(8, int, 5).result(DEADLINE_S / 4) == 5
    release.set()
    threads.shutdown()


def test_key_that_is_well_gets_a_thread_though_all_others_hang(release: threading.Event) -> None:
    threads = PatientThreads(4, 2, "test")
    for key in range(20):
        threads.submit_for(key, release.wait, DEADLINE_S)
    assert threads.submit_for("well", int, 5).result(DEADLINE_S) == 5
    release.set()
    threads.shutdown()


def test_what_nobody_waits_for_any_more_is_dropped(release: threading.Event) -> None:
    threads, done = PatientThreads(1, 1, "test"), list[int]()
    running = threads.submit_for(7, release.wait, DEADLINE_S)
    wait_for(lambda: threads.busy_total == 1, "the only thread to be at work")
    waiting = [threads.submit_for(7, done.append, number) for number in range(100)]
    for future in waiting[:99]:
        future.cancel()
    assert threads.waiting_for(7) == 2
    release.set()
    assert running.result(DEADLINE_S)
    waiting[99].result(DEADLINE_S)
    assert done == [99]
    threads.shutdown()


def test_threads_that_nobody_needs_end(monkeypatch: pytest.MonkeyPatch, release: threading.Event) -> None:
    monkeypatch.setattr(patient, "_IDLE_S", 0.05)
    threads = PatientThreads(20, 20, "many")
    busy = [threads.submit_for(7, release.wait, DEADLINE_S) for _ in range(20)]
    wait_for(lambda: threads.busy_total == 20, "twenty threads")
    release.set()
    assert all(future.result(DEADLINE_S) for future in busy)
    wait_for(lambda: sum(one.name.startswith("many") for one in threading.enumerate()) <= 1, "the end of most threads")
    threads.shutdown()


def test_keys_take_turns(release: threading.Event) -> None:
    threads, done = PatientThreads(1, 1, "test"), list[bytes]()
    first = threads.submit_for(b"a", release.wait, DEADLINE_S)
    futures = [threads.submit_for(key, done.append, key) for key in (b"a", b"a", b"a", b"b", b"c")]
    release.set()
    assert first.result(DEADLINE_S)
    for future in futures:
        future.result(DEADLINE_S)
    assert done.index(b"b") < 3
    assert done.index(b"c") < 4
    threads.shutdown()


def test_shutdown_drops_what_waits_and_ends_idle_threads(release: threading.Event) -> None:
    threads, begun = PatientThreads(1, 1, "ending"), threading.Event()
    running, waiting = threads.submit(lambda: (begun.set(), release.wait(DEADLINE_S))), threads.submit(int)
    assert begun.wait(DEADLINE_S)
    threads.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        waiting.result(DEADLINE_S)
    release.set()
    assert running.result(DEADLINE_S) == (None, True)
    wait_for(lambda: all(thread.name != "ending_1" for thread in threading.enumerate()), "the end of the thread")


def test_process_ends_although_a_thread_hangs() -> None:
    code = (
        "import threading; from snow_owl_tftp.server.patient import PatientThreads\n"
        "begun = threading.Event()\n"
        "PatientThreads(1, 1, 'x').submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=DEADLINE_S, check=False).returncode == 0


def test_directory_that_hangs_costs_its_own_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "alive").write_bytes(b"alive")
    open_file = FileTree.open

    def hang(self: FileTree, named: Named) -> Any:
        if named.paths[0].startswith(b"dead/"):
            release.wait(DEADLINE_S)
        return open_file(self, named)

    monkeypatch.setattr(FileTree, "open_now", lambda self, named: LATER)
    monkeypatch.setattr(FileTree, "open", hang)
    monkeypatch.setattr(FileTree, "device_of", _device)
    monkeypatch.setattr(decide, "_MAX_SLOW_OPENS", 80)
    with serve_in_thread(root) as server, Client(server.address) as client:
        stuck = [Client(server.address) for _ in range(40)]
        for number, one in enumerate(stuck):
            one.request(f"dead/{number}")
        for _ in range(3):
            assert client.get("alive").payload == b"alive"
        # The last of them has come, since requests are decided in order: the next one is too many.
        with pytest.raises(Refused, match="busy"):
            client.get("dead/one too many")
        release.set()
        for one in stuck:
            one.close()
