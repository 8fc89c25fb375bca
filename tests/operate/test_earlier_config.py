"""What the earlier Rust server's chart writes starts this server, with one warning; what would be missed does not."""

import json
import signal
from pathlib import Path

import pytest
from tests.support.client import Client, Refused
from tests.support.server import run_command, serve_command, wait_for

CHART = """
root_dir = "{root}"
bind_addr = "0.0.0.0:69"
max_file_size_bytes = 104857600

[logging]
level = "{level}"
format = "json"
file = "{log}"
audit_enabled = true
{audit_line}

[write_config]
enabled = true
allow_overwrite = false
allowed_patterns = ["*.cfg", "configs/*.txt"]

[multicast]
enabled = false
multicast_addr = "224.0.1.1"
multicast_ip_version = "v4"
multicast_port = 1758
max_clients = 10
master_timeout_secs = 30
retransmit_timeout_secs = 5

[performance]
default_block_size = 8192
default_windowsize = 1
buffer_pool_size = 128
streaming_threshold = 1048576
audit_sampling_rate = 1

[performance.platform.socket]
recv_buffer_kb = 2048
send_buffer_kb = 2048
reuse_address = true
reuse_port = true

[performance.platform.file_io]
use_sequential_hint = true
use_willneed_hint = true
fadvise_dontneed_after = false

[performance.platform.batch]
enable_sendmmsg = true
enable_recvmmsg = true
max_batch_size = 32
batch_timeout_us = 100
enable_adaptive_batching = true
adaptive_batch_threshold = 5

[performance.platform.zero_copy]
use_sendfile = true
sendfile_threshold_bytes = 65536
use_msg_zerocopy = false
msg_zerocopy_threshold_bytes = 8192

[performance.platform.worker_pool]
enabled = false
worker_channel_size = 256
sender_channel_size = 512
load_balance_strategy = "round_robin"
enable_cpu_affinity = false
"""
WEB = '\n[web]\nbind_addr = "0.0.0.0:443"\nmax_upload_bytes = 524288000\n\n[web.tls]\nacme_enabled = false\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tftp"
    (root / ".audit").mkdir(parents=True)
    (root / ".audit/tftp-audit.jsonl").write_text("{}\n")
    (root / "boot.img").write_bytes(b"image")
    return root


def chart(root: Path, *, audit: str = "", level: str = "info", further: str = "") -> Path:
    path = root.parent / "tftp.toml"
    audit_line = f'audit_file = "{audit}"' if audit else ""
    path.write_text(CHART.format(root=root, log=root.parent / "log", audit_line=audit_line, level=level) + further)
    return path


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("level", ["info", "trace"])
@pytest.mark.parametrize("has_audit_file", [True, False])
def test_chart_starts_the_server_with_one_warning(root: Path, level: str, has_audit_file: bool) -> None:
    log, audit = root.parent / "log", root.parent / "audit.jsonl"
    config = chart(root, audit=str(audit) if has_audit_file else "", level=level)
    with serve_command(root, "--config", str(config)) as server, Client(server.address) as client:
        assert client.get("boot.img", options={"blksize": 8192}).payload == b"image"
        client.put("switch.cfg", b"hostname x")
        with pytest.raises(Refused):
            client.get(".audit/tftp-audit.jsonl")
        wait_for(lambda: any(line.get("event") == "request refused" for line in lines(log)), "the lines")
    warnings = [line for line in lines(log) if line.get("event") == "settings without effect here"]
    assert len(warnings) == 1
    told = warnings[0]["keys"]
    for key in ("multicast", "performance.default_block_size", "performance.platform.zero_copy", "worker_pool"):
        assert key in told
    assert ("logging.level" in told) == (level == "trace")
    events = {line["event_type"] for line in lines(audit if has_audit_file else log) if "event_type" in line}
    assert {"server_started", "read_request", "transfer_completed", "write_completed", "read_denied"} <= events


def test_warning_comes_again_with_a_reload(root: Path) -> None:
    log, config = root.parent / "log", chart(root)
    with serve_command(root, "--config", str(config)) as server:
        wait_for(lambda: any(line.get("event") == "server started" for line in lines(log)), "its first lines")
        server.signal(signal.SIGHUP)
        wait_for(lambda: any(line.get("event") == "settings reloaded" for line in lines(log)), "the reload")
        assert sum(line.get("event") == "settings without effect here" for line in lines(log)) == 2


def test_chart_that_switches_on_what_is_not_here_is_refused(root: Path) -> None:
    config = chart(root, further=WEB)
    config.write_text(config.read_text().replace("[multicast]\nenabled = false", "[multicast]\nenabled = true"))
    ended = run_command(str(root), "--bind", "127.0.0.1:0", "--config", str(config))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 2, ended.stderr
    assert "set multicast.enabled = false" in ended.stderr
    assert "no web interface" in ended.stderr


# ---- a log that clients could fetch


@pytest.mark.parametrize("by_link", [False, True])
def test_audit_file_where_the_chart_keeps_it_is_refused_with_the_remedy(root: Path, by_link: bool) -> None:
    file = root / ".audit/tftp-audit.jsonl"
    if by_link:
        (root.parent / "audit").symlink_to(root / ".audit")
        file = root.parent / "audit/tftp-audit.jsonl"
    ended = run_command(str(root), "--bind", "127.0.0.1:0", "--config", str(chart(root, audit=str(file))))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert f"logging.audit_file: {file}: lies below root_dir" in ended.stderr
    assert "name a file outside" in ended.stderr


@pytest.mark.parametrize("file", ["{root}/log", "{root}/new/log", "{root}/../tftp/log", "{base}/alias/log"])
def test_log_file_below_the_root_is_refused_and_not_made(root: Path, file: str) -> None:
    (root.parent / "alias").symlink_to(root)
    path = file.format(root=root, base=root.parent)
    config = root.parent / "c.toml"
    config.write_text(f'[logging]\nfile = "{path}"\n')
    ended = run_command(str(root), "--bind", "127.0.0.1:0", "--config", str(config))
    assert ended.returncode == 2
    assert f"logging.file: {path}: lies below root_dir" in ended.stderr
    assert not (root / "log").exists()


@pytest.mark.parametrize("file", ["{root}.log", "{base}/log"])
def test_log_file_beside_the_root_is_fine(root: Path, file: str) -> None:
    config = root.parent / "c.toml"
    path = Path(file.format(root=root, base=root.parent))
    config.write_text(f'[logging]\nfile = "{path}"\n')
    with serve_command(root, "--config", str(config)):
        wait_for(lambda: path.exists() and "server started" in path.read_text(), "the log")
