"""What the library's server tells the program around it: log records with fields, and the end of every transfer.

    request refused ─► logging.getLogger("snow_owl_tftp")   record.event, record.peer, record.file, …
    Completion      ─► the same, and on_complete(Completion)

May know: the report and what it is made of. Must not decide anything.
Invariant:
- A callback that raises costs its own call: it is in the log with its traceback, and everybody else is served.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import InternalError
from snow_owl_tftp.events.event import RequestRefused, TransferEnded
from snow_owl_tftp.events.probe import is_size_probe
from snow_owl_tftp.events.sink import BATCHING, STARTS, SUCCESSES
from snow_owl_tftp.library.confined import path_of
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.records import log_event
from snow_owl_tftp.plan.transfer import Outcome, Role
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.sockets import format_address

__all__ = ["Completion", "LibraryReport", "log_event"]


@dataclass(frozen=True, slots=True)
class Completion:
    """How a transfer ended.

    Attributes:
        client: Address of the client.
        client_port: Its UDP port (TID).
        path: As ReadRequest.path.
        is_upload: The client sent the file.
        outcome: 'ok'; 'size_probe': it asked for the size only, as firmware does; 'timed_out'; 'peer_error': the client
            gave up; 'unreachable': its host says that nobody has the port any more; 'changed': a file changed while it
            was sent; 'aborted': by us, or by another request of the client; 'local_io_error': reading, or storing,
            failed.
        payload_bytes: What arrived, as far as is known.
        size_bytes: What was to arrive; None: nobody knew.
        duration_s: From the request on.
        blksize_bytes: As used.
        windowsize_blocks: As used.
        retransmits: How often something was sent again.
        error: Where it failed: the client's ERROR code, or an errno of ours; 0: none.
        text: Where it failed: why. Where outcome is 'peer_error' the client's own words.
    """

    client: str
    client_port: int
    path: str
    is_upload: bool
    outcome: str
    payload_bytes: int
    size_bytes: int | None
    duration_s: float
    blksize_bytes: int
    windowsize_blocks: int
    retransmits: int
    error: int
    text: str


class LibraryReport(Report):
    """Tells `logging`, and the program's own callback."""

    def __init__(self, settings: Settings, on_complete: Callable[[Completion], object] | None) -> None:
        """Find out who listens.

        Args:
            settings: Those of the server.
            on_complete: Called by the loop with the end of every transfer.
        """
        super().__init__(settings, cast(Any, _StandardLog()), AuditLog(""))
        self._on_complete = on_complete
        # Whoever set the logger to DEBUG need not say so a second time, in the settings.
        if logging.getLogger("snow_owl_tftp").isEnabledFor(logging.DEBUG):
            self.wanted |= STARTS | SUCCESSES | BATCHING
        self._logs_successes = bool(self.wanted & SUCCESSES)
        if on_complete is not None:
            self.wanted |= SUCCESSES

    def _refused(self, event: RequestRefused) -> None:
        cause, request = event.cause, event.request
        if isinstance(cause, InternalError) and request is not None:  # no defect of ours
            if self.may_tell_refusal():
                peer = format_address(*event.incoming.peer)
                self.log.error("a handler failed", peer=peer, file=request.filename, exc_info=cause.__cause__)
        else:
            super()._refused(event)

    def _ended(self, event: TransferEnded) -> None:
        if self._logs_successes or event.ending.outcome != Outcome.OK:
            super()._ended(event)
        if self._on_complete is None:
            return
        try:
            self._on_complete(_completion_of(event))
        except Exception as error:
            self.log.error("on_complete failed", exc_info=error)


def _completion_of(event: TransferEnded) -> Completion:
    completion, is_probe = event.ending, is_size_probe(event)
    return Completion(
        client=completion.peer[0],
        client_port=completion.peer[1],
        path=path_of(event.request.filename),
        is_upload=completion.role == Role.RECEIVER,
        outcome="size_probe" if is_probe else Outcome(completion.outcome).name.lower(),
        payload_bytes=completion.payload_bytes,
        size_bytes=event.size_bytes,
        duration_s=completion.duration_ns / 1e9,
        blksize_bytes=completion.blksize_bytes,
        windowsize_blocks=completion.windowsize_blocks,
        retransmits=completion.retransmits,
        error=completion.error,
        text=completion.text.decode("utf-8", "replace"),
    )


class _StandardLog:
    """What a program that embeds us expects: `logging.getLogger("snow_owl_tftp")`, silent unless it is set up."""

    def debug(self, event: str, **fields: Any) -> None:
        log_event(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        log_event(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        # A client that gives up is a server's daily bread, and no warning to the program around it.
        log_event(logging.INFO, event, fields)

    def error(self, event: str, *, exc_info: Any = None, **fields: Any) -> None:
        log_event(logging.ERROR, event, fields, exc_info)
