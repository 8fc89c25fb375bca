"""`snow-owl-tftp serve` as a user meets it: ready lines, refusals, signals, and what it costs to wait."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from tests.support.boot import BOOT
from tests.support.client import Client, Refused
from tests.support.server import (
    QUIET_S,
    ServerProcess,
    command_line,
    cpu_of_a_quiet_second,
    cpu_seconds,
    run_command,
    serve_command,
    wait_for,
)

from snow_owl_tftp.protocol.packets import build_ack, build_data

REPOSITORY = Path(__file__).resolve().parents[2]
READY_S = 1.0
"""Of CPU: five times what a start takes. How long that is depends on what else the machine has to do."""
"""The aim is 0.7 s on an idle machine; the bound leaves room for a busy one."""


def receive_block(client: Client, block: int) -> bytes:
    """The payload of a block; repetitions of others, sent while the client was slow, are passed over."""
    while True:
        datagram, _ = client.receive()
        if datagram[:4] == build_data(block, b""):
            return datagram[4:]


def stall(server: ServerProcess) -> Client:
    """A client in the middle of a transfer; the caller goes on, or does not."""
    client = Client(server.address)
    client.request("boot.img")
    for index in range(1, 6):
        receive_block(client, index)
        client.send(build_ack(index), client.last_sender)
    return client


def go_on(client: Client, first: int, last: int) -> bytes:
    """Receive and acknowledge some more blocks."""
    payload = b""
    for index in range(first, last + 1):
        payload += receive_block(client, index)
        client.send(build_ack(index), client.last_sender)
    return payload


def config_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "snow-owl.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- ready


def test_ready_line_names_the_real_port_and_is_true(root: Path) -> None:
    with serve_command(root) as server:
        assert server.addresses[0][1] != 0
        assert cpu_seconds(server.process.pid) < READY_S
        with Client(server.address) as client:
            assert client.get("boot.img").payload == BOOT


def test_every_bound_address_is_announced(root: Path) -> None:
    with serve_command(root, binds=("127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0")) as server:
        assert [host for host, _ in server.addresses] == ["127.0.0.1", "127.0.0.2", "0.0.0.0"]
        assert len({port for _, port in server.addresses}) == 3


def test_reader_of_the_ready_line_may_hang_up(root: Path) -> None:
    with serve_command(root, binds=("127.0.0.1:0",)) as first:
        port = first.addresses[0][1]
    read_end, write_end = os.pipe()
    os.close(read_end)
    arguments = command_line(str(root), "--bind", f"127.0.0.1:{port}", "--log-level", "error")
    with subprocess.Popen(arguments, stdout=write_end, stderr=subprocess.PIPE) as process:
        os.close(write_end)
        with Client(("127.0.0.1", port), timeout_s=0.1) as client:
            assert client.get("small").payload == b"ten bytes."
        process.terminate()
        assert process.wait(8) == 0
        assert process.stderr
        assert process.stderr.read() == b""


def test_example_root_is_served() -> None:
    root = REPOSITORY / "examples/tftpboot"
    with serve_command(root, stderr_path=Path("/dev/null")) as server, Client(server.address) as client:
        assert client.get("pxelinux.cfg/default").payload == (root / "pxelinux.cfg/default").read_bytes()


def test_flags_win_over_the_configuration_file(root: Path, tmp_path: Path) -> None:
    config = config_file(
        tmp_path,
        f'root_dir = "{tmp_path}"\nworkers = 3\nsingle_port = false\n[logging]\nlevel = "error"\nformat = "text"\n',
    )
    flags = ("--config", config, "--workers", "1", "--single-port", "--log-level", "info", "--log-format", "json")
    with serve_command(root, *flags) as server, Client(server.address) as client:
        assert client.get("small").peer == server.address
        line = wait_for(lambda: [text for text in server.log.splitlines() if "completed" in text], "a log line")[0]
    assert json.loads(line)["file"] == "small"


def test_configuration_file_alone_is_enough(root: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, f'root_dir = "{root}"\n[options]\nmax_blksize_bytes = 600\n')
    arguments = ("--config", config)
    with serve_command(root, *arguments) as server, Client(server.address) as client:
        assert client.get("boot.img", options={"blksize": 1428}).oack == {"blksize": "600"}


def test_setting_that_another_one_switches_off_is_a_warning(root: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, f'tid_sockets = 4\n[logging]\naudit_file = "{tmp_path}/audit"\n')
    with serve_command(root, "--config", config, "--single-port") as server, Client(server.address) as client:
        assert client.get("small").payload == b"ten bytes."
        warned = [line for line in server.log.splitlines() if "setting without effect" in line]
    assert [key for line in warned for key in ("logging.audit_file", "tid_sockets") if f"setting={key}" in line] == [
        "logging.audit_file",
        "tid_sockets",
    ]
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(("flags", "workers"), [((), 1), (("--workers", "auto"), len(os.sched_getaffinity(0)))])
def test_workers_are_one_or_one_per_usable_core(
    root: Path, tmp_path: Path, flags: tuple[str, ...], workers: int
) -> None:
    audit = tmp_path / "audit.jsonl"
    config = config_file(tmp_path, f'[logging]\naudit_enabled = true\naudit_file = "{audit}"\n')
    with serve_command(root, "--config", config, *flags) as server, Client(server.address) as client:
        assert client.get("small").payload == b"ten bytes."
    assert json.loads(audit.read_text().splitlines()[0])["workers"] == workers


def test_audit_file_tells_every_step(root: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    config = config_file(tmp_path, f'[logging]\naudit_enabled = true\naudit_file = "{audit}"\n')
    with serve_command(root, "--config", config) as server, Client(server.address) as client:
        client.get("boot.img", options={"blksize": 1428})
        client.probe_size("boot.img")
        for name in ("missing", "../secret", "link_out"):
            with pytest.raises(Refused):
                client.get(name)
        client.exchange(b"\0\1small\0morse\0")
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [event["event_type"] for event in events] == [
        "server_started",
        "read_request",
        "transfer_started",
        "transfer_completed",
        "read_request",
        "transfer_started",
        "transfer_completed",  # the probe
        "read_denied",
        "path_traversal_attempt",
        "read_denied",
        "symlink_access_denied",
        "read_denied",
        "protocol_violation",
        "server_shutdown",
    ]
    by_request: dict[str, set[str]] = {}
    for event in events:
        by_request.setdefault(event["correlation_id"], set()).add(event["event_type"])
    assert {"read_request", "transfer_started", "transfer_completed"} in by_request.values()
    assert [event["payload_bytes"] for event in events if event["event_type"] == "transfer_completed"] == [
        len(BOOT),
        0,
    ]


# ---- refusals: one line, status 2, no traceback


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/no/such/root"], r"root_dir: /no/such/root: No such file or directory; name a directory"),
        ([__file__], r"root_dir: .*: Not a directory; name a directory"),
        ([".", "--bind", "nonsense"], r'command line: bind_addr: expected "ADDR:PORT"'),
        ([".", "--bind", "127.0.0.1:99999"], r"command line: bind_addr: expected a port 0\.\.65535"),
        ([".", "--bind", "203.0.113.1:0"], r"cannot listen on 203\.0\.113\.1:0: .* no interface of this machine"),
        ([".", "--workers", "0"], r'command line: workers: expected 1\.\.64 or "auto", got 0'),
        ([".", "--workers", "many"], r'command line: workers: expected 1\.\.64 or "auto", got "many"'),
        ([".", "--tid-ports", "9-5"], r'command line: tid_ports: expected two ports "A-B"'),
        ([".", "--log-level", "loud"], r"command line: logging\.level: expected one of"),
        ([".", "--no-such-flag"], r"No such option.*--no-such-flag"),
        ([".", "--config", "/no/such.toml"], r"/no/such\.toml: No such file or directory"),
        ([".", "too", "many"], r"unexpected extra argument"),
    ],
)
def test_what_the_operator_got_wrong_is_told_on_one_line(arguments: list[str], complaint: str) -> None:
    ended = run_command(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert re.search(complaint, ended.stderr)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("workers = 0", r'snow-owl\.toml:1: workers: expected 1\.\.64 or "auto", got 0'),
        ("wrokers = 1", r"wrokers: unknown key; did you mean workers\?"),
        ("workers = ", r"not TOML"),
        ("[logging]\nfile = '/no/such/dir/log'", r"logging\.file: /no/such/dir/log: No such file or directory"),
        ("[logging]\naudit_enabled = true\naudit_file = '/no/such/dir/a'", r"logging\.audit_file: /no/such/dir/a"),
        ("[write_config]\nenabled = true\nallowed_patterns = ['a//b']", r"write_config\.allowed_patterns: "),
    ],
)
def test_bad_configuration_is_told_on_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    ended = run_command(str(tmp_path), "--bind", "127.0.0.1:0", "--config", config_file(tmp_path, text))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert re.search(complaint, ended.stderr)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_taken_port_is_told_on_one_line(root: Path, workers: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ended = run_command(str(root), "--bind", f"127.0.0.1:{port}", "--workers", workers)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"snow-owl-tftp: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "another server has the port; stop it, or choose another port\n"
    )


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_server_with_status_0(root: Path, number: signal.Signals) -> None:
    with serve_command(root) as server:
        server.signal(number)
        assert server.wait(8) == 0
    assert "drained=True" in server.log


def test_running_transfer_is_finished_and_new_requests_are_not_taken(root: Path) -> None:
    with serve_command(root) as server, stall(server) as running, Client(server.address) as late:
        server.signal(signal.SIGTERM)
        wait_for(lambda: "draining" in server.log, "draining")
        # Two turns of the worker's loop: what Python told it before is done after them.
        rest = go_on(running, 6, 8)
        late.request("small")
        rest += go_on(running, 9, len(BOOT) // 512 + 1)
        assert rest == BOOT[512 * 5 :]
        assert not late.has_heard()
        assert server.wait(8) == 0
    assert "aborted=0" in server.log
    assert "drained=True" in server.log


def test_transfer_that_does_not_end_is_aborted_after_the_drain_timeout(root: Path, tmp_path: Path) -> None:
    config = config_file(tmp_path, "drain_timeout_s = 1\n")
    with serve_command(root, "--config", config) as server, stall(server) as stalled:
        server.signal(signal.SIGTERM)
        assert server.wait(8) == 0
        datagrams = []
        while stalled.has_heard():
            datagrams.append(stalled.receive()[0])
        assert datagrams[-1][:4] == b"\0\5\0\0"
    assert "aborted=1" in server.log
    assert "outcome=ABORTED" in server.log


def test_second_signal_ends_at_once(root: Path) -> None:
    with serve_command(root) as server, stall(server):
        server.signal(signal.SIGTERM)
        wait_for(lambda: "draining" in server.log, "draining")
        server.signal(signal.SIGTERM)
        assert server.wait(8) == 128 + signal.SIGTERM, "the drain would take ten"


# ---- cost


def test_idle_server_uses_no_cpu(root: Path) -> None:
    with serve_command(root) as server:
        with Client(server.address) as client:
            client.get("boot.img")
        assert cpu_of_a_quiet_second(server.process.pid) <= QUIET_S


def test_help_names_every_flag() -> None:
    ended = run_command("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    for flag in ("--bind", "--workers", "--single-port", "--tid-ports", "--config", "--log-level", "--log-format"):
        assert flag in ended.stdout
