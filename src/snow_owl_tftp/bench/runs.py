"""One run of one server under one load: timed, or traced.

    Bench.timed(target, workload)    → Run: speed, latency, CPU; no tracer is attached
    Bench.traced(target, workload)   → Run: system calls per block, by eBPF; no speed

May know: how servers, load and relay are started and spoken to. Must not know which runs make a benchmark, or how
they are shown.

Invariants: every process that was started is ended, also when a run fails; a run with a failed transfer or a wrong
byte has `is_valid` False, and whoever shows it shows no speed.
"""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from snow_owl_tftp.bench.cpu import CpuAccount, StealWatch, cores, end_tree, start
from snow_owl_tftp.bench.helper import Helper, RunError
from snow_owl_tftp.bench.provenance import without_paths
from snow_owl_tftp.bench.servers import KINDS, Asked, Kind, why_not_started
from snow_owl_tftp.bench.settings import BenchTarget, Workload
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace.counter import Tracer

__all__ = ["Bench", "Run", "check_target"]

_READY_LIMIT_S: Final = 15.0
_ENDED_GRACE_S: Final = 60.0
"""Beyond the limit of a run, for starting and ending its processes."""
_SETTLE_S: Final = 0.05
"""The last ACKs are still on their way to the server when the clients are done."""
_CONTENT_SEED: Final = 7
_RELAY_BUSY: Final = 0.9
_LOAD_BUSY: Final = 0.95
_STEAL: Final = 0.05
_CHUNK_BYTES: Final = 1 << 20
"""Python's generator makes less than 256 MiB at a time."""
_PROBE: Final = b"\0\1no-such-file-of-the-benchmark\0octet\0"


@dataclass(frozen=True, slots=True)
class Run:
    """What came out of one run.

    Attributes:
        target: Name of the server's configuration.
        workload: What was asked.
        load: What the load process said (see load._Tally.result); empty where it could not run.
        server_cpu_s: CPU time of the server's processes; None in a traced run, and where it could not be measured.
        cpu_counted_by: How; empty where it was not.
        trace: Counts as `trace --json` writes them; None in a timed run.
        relay: What the relay said; None without one.
        problem: Why there is nothing to show; empty: nothing is wrong.
        is_traced: The tracer was, or should have been, attached.
        steal_share: Of the run's time, on the worse core of the two: what the hypervisor gave to others; None where the
            kernel does not say.
    """

    target: str
    workload: Workload
    load: dict[str, Any] = field(default_factory=dict)
    server_cpu_s: float | None = None
    cpu_counted_by: str = ""
    trace: dict[str, Any] | None = None
    relay: dict[str, Any] | None = None
    problem: str = ""
    is_traced: bool = False
    steal_share: float | None = None

    @property
    def is_valid(self) -> bool:
        """Every transfer ended well, and every byte was right."""
        return not self.problem and bool(self.load) and self.load["failed"] == 0

    @property
    def reason(self) -> str:
        """Why it is not valid, in one line; empty: it is."""
        if self.problem:
            return self.problem.splitlines()[0]
        if self.is_valid:
            return ""
        first = next(iter(self.load.get("failures", {})), "no answer")
        return f"{self.load.get('failed', 0)} of {self.load.get('transfers', 0)} transfers failed ({first})"

    @property
    def blocks_per_s(self) -> float | None:
        """None for a run that is not valid or was traced."""
        return self._per_s("blocks")

    @property
    def mb_per_s(self) -> float | None:
        """Payload, in 10^6 bytes."""
        bytes_per_s = self._per_s("payload_bytes")
        return None if bytes_per_s is None else bytes_per_s / 1e6

    def _per_s(self, what: str) -> float | None:
        if not self.is_valid or self.is_traced:
            return None
        return float(self.load[what]) / float(self.load["wall_s"])

    @property
    def cpu_us_per_block(self) -> float | None:
        """Of the server, on all its cores."""
        return None if self.server_cpu_s is None else self.per_block(self.server_cpu_s * 1e6)

    @property
    def load_cpu_us_per_block(self) -> float | None:
        """Of the clients' process."""
        if self.is_traced or "load_cpu_s" not in self.load:
            return None
        return self.per_block(float(self.load["load_cpu_s"]) * 1e6)

    def per_block(self, total: float) -> float | None:
        """By the blocks that the clients got; None for a run that is not valid, or in which none came."""
        blocks = int(self.load["blocks"]) if self.is_valid else 0
        return total / blocks if blocks else None

    @property
    def is_load_bound(self) -> bool:
        """The clients' core had no time left: the server may be faster than this."""
        return bool(self.load) and self.load.get("load_cpu_s", 0.0) > _LOAD_BUSY * self.load["wall_s"]

    @property
    def is_stolen(self) -> bool:
        """So much of the processor went to other guests that the figures say little."""
        return self.steal_share is not None and self.steal_share > _STEAL

    @property
    def is_relay_bound(self) -> bool:
        """The relay was too busy for this to say anything about the server."""
        return self.relay is not None and (self.relay["busy_share"] > _RELAY_BUSY or self.relay["overflowed"] > 0)

    def to_json(self) -> dict[str, Any]:
        """For results.json."""
        derived = {
            "is_valid": self.is_valid,
            "blocks_per_s": self.blocks_per_s,
            "mb_per_s": self.mb_per_s,
            "cpu_us_per_block": self.cpu_us_per_block,
            "load_cpu_us_per_block": self.load_cpu_us_per_block,
        }
        return {**asdict(self), **derived}


class Bench:
    """A folder with files to serve, and what is needed to run servers on it.

    Attributes:
        tell: Told the share of a run that is done, 0..1, now and then.
        server_core: Where servers run; None: anywhere.
        load_core: Where the load and the relay run.
    """

    def __init__(self) -> None:
        self.tell: Callable[[float], None] = lambda share: None
        self.server_core, self.load_core = cores()
        # In memory where we can: the disk is not what is measured.
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="snow-owl-bench-", dir=shm))
        self._root = self._folder / "root"
        self._root.mkdir()
        # Some peers give up root and have to find their way in.
        self._folder.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def timed(self, target: BenchTarget, workload: Workload) -> Run:
        """Speed, latency and CPU."""
        return self._run(target, workload, is_traced=False)

    def traced(self, target: BenchTarget, workload: Workload) -> Run:
        """System calls."""
        return self._run(target, workload, is_traced=True)

    def _run(self, target: BenchTarget, workload: Workload, *, is_traced: bool) -> Run:
        try:
            return self._made(target, workload, is_traced=is_traced)
        except (RunError, ConfigError, OSError, subprocess.SubprocessError, ValueError) as error:
            # Whatever keeps one run from being made must not cost those that were.
            problem = without_paths(str(error)) or type(error).__name__
            return Run(target.name, workload, problem=problem, is_traced=is_traced)

    def _made(self, target: BenchTarget, workload: Workload, *, is_traced: bool) -> Run:
        content_path = self._content(workload.file_bytes)
        with CpuAccount(target.name.replace(" ", "").replace(",", "-")) as account:
            with (
                self._server(target, account) as (process, address),
                self._relayed(address, workload) as relay,
                self._loaded(relay.address, workload, content_path) as load,
            ):
                before_s, watch = account.used_s(), StealWatch((self.server_core, self.load_core))
                with Tracer(process.pid, with_children=True) if is_traced else contextlib.nullcontext() as tracer:
                    result = load.run(self.tell)
                    time.sleep(_SETTLE_S)
                used_s, steal_share = _grown(before_s, account.used_s()), watch.share()
                if process.poll() is not None:
                    raise RunError(f"the server ended during the run, with status {process.returncode}")
            return Run(
                target.name,
                workload,
                result,
                None if is_traced else used_s,
                "" if used_s is None else account.how,
                tracer.counts.to_json() if tracer else None,
                relay.said,
                is_traced=is_traced,
                steal_share=steal_share,
            )

    def _content(self, size_bytes: int) -> Path:
        path = self._root / f"file-{size_bytes}"
        if not path.exists():
            rng, left_bytes = random.Random(_CONTENT_SEED), size_bytes
            part = self._folder / "part"  # a file that did not fit must not be taken for a whole one
            with part.open("wb") as file:
                while left_bytes:
                    left_bytes -= file.write(rng.randbytes(min(left_bytes, _CHUNK_BYTES)))
            part.chmod(0o644)
            part.rename(path)
        return path

    @contextlib.contextmanager
    def _server(
        self, target: BenchTarget, account: CpuAccount
    ) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
        kind = KINDS[target.server]
        program = kind.find()
        if program is None:
            raise RunError(f"{target.server} is not installed")
        process, address = self._started(target, account, kind, program)
        try:
            yield process, address
        finally:
            end_tree(process)

    def _started(
        self, target: BenchTarget, account: CpuAccount, kind: Kind, program: str
    ) -> tuple[subprocess.Popen[bytes], tuple[str, int]]:
        """The process, and where it answers. A port that was free may be taken when the server wants it: once more."""
        log_path = self._folder / f"{target.server}.log"
        for is_last in (False, False, True):
            # A server that has but one port gets an address of its own, where nobody else's port 69 is.
            address = ("127.77.0.1", kind.fixed_port) if kind.fixed_port else ("127.0.0.1", _free_port())
            asked = Asked(program, self._root, *address, self._folder, target.batch)
            folder = self._root if kind.in_root else None
            process = start(kind.command(asked), account, core=self.server_core, log_path=log_path, folder=folder)
            try:
                _await_ready(process, address, log_path)
                return process, address
            except BaseException as error:
                end_tree(process)
                if is_last or not (isinstance(error, RunError) and "in use" in str(error)):
                    raise
        raise AssertionError("the last start returns or raises")

    @contextlib.contextmanager
    def _relayed(self, address: tuple[str, int], workload: Workload) -> Iterator["_RelayHandle"]:
        network = workload.network
        if network.is_perfect:
            yield _RelayHandle(address)
            return
        asked = {
            "host": address[0],
            "port": address[1],
            "rtt_ms": network.rtt_ms,
            "loss_percent": network.loss_percent,
            "seed": network.seed,
            "core": self.load_core,
        }
        with Helper("relay", asked) as helper:
            handle = _RelayHandle(("127.0.0.1", helper.read(_READY_LIMIT_S)["port"]))
            yield handle
            helper.end_input()
            handle.said = helper.read(_READY_LIMIT_S)

    @contextlib.contextmanager
    def _loaded(self, address: tuple[str, int], workload: Workload, content_path: Path) -> Iterator["_LoadHandle"]:
        asked = {
            "host": address[0],
            "port": address[1],
            "filename": content_path.name,
            "content_path": str(content_path),
            "clients": workload.clients,
            "transfers": workload.transfers,
            "blksize_bytes": workload.blksize_bytes,
            "windowsize_blocks": workload.windowsize_blocks,
            "client_timeout_s": workload.timeout_s,
            "limit_s": workload.time_limit_s,
            "stop_after_s": workload.stop_after_s,
            "core": self.load_core,
        }
        with Helper("load", asked) as helper:
            helper.read(workload.time_limit_s + _ENDED_GRACE_S)  # ready
            yield _LoadHandle(helper, workload)


@dataclass(slots=True)
class _RelayHandle:
    address: tuple[str, int]
    said: dict[str, Any] | None = None


@dataclass(slots=True)
class _LoadHandle:
    helper: Helper
    workload: Workload

    def run(self, tell: Callable[[float], None]) -> dict[str, Any]:
        """Let the clients go; returns what they say in the end."""
        self.helper.go()
        began_s = time.monotonic()
        while True:
            message = self.helper.read(self.workload.time_limit_s + _ENDED_GRACE_S)
            if "result" in message:
                result: dict[str, Any] = message["result"]
                return result
            if self.workload.stop_after_s:
                tell(min(1.0, (time.monotonic() - began_s) / self.workload.stop_after_s))
            elif self.workload.transfers:
                tell(message["done"] / self.workload.transfers)


def _grown(before_s: float | None, after_s: float | None) -> float | None:
    """No server serves without using the processor: what has not grown was not measured."""
    if before_s is None or after_s is None or after_s <= before_s:
        return None
    return after_s - before_s


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], address: tuple[str, int], log_path: Path) -> None:
    """Until it answers a request for a file that is not there."""
    end_s = time.monotonic() + _READY_LIMIT_S
    while time.monotonic() < end_s and process.poll() is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.1)
            with contextlib.suppress(OSError):
                sock.sendto(_PROBE, address)
                sock.recvfrom(600)
                return
    said = log_path.read_text(errors="replace").strip().splitlines()
    reason = said[-1] if said else "it said nothing"
    raise RunError(f"it did not become ready: {reason}")


def check_target(name: str) -> None:
    """Refuse a server that is unknown, not installed, or not for this user to start.

    Raises:
        ConfigError: With the names that are known.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise ConfigError(f"bench: unknown server {name}; known are {', '.join(KINDS)}")
    if kind.find() is None:
        raise ConfigError(f"bench: {name} is not installed; scripts/install-peers.sh installs what Debian has")
    if problem := why_not_started(name):
        raise ConfigError(f"bench: {name} {problem}; leave it out, or run bench with sudo")
