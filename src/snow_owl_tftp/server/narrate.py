"""What is told about requests and transfers: to people (log), to machines (audit).

May know: events, the log and the audit log. Must not decide, or touch the engine.

Invariants:
- Lines of transfers that ended well may wait for the end of their batch of events (`flush`).
- What nobody reads costs nothing: `wanted` says which events need not be made, and no
  text is made before a level is known to be on. 40,000 transfers a second pass here.
- What strangers can cause without limit has a budget of lines, in the log and in the audit log: a flood of
  requests that are refused, or that nobody goes on with, is told by number.
- `correlation_id` is the engine's transfer id in hexadecimal. It joins all events of one request.
- A request that the engine answered by itself (a flow) has the same events as any other. We hear of it at
  its end, so its beginning is told then, with the time at which it happened; the log, whose lines have the
  time of their writing, says nothing of it.

What is daily bread at every boot is no failure. A size probe (see `events.probe`) is "size probe" in the log, at debug,
and transfer_completed with outcome "probe" in the audit log. An optional file that is not there is optional_missing in
both, at debug in the log.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import asdict

from snow_owl_tftp._engine.engine import PACED
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.names import spellings_of
from snow_owl_tftp.content.refusals import FileTooLargeError, OutsideRootError
from snow_owl_tftp.content.store.refusals import UploadTooLargeError
from snow_owl_tftp.errors import BadPacket, InternalError, OptionalMissingError, RefusedError
from snow_owl_tftp.events.event import (
    BatchCalls,
    BatchingChanged,
    Event,
    LimitReached,
    RequestDropped,
    RequestRefused,
    StoredAfterFailure,
    Subject,
    TransferEnded,
    TransferStarted,
)
from snow_owl_tftp.events.probe import is_size_probe
from snow_owl_tftp.events.sink import BATCHING, STARTS, SUCCESSES
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.budget import LineBudget
from snow_owl_tftp.plan.transfer import Outcome, Role
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.machines.machine import Client
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.packets import Request
from snow_owl_tftp.server.sockets import format_address

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Report"]

_MODES: Final = ("at once", "batching", "lingering")
"""ModeChange.mode, docs/engine-contract.md."""
_LINES_PER_S: Final = 200
"""Of one kind: more than anybody reads. In a minute 2,000, with the longest names some 4 MB."""
_REFUSED: Final = "refused requests"
_UNANSWERED: Final = "transfers that nobody went on with"
_DROPPED: Final = "requests that waited too long"


class Lines(Protocol):
    """What a log writes to; observe.log.LogFile is such an object."""

    def hold(self) -> None:
        """Let lines wait for `release`."""

    def release(self) -> None:
        """Write them."""


class Report:
    """The EventSink that tells the log and the audit log.

    Attributes:
        log: For whoever has something else to say.
        wanted: See EventSink.wanted.
        machines: Asked for the names of those that are told of.
        turned_away: Asked how many were told to come again so far, by reason; told with each sample of calls.
    """

    def __init__(
        self, settings: Settings, log: "FilteringBoundLogger", audit: AuditLog, lines: Lines | None = None
    ) -> None:
        """Find out what is on.

        Args:
            settings: Those that `log` was made with.
            log: Where lines go.
            audit: Where events go.
            lines: What `log` writes to, if it can hold the lines of a batch.
        """
        self._audit = audit
        self._lines = lines
        self._is_audited = audit.is_enabled
        self.machines: Machines = NO_MACHINES
        self.turned_away: Callable[[], Mapping[str, int]] = dict
        self._budgets = {_REFUSED: LineBudget(_LINES_PER_S), _UNANSWERED: LineBudget(_LINES_PER_S)}
        self._budgets[_DROPPED] = LineBudget(0)  # only ever told by number
        self.reload(settings, log)

    def reload(self, settings: Settings, log: "FilteringBoundLogger") -> None:
        """Go on with another level and other limits.

        Args:
            settings: Those that `log` was made with.
            log: Where lines go from now on.
        """
        self.log = log
        self._max_file_size_bytes = settings.max_file_size_bytes
        self._adaptive_batch_threshold = settings.performance.platform.batch.adaptive_batch_threshold
        self.wanted = STARTS | SUCCESSES if self._is_audited else 0
        if settings.logging.level in ("debug", "info"):
            self.wanted |= SUCCESSES
        if settings.logging.level == "debug":
            self.wanted |= STARTS | BATCHING

    def emit(self, event: Event) -> None:
        """See EventSink.emit."""
        if isinstance(event, TransferEnded):  # the most frequent first
            self._ended(event)
        elif isinstance(event, RequestRefused):
            self._refused(event)
        elif isinstance(event, TransferStarted):
            self._started(event)
        elif isinstance(event, RequestDropped):
            self._budgets[_DROPPED].grants()
        elif isinstance(event, StoredAfterFailure):
            self._stored_after_failure(event)
        elif isinstance(event, LimitReached):
            self._limit_reached(event)
        elif self.wanted & BATCHING:
            self._batching(event)

    @property
    def owes_counts(self) -> bool:
        """Whether lines were left out of which nobody was told yet: flush again, in a second."""
        return any(budget.left_out for budget in self._budgets.values())

    def flush(self, *, is_last: bool = False) -> None:
        """Write out what one batch of events has gathered.

        Args:
            is_last: What was left out is told now, for there will be no other time.
        """
        for what, budget in self._budgets.items():
            if count := budget.settle(at_once=is_last):
                self.log.warning("not logged one by one", what=what, count=count)
                self._audit.events_left_out(what=what, count=count)
        if self._is_audited:
            self._audit.flush()
        if self._lines is not None:
            self._lines.release()

    # ---- requests

    def _started(self, event: TransferStarted) -> None:
        if not self.wanted & STARTS:
            return
        self.log.debug(
            "transfer started",
            peer=format_address(*event.incoming.peer),
            file=event.request.filename,
            bytes=event.size_bytes,
            blksize_bytes=event.agreed.blksize_bytes,
            windowsize_blocks=event.agreed.windowsize_blocks,
            **_as_found(event.found),
            **self._whose(event.incoming, event.request),
        )
        if self._is_audited:
            self._audit_start(event, ago_ns=0)

    def _audit_start(self, event: TransferStarted, *, ago_ns: int) -> None:
        request, is_write = event.request, event.request.kind == Opcode.WRQ
        who = (_correlation_id(event.incoming.transfer_id), format_address(*event.incoming.peer), request.filename)
        self._audit.request(*who, is_write=is_write, mode=request.mode, options=dict(request.options), ago_ns=ago_ns)
        self._audit.transfer_started(
            *who,
            is_write=is_write,
            size_bytes=event.size_bytes,
            blksize_bytes=event.agreed.blksize_bytes,
            windowsize_blocks=event.agreed.windowsize_blocks,
            found=_as_found(event.found),
            ago_ns=ago_ns,
            whose=self._whose(event.incoming, request),
        )

    def _refused(self, event: RequestRefused) -> None:
        if not self._hears_refusal(event) or not self.may_tell_refusal():
            return
        peer = format_address(*event.incoming.peer)
        cause, request = event.cause, event.request
        if isinstance(cause, BadPacket):
            self.log.info("malformed request", peer=peer, reason=cause.reason)
            self._audit.protocol_violation(peer, reason=cause.reason)
        elif isinstance(cause, RefusedError) and request is not None:
            self._tell_refusal(event.incoming, peer, request, cause)
        elif isinstance(cause, InternalError):
            # The traceback is the one way to find our bug; the peer is told nothing of it.
            file = request.filename if request else ""
            self.log.error("internal error", peer=peer, file=file, exc_info=cause.__cause__ or cause)

    def _hears_refusal(self, event: RequestRefused) -> bool:
        if isinstance(event.cause, OptionalMissingError):
            return bool(self.wanted & STARTS)
        # As below: a malformed request and a missing file are nothing to warn of.
        is_notice = isinstance(event.cause, BadPacket) or (
            isinstance(event.cause, RefusedError) and event.cause.code == ErrorCode.FILE_NOT_FOUND
        )
        return bool(self.wanted & SUCCESSES) or not is_notice

    def may_tell_refusal(self) -> bool:
        """Whether one more refused request is told by a line of its own; if not it is counted."""
        return self._budgets[_REFUSED].grants()

    def _tell_refusal(self, incoming: Subject, peer: str, request: Request, cause: RefusedError) -> None:
        whose = self._whose(incoming, request)
        filename, is_write = request.filename, request.kind == Opcode.WRQ
        if isinstance(cause, OptionalMissingError):
            self.log.debug("optional_missing", peer=peer, file=filename, **whose)
            self._audit.optional_missing(_correlation_id(incoming.transfer_id), peer, filename, whose=whose)
            return
        kind = "WRQ" if is_write else "RRQ"
        # Boot loaders probe for dozens of files that are not there: nothing to warn of.
        tell = self.log.info if cause.code == ErrorCode.FILE_NOT_FOUND else self.log.warning
        why = {"why": cause.why} if cause.why else {}
        if cause.is_silent:
            tell("request ignored", peer=peer, kind=kind, file=filename, **why, **whose)
        else:
            fields = {"peer": peer, "kind": kind, "file": filename, "code": int(cause.code), "reason": cause.text}
            tell("request refused", **fields, **why, **whose)
        if not self._is_audited:
            return
        correlation_id = _correlation_id(incoming.transfer_id)
        if isinstance(cause, OutsideRootError) and cause.by_link:
            self._audit.symlink_access_denied(correlation_id, peer, filename)
        elif isinstance(cause, OutsideRootError):
            self._audit.path_traversal_attempt(correlation_id, peer, filename)
        elif isinstance(cause, (FileTooLargeError, UploadTooLargeError)):
            self._audit.file_size_limit_exceeded(
                correlation_id, peer, filename, size_bytes=cause.size_bytes, max_bytes=self._max_file_size_bytes
            )
        self._audit.request_denied(
            correlation_id,
            peer,
            filename,
            is_write=is_write,
            error_code=None if cause.is_silent else cause.code,
            reason="ignored" if cause.is_silent else cause.text,
            rule=cause.rule or None,
            whose=whose,
        )

    # ---- transfers

    def _ended(self, event: TransferEnded) -> None:
        ending = event.ending
        is_ok = ending.outcome == Outcome.OK
        is_probe = not is_ok and is_size_probe(event)
        if not (is_ok or is_probe or ending.blocks or self._budgets[_UNANSWERED].grants()):
            return
        if self._is_audited and ending.flow_hit:
            began = TransferStarted(ending, ending, event.request, event.size_bytes, event.found)
            self._audit_start(began, ago_ns=ending.duration_ns)
        if is_ok:
            self._tell_success(event, "transfer completed")
        elif not is_probe:
            self._tell_failure(event)
        elif self.wanted & STARTS:
            self._tell_success(event, "size probe")

    def _tell_success(self, event: TransferEnded, what: str) -> None:
        if self._lines is not None:
            self._lines.hold()
        ending = event.ending
        peer, filename = format_address(*ending.peer), event.request.filename
        whose = self._whose(ending, event.request)
        tell = self.log.info if ending.outcome == Outcome.OK else self.log.debug
        tell(
            what,
            peer=peer,
            file=filename,
            bytes=ending.payload_bytes,
            blocks=ending.blocks,
            retransmits=ending.retransmits,
            ms=ending.duration_ns // 1_000_000,
            **_as_found(event.found),
            **whose,
        )
        if self._is_audited:
            self._audit.transfer_completed(
                _correlation_id(ending.transfer_id),
                peer,
                filename,
                is_write=ending.role == Role.RECEIVER,
                outcome="ok" if ending.outcome == Outcome.OK else "probe",
                payload_bytes=ending.payload_bytes,
                retransmits=ending.retransmits,
                duration_ns=ending.duration_ns,
                whose=whose,
            )

    def _tell_failure(self, event: TransferEnded) -> None:
        ending = event.ending
        peer, filename = format_address(*ending.peer), event.request.filename
        outcome, reason = Outcome(ending.outcome).name, ending.text.decode("utf-8", "replace")
        figures = {"bytes": ending.payload_bytes, "of_bytes": event.size_bytes}
        whose = self._whose(ending, event.request)
        self.log.warning(
            "transfer failed",
            peer=peer,
            file=filename,
            outcome=outcome,
            error=ending.error,
            reason=reason,
            retransmits=ending.retransmits,
            ms=ending.duration_ns // 1_000_000,
            **figures,
            **_as_found(event.found),
            **whose,
        )
        if self._is_audited:
            self._audit.transfer_failed(
                _correlation_id(ending.transfer_id),
                peer,
                filename,
                is_write=ending.role == Role.RECEIVER,
                outcome=outcome,
                reason=reason,
                payload_bytes=ending.payload_bytes,
                retransmits=ending.retransmits,
                duration_ns=ending.duration_ns,
                whose=whose,
            )

    def _stored_after_failure(self, event: StoredAfterFailure) -> None:
        where, file = format_address(*event.peer), event.request.filename
        self.log.warning("upload is stored although its transfer failed", peer=where, file=file)
        self._audit.write_stored_after_failure(_correlation_id(event.transfer_id), where, file)

    # ---- machines

    def _whose(self, client: Client, request: Request) -> dict[str, str]:
        """The field that names a machine, by what is known of it; one of its own where that is no more than a claim."""
        if self.machines is NO_MACHINES:
            return {}
        machine = self.machines.find(client, spellings_of(request.filename))
        called = None if machine is None else machine.name or machine.mac or machine.uuid or machine.serial
        if machine is None or called is None:
            return {}
        return {"machine" if machine.known_by == "address" else "claims_machine": called}

    # ---- the engine

    def _limit_reached(self, event: LimitReached) -> None:
        refusals = event.refusals
        peer = format_address(*refusals.peer)
        limit, count = refusals.limit, refusals.count
        if limit in PACED:
            self.log.info(
                "transfers held back by a limit", limit=limit, count=count, last_peer=peer, worker=refusals.worker
            )
            self._audit.transfers_paced(peer, limit=limit, count=count)
            return
        self.log.warning(
            "requests refused by a limit", limit=limit, count=count, last_peer=peer, worker=refusals.worker
        )
        self._audit.requests_refused(peer, limit=limit, count=count)

    def _batching(self, event: BatchingChanged | BatchCalls) -> None:
        if isinstance(event, BatchCalls):
            self.log.debug("batch calls", **asdict(event), **self.turned_away())
            return
        change = event.change
        self.log.debug(
            "batching mode changed",
            worker=change.worker,
            mode=_MODES[change.mode],
            live_transfers=change.live_transfers,
            adaptive_batch_threshold=self._adaptive_batch_threshold,
            linger_ns=change.linger_ns,
            datagrams_per_s=change.datagrams_per_s,
        )


def _as_found(found: tuple[bytes, str] | None) -> dict[str, str]:
    """Where a file was that nobody asked for by that path, and by which way it was found."""
    if found is None:
        return {}
    path, way = found
    return {"found": path.decode("utf-8", "surrogateescape"), "by": way}


def _correlation_id(transfer_id: int) -> str:
    return f"{transfer_id:016x}"
