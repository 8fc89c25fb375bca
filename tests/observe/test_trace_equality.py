"""Every call that the tracer sees of a server is one that the server's engine counted, and the other way round.

The server runs in a process of its own and tells its counters; nothing is compared by "at least".
"""

import concurrent.futures
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SEED
from tests.support.client import Client
from tests.support.server import wait_for
from tests.support.tracing import needs_trace, tracing  # noqa: F401 - a fixture is used by its name

from snow_owl_tftp.observe.trace.counter import Tracer
from snow_owl_tftp.observe.trace.counts import TraceCounts, bucket_label

CONTENT = random.Random(SEED).randbytes(100_000)
BLOCKS = len(CONTENT) // 512 + 1
CLIENTS = 4
# Nothing is sent twice because this machine is busy: the number of reads of a file is known. And nothing is sampled for
# the log, whose timer would wake the loop between the last look at the counters and the end of the trace.
QUIET = {"retransmit.initial_ms": 3000, "retransmit.floor_ms": 3000, "logging.level": "warning"}


class Counted:
    """The process, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self.pid, self._ask, self._hear = process.pid, process.stdin, process.stdout
        self.address: tuple[str, int] = tuple(json.loads(self._hear.readline()))

    def counters(self) -> dict[str, Any]:
        self._ask.write("\n")
        self._ask.flush()
        said: dict[str, Any] = json.loads(self._hear.readline())
        return said

    def quiet(self) -> dict[str, Any]:
        """The counters, once nothing moves: all threads wait."""

        def look() -> dict[str, Any] | None:
            first, sleeps, second = self.counters(), self._all_sleep(), self.counters()
            is_quiet = sleeps and first["engine"] == second["engine"] and first["engine"]["live_transfers"] == 0
            return second if is_quiet else None

        found: dict[str, Any] = wait_for(look, "quiet")
        return found

    def _all_sleep(self) -> bool:
        """Whether no thread is about to make a call that it has not counted yet (proc_pid_stat(5), field 3)."""
        stats = [task.read_text() for task in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "S" for stat in stats)


@contextlib.contextmanager
def serve(root: Path, overrides: dict[str, Any]) -> Iterator[Counted]:
    command = [sys.executable, "-m", "tests.support.counted_server", str(root), json.dumps(overrides)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Counted(process)
            process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()


def traced(root: Path, batch: dict[str, Any]) -> tuple[TraceCounts, dict[str, Any]]:
    """What the tracer counted of some downloads, and by how much the server's own figures grew."""
    overrides = QUIET | {f"performance.platform.batch.{key}": value for key, value in batch.items()}
    with serve(root, overrides) as counted:
        before = counted.quiet()
        with Tracer(counted.pid) as tracer, concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:

            def download(_: int) -> bytes:
                with Client(counted.address) as client:
                    return client.get("f").payload

            assert list(pool.map(download, range(CLIENTS))) == [CONTENT] * CLIENTS
            after = counted.quiet()
        grown = {}
        for name, value in after["engine"].items():
            early = before["engine"][name]
            grown[name] = (
                [b - a for a, b in zip(early, value, strict=True)] if isinstance(value, list) else value - early
            )
        for name in ("loop_waits", "loop_wakes"):
            grown[name] = after[name] - before[name]
    return tracer.counts, grown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_bytes(CONTENT)
    return tmp_path / "root"


def by_label(histogram: list[int]) -> dict[str, int]:
    return {bucket_label(bucket): calls for bucket, calls in enumerate(histogram) if calls}


@needs_trace
def test_batched_server_is_counted_alike(root: Path) -> None:
    counts, engine = traced(root, {"batch_timeout_us": 200})
    receives, sends = counts.of("recvmmsg"), counts.of("sendmmsg")
    assert engine["datagrams_sent"] >= CLIENTS * BLOCKS
    assert (receives.calls, receives.empty) == (engine["recvmmsg_calls"], engine["recvmmsg_empty"])
    assert receives.datagrams == engine["datagrams_received"]
    assert receives.histogram() == by_label(engine["receive_histogram"])
    assert (sends.calls, sends.datagrams) == (engine["sendmmsg_calls"], engine["datagrams_sent"])
    assert sends.histogram() == by_label(engine["send_histogram"])
    assert sum(wait.calls for wait in counts.of_kind("wait")) == engine["epoll_wait_calls"] + engine["loop_waits"]
    looks = engine["page_looks"]
    assert counts.of("pread64").calls == CLIENTS + looks, "a final block each; the others leave from the mapping"


@needs_trace
def test_plain_server_is_counted_alike(root: Path) -> None:
    counts, engine = traced(root, {"enable_recvmmsg": False, "enable_sendmmsg": False})
    assert engine["loop_wakes"] == 0, "Python's own datagrams would be among those counted here"
    receives, sends = counts.of("recvfrom"), counts.of("sendto")
    assert (counts.of("recvmmsg").calls, counts.of("sendmmsg").calls) == (0, 0)
    assert (receives.calls, receives.empty) == (engine["recvfrom_calls"], engine["recvfrom_empty"])
    assert receives.histogram() == by_label(engine["receive_histogram"])
    assert (sends.calls, sends.datagrams) == (engine["sendto_calls"], engine["datagrams_sent"])
    assert sends.histogram() == by_label(engine["send_histogram"])
    assert sum(wait.calls for wait in counts.of_kind("wait")) == engine["epoll_wait_calls"] + engine["loop_waits"]
    assert engine["blocks_sent"] == CLIENTS * BLOCKS
    assert counts.of("pread64").calls == engine["blocks_sent"] + engine["page_looks"]
