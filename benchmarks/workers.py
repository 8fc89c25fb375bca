"""What a second worker brings: blocks/s and server CPU per block for each number of workers; prints one JSON object.

    python benchmarks/workers.py [--workers 1 2] [--rounds 3] [--seconds 4] [--gso]

On few cores the load competes with the server for them. Without UDP_SEGMENT (the default here) a block costs the server
several times what it costs the load, so even two cores show whether workers get into each other's way: then CPU per
block would grow with them. Server and load may use every core. Every byte is compared by the load.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIENTS = 64
FILE_BYTES = 1 << 20
CONFIG = """
root_dir = "{root}"
bind_addr = "127.0.0.1:0"
workers = {workers}
[logging]
level = "error"
[performance.platform.batch]
enable_gso = {gso}
"""


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, content: Path, seconds: float) -> "subprocess.Popen[str]":
    asked = {
        "host": "127.0.0.1",
        "port": port,
        "filename": content.name,
        "content_path": str(content),
        "clients": CLIENTS,
        "transfers": None,
        "blksize_bytes": 1428,
        "windowsize_blocks": 16,
        "client_timeout_s": 4.0,
        "limit_s": 60.0,
        "stop_after_s": seconds,
        "core": None,
    }
    command = [sys.executable, "-m", "snow_owl_tftp.bench.load", json.dumps(asked)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if "ready" not in (said := process.stdout.readline()):
        raise SystemExit(f"the load did not start: {said}")
    return process


def result_of(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:
        if "result" in (message := json.loads(line)):
            process.wait()
            result: dict[str, float] = message["result"]
            return result
    raise SystemExit("the load ended without a result")


def run(folder: Path, content: Path, workers: int, gso: str, seconds: float) -> dict[str, float]:
    config = folder / "config.toml"
    config.write_text(CONFIG.format(root=folder, workers=workers, gso=gso))
    command = [sys.executable, "-m", "snow_owl_tftp", "serve", "--config", str(config)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        generator = load(int(server.stdout.readline().rsplit(":", 1)[1]), content, seconds)
        began_cpu_s, began_s = cpu_s(server.pid), time.monotonic()
        said = result_of(generator)
        used_s, wall_s = cpu_s(server.pid) - began_cpu_s, time.monotonic() - began_s
    finally:
        server.terminate()
        server.wait()
    if said["failed"]:
        raise SystemExit(f"no figure: {said}")
    blocks = said["blocks"]
    return {
        "blocks_per_s": blocks / wall_s,
        "server_us_per_block": used_s / blocks * 1e6,
        "server_cores": used_s / wall_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--gso", action="store_true")
    arguments = parser.parse_args()
    rows: dict[int, list[dict[str, float]]] = {workers: [] for workers in arguments.workers}
    with tempfile.TemporaryDirectory() as name:
        content = Path(name) / "content"
        content.write_bytes(os.urandom(FILE_BYTES))
        for _ in range(arguments.rounds):
            for workers, found in rows.items():
                gso = str(arguments.gso).lower()
                found.append(run(Path(name), content, workers, gso, arguments.seconds))
    medians = {
        workers: {key: round(statistics.median(row[key] for row in found), 3) for key in found[0]}
        for workers, found in rows.items()
    }
    print(json.dumps({"cores": os.cpu_count(), "gso": arguments.gso, "medians": medians, "rounds": rows}, indent=1))


if __name__ == "__main__":
    main()
