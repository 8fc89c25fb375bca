"""One address against thousands, both ways round: neither a flood from one nor thousands of silent ones harm others."""

import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import SEED
from tests.support.client import Client
from tests.support.server import Address, ServerProcess, serve_command
from tests.support.soak import many

from snow_owl_tftp.bench.load import Load
from snow_owl_tftp.protocol.packets import build_request

pytestmark = pytest.mark.alone("the flood takes a processor")
IP_PKTINFO = 8  # linux/in.h; the socket module of Python 3.11 does not name it
TINY = random.Random(SEED).randbytes(400)
PATIENCE_S = 5.0
"""What a boot ROM waits for its answer, repetitions included."""
FLOOD = """
import itertools, socket, sys
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
for one in sockets:
    one.bind(("127.0.0.99", 0))
for number, one in zip(itertools.count(), itertools.cycle(sockets)):
    one.sendto(b"\\0\\1missing-%d\\0octet\\0" % number, ("127.0.0.1", int(sys.argv[1])))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "tiny").write_bytes(TINY)
    return root


@contextmanager
def flood(server: ServerProcess) -> Iterator[None]:
    """Requests for files that are not there, as fast as a process can, from one address, until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", FLOOD, str(server.address[1])])
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def let_many_boot(root: Path, tmp_path: Path, addresses: int) -> None:
    config = tmp_path / "owl.toml"
    config.write_text("[performance.platform.batch]\nenable_flows = false\n")  # Python decides about each
    with serve_command(root, "--config", str(config), "--log-level", "warning") as server:
        load = Load(
            *server.address, "tiny", TINY, clients=50, blksize_bytes=512, windowsize_blocks=1, client_timeout_s=1.0
        )
        try:
            load.learn(20)
            with flood(server):
                result = load.run(addresses, 3600, lambda ended: None)
        finally:
            load.close()
    assert (result["finished"], result["failed"], result["wrong_bytes"]) == (addresses, 0, 0), result
    assert result["max_s"] < PATIENCE_S, result


@pytest.mark.timeout(120)
def test_flood_from_one_address_fails_none_of_thousands(root: Path, tmp_path: Path) -> None:
    let_many_boot(root, tmp_path, 6_000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_flood_from_one_address_fails_none_of_very_many(root: Path, tmp_path: Path) -> None:
    """Of 15 000; with SNOW_OWL_SOAK=full, of 60 000."""
    let_many_boot(root, tmp_path, many(15_000, full=60_000))


def ask_and_be_silent(server: Address, addresses: range) -> None:
    """One request from each; what is answered is not read."""
    ask = build_request(1, "tiny", options=[("blksize", "1024"), ("timeout", "255")])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))
        for number in addresses:
            source = struct.pack(
                "!i4s4s", 0, socket.inet_aton(f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"), b""
            )
            sock.sendmsg([ask], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, server)


def boot_beside_silent_ones(root: Path, tmp_path: Path, addresses: int) -> None:
    config = tmp_path / "owl.toml"
    config.write_text(f"[limits]\nmax_half_open = {addresses // 10}\nmax_transfers = {addresses // 5}\n")
    worst_s = 0.0
    with (
        serve_command(root, "--config", str(config), "--log-level", "warning") as server,
        Client(server.address, timeout_s=1.0) as client,
    ):
        for start in range(0, addresses, 100):
            ask_and_be_silent(server.address, range(start, start + 100))
            began = time.monotonic()
            assert client.get("tiny").payload == TINY
            worst_s = max(worst_s, time.monotonic() - began)
    assert worst_s < PATIENCE_S


@pytest.mark.timeout(120)
def test_thousands_that_ask_and_fall_silent_lock_nobody_out(root: Path, tmp_path: Path) -> None:
    boot_beside_silent_ones(root, tmp_path, 20_000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_sixty_thousand_that_ask_and_fall_silent_lock_nobody_out(root: Path, tmp_path: Path) -> None:
    boot_beside_silent_ones(root, tmp_path, 60_000)
