"""A flood of requests from addresses that nobody has, while good clients load files: with limits and without.

The good clients are measured beside a flood of the same size that goes to a socket which nobody reads: what the
flooder's own work takes from the cores is not the server's doing.
"""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SEED
from tests.support.attacks import Forger, rrq
from tests.support.server import serve_command

from snow_owl_tftp.bench.load import Load

pytestmark = pytest.mark.alone("the flood takes a processor")
CONTENT = random.Random(SEED).randbytes(512 * 300 - 1)
LIMITS = """
[limits]
max_requests_per_s = 4000
max_requests_per_s_per_client = 50
max_requests_per_s_per_network = 500
max_unproven_bytes_per_s = 1_000_000
max_half_open = 4096
"""
MEMORY_BYTES = 150 * 10**6
SLACK_S = 1.0
"""What a busy machine adds to either."""


@dataclass(frozen=True, slots=True)
class Flood:
    """So many requests from so many addresses, of an existing file and of others in turns."""

    requests: int
    addresses: int
    clients: int
    files: int  # of each client


def flood(port: int, requests: int, addresses: int) -> None:
    """The process that sends them, as fast as it can."""
    forger = Forger(port)
    for number in range(requests):
        try:
            forger.send(rrq("file" if number % 2 else f"nothing-{number}"), number % addresses)
        except BlockingIOError:
            time.sleep(0.001)
        if number == 0:
            print("begun", flush=True)


@contextmanager
def flooding(port: int, kind: Flood) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [str(port), str(kind.requests), str(kind.addresses)]
    process = subprocess.Popen([sys.executable, "-m", __name__, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def load_beside(address: tuple[str, int], flooded_port: int, kind: Flood) -> dict[str, Any]:
    """What `clients` at a time get, so many files each, beside a flood that has begun."""
    load = Load(
        *address, "file", CONTENT, clients=kind.clients, blksize_bytes=512, windowsize_blocks=1, client_timeout_s=1.0
    )
    try:
        load.learn(20)
        with flooding(flooded_port, kind) as process:
            result = load.run(kind.clients * kind.files, 300, lambda ended: None)
            result["outlasted"] = process.poll() is None
    finally:
        load.close()
    return result


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(tmp_path: Path, kind: Flood, config: str) -> dict[str, Any]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    (tmp_path / "owl.toml").write_text("logging.level = 'error'\n" + config)
    start = serve_command(root, "--config", str(tmp_path / "owl.toml"))
    with start as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        beside_sink = load_beside(server.address, nobody.getsockname()[1], kind)
        beside_server = load_beside(server.address, server.address[1], kind)
        peak = peak_bytes(server.process.pid)
    results = {"undisturbed": beside_sink, "flooded": beside_server, "peak_bytes": peak}
    figures = {name: result["wall_s"] for name, result in results.items() if isinstance(result, dict)}
    outlasted = beside_server["outlasted"]
    print(json.dumps({"limits": bool(config), **figures, "flood_outlasted": outlasted, "peak_mb": peak / 1e6}))
    return results


def check(results: dict[str, Any], kind: Flood) -> None:
    for when in ("undisturbed", "flooded"):
        result = results[when]
        expected = (kind.files * kind.clients, 0, 0)
        assert (result["finished"], result["failed"], result["wrong_bytes"]) == expected, (when, result)
    assert results["flooded"]["wall_s"] < 2 * results["undisturbed"]["wall_s"] + SLACK_S, results
    assert results["peak_bytes"] < MEMORY_BYTES


@pytest.mark.timeout(180)
@pytest.mark.parametrize("config", [LIMITS, ""], ids=["limits", "none"])
def test_good_clients_load_beside_a_flood(tmp_path: Path, config: str) -> None:
    kind = Flood(requests=20_000, addresses=5_000, clients=20, files=10)
    check(measure(tmp_path, kind, config), kind)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("config", [LIMITS, ""], ids=["limits", "none"])
def test_soak_fifty_good_clients_beside_200000_requests(tmp_path: Path, config: str) -> None:
    kind = Flood(requests=200_000, addresses=50_000, clients=50, files=30)
    check(measure(tmp_path, kind, config), kind)


if __name__ == "__main__":
    flood(*map(int, sys.argv[1:]))
