"""Where the log and the audit log go hangs: nobody waits for that, and the server ends when it is told to."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.boot import BOOT
from tests.support.client import Client, Refused
from tests.support.fuse import Fuse, own_mounts
from tests.support.server import command_line, serve_command, wait_for

DRAIN_S = 1
MAX_END_S = DRAIN_S + 2 + 2
"""And what a busy machine adds."""


def flood(address: tuple[str, int], lines: int = 300) -> None:
    """As many lines and events as that, and each is answered."""
    with Client(address) as client:
        for number in range(lines):
            with pytest.raises(Refused):
                client.get(f"missing-{number}-{'x' * 100}")


def check_serves(address: tuple[str, int]) -> None:
    """What Python decides, and what flows repeat."""
    with Client(address) as client:
        assert client.get("boot.img").payload == BOOT
        with pytest.raises(Refused):
            client.get(f"missing-{time.monotonic_ns()}")


@contextmanager
def serve_on(stderr: int, root: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[bytes]", tuple[str, int]]]:
    """With a standard error of one's own."""
    command = command_line(str(root), "--bind", "127.0.0.1:0", *flags)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as server:
        try:
            assert server.stdout
            yield server, ("127.0.0.1", int(server.stdout.readline().rpartition(b":")[2]))
        finally:
            server.kill()


def check_that_it_ends(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    assert server.wait(MAX_END_S) == 0


@own_mounts
@pytest.mark.parametrize("where", ["logging.file", "logging.audit_file", "standard error"])
def test_file_on_a_mount_that_hangs_costs_lines_only(root: Path, tmp_path: Path, where: str) -> None:
    config, hanging = tmp_path / "c.toml", tmp_path / "mnt/lines"
    files = {
        "logging.file": f'[logging]\nfile = "{hanging}"\n',
        "logging.audit_file": f'[logging]\naudit_enabled = true\naudit_file = "{hanging}"\n',
    }
    config.write_text(f"drain_timeout_s = {DRAIN_S}\n{files.get(where, '')}")
    with Fuse(tmp_path / "mnt", {"lines": b""}) as mount:
        stderr = os.open(hanging if where == "standard error" else os.devnull, os.O_WRONLY | os.O_APPEND)
        with serve_on(stderr, root, "--config", str(config)) as (server, address):
            check_serves(address)
            mount.hang("write", "flush", "lookup", "open")
            flood(address)
            wait_for(lambda: mount.stuck, "a write that hangs")
            check_serves(address)
            server.send_signal(signal.SIGUSR1)
            check_serves(address)
            check_that_it_ends(server)
            mount.go_on()
        os.close(stderr)


@own_mounts
def test_lines_go_on_when_the_mount_does(root: Path, tmp_path: Path) -> None:
    config, lines = tmp_path / "c.toml", tmp_path / "mnt/lines"
    config.write_text(f'[logging]\nfile = "{lines}"\n')
    with Fuse(tmp_path / "mnt", {"lines": b""}) as mount, serve_command(root, "--config", str(config)) as server:
        mount.hang("write")
        flood(server.address, 100)
        wait_for(lambda: mount.stuck, "a write that hangs")
        mount.go_on()
        with Client(server.address) as client:
            assert client.get("boot.img").payload == BOOT
        wait_for(lambda: b"boot.img" in lines.read_bytes(), "the line of the last one")
        kept = lines.read_text().splitlines()
        assert all(line.startswith("20") for line in kept), "whole ones"
        assert sum("missing-" in line for line in kept) == 100, "each was kept"


def test_terminal_that_was_stopped_costs_lines_only(root: Path, tmp_path: Path) -> None:
    """^S, or a connection that does not move: a terminal says that it takes more, and then waits within the write."""
    config = tmp_path / "c.toml"
    config.write_text(f"drain_timeout_s = {DRAIN_S}\n")
    leader, follower = os.openpty()
    with serve_on(follower, root, "--config", str(config)) as (server, address):
        os.close(follower)
        flood(address, 400)
        check_serves(address)
        check_that_it_ends(server)
    os.close(leader)


@pytest.mark.parametrize("key", ["file", "audit_file"])
def test_fifo_that_nobody_reads_yet_holds_up_no_start(root: Path, tmp_path: Path, key: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    config = tmp_path / "c.toml"
    config.write_text(f'[logging]\n{key} = "{tmp_path}/fifo"\naudit_enabled = true\n')
    with serve_command(root, "--config", str(config)) as server:
        check_serves(server.address)
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        heard = b""

        def hear() -> bool:
            nonlocal heard
            with suppress(BlockingIOError):
                heard += os.read(reader, 1 << 16)
            return b"started" in heard and b"boot.img" in heard

        wait_for(hear, "what was told before somebody came")
        os.close(reader)
        check_serves(server.address)
