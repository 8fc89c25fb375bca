"""`serve` started with standard descriptors closed, as old daemonisers do: nothing is taken for one of them."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.client import Client
from tests.support.server import DEADLINE_S, command_line, wait_for

CLOSE = """
import os, sys
for fd in sys.argv[1]:
    os.close(int(fd))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "02", "12", "012"])
def test_audit_file_holds_nothing_but_events(root: Path, tmp_path: Path, closed: str) -> None:
    audit, config = tmp_path / "audit", tmp_path / "c.toml"
    config.write_text(f'[logging]\naudit_enabled = true\naudit_file = "{audit}"\n')
    arguments = command_line(str(root), "--bind", "127.0.0.1:0", "--config", str(config))[1:]
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSE, closed, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: audit.exists() and audit.read_text().endswith("\n"), "the first event")
        (address,) = json.loads(audit.read_text().splitlines()[0])["bind_addresses"]
        with Client(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            assert client.get("small").payload == b"ten bytes."
        descriptors = [Path(f"/proc/{process.pid}/fd/{fd}").readlink() for fd in range(3)]
        assert descriptors[int(closed[0])] == Path(os.devnull)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert [json.loads(line)["service"] for line in audit.read_text().splitlines()].count("snow-owl-tftp") >= 4


@pytest.mark.parametrize("kind", ["a pipe that nobody empties", "a full disk"])
def test_standard_output_that_takes_no_line_neither_ends_the_server_nor_holds_it_up(
    root: Path, tmp_path: Path, kind: str
) -> None:
    log, config = tmp_path / "log", tmp_path / "c.toml"
    config.write_text(f'[logging]\nfile = "{log}"\nformat = "json"\n')
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if kind == "a full disk":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    else:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
    arguments = command_line(str(root), "--bind", "127.0.0.1:0", "--config", str(config))
    process = subprocess.Popen(arguments, stdout=writer, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: log.exists() and "does not take lines" in log.read_text(), "the line about it")
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        (told,) = [entry for entry in entries if entry["event"] == "standard output does not take lines"]
        assert told["lost"] == 1
        with Client(("127.0.0.1", int(told["addresses"].rpartition(":")[2]))) as client:
            assert client.get("small").payload == b"ten bytes."
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(reader)
        os.close(writer)
