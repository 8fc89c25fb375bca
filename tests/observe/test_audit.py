"""Audit events: their shape, and that no disk and no flood can hurt the server."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe import audit
from snow_owl_tftp.observe.audit import AuditLog

NOW_S = 1767225600.25
COMMON = ["timestamp", "hostname", "service", "severity", "event_type", "correlation_id"]
WHO = ("id-1", "192.0.2.7:2070", "pxelinux.0")
FIGURES: dict[str, Any] = {"payload_bytes": 10, "retransmits": 1, "duration_ns": 5}
AGREED: dict[str, Any] = {"size_bytes": 10, "blksize_bytes": 1428, "windowsize_blocks": 4}
FAILURE: dict[str, Any] = {"outcome": "PEER_ERROR", "reason": "disk full", **FIGURES}
FINE: dict[str, Any] = {"outcome": "ok", **FIGURES}
FOUND: dict[str, Any] = {"found": "a/b/grubx64.efi", "by": "sibling"}
ASKED: dict[str, Any] = {"mode": "octet", "options": {"tsize": "0"}}
DENIED: dict[str, Any] = {"error_code": 2, "reason": "Access violation"}

EVENTS: list[tuple[str, str, dict[str, Any], Callable[[AuditLog], None]]] = [
    (
        "server_started",
        "info",
        {"version": "1.0", "workers": 2, "bind_addresses": ["[::]:69"], "root_dir": "/srv"},
        lambda log: log.server_started(version="1.0", bind_addresses=["[::]:69"], root_dir="/srv", workers=2),
    ),
    (
        "server_shutdown",
        "info",
        {"reason": "SIGTERM", "transfers_total": 9, "aborted_transfers": 1},
        lambda log: log.server_shutdown(reason="SIGTERM", transfers_total=9, aborted_transfers=1),
    ),
    ("read_request", "info", ASKED, lambda log: log.request(*WHO, is_write=False, **ASKED)),
    ("write_request", "info", ASKED, lambda log: log.request(*WHO, is_write=True, **ASKED)),
    ("read_denied", "warning", DENIED, lambda log: log.request_denied(*WHO, is_write=False, **DENIED)),
    ("write_request_denied", "warning", DENIED, lambda log: log.request_denied(*WHO, is_write=True, **DENIED)),
    ("path_traversal_attempt", "warning", {}, lambda log: log.path_traversal_attempt(*WHO)),
    ("symlink_access_denied", "warning", {}, lambda log: log.symlink_access_denied(*WHO)),
    (
        "file_size_limit_exceeded",
        "warning",
        {"size_bytes": 11, "max_bytes": 10},
        lambda log: log.file_size_limit_exceeded(*WHO, size_bytes=11, max_bytes=10),
    ),
    (
        "protocol_violation",
        "warning",
        {"reason": "no filename"},
        lambda log: log.protocol_violation(WHO[1], reason="no filename"),
    ),
    (
        "events_left_out",
        "warning",
        {"what": "refused requests", "count": 3},
        lambda log: log.events_left_out(what="refused requests", count=3),
    ),
    (
        "requests_refused",
        "warning",
        {"limit": "max_transfers", "count": 3},
        lambda log: log.requests_refused(WHO[1], limit="max_transfers", count=3),
    ),
    (
        "transfers_paced",
        "info",
        {"limit": "max_bytes_per_s", "count": 3},
        lambda log: log.transfers_paced(WHO[1], limit="max_bytes_per_s", count=3),
    ),
    ("transfer_started", "info", AGREED, lambda log: log.transfer_started(*WHO, is_write=False, **AGREED)),
    ("write_started", "info", AGREED, lambda log: log.transfer_started(*WHO, is_write=True, **AGREED)),
    (
        "transfer_started",
        "info",
        {**AGREED, **FOUND},
        lambda log: log.transfer_started(*WHO, is_write=False, **AGREED, found=FOUND),
    ),
    ("optional_missing", "info", {}, lambda log: log.optional_missing(*WHO)),
    (
        "transfer_completed",
        "info",
        {**FIGURES, "outcome": "probe"},
        lambda log: log.transfer_completed(*WHO, is_write=False, **FIGURES, outcome="probe"),
    ),
    ("transfer_completed", "info", FINE, lambda log: log.transfer_completed(*WHO, is_write=False, **FIGURES)),
    ("write_completed", "info", FINE, lambda log: log.transfer_completed(*WHO, is_write=True, **FIGURES)),
    ("transfer_failed", "warning", FAILURE, lambda log: log.transfer_failed(*WHO, is_write=False, **FAILURE)),
    ("write_failed", "warning", FAILURE, lambda log: log.transfer_failed(*WHO, is_write=True, **FAILURE)),
]


def open_log(path: Path) -> AuditLog:
    return AuditLog(str(path), clock=lambda: NOW_S)


def events_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def fill(log: AuditLog, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        log.path_traversal_attempt(f"id-{number}", "192.0.2.7:1", "../" * 10)


@pytest.mark.parametrize(("event_type", "severity", "fields", "record"), EVENTS, ids=[event[0] for event in EVENTS])
def test_event_is_one_object_with_its_fields(
    tmp_path: Path, event_type: str, severity: str, fields: dict[str, Any], record: Callable[[AuditLog], None]
) -> None:
    log = open_log(tmp_path / "audit")
    record(log)
    log.close()
    (event,) = events_in(tmp_path / "audit")
    assert list(event)[:6] == COMMON
    assert (event["event_type"], event["severity"], event["service"]) == (event_type, severity, "snow-owl-tftp")
    assert (event["timestamp"], event["hostname"]) == ("2026-01-01T00:00:00.250Z", os.uname().nodename)
    if not event_type.startswith(("server", "events")):
        fields = {"peer": WHO[1], **fields}
    if event_type.startswith(("server", "protocol", "requests", "events", "transfers_")):
        assert event["correlation_id"] == ""
    else:
        assert event["correlation_id"] == WHO[0]
        fields = {"filename": WHO[2], **fields}
    assert {key: event[key] for key in event if key not in COMMON} == fields


def test_upload_that_did_not_say_its_size_has_none(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit")
    log.transfer_started(*WHO, is_write=True, size_bytes=None, blksize_bytes=512, windowsize_blocks=1)
    log.close()
    assert events_in(tmp_path / "audit")[0]["size_bytes"] is None


def test_what_is_told_later_has_the_time_at_which_it_happened(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit")
    log.request(*WHO, is_write=False, **ASKED, ago_ns=1_250_000_000)
    log.transfer_started(*WHO, is_write=False, **AGREED, ago_ns=1_250_000_000)
    log.transfer_completed(*WHO, is_write=False, **FIGURES)
    log.close()
    times = [event["timestamp"] for event in events_in(tmp_path / "audit")]
    assert times == ["2025-12-31T23:59:59.000Z"] * 2 + ["2026-01-01T00:00:00.250Z"]


@pytest.mark.parametrize("name", ['x\n{"event_type":"server_shutdown"}', "a\u2028b", "\x85", "\x1b[2J", "\udcff", '"}'])
def test_name_cannot_forge_an_event(tmp_path: Path, name: str) -> None:
    log = open_log(tmp_path / "audit")
    log.path_traversal_attempt("id-1", "192.0.2.7:1", name)
    log.request("id-1", "192.0.2.7:1", "x", is_write=False, mode="octet", options={name: name})
    log.close()
    assert len((tmp_path / "audit").read_text().splitlines()) == 2
    first, second = events_in(tmp_path / "audit")
    as_told = name.replace("\udcff", r"\xff")  # a byte that is no UTF-8
    assert first["filename"] == as_told
    assert second["options"] == {as_told: as_told}


def test_events_wait_for_the_flush_and_leave_in_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    log = open_log(tmp_path / "audit")
    fill(log, 5)
    assert writes == []
    log.flush()
    log.flush()
    assert len(writes) == 1
    assert len(events_in(tmp_path / "audit")) == 5
    log.close()


def test_file_is_appended_to_and_readable_by_its_group_only(tmp_path: Path) -> None:
    for _ in range(2):
        log = open_log(tmp_path / "audit")
        fill(log, 1)
        log.close()
    assert len(events_in(tmp_path / "audit")) == 2
    assert (tmp_path / "audit").stat().st_mode & 0o137 == 0


def test_without_a_file_nothing_is_recorded() -> None:
    log = AuditLog()
    fill(log, 3)
    assert not log.is_enabled
    assert log._lines == []
    log.flush()
    log.close()
    assert log.lost_events_total == 0


def test_after_closing_nothing_is_recorded(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit")
    assert log.is_enabled
    log.close()
    fill(log, 1)
    log.flush()
    log.close()
    assert events_in(tmp_path / "audit") == []


def test_file_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^logging\.audit_file: .*missing/audit: No such file"):
        open_log(tmp_path / "missing/audit")


class Disk:
    """A write(2) that has room for so many bytes more."""

    def __init__(self, room_bytes: int) -> None:
        self.room_bytes = room_bytes
        self.real_write = os.write

    def write(self, fd: int, data: bytes) -> int:
        if self.room_bytes == 0:
            raise OSError(errno.ENOSPC, "full")
        count = self.real_write(fd, data[: self.room_bytes])
        self.room_bytes -= count
        return count


def line_bytes(tmp_path: Path) -> int:
    log = open_log(tmp_path / "one")
    fill(log, 1)
    log.close()
    return (tmp_path / "one").stat().st_size


@pytest.mark.parametrize("lines_that_fit", [0, 0.5, 1, 1.5, 2, 2.99, 3])
def test_full_disk_loses_whole_events_counts_them_and_tears_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines_that_fit: float
) -> None:
    disk = Disk(int(lines_that_fit * line_bytes(tmp_path)))
    log = open_log(tmp_path / "audit")
    monkeypatch.setattr(os, "write", disk.write)
    fill(log, 3)
    log.flush()
    fill(log, 2, first=3)
    log.flush()  # full from the start, and from within a line
    disk.room_bytes = 1 << 20
    fill(log, 1, first=5)
    log.flush()
    monkeypatch.undo()
    log.close()
    begun = -int(-lines_that_fit // 1)
    events = events_in(tmp_path / "audit")
    told = [event["count"] for event in events if event["event_type"] == "events_lost"]
    found = [event["correlation_id"] for event in events if event["event_type"] != "events_lost"]
    assert found == [f"id-{number}" for number in range(begun)] + ["id-5"]
    assert told == [log.lost_events_total] == [6 - len(found)]
    assert events[begun]["event_type"] == "events_lost", "said before what comes next"


def test_rest_of_a_cut_line_may_be_cut_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(10)
    log = open_log(tmp_path / "audit")
    monkeypatch.setattr(os, "write", disk.write)
    fill(log, 1)
    for _ in range(3):
        log.flush()
        disk.room_bytes = 7
    disk.room_bytes = 1 << 20
    log.close()
    assert [event["correlation_id"] for event in events_in(tmp_path / "audit")] == ["id-0"]
    assert log.lost_events_total == 0


def test_stuck_reader_of_a_fifo_costs_events_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    log = open_log(tmp_path / "fifo")
    fill(log, 5000)
    log.flush()
    log.close()
    os.close(reader)
    assert log.lost_events_total > 0


def test_flood_between_two_flushes_is_written_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_MAX_BUFFERED_EVENTS", 10)
    log = open_log(tmp_path / "audit")
    fill(log, 25)
    assert len(log._lines) <= 10
    log.close()
    assert log.lost_events_total == 0
    assert [event["correlation_id"] for event in events_in(tmp_path / "audit")] == [f"id-{n}" for n in range(25)]


def test_flood_onto_a_full_disk_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_MAX_BUFFERED_EVENTS", 10)
    log = open_log(tmp_path / "audit")
    disk = Disk(0)
    monkeypatch.setattr(os, "write", disk.write)
    fill(log, 25)
    assert len(log._lines) <= 10
    log.flush()
    assert log.lost_events_total == 25
    disk.room_bytes = 1 << 20
    fill(log, 10, first=25)
    log.close()
    assert log.lost_events_total == 25
    told, *events = events_in(tmp_path / "audit")
    assert (told["event_type"], told["count"]) == ("events_lost", 25)
    assert [event["correlation_id"] for event in events] == [f"id-{n}" for n in range(25, 35)]
