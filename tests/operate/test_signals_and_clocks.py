"""What an operator, a debugger, a hypervisor and a time server do to a process that serves: nobody is harmed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.support.client import Client, Silence
from tests.support.server import ServerProcess, serve_command, wait_for
from tests.support.soak import many

from snow_owl_tftp.protocol.packets import build_ack, build_error, build_request

CONTENT = random.Random(SEED).randbytes(3_000_000)
CLOCK = Path(__file__).parent.parent / "support/clock.c"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "boot").write_bytes(CONTENT[:200_000])
    (root / "large").write_bytes(CONTENT)
    (root / "text").write_bytes(b"a line\n" * 1000)
    return root


def held(pid: int) -> tuple[int, int]:
    """Descriptors, and resident KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(os.listdir(f"/proc/{pid}/fd")), int(status.partition("VmRSS:")[2].split()[0])  # noqa: PTH208 - no Path each


@contextmanager
def hangups(server: ServerProcess, per_second: int) -> Iterator[list[int]]:
    """SIGHUP, so many a second, until the block ends; the list holds how many."""
    ended, sent = threading.Event(), [0]

    def send() -> None:
        while not ended.wait(1 / per_second):
            server.signal(signal.SIGHUP)
            sent[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def serve_through_hangups(root: Path, tmp_path: Path, least: int) -> None:
    config, log = tmp_path / "owl.toml", tmp_path / "server.log"
    config.write_text(f'[logging]\nfile = "{log}"\naudit_enabled = true\naudit_file = "{tmp_path}/audit"\n')
    with serve_command(root, "--config", str(config)) as server, Client(server.address, timeout_s=2.0) as client:
        client.get("boot", options={"blksize": 1428})
        with hangups(server, 500):
            wait_for(lambda: log.read_text().count("reload") > 1, "reloads")
        before = held(server.process.pid)
        with hangups(server, 500) as sent:
            while sent[0] < least:
                assert client.get("boot", options={"blksize": 1428, "windowsize": 4}).payload == CONTENT[:200_000]
        assert client.get("text", mode="netascii").payload == b"a line\r\n" * 1000
        after = held(server.process.pid)
        assert after[0] <= before[0] + 3
        assert after[1] <= before[1] + 8192
        assert "Traceback" not in server.log + log.read_text()


@pytest.mark.timeout(120)
def test_hundreds_of_sighups_a_second_harm_no_transfer(root: Path, tmp_path: Path) -> None:
    serve_through_hangups(root, tmp_path, 1000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_very_many_sighups(root: Path, tmp_path: Path) -> None:
    """Ten thousand; with SNOW_OWL_SOAK=full, a hundred thousand."""
    serve_through_hangups(root, tmp_path, many(10_000, full=100_000))


# ---- stopped, and going on


def let_server_stop(root: Path, seconds: float) -> None:
    """A transfer is under way, requests come meanwhile; the client asks on, as clients do."""
    with serve_command(root) as server, Client(server.address, timeout_s=1.0, give_up_s=seconds + 20) as client:
        stopped_s = 0.0

        def on_block(index: int) -> None:
            nonlocal stopped_s
            if index == 50:
                stopped_s = time.monotonic()
                server.signal(signal.SIGSTOP)
                # Threads stop one by one: the worker may have ended the transfer before its turn comes.
                os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
                threading.Timer(seconds, server.signal, [signal.SIGCONT]).start()
                with Client(server.address) as others:
                    for number in range(300):
                        others.send(build_request(1, f"missing-{number}"))

        got = client.get("boot", options={"blksize": 1428}, on_block=on_block)
        assert got.payload == CONTENT[:200_000]
        assert time.monotonic() - stopped_s >= seconds
        assert client.get("boot", options={"blksize": 1024}).payload == CONTENT[:200_000]
        assert "Traceback" not in server.log


@pytest.mark.timeout(120)
def test_server_that_was_stopped_for_a_while_goes_on(root: Path) -> None:
    let_server_stop(root, 4)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_soak_server_that_was_stopped_for_longer_than_it_waits_for_clients(root: Path) -> None:
    """Its clients were not silent for 35 s; it was deaf. Their packets wait in its sockets, and are read first."""
    let_server_stop(root, 35)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_client_that_was_stopped_for_a_while_goes_on(root: Path, tmp_path: Path, seconds: float) -> None:
    with serve_command(root) as server:
        url = f"tftp://127.0.0.1:{server.address[1]}/large"
        command = [sys.executable, "-m", "snow_owl_tftp", "get", "--no-options", url, "-o", str(tmp_path / "got")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
            wait_for(lambda: list(tmp_path.glob(".*got*")) or (tmp_path / "got").exists(), "the transfer")
            client.send_signal(signal.SIGSTOP)
            time.sleep(seconds)  # what is meant: it was away for so long
            client.send_signal(signal.SIGCONT)
            assert client.wait(60) == 0, client.stderr.read() if client.stderr else ""
        assert (tmp_path / "got").read_bytes() == CONTENT


# ---- the wall clock


@pytest.fixture
def jumping_clock(tmp_path: Path) -> dict[str, str]:
    if not shutil.which("gcc"):
        pytest.skip("the clock that jumps is a C library, and there is no gcc")
    library = tmp_path / "clock.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(CLOCK), "-o", str(library)], check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


def test_jumps_of_the_wall_clock_change_nothing_but_the_dates_in_the_log(
    root: Path, tmp_path: Path, jumping_clock: dict[str, str]
) -> None:
    """Each look at it finds it twenty years from the last. The log proves that the server sees that clock."""
    began = time.monotonic()
    config = tmp_path / "owl.toml"
    config.write_text("workers = 2\n[retransmit]\ninitial_ms = 200\nhalf_open_give_up_s = 2\n")
    with serve_command(root, "--config", str(config), env=jumping_clock) as server, Client(server.address) as client:
        for _ in range(5):
            assert (
                client.get("boot", options={"blksize": 1428, "windowsize": 8, "timeout": 1}).payload
                == CONTENT[:200_000]
            )
            assert client.get("text", mode="netascii").payload == b"a line\r\n" * 1000
        silent = build_request(1, "boot", options=[("blksize", "1000")])
        client.send(silent)
        heard = [client.receive(15)[0][:2] for _ in range(4)]
        assert heard == [b"\0\6"] * 3 + [b"\0\5"], "given up after its time"
        wait_for(lambda: server.log.count("\n") > 5, "lines")
        years = {line[:4] for line in server.log.splitlines()}
    assert len(years) >= 2
    assert time.monotonic() - began < 30


def test_client_is_as_indifferent_to_the_wall_clock(root: Path, tmp_path: Path, jumping_clock: dict[str, str]) -> None:
    with serve_command(root) as server:
        url = f"tftp://127.0.0.1:{server.address[1]}/large"
        command = [sys.executable, "-m", "snow_owl_tftp", "get", url, "-o", str(tmp_path / "got")]
        done = subprocess.run(command, env=jumping_clock, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "got").read_bytes() == CONTENT


def test_nothing_but_dates_one_cache_and_leases_ask_the_wall_clock() -> None:
    """The cache asks whether a file was changed a moment ago; where the clock lies it reads the file once more. DHCP
    servers write down by that clock when a lease ends.
    """
    package = Path(__file__).parents[2] / "src/snow_owl_tftp"
    names = (
        "time.time(",
        "time.time_ns(",
        "datetime.now",
        "CLOCK_REALTIME",
        "gettimeofday",
        "time.time,",
        "= time.time",
    )
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd") and any(name in path.read_text() for name in names)
    }
    shown = {"observe/log.py", "observe/lines.py", "observe/audit.py", "bench/provenance.py"}
    assert found - shown == {"content/translate.py", "policy/machines/leases.py"}


# ---- monotonic clocks of machines that run for long


# Of 2^32 ns each test passes some; 2^62 ns is more than a kernel can be told.
BOUNDARIES = {"2^32 ms": 2**32 / 1e3, "2^53 ns": 2**53 / 1e9, "2^60 ns": 2**60 / 1e9}


@pytest.mark.parametrize("boundary_s", BOUNDARIES.values(), ids=BOUNDARIES)
def test_server_that_crosses_a_boundary_of_its_clock_serves_on(root: Path, boundary_s: float) -> None:
    """In a time namespace whose monotonic clock is short of it, by the time that a start takes."""
    offset = int(boundary_s - time.monotonic()) - 2
    launcher = ["unshare", "--time", f"--monotonic={offset}", "--fork", "--kill-child"]
    asked = [*launcher, sys.executable, "-c", "import time; print(time.monotonic())"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip("no time namespaces here: they take root and CONFIG_TIME_NS")
    assert boundary_s - 4 < float(shown.stdout) < boundary_s
    with serve_in(launcher, root) as (server, port), Client(("127.0.0.1", port), timeout_s=1.0) as client:
        end = time.monotonic() + 4
        while time.monotonic() < end:  # from before it to behind it
            got = client.get("boot", options={"blksize": 1428, "windowsize": 8})
            assert got.payload == CONTENT[:200_000]
            with Client(("127.0.0.1", port)) as silent:  # a timer across the boundary
                silent.request("boot", options={"blksize": 8})
        client.request("boot", options={"blksize": 1000})
        _, peer = client.receive(5)
        client.send(build_ack(0), peer)
        assert client.receive(5)[0][:2] == b"\0\3"
        assert client.receive(5)[0][:2] == b"\0\3", "its timer still runs"
        client.send(build_error(0), peer)
        tid = client.get("boot").peer
        client.send(build_ack(391), tid)
        with pytest.raises(Silence):
            client.receive(
                0.3
            )  # the echo of a transfer that has ended is answered with nothing, by an ERROR least of all
        assert server.poll() is None


@contextmanager
def serve_in(launcher: list[str], root: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    command = [*launcher, sys.executable, "-m", "snow_owl_tftp", "serve", str(root), "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout
            yield process, int(process.stdout.readline().rpartition(b":")[2])
        finally:
            process.kill()  # --kill-child: the server goes with it
