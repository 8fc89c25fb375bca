"""Other people's TFTP servers on the loopback, for the client; what is not installed is skipped by its name."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server of somebody else."""

    kind: str
    host: str
    port: int
    root: Path

    def url(self, name: str) -> str:
        return f"tftp://{self.host}:{self.port}/{name}"


def program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"MISSING: {name} (scripts/install-peers.sh brings it)")
    return path


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def hpa_command(peer: Peer) -> list[str]:
    flags = ["--listen", "--foreground", "--create", "--permissive", "--secure", "--user", "root"]
    flags += ["--retransmit", "200000"]
    return [program("in.tftpd"), *flags, "--address", f"{peer.host}:{peer.port}", str(peer.root)]


def atftpd_command(peer: Peer) -> list[str]:
    flags = [
        "--daemon",
        "--no-fork",
        "--user",
        "root.root",
        "--logfile",
        "/dev/null",
        "--verbose=0",
        "--retry-timeout",
        "1",
    ]
    return [program("atftpd"), *flags, "--bind-address", peer.host, "--port", str(peer.port), str(peer.root)]


def dnsmasq_command(peer: Peer) -> list[str]:
    flags = [
        "--keep-in-foreground",
        "--port=0",
        "--conf-file=/dev/null",
        "--enable-tftp",
        "--bind-interfaces",
        "--user=root",
    ]
    where = [f"--tftp-root={peer.root}", f"--listen-address={peer.host}", "--log-facility=-", "--pid-file="]
    return [program("dnsmasq"), *flags, *where]


COMMANDS = {"tftpd-hpa": hpa_command, "atftpd": atftpd_command, "dnsmasq": dnsmasq_command}


@contextlib.contextmanager
def running(kind: str, root: Path) -> Iterator[Peer]:
    if os.geteuid() != 0:
        pytest.skip(f"{kind} wants to be root")
    # dnsmasq knows no other port than 69; on an address of its own nobody else takes a port that was free a moment ago.
    host = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    peer = Peer(kind, host, 69 if kind == "dnsmasq" else free_port(host), root)
    with (root.parent / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(COMMANDS[kind](peer), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_until_it_answers(peer, process)
            yield peer
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_it_answers(peer: Peer, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + DEADLINE_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.1)
        while time.monotonic() < end:
            if process.poll() is not None:
                log = (peer.root.parent / f"{peer.kind}.log").read_text(errors="replace")
                pytest.skip(f"{peer.kind} does not run here: {log.strip()[-200:]}")
            probe.sendto(b"\0\1is-there-anybody\0octet\0", (peer.host, peer.port))
            with contextlib.suppress(TimeoutError, ConnectionError):
                probe.recv(600)
                return
    raise AssertionError(f"{peer.kind} does not answer")


@pytest.fixture
def peer_root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    tmp_path.chmod(0o755)
    return root


@pytest.fixture(params=sorted(COMMANDS))
def peer(request: pytest.FixtureRequest, peer_root: Path) -> Iterator[Peer]:
    """Each of them in turn."""
    with running(request.param, peer_root) as server:
        yield server


@pytest.fixture(params=["tftpd-hpa", "atftpd"])
def writable_peer(request: pytest.FixtureRequest, peer_root: Path) -> Iterator[Peer]:
    """Those that take uploads; dnsmasq is read-only."""
    with running(request.param, peer_root) as server:
        yield server
