"""The audit log: one JSON object a line for everything that was asked, granted or refused.

May know plain values. Must not know transfers, settings or the engine: every builder below takes
what it writes as arguments.

Invariants:
- Events wait in memory until `flush`, which the server calls once per batch: one write(2) for all,
  or several where a batch holds more than memory is meant for.
- Nothing here raises once the log is open. What a full disk or a full buffer costs is counted in
  `lost_events_total`, and told by an event of its own once there is room again; lines stay whole (see `whole`).
- A file that was moved away gets no further event (see `appended`), and one that hangs holds up nobody (see `outlet`).
- Text of peers goes in as it came; see `lines` for why it can neither end a line nor forge one.

Used by one thread.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from snow_owl_tftp.observe.lines import json_line, utc_timestamp
from snow_owl_tftp.observe.log import LogFile
from snow_owl_tftp.observe.outlet import Outlet

__all__ = ["AuditLog"]

_SERVICE: Final = "snow-owl-tftp"
_MAX_BUFFERED_EVENTS: Final = 20_000
"""About 6 MB. A batch of the server is far smaller; what a flood brings beyond is written at once."""
_NS_PER_S: Final = 1_000_000_000
_NOBODYS: Final[Mapping[str, str]] = {}


class AuditLog:
    """Events on their way to a file; without a file every call does nothing."""

    def __init__(self, path: str = "", *, clock: Callable[[], float] = time.time, into: LogFile | None = None) -> None:
        """Open for appending.

        Args:
            path: Empty: auditing is off.
            clock: Seconds since 1970.
            into: The log, if it is this file: two who write to one file by themselves glue their lines to what a full
                disk cut off of the other's.

        Raises:
            ConfigError: The file cannot be opened.
        """
        self._clock = clock
        self._hostname = os.uname().nodename
        self._lines: list[bytes] = []
        self._log = into if path else None
        self._lost_in_log = 0
        self._is_closed = False
        # Not blocking: a FIFO whose reader is stuck must cost events, not the thread that writes them.
        self._outlet = Outlet(path, "logging.audit_file", _write, nonblocking=True) if path and into is None else None
        if self._outlet is not None:
            self._outlet.tell_losses_by(self._lost)

    @property
    def on_trouble(self) -> Callable[[str], None]:
        """Told why the file's name cannot be opened any more; it may log."""
        return self._outlet.on_trouble if self._outlet is not None else lambda reason: None

    @on_trouble.setter
    def on_trouble(self, tell: Callable[[str], None]) -> None:
        if self._outlet is not None:
            self._outlet.on_trouble = tell

    @property
    def lost_events_total(self) -> int:
        """Events that never reached the file."""
        return (self._outlet.lost_total if self._outlet is not None else 0) + self._lost_in_log

    @property
    def hangs(self) -> bool:
        """Whether a thread waits for the file."""
        return self._outlet is not None and self._outlet.hangs

    @property
    def is_enabled(self) -> bool:
        """Whether events go anywhere; ask before preparing expensive arguments."""
        return self._outlet is not None or self._log is not None

    def begin(self, start: Callable[[threading.Thread], None]) -> None:
        """Have events written by a thread from now on, which `start` starts; see Outlet.begin."""
        if self._outlet is not None:
            self._outlet.begin(start)

    def flush(self) -> None:
        """Write what was recorded since the last flush."""
        if not (self._lines or (self._outlet is not None and self._outlet.owes)):
            return
        lines, self._lines = self._lines, []
        if self._log is not None:
            self._log.write_lines(lines, self._lose_in_log)
        elif self._outlet is not None:
            self._outlet.write(lines)

    def close(self) -> None:
        """Flush and close; later events are ignored."""
        self.flush()
        self._log = None
        if self._outlet is not None:
            self._outlet.close()
        self._is_closed = True

    def reopen(self) -> None:
        """Go over to the file that has the name now, without waiting for the next event."""
        if self._outlet is not None:
            self._outlet.reopen()

    def _lose_in_log(self, count: int) -> None:
        self._lost_in_log += count

    def _record(
        self, event_type: str, severity: str, correlation_id: str, fields: Mapping[str, object], ago_ns: int = 0
    ) -> None:
        if not self.is_enabled or self._is_closed:
            return
        if len(self._lines) >= _MAX_BUFFERED_EVENTS:
            self.flush()
        self._lines.append(self._line(event_type, severity, correlation_id, fields, ago_ns))

    def _line(
        self, event_type: str, severity: str, correlation_id: str, fields: Mapping[str, object], ago_ns: int = 0
    ) -> bytes:
        event = {
            "timestamp": utc_timestamp(self._clock() - ago_ns / _NS_PER_S),
            "hostname": self._hostname,
            "service": _SERVICE,
            "severity": severity,
            "event_type": event_type,
            "correlation_id": correlation_id,
        }
        return json_line({**event, **fields})

    def _lost(self, count: int) -> bytes:
        """The event that tells of `count` others, which the file did not take."""
        return self._line("events_lost", "error", "", {"count": count})

    # ---- the server itself

    def server_started(self, *, version: str, bind_addresses: Sequence[str], root_dir: str, workers: int) -> None:
        """Record that the sockets are open and requests are answered from now on."""
        where = {"bind_addresses": bind_addresses, "root_dir": root_dir}
        self._record("server_started", "info", "", {"version": version, "workers": workers, **where})

    def server_shutdown(self, *, reason: str, transfers_total: int, aborted_transfers: int) -> None:
        """Record the end; `aborted_transfers` were cut off by it."""
        counts = {"transfers_total": transfers_total, "aborted_transfers": aborted_transfers}
        self._record("server_shutdown", "info", "", {"reason": reason, **counts})

    # ---- requests: `correlation_id` joins all events of one request, `peer` is "address:port", and
    # ---- `ago_ns` says how long ago it happened that is told now, and `whose` names the machine, if it is known

    def request(
        self,
        correlation_id: str,
        peer: str,
        filename: str,
        *,
        is_write: bool,
        mode: str,
        options: Mapping[str, str],
        ago_ns: int = 0,
    ) -> None:
        """Record read_request or write_request: what was asked, before anything was decided."""
        event = "write_request" if is_write else "read_request"
        asked = {"mode": mode, "options": options}
        self._record(event, "info", correlation_id, {"peer": peer, "filename": filename, **asked}, ago_ns)

    def request_denied(
        self,
        correlation_id: str,
        peer: str,
        filename: str,
        *,
        is_write: bool,
        error_code: int | None,
        reason: str,
        rule: int | None = None,
        whose: Mapping[str, str] = _NOBODYS,
    ) -> None:
        """Record read_denied or write_request_denied: the ERROR (None: silence) that was the answer, by which rule."""
        event = "write_request_denied" if is_write else "read_denied"
        answer = {"error_code": None if error_code is None else int(error_code), "reason": reason}
        if rule is not None:
            answer["rule"] = rule
        self._record(event, "warning", correlation_id, {"peer": peer, "filename": filename, **answer, **whose})

    def optional_missing(
        self, correlation_id: str, peer: str, filename: str, whose: Mapping[str, str] = _NOBODYS
    ) -> None:
        """Record that a file was asked for which the client can do without, and there is none."""
        self._record("optional_missing", "info", correlation_id, {"peer": peer, "filename": filename, **whose})

    def path_traversal_attempt(self, correlation_id: str, peer: str, filename: str) -> None:
        """Record a name whose own `..` lead out of the root."""
        self._record("path_traversal_attempt", "warning", correlation_id, {"peer": peer, "filename": filename})

    def symlink_access_denied(self, correlation_id: str, peer: str, filename: str) -> None:
        """Record a name that a symbolic link leads out of the root, or nowhere."""
        self._record("symlink_access_denied", "warning", correlation_id, {"peer": peer, "filename": filename})

    def file_size_limit_exceeded(
        self, correlation_id: str, peer: str, filename: str, *, size_bytes: int, max_bytes: int
    ) -> None:
        """Record a file, or an upload, that is larger than allowed."""
        sizes = {"size_bytes": size_bytes, "max_bytes": max_bytes}
        event = "file_size_limit_exceeded"
        self._record(event, "warning", correlation_id, {"peer": peer, "filename": filename, **sizes})

    def protocol_violation(self, peer: str, *, reason: str) -> None:
        """Record a datagram that is no packet, or not one for where it came."""
        self._record("protocol_violation", "warning", "", {"peer": peer, "reason": reason})

    def requests_refused(self, peer: str, *, limit: str, count: int) -> None:
        """Record that a limit was reached: `count` requests since the last event about it, the last one of `peer`."""
        self._record("requests_refused", "warning", "", {"peer": peer, "limit": limit, "count": count})

    def transfers_paced(self, peer: str, *, limit: str, count: int) -> None:
        """Record that transfers were held back `count` times since the last event about it, the last one of `peer`."""
        self._record("transfers_paced", "info", "", {"peer": peer, "limit": limit, "count": count})

    def events_left_out(self, *, what: str, count: int) -> None:
        """Record that there were `count` more of a kind of which there were too many to record each."""
        self._record("events_left_out", "warning", "", {"what": what, "count": count})

    # ---- transfers

    def transfer_started(
        self,
        correlation_id: str,
        peer: str,
        filename: str,
        *,
        is_write: bool,
        size_bytes: int | None,
        blksize_bytes: int,
        windowsize_blocks: int,
        found: Mapping[str, str] | None = None,
        ago_ns: int = 0,
        whose: Mapping[str, str] = _NOBODYS,
    ) -> None:
        """Record transfer_started or write_started; an upload may not say its size.

        `found` says, if anything, under which path ("found"), and by which way ("by"), a file was found otherwise than
        it was asked for.
        """
        event = "write_started" if is_write else "transfer_started"
        agreed = {"size_bytes": size_bytes, "blksize_bytes": blksize_bytes, "windowsize_blocks": windowsize_blocks}
        what = {"peer": peer, "filename": filename, **agreed, **(found or {}), **whose}
        self._record(event, "info", correlation_id, what, ago_ns)

    def transfer_completed(
        self,
        correlation_id: str,
        peer: str,
        filename: str,
        *,
        is_write: bool,
        payload_bytes: int,
        retransmits: int,
        duration_ns: int,
        outcome: str = "ok",
        whose: Mapping[str, str] = _NOBODYS,
    ) -> None:
        """Record transfer_completed or write_completed.

        All is acknowledged, and an upload is in place: outcome "ok"; or the client wanted the size only: "probe".
        """
        event = "write_completed" if is_write else "transfer_completed"
        figures = {"payload_bytes": payload_bytes, "retransmits": retransmits, "duration_ns": duration_ns}
        what = {"peer": peer, "filename": filename, "outcome": outcome}
        self._record(event, "info", correlation_id, {**what, **figures, **whose})

    def transfer_failed(
        self,
        correlation_id: str,
        peer: str,
        filename: str,
        *,
        is_write: bool,
        outcome: str,
        reason: str,
        payload_bytes: int,
        retransmits: int,
        duration_ns: int,
        whose: Mapping[str, str] = _NOBODYS,
    ) -> None:
        """Record transfer_failed or write_failed: how it ended, and how far it came."""
        event = "write_failed" if is_write else "transfer_failed"
        why = {"outcome": outcome, "reason": reason}
        figures = {"payload_bytes": payload_bytes, "retransmits": retransmits, "duration_ns": duration_ns}
        self._record(event, "warning", correlation_id, {"peer": peer, "filename": filename, **why, **figures, **whose})

    def write_stored_after_failure(self, correlation_id: str, peer: str, filename: str) -> None:
        """Record that an upload is in its place although write_failed was recorded: its client gave up at the end."""
        self._record("write_stored_after_failure", "warning", correlation_id, {"peer": peer, "filename": filename})


def _write(fd: int, data: bytes) -> int:
    written_bytes = 0
    try:
        while written_bytes < len(data):
            written_bytes += os.write(fd, data[written_bytes:])
    except OSError:
        pass  # disk full, quota, FIFO full
    return written_bytes
