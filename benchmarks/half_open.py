"""What 100,000 clients cost that ask and then say nothing: memory of the server, and what a good client feels of them.

    python benchmarks/half_open.py [--requests 100000] [--no-flows]

Starts a server, measures a good client alone and then among the silent ones, and prints one JSON object. Every silent
client is a loopback address of its own, chosen by IP_PKTINFO on one socket, and counts once it has been answered. They
are kept for `KEPT_S`, longer than by default, so that all are there while the client is measured; else it exits with 1.
"""

import argparse
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from snow_owl_tftp import Client
from snow_owl_tftp.bench.load import FIRST_ADDRESS, quantile
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import build_request

KEPT_S = 60
IP_PKTINFO = 8  # linux/in.h; the socket module of Python 3.11 does not name it
BURST_REQUESTS = 256
SMALL_REQUESTS = 2000
BIG_BYTES = 16 << 20
REQUEST = build_request(Opcode.RRQ, "small", "octet", (("tsize", "0"),))
CONFIG = "[retransmit]\nhalf_open_give_up_s = {}\n[performance.platform.batch]\nenable_flows = {}\n"


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(port: int) -> dict[str, float]:
    """One client: how long a file of one block takes, and how fast a large one comes."""
    with Client("127.0.0.1", port, blksize=1428, windowsize=64) as client:

        def get_s(name: str) -> float:
            began_s = time.perf_counter()
            client.get(name)
            return time.perf_counter() - began_s

        waits_s = sorted(get_s("small") for _ in range(SMALL_REQUESTS))
        big_s = statistics.median(get_s("big") for _ in range(5))
    p50_ms, p99_ms = ((quantile(waits_s, share) or 0) * 1e3 for share in (0.5, 0.99))
    return {"p50_ms": p50_ms, "p99_ms": p99_ms, "mb_per_s": BIG_BYTES / big_s / 1e6}


def ask(sock: socket.socket, port: int, waiting: set[bytes]) -> int:
    """Ask for every address that waits, take out those that are answered, and return how many were granted."""
    granted = 0
    for address in waiting:
        info = struct.pack("=i4s4s", 0, address, bytes(4))
        sock.sendmsg([REQUEST], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, ("127.0.0.1", port))
    while waiting and select.select([sock], [], [], 0.2)[0]:
        answer, control, _, _ = sock.recvmsg(2048, 64)
        if (address := control[0][2][8:12]) in waiting:  # else the server's timer repeats what was answered before
            waiting.discard(address)
            granted += answer[1] != Opcode.ERROR
    return granted


def flood(sock: socket.socket, port: int, requests: int) -> int:
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("0.0.0.0", 0))
    granted, end_s = 0, time.monotonic() + KEPT_S / 2
    for first in range(0, requests, BURST_REQUESTS):
        numbers = range(first, min(first + BURST_REQUESTS, requests))
        waiting = {(FIRST_ADDRESS + number).to_bytes(4, "big") for number in numbers}
        while waiting and time.monotonic() < end_s:
            granted += ask(sock, port, waiting)
    return granted


def run(pid: int, port: int, requests: int) -> dict[str, object]:
    measure(port)  # files are mapped, code is warm
    alone, before_mb, began_s = measure(port), resident_mb(pid), time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        granted, after_mb, among = flood(sock, port, requests), resident_mb(pid), measure(port)
    return {
        "half_open": granted,
        "oldest_s": time.monotonic() - began_s,
        "resident_mb": {"before": before_mb, "after": after_mb, "grown": after_mb - before_mb},
        "client": {"alone": alone, "among_them": among},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100_000, help="1..120000; default: %(default)s")
    parser.add_argument("--no-flows", action="store_true")
    asked = parser.parse_args()
    if not 1 <= asked.requests <= 120_000:
        parser.error("--requests must be 1..120000")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.toml")
        config.write_text(CONFIG.format(KEPT_S, str(not asked.no_flows).lower()))
        Path(folder, "small").write_bytes(bytes(400))
        Path(folder, "big").write_bytes(bytes(BIG_BYTES))
        flags = [folder, "--bind", "127.0.0.1:0", "--log-level", "error", "--config", str(config)]
        command = [sys.executable, "-m", "snow_owl_tftp", "serve", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            try:
                result = run(server.pid, int(server.stdout.readline().rpartition(b":")[2]), asked.requests)
            finally:
                server.kill()
    print(json.dumps({"flows": not asked.no_flows, **result}, indent=1))
    sys.exit(result["half_open"] != asked.requests or result["oldest_s"] > KEPT_S)


if __name__ == "__main__":
    main()
