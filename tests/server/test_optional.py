"""What is daily bread at a boot is no failure: files that a client can do without, and size probes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import serve_in_thread, wait_for

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.server.generation import Generation

OPTIONAL: dict[str, object] = {"names.optional": ["*.lst", "pxelinux.cfg/*", "/top.cfg"]}
FLOWS = "performance.platform.batch.enable_flows"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "pxelinux.cfg").mkdir(parents=True)
    (root / "pxelinux.cfg/default").write_bytes(b"default")
    (root / "fs.lst").write_bytes(b"ext2")
    (root / ".x.lst").write_bytes(b"hidden")
    (root / "dir.lst").mkdir()
    return root


def missing(client: Client, name: str) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        client.get(name)
    return caught.value.code, caught.value.text


@pytest.mark.parametrize(
    ("name", "is_optional"),
    [
        ("command.lst", True),
        ("boot/grub/x86_64-efi/command.lst", True),
        ("/command.lst\r\n", True),
        ("pxelinux.cfg/C0A80101", True),
        ("pxelinux.cfg/a/b", False),
        ("sub/pxelinux.cfg/C0A80101", False),
        ("top.cfg", True),
        ("sub/top.cfg", False),
        ("command.LST", False),
        ("vmlinuz", False),
        ("a.lst/b", False),
    ],
)
def test_optional_is_what_a_pattern_has_by_its_last_part_or_as_a_whole(name: str, is_optional: bool) -> None:
    names = Generation.of(override(Settings(), OPTIONAL)).names
    assert names.is_optional(name) is is_optional


def test_pattern_counts_no_case_where_names_do_not() -> None:
    names = Generation.of(override(Settings(), {**OPTIONAL, "names.case": "lower"})).names
    assert names.is_optional("COMMAND.LST")


@pytest.mark.parametrize("key", ["names.optional", "names.siblings"])
@pytest.mark.parametrize("pattern", ["", "a/../b", "[", "a\\b"])
def test_pattern_that_is_none_is_refused_by_its_key(key: str, pattern: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        Generation.of(override(Settings(), {key: [pattern]}))


@pytest.mark.parametrize("level", ["debug", "info"])
def test_missing_optional_file_is_error_1_and_no_failure_for_anybody(root: Path, tmp_path: Path, level: str) -> None:
    audit = tmp_path / "audit.jsonl"
    settings = {
        **OPTIONAL,
        "logging.level": level,
        "logging.format": "json",
        "logging.audit_enabled": True,
        "logging.audit_file": str(audit),
    }
    with serve_in_thread(root, settings) as server, Client(server.address) as client:
        assert missing(client, "x/command.lst") == (1, "File not found")
        assert missing(client, "vmlinuz") == (1, "File not found")
        assert missing(client, ".x.lst") == (1, "File not found")
        assert client.get("fs.lst").payload == b"ext2"
        assert missing(client, "dir.lst")[0] == 2, "it is there, and cannot be had: that is a failure"
        wait_for(lambda: server.server.tally.transfers_total == 1, "the end of the transfer")
        assert dict(server.server.tally.refusals) == {
            "optional_missing": 2,
            "file_not_found": 1,
            "access_violation": 1,
        }
    lines = [json.loads(line) for line in server.log.splitlines()]
    refused = [line["file"] for line in lines if line["event"] == "request refused"]
    assert refused == ["vmlinuz", "dir.lst"]
    told = [(line["level"], line["file"]) for line in lines if line["event"] == "optional_missing"]
    assert told == ([("debug", "x/command.lst"), ("debug", ".x.lst")] if level == "debug" else [])
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    by_type: dict[str, list[Any]] = {}
    for event in events:
        by_type.setdefault(event["event_type"], []).append(event)
    assert [event["filename"] for event in by_type["optional_missing"]] == ["x/command.lst", ".x.lst"]
    assert {event["severity"] for event in by_type["optional_missing"]} == {"info"}
    assert [event["filename"] for event in by_type["read_denied"]] == ["vmlinuz", "dir.lst"]


def test_missing_optional_upload_is_an_upload(root: Path) -> None:
    with serve_in_thread(root, OPTIONAL) as server, Client(server.address) as client:
        with pytest.raises(Refused):
            client.put("command.lst", b"x")
        wait_for(lambda: server.server.tally.refusals["access_violation"] == 1, "the refusal")
        assert server.server.tally.refusals["optional_missing"] == 0


@pytest.mark.parametrize("flows", [False, True])
@pytest.mark.parametrize("code", [0, 8])
def test_size_probe_is_a_probe_in_log_audit_and_counts(root: Path, tmp_path: Path, flows: bool, code: int) -> None:
    audit = tmp_path / "audit.jsonl"
    settings = {FLOWS: flows, "logging.audit_enabled": True, "logging.audit_file": str(audit)}
    with serve_in_thread(root, settings) as server, Client(server.address) as client:
        tally = server.server.tally
        for number in range(1, 5):
            assert client.probe_size("fs.lst", code) == 4
            wait_for(lambda number=number: tally.transfers_total == number, "the end of the probe")
        assert client.get("fs.lst", options={"tsize": 0}).payload == b"ext2"
        wait_for(lambda: tally.transfers_total == 5, "the end of the transfer")
        assert tally.figures()["outcomes"] == "ok:1,probe:4"
        assert tally.probes_total == 4
        wait_for(lambda: server.log.count("size probe") == 4, "the lines")
        assert "transfer failed" not in server.log
    events = [json.loads(line) for line in audit.read_text().splitlines()]
    ends = [event["outcome"] for event in events if event["event_type"] == "transfer_completed"]
    assert ends == ["probe"] * 4 + ["ok"]
    assert not any(event["event_type"] == "transfer_failed" for event in events)


def test_error_after_data_or_of_another_kind_is_no_probe(root: Path) -> None:
    with serve_in_thread(root) as server, Client(server.address) as client:
        client.probe_size("fs.lst", 3)  # its disk is full
        tally = server.server.tally
        wait_for(lambda: tally.transfers_total == 1, "its end")
        assert tally.figures()["outcomes"] == "peer_error:1"
