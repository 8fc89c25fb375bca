"""The client beside atftp and tftp-hpa, from the same server in the same run; prints one JSON object.

    python benchmarks/client.py [--rounds 3] [--root DIR] [--server-cpus 0] [--client-cpus 1] > results.json

Measures `get` and `put` of 1 GiB (windowsize 64, blksize 1428) against atftp, `get` of 20 MB in lock-step with 512-byte
blocks against tftp-hpa, and 1,000 `AsyncClient.get` at once (256 KiB each, into files), with every system call of the
process counted by eBPF in a run apart. `ours_MBps` is the time of the transfer as the program reports it, for the
others the whole run of the program, which starts in milliseconds; `process_MBps` is our whole run, with Python's start.
Content is compared outside the timed part.

DIR should lie on a tmpfs. Where a hypervisor hands out memory at its first use, DIR must have been filled once
before (`--warm` does it), or the page cache's growth is what is measured.
"""

import argparse
import asyncio
import contextlib
import filecmp
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
COMMAND = [sys.executable, "-m", "snow_owl_tftp"]
WINDOWS = ["--blksize", "1428", "--windowsize", "64"]
LOCKSTEP = ["--blksize", "512", "--windowsize", "1"]
ATFTP = ["atftp", "--option", "blksize 1428", "--option", "windowsize 64"]
UPLOADS = '[write_config]\nenabled = true\nallowed_patterns = ["up/**"]\ncreate_directories = true\nfsync = false\n'


@contextlib.contextmanager
def server(root: Path, cpus: str) -> Iterator[int]:
    """Our server on a port of the kernel's choice, uploads below up/ allowed and not synced."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(f'root_dir = "{root}"\nbind_addr = "127.0.0.1:0"\n{UPLOADS}')
        config.flush()
        command = ["taskset", "-c", cpus, *COMMAND, "serve", "--config", config.name, "--log-level", "warning"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rsplit(":", 1)[1])
        finally:
            process.terminate()
            process.wait()


def rate(command: list[str], cpus: str, size_bytes: int) -> tuple[float, float]:
    """MB/s of the transfer as the program tells it (else of the whole run), and MB/s of the whole run."""
    started = time.perf_counter()
    done = subprocess.run(["taskset", "-c", cpus, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    told = json.loads(done.stdout)["seconds"] if done.stdout.startswith("{") else seconds
    return size_bytes / told / 1e6, size_bytes / seconds / 1e6


def downloads(root: Path, port: int, cpus: str, name: str, flags: list[str], other: list[str]) -> dict[str, float]:
    size_bytes = (root / name).stat().st_size
    ours = [*COMMAND, "get", "--json", *flags, f"tftp://127.0.0.1:{port}/{name}", "-o", "/dev/null"]
    told, whole = rate(ours, cpus, size_bytes)
    return {"ours_MBps": told, "process_MBps": whole, "other_MBps": rate(other, cpus, size_bytes)[0]}


def uploads(root: Path, port: int, cpus: str) -> dict[str, float]:
    big = root / "big"
    size_bytes = big.stat().st_size
    # Without --json, which hashes the file: put prints nothing, so the whole run is what counts for it too.
    told, whole = rate(
        [*COMMAND, "put", "--json", *WINDOWS, str(big), f"tftp://127.0.0.1:{port}/up/a"], cpus, size_bytes
    )
    other = rate([*ATFTP, "-p", "-r", "up/b", "-l", str(big), "127.0.0.1", str(port)], cpus, size_bytes)[0]
    for name in ("a", "b"):
        if not filecmp.cmp(big, root / "up" / name, shallow=False):
            raise SystemExit(f"up/{name} differs from what was sent")
        (root / "up" / name).unlink()
    return {"ours_MBps": told, "process_MBps": whole, "other_MBps": other}


async def thousand(root: Path, port: int, folder: Path) -> dict[str, float]:
    """1,000 downloads at once into files; how fast, and this process's largest size."""
    from snow_owl_tftp import AsyncClient

    url = f"tftp://127.0.0.1:{port}/small"
    async with AsyncClient(blksize=1428, windowsize=64) as client:
        started = time.perf_counter()
        await asyncio.gather(*(client.get(url, folder / str(i)) for i in range(1000)))
        seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "MBps": 1000 * (root / "small").stat().st_size / seconds / 1e6,
        "peak_MB": peak_kib * 1024 / 1e6,
    }


@contextlib.contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Every system call of this process, by eBPF; the list gets the count at the end."""
    # A mount namespace of its own, since tracefs may not be mounted; bpftrace prints its map when it is interrupted.
    program = (
        f'BEGIN {{ printf("ready\\n"); }} tracepoint:raw_syscalls:sys_enter /pid == {os.getpid()}/ {{ @ = count(); }}'
    )
    script = 'mountpoint -q /sys/kernel/tracing || mount -t tracefs nodev /sys/kernel/tracing; exec bpftrace -e "$0"'
    counter = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert counter.stdout is not None
    while "ready" not in counter.stdout.readline():
        if counter.poll() is not None:
            raise SystemExit("bpftrace did not start: it needs root")
    calls: list[int] = []
    yield calls
    counter.send_signal(signal.SIGINT)
    calls.append(int(re.search(r"@: (\d+)", counter.communicate()[0])[1]))  # type: ignore[index]


def compare_all(root: Path, folder: Path) -> None:
    content = (root / "small").read_bytes()
    if any((folder / str(i)).read_bytes() != content for i in range(1000)):
        raise SystemExit("a download differs from the file")


def warm(root: Path) -> None:
    """Three GiB of pages are used once and given back."""
    with (root / "warm").open("wb") as file:
        for _ in range(3 * 1024):
            file.write(bytes(MIB))
    (root / "warm").unlink()


def prepare(root: Path) -> None:
    for name, size_bytes in (("big", 1024 * MIB), ("mid", 20_000_000), ("small", 256 * 1024)):
        with (root / name).open("wb") as file:
            for at in range(0, size_bytes, MIB):
                file.write(os.urandom(min(MIB, size_bytes - at)))
    (root / "up").mkdir()


def measure(root: Path, arguments: argparse.Namespace) -> dict[str, object]:
    rows: dict[str, list[dict[str, float]]] = {"get": [], "put": [], "lockstep": [], "thousand": []}
    cpus = arguments.client_cpus
    with server(root, arguments.server_cpus) as port:
        atftp = [*ATFTP, "-g", "-r", "big", "-l", "/dev/null", "127.0.0.1", str(port)]
        hpa = ["tftp", "-m", "octet", "127.0.0.1", str(port), "-c", "get", "mid", "/dev/null"]
        for _ in range(arguments.rounds):
            rows["get"].append(downloads(root, port, cpus, "big", WINDOWS, atftp))
            rows["put"].append(uploads(root, port, cpus))
            rows["lockstep"].append(downloads(root, port, cpus, "mid", LOCKSTEP, hpa))
            with tempfile.TemporaryDirectory(dir=root) as folder:
                rows["thousand"].append(asyncio.run(thousand(root, port, Path(folder))))
                compare_all(root, Path(folder))
            with tempfile.TemporaryDirectory(dir=root) as folder, counted_calls() as calls:
                asyncio.run(thousand(root, port, Path(folder)))
            blocks = 1000 * ((root / "small").stat().st_size // 1428 + 1)
            rows["thousand"][-1]["calls_per_ten_blocks"] = calls[0] / blocks * 10
    medians = {
        name: {key: round(statistics.median(row[key] for row in found), 2) for key in found[0]}
        for name, found in rows.items()
    }
    for name in ("get", "put", "lockstep"):
        medians[name]["times"] = round(medians[name]["ours_MBps"] / medians[name]["other_MBps"], 2)
    return {"medians": medians, "rounds": rows, "server_cpus": arguments.server_cpus, "client_cpus": cpus}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--server-cpus", default="0")
    parser.add_argument("--client-cpus", default="1")
    parser.add_argument("--warm", action="store_true", help="use 3 GiB of memory once before")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.root) as folder:
        root = Path(folder)
        if arguments.warm:
            warm(root)
        prepare(root)
        print(json.dumps(measure(root, arguments), indent=1))


if __name__ == "__main__":
    main()
