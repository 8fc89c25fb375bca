"""`serve` and logrotate: the signals that it is told by, and what they must not do."""

import signal
from pathlib import Path

import pytest
from tests.support.boot import BOOT
from tests.support.client import Client, Refused
from tests.support.server import ServerProcess, serve_command, wait_for


def ask_for(server: ServerProcess, name: str) -> None:
    with Client(server.address) as client, pytest.raises(Refused):
        client.get(name)


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tftp.log", tmp_path / "audit.json"


@pytest.fixture
def flags(tmp_path: Path, logs: tuple[Path, Path]) -> tuple[str, ...]:
    config = tmp_path / "c.toml"
    config.write_text(f'[logging]\nfile = "{logs[0]}"\naudit_enabled = true\naudit_file = "{logs[1]}"\n')
    return "--config", str(config)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signal_opens_log_and_audit_file_by_their_names(
    root: Path, logs: tuple[Path, Path], flags: tuple[str, ...], number: signal.Signals
) -> None:
    with serve_command(root, *flags) as server:
        ask_for(server, "before")
        wait_for(lambda: all("before" in file.read_text() for file in logs), "the first lines")
        moved = [file.rename(file.with_suffix(".1")) for file in logs]
        server.signal(number)
        wait_for(lambda: all(file.exists() for file in logs), "new files, although nothing is logged")
        ask_for(server, "after")
        wait_for(lambda: all("after" in file.read_text() for file in logs), "lines in the new files")
        assert not any("after" in file.read_text() for file in moved)
        with Client(server.address) as client:
            assert client.get("boot.img").payload == BOOT


def test_usr1_reads_no_configuration(root: Path, logs: tuple[Path, Path], flags: tuple[str, ...]) -> None:
    with serve_command(root, *flags) as server:
        Path(flags[1]).write_text("no = such key\n")
        logs[1].unlink()
        server.signal(signal.SIGUSR1)
        wait_for(logs[1].exists, "a new audit file")
        server.signal(signal.SIGHUP)
        wait_for(lambda: "reload refused" in logs[0].read_text(), "the complaint about the file")
        assert logs[0].read_text().count("reload") == 1


def test_name_that_cannot_be_opened_is_told_in_the_file_that_stays(
    root: Path, tmp_path: Path, logs: tuple[Path, Path], flags: tuple[str, ...]
) -> None:
    with serve_command(root, *flags) as server:
        wait_for(lambda: all("started" in file.read_text() for file in logs), "the lines that follow the ready line")
        moved = [file.rename(file.with_suffix(".1")) for file in logs]
        for file in logs:
            file.mkdir()
        server.signal(signal.SIGUSR1)
        wait_for(
            lambda: all(f"setting={key} " in moved[0].read_text() for key in ("logging.file", "logging.audit_file")),
            "a line about each file",
        )
        ask_for(server, "still-told")
        wait_for(lambda: all("still-told" in file.read_text() for file in moved), "lines in the old files")


def test_events_between_the_lines_of_the_log_follow_its_name(root: Path, tmp_path: Path) -> None:
    log, config = tmp_path / "tftp.log", tmp_path / "c.toml"
    config.write_text(f'[logging]\nfile = "{log}"\naudit_enabled = true\n')
    with serve_command(root, "--config", str(config)) as server:
        wait_for(lambda: "server started" in log.read_text(), "the line behind the first event")
        moved = log.rename(log.with_suffix(".1"))
        ask_for(server, "after")
        wait_for(lambda: log.exists() and log.read_text().count("after") >= 2, "line and event in the new file")
        assert "after" not in moved.read_text()
        assert all("after" in line for line in log.read_text().splitlines())
        log.rename(log.with_suffix(".2"))
        log.mkdir()
        server.signal(signal.SIGUSR1)
        told = log.with_suffix(".2")
        wait_for(lambda: told.read_text().count("setting=logging.file ") == 1, "a line about it")
        assert "logging.audit_file" not in told.read_text()
