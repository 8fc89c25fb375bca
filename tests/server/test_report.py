"""What is told, at which level, and that what nobody reads costs nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.refusals import FileTooLargeError, OutsideRootError
from snow_owl_tftp.errors import BadPacket, InternalError, RefusedError, TftpError
from snow_owl_tftp.events.event import BatchingChanged, RequestDropped, RequestRefused, TransferEnded, TransferStarted
from snow_owl_tftp.events.sink import BATCHING, SUCCESSES
from snow_owl_tftp.plan.transfer import Outcome, Role
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.verdict import TransferContext


class Recorder:
    """Takes every call and remembers it, whether it is asked to be a logger or an audit log."""

    is_enabled = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **fields: self.calls.append((name, {"args": args, **fields}))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


class Untouchable:
    """Fails whoever looks at it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read although nobody listens")


def make_report(level: str = "info") -> tuple[Report, Recorder, Recorder]:
    log, audit = Recorder(), Recorder()
    settings = override(Settings(), {"logging.level": level, "max_file_size_bytes": 10})
    return Report(settings, log, audit), log, audit  # type: ignore[arg-type]


def make_completion(**changes: Any) -> Any:
    context = TransferContext(
        Request(Opcode.RRQ, "boot.img", "octet", (("tsize", "0"),)), 1000, Negotiated(tsize=1000, oack=b"\0\6")
    )
    fields: dict[str, Any] = {
        "transfer_id": 0xABC,
        "outcome": Outcome.OK,
        "error": 0,
        "text": b"",
        "role": Role.SENDER,
        "context": context,
        "payload_bytes": 1000,
        "blocks": 2,
        "retransmits": 0,
        "duration_ns": 5_000_000,
        "peer": ("192.0.2.7", 2070),
        "flow_hit": False,
        "datagrams_in": 2,
        "blksize_bytes": 512,
        "windowsize_blocks": 1,
        **changes,
    }
    return SimpleNamespace(**fields)


def make_asked() -> Any:
    return SimpleNamespace(transfer_id=0xABC, peer=("192.0.2.7", 2070), datagram=b"", local_address=None)


def started(completion: Any) -> TransferStarted:
    """What Python decides where the engine does not repeat it."""
    return TransferStarted(make_asked(), completion, completion.context.request, completion.context.size_bytes)


def refused(cause: TftpError, filename: str = "name") -> RequestRefused:
    return RequestRefused(make_asked(), Request(Opcode.RRQ, filename, "octet", ()), cause)


def ended(completion: Any) -> TransferEnded:
    return TransferEnded(completion, completion.context.request, completion.context.size_bytes)


def test_success_is_told_once_to_each() -> None:
    report, log, audit = make_report()
    report.emit(ended(make_completion()))
    assert log.names == ["info"]
    assert log.calls[0][1]["peer"] == "192.0.2.7:2070"
    assert audit.names == ["transfer_completed"]
    assert audit.calls[0][1]["args"][:3] == ("0000000000000abc", "192.0.2.7:2070", "boot.img")


@pytest.mark.parametrize("code", [0, 8])
def test_probe_is_told_as_success_to_machines_and_only_at_debug_to_people(code: int) -> None:
    for level, names in (("info", []), ("debug", ["debug"])):
        report, log, audit = make_report(level)
        report.emit(ended(make_completion(outcome=Outcome.PEER_ERROR, error=code, blocks=0, payload_bytes=0)))
        assert [name for name in log.names if name != "debug" or level == "debug"] == names
        assert audit.names == ["transfer_completed"]
        assert audit.calls[0][1]["payload_bytes"] == 0


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
@pytest.mark.parametrize(
    "ending",
    [
        {},
        {"outcome": Outcome.PEER_ERROR, "error": 8, "blocks": 0, "payload_bytes": 0},
        {"outcome": Outcome.CHANGED, "text": b"the file was changed"},
    ],
)
def test_beginning_of_a_flow_is_audited_with_its_end_as_for_any_other(level: str, ending: dict[str, Any]) -> None:
    plain, by_flow = make_completion(**ending), make_completion(**ending, flow_hit=True)
    decided, decided_log, decided_audit = make_report(level)
    decided.emit(started(plain))
    decided.emit(ended(plain))
    repeated, log, audit = make_report(level)
    repeated.emit(ended(by_flow))
    # A line in the log has the time at which it was written, which is not when the flow began.
    assert log.calls == [call for call in decided_log.calls if call[1]["args"] != ("transfer started",)]
    assert audit.names == decided_audit.names == ["request", "transfer_started", audit.names[-1]]
    begins = [fields.pop("ago_ns") for _, fields in audit.calls[:2]]
    assert begins == [by_flow.duration_ns] * 2
    assert [fields.pop("ago_ns") for _, fields in decided_audit.calls[:2]] == [0, 0]
    assert audit.calls == decided_audit.calls


@pytest.mark.parametrize("level", ["debug", "info"])
def test_without_an_audit_log_nobody_looks_whether_it_was_a_flow(level: str) -> None:
    log, audit = Recorder(), Recorder()
    audit.is_enabled = False
    report = Report(override(Settings(), {"logging.level": level}), log, audit)  # type: ignore[arg-type]
    completion = make_completion()
    del completion.flow_hit
    report.emit(ended(completion))
    assert log.names == ["info"]


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": Outcome.PEER_ERROR, "error": 3, "blocks": 0},
        {"outcome": Outcome.PEER_ERROR, "error": 0, "blocks": 1},
        {"outcome": Outcome.TIMED_OUT, "error": 0, "blocks": 0},
        {
            "outcome": Outcome.PEER_ERROR,
            "error": 8,
            "blocks": 0,
            "context": TransferContext(Request(Opcode.RRQ, "x", "octet", ()), 1, Negotiated()),
        },
    ],
)
def test_what_is_no_probe_is_a_failure(changes: dict[str, Any]) -> None:
    report, log, audit = make_report()
    report.emit(ended(make_completion(**changes)))
    assert log.names == ["warning"]
    assert audit.names == ["transfer_failed"]


@pytest.mark.parametrize(
    ("cause", "level", "events"),
    [
        (RefusedError(1, "File not found"), "info", ["request_denied"]),
        (RefusedError(2, "Access violation"), "warning", ["request_denied"]),
        (OutsideRootError(by_link=False), "warning", ["path_traversal_attempt", "request_denied"]),
        (OutsideRootError(by_link=True), "warning", ["symlink_access_denied", "request_denied"]),
        (FileTooLargeError(11), "warning", ["file_size_limit_exceeded", "request_denied"]),
        (BadPacket("unknown mode"), "info", ["protocol_violation"]),
        (InternalError("x"), "error", []),
    ],
)
def test_refusal_is_told_at_its_level(cause: TftpError, level: str, events: list[str]) -> None:
    report, log, audit = make_report()
    report.emit(refused(cause))
    assert log.names == [level]
    assert audit.names == events


def test_nothing_is_looked_at_when_nobody_listens() -> None:
    log, audit = Recorder(), Recorder()
    audit.is_enabled = False
    settings = override(Settings(), {"logging.level": "warning"})
    report = Report(settings, log, audit)  # type: ignore[arg-type]
    assert not report.wanted
    nothing: Any = Untouchable()
    report.emit(TransferStarted(nothing, nothing, nothing, None))
    report.emit(BatchingChanged(nothing))
    report.flush()
    assert log.names == audit.names == []


@pytest.mark.parametrize(("level", "hears"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_successes_are_heard_from_info_on(level: str, hears: bool) -> None:
    audit = Recorder()
    audit.is_enabled = False
    settings = override(Settings(), {"logging.level": level})
    assert bool(Report(settings, Recorder(), audit).wanted & SUCCESSES) is hears  # type: ignore[arg-type]


def test_change_of_batching_tells_what_it_was_decided_by() -> None:
    log, audit = Recorder(), Recorder()
    settings = override(
        Settings(), {"logging.level": "debug", "performance.platform.batch.adaptive_batch_threshold": 17}
    )
    report = Report(settings, log, audit)  # type: ignore[arg-type]
    change: Any = SimpleNamespace(worker=0, mode=2, live_transfers=20, linger_ns=300, datagrams_per_s=9)
    report.emit(BatchingChanged(change))
    ((level, fields),) = log.calls
    assert level == "debug"
    assert fields["args"] == ("batching mode changed",)
    assert (fields["live_transfers"], fields["adaptive_batch_threshold"]) == (20, 17)


def test_reload_changes_level_log_and_limits() -> None:
    report, log, audit = make_report("info")
    assert not report.wanted & BATCHING
    later = Recorder()
    settings = override(Settings(), {"logging.level": "debug", "max_file_size_bytes": 20})
    report.reload(settings, later)  # type: ignore[arg-type]
    assert report.wanted & BATCHING
    report.emit(refused(FileTooLargeError(21)))
    assert (log.names, later.names) == ([], ["warning"])
    assert audit.calls[0][1]["max_bytes"] == 20


def test_a_flood_of_refusals_is_told_by_number() -> None:
    report, log, audit = make_report()
    for _ in range(1000):
        report.emit(refused(RefusedError(2, "Access violation")))
    lines = log.names.count("warning")
    assert lines == audit.names.count("request_denied") < 1000
    assert report.owes_counts
    report.flush(is_last=True)
    assert not report.owes_counts
    assert log.calls[-1][1] == {"args": ("not logged one by one",), "what": "refused requests", "count": 1000 - lines}
    assert audit.calls[-2] == ("events_left_out", {"args": (), "what": "refused requests", "count": 1000 - lines})


def test_a_flood_of_requests_that_nobody_goes_on_with_hides_no_other_failure() -> None:
    report, log, _ = make_report()
    for _ in range(1000):
        report.emit(ended(make_completion(outcome=Outcome.ABORTED, text=b"gave way", datagrams_in=0, blocks=0)))
    before = len(log.calls)
    assert before < 1000
    report.emit(ended(make_completion(outcome=Outcome.TIMED_OUT, blocks=1)))
    report.emit(refused(RefusedError(2, "Access violation")))
    assert len(log.calls) == before + 2


@pytest.mark.parametrize("flow_hit", [False, True])
@pytest.mark.parametrize("datagrams_in", [0, 1])
def test_a_flood_of_requests_that_take_no_block_is_told_by_number(flow_hit: bool, datagrams_in: int) -> None:
    """Of those that answer with an ERROR too: two datagrams must not cost a line each for ever."""
    report, log, audit = make_report()
    for _ in range(1000):
        ending = make_completion(
            outcome=Outcome.PEER_ERROR, error=3, datagrams_in=datagrams_in, blocks=0, flow_hit=flow_hit
        )
        report.emit(ended(ending))
    lines = log.names.count("warning")
    assert lines == audit.names.count("transfer_failed") < 1000
    assert audit.names.count("transfer_started") == (lines if flow_hit else 0)
    report.flush(is_last=True)
    assert log.calls[-1][1]["count"] == 1000 - lines


def test_dropped_requests_are_told_by_number() -> None:
    report, log, audit = make_report("error")
    for _ in range(3):
        report.emit(RequestDropped())
    report.flush(is_last=True)
    assert log.calls[-1][1]["count"] == 3
    assert audit.names == ["events_left_out", "flush"]


def test_what_no_level_would_show_uses_up_no_budget() -> None:
    log, audit = Recorder(), Recorder()
    audit.is_enabled = False
    report = Report(override(Settings(), {"logging.level": "warning"}), log, audit)  # type: ignore[arg-type]
    for _ in range(1000):
        report.emit(refused(RefusedError(1, "File not found")))
    assert not report.owes_counts
