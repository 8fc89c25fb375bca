"""One run: a server, a load, and what it cost; or why it has no figures.

    with Bench(seconds=40) as bench:
        bench.run(server, "window16", seed=1)     → Run

May know: processes, cores, the load generator. Must not know how figures are shown.
Invariants: a run ends within its time; what it started is ended and what it wrote is gone; a Run with a problem
has no figures.
"""

import filecmp
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from measuring.loads import LOADS, Load, write_content
from measuring.servers import NotReadyError, Server, Where, await_ready, free_port
from snow_owl_tftp.bench.cpu import CpuAccount, StealWatch, cores, end_tree, start
from snow_owl_tftp.observe.trace.counter import descendants

HERE = Path(__file__).resolve().parent.parent
BUILD = HERE.parent / "build/side-by-side"
SOURCES = {"limit": ["limit.c"], "load": ["load.c", "load/path.c", "load/transfers.c"]}
CFLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")
GRACE_S = 10.0  # for a load generator that has to end by itself
SETTLE_S = 0.05  # for what a server still does when its last client has gone
ROOM_BYTES = 1 << 30  # for the largest load, uploads of 400 MB
MEMORY = Path("/dev/shm")

COUNTS = ("transfers", "finished", "failed", "unfinished", "mismatches", "blocks", "bytes")
SAID = ("blksize", "windowsize", "timeouts", "gaps", "duplicates", "strays", "lost")


@dataclass(frozen=True)
class Run:
    """What came of one run.

    Attributes:
        counts: Of the load generator; empty where it said nothing.
        figures: Numbers to compare; empty where there is a problem.
        problem: Why there are none, in a few words; empty: there are.
    """

    load: str
    server: str
    seed: int
    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def build() -> dict[str, Path]:
    """Compile what is older than its sources; returns the programs by name."""
    BUILD.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for pattern in ("*.c", "load/*.[ch]") for path in HERE.glob(pattern))
    for name, sources in SOURCES.items():
        program, made = BUILD / name, BUILD / f"{name}.{os.getpid()}"
        if not program.exists() or program.stat().st_mtime <= newest:
            command = [
                os.environ.get("CC", "gcc"),
                *CFLAGS,
                "-o",
                str(made),
                *(str(HERE / source) for source in sources),
            ]
            subprocess.run(command, check=True)
            made.rename(program)  # whole, also where somebody else builds it
    return {name: BUILD / name for name in SOURCES}


class Bench:
    """Where runs take place.

    Args:
        scale: So many times as many transfers as the loads have.
        max_s: For the clients of one run, 0.1..600.
    """

    def __init__(self, scale: float, max_s: float) -> None:
        self.programs = build()
        self.server_core, self.load_core = cores()
        self.counted_by = ""
        self._scale, self._max_s = scale, max_s
        self._stack = ExitStack()
        self._provided = ""  # the load whose file is there

    def __enter__(self) -> Self:
        has_room = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
        made = tempfile.TemporaryDirectory(prefix="side-by-side-", dir=MEMORY if has_room else None)
        self.is_in_memory = has_room
        self._scratch = Path(self._stack.enter_context(made))
        self._root = self._scratch / "root"
        (self._root / "up").mkdir(parents=True)
        for folder in (self._scratch, self._root, self._root / "up"):
            folder.chmod(0o777)  # peers give up root before they open a file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, server: Server, name: str, seed: int) -> Run:
        """Start the server, load it, compare, and end it."""
        load = LOADS[name]
        self._provide(name)
        host, port = server.address or ("127.0.0.1", free_port())
        where = Where(self._root, host, port, self._scratch, load.is_upload)
        log = self._scratch / "log"
        with CpuAccount(server.name) as account:
            self.counted_by = account.how
            process = start(server.command(where), account, core=self.server_core, log_path=log)
            try:
                await_ready(process, (host, port), log)
                return self._measured(server, name, seed, where, account, process.pid)
            except NotReadyError as error:
                return Run(name, server.name, seed, problem=f"did not start: {error}")
            finally:
                end_tree(process)
                for written in (self._root / "up").iterdir():
                    written.unlink()

    def _provide(self, name: str) -> None:
        """The file of this load, and no other: memory is short."""
        if self._provided != name:
            if self._provided:
                (self._root / self._provided).unlink()
            write_content(LOADS[name], self._root / name)
            self._provided = name

    def _measured(self, server: Server, name: str, seed: int, where: Where, account: CpuAccount, pid: int) -> Run:
        load = LOADS[name]
        watch, busy_s, before_s = StealWatch((self.server_core, self.load_core)), machine_busy_s(), account.used_s()
        said, problem = self._loaded(load, name, seed, where)
        machine_s = machine_busy_s() - busy_s
        steal_share, memory = watch.share(), memory_bytes(pid)
        time.sleep(SETTLE_S)
        after_s = account.used_s()
        problem = problem or problem_of(said, load, self._scale, self._max_s)
        if not problem and load.is_upload:
            problem = self._wrong_uploads(name, said["transfers"])
        counts = {key: said[key] for key in COUNTS if key in said}
        if problem:
            return Run(name, server.name, seed, counts, problem=problem)
        if before_s is None or after_s is None:
            return Run(name, server.name, seed, counts, problem="its CPU time could not be counted")
        cpu_s = after_s - before_s
        figures = {key: said[key] for key in (*SAID, "wall_s", "p50_s", "p99_s", "max_s", "load_cpu_s")}
        figures |= {"cpu_s": cpu_s, "cpu_us_per_block": cpu_s * 1e6 / said["blocks"]}
        figures |= {"blocks_per_s": said["blocks"] / said["wall_s"], "mb_per_s": said["bytes"] / said["wall_s"] / 1e6}
        figures |= {"memory_mb": memory / 1e6, "steal_share": steal_share}
        figures["others_cores"] = max(0.0, machine_s - cpu_s - said["load_cpu_s"]) / said["wall_s"]
        return Run(name, server.name, seed, counts, figures)

    def _loaded(self, load: Load, name: str, seed: int, where: Where) -> tuple[dict[str, Any], str]:
        """What the load generator says, and what was wrong with it."""
        pin = [] if self.load_core is None else ["taskset", "-c", str(self.load_core)]
        command = [*pin, str(self.programs["load"]), "--host", where.host, "--port", str(where.port)]
        command += ["--file", "up/u" if load.is_upload else name, "--content", str(where.root / name)]
        command += [*load.arguments(self._scale), "--max-s", str(self._max_s), "--seed", str(seed)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=self._max_s + GRACE_S, check=False)
            said: dict[str, Any] = json.loads(ran.stdout)
        except subprocess.TimeoutExpired:
            return {}, "the load generator did not end"
        except ValueError:
            return {}, f"the load generator: {(ran.stderr.strip().splitlines() or ['said nothing'])[0]}"
        return said, ""

    def _wrong_uploads(self, name: str, transfers: int) -> str:
        stored = (self._root / "up" / f"u.{number}" for number in range(transfers))
        right = sum(path.is_file() and filecmp.cmp(self._root / name, path, shallow=False) for path in stored)
        return f"{transfers - right} of {transfers} stored files differ" if right < transfers else ""


def problem_of(said: dict[str, Any], load: Load, scale: float, max_s: float) -> str:
    """Why a run must have no figures; empty: nothing is wrong with it."""
    if said["mismatches"]:
        return f"mismatch: {said['mismatches']} blocks are not the file's"
    if said["failed"]:
        return f"{said['failed']} of {said['transfers']} transfers failed: {said['error']}"
    if said["unfinished"]:
        return f"{said['unfinished']} of {said['transfers']} transfers did not end in {max_s:g} s"
    if said["overrun"]:
        return "the load generator held too many datagrams back"
    if said["blksize"] == load.blksize and said["blocks"] != load.blocks(scale):
        return f"{said['blocks']} blocks instead of {load.blocks(scale)}"
    return ""


def machine_busy_s() -> float:
    """What all cores have done since they were started, without idling and waiting (proc_stat(5))."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Resident, of a server and its children; pages that several processes share count once (Pss)."""
    total = 0
    for member in (pid, *descendants(pid)):
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue  # a child that has just ended, or a server that is another user now
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total
