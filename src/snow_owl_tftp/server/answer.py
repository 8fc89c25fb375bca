"""One request to one Verdict, for the server and for the library alike: parse, answer, negotiate, freeze.

    datagram ─parse─► Request ─read or write─► what was opened ─negotiate─► OACK ─freeze─► TransferPlan

May know: the verdict's words, protocol, what content opened, and the plan. Must not know rules, handlers or the
engine: which file it is, `reads`, `writes` and the library's handlers say.

Invariants:
- A peer's bytes end here as BadPacket or RefusedError. Any other exception is our bug and rises.
- What an `accept_` function is given is closed where it fails.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final, TypeAlias

from snow_owl_tftp.content.files import OpenFile
from snow_owl_tftp.content.text import Text
from snow_owl_tftp.errors import BadPacket, RefusedError
from snow_owl_tftp.linux.routes import route_mtu_bytes
from snow_owl_tftp.plan.freeze import freeze_read
from snow_owl_tftp.protocol.constants import ErrorCode, Opcode
from snow_owl_tftp.protocol.options import OptionLimits, asks_for_fragments, negotiate
from snow_owl_tftp.protocol.packets import Request, parse_request_untrusted, refuse_malformed_untrusted
from snow_owl_tftp.server.texts import Texts
from snow_owl_tftp.server.verdict import (
    Accepted,
    Flow,
    IncomingRequest,
    Pours,
    Refused,
    StreamContext,
    TransferContext,
    Verdict,
    refuse,
)

__all__ = ["Answer", "accept_file", "accept_stream", "accept_text", "answer", "refuse_write"]

_MOST_REMEMBERED_BYTES: Final = 256
"""Twice a request with a long name and every option. At most 1,024 of them, which take 10 KiB each if made to."""
_parse_remembered: Final = lru_cache(maxsize=1024)(parse_request_untrusted)
"""Machines of one kind ask in the same bytes: 0.1 µs instead of 1.6."""
_MAX_TEXT_WINDOW_BYTES: Final = 1 << 18
"""256 KiB. The engine keeps a window of a stream in memory; of a file it keeps none."""

Answer: TypeAlias = Callable[[IncomingRequest, Request], Verdict | Awaitable[Verdict]]
"""Answers requests of one kind, as Decider.decide does; may raise RefusedError."""


def answer(incoming: IncomingRequest, read: Answer, write: Answer) -> Verdict | Awaitable[Verdict]:
    """Parse a request and have it answered.

    Args:
        incoming: The request.
        read: Answers RRQs.
        write: Answers WRQs.

    Returns:
        As Decider.decide.
    """
    datagram = incoming.datagram
    parse = _parse_remembered if len(datagram) <= _MOST_REMEMBERED_BYTES else parse_request_untrusted
    try:
        request = parse(datagram)
    except BadPacket as error:
        return Refused(refuse_malformed_untrusted(datagram, error.reason) or b"", error, None)
    try:
        return write(incoming, request) if request.kind is Opcode.WRQ else read(incoming, request)
    except RefusedError as error:
        return refuse(request, error)


def refuse_write(incoming: IncomingRequest, request: Request) -> Verdict:
    """Answer WRQs where none is taken; raises RefusedError."""
    raise RefusedError(ErrorCode.ACCESS_VIOLATION, "Writing is not allowed")


def accept_file(
    incoming: IncomingRequest, request: Request, file: OpenFile, limits: OptionLimits, flow: Flow | None = None
) -> Accepted:
    """Accept a request for what is whole and open.

    Args:
        incoming: The request.
        request: The same, parsed.
        file: Taken over, also on failure.
        limits: What may be negotiated.
        flow: Lets the engine repeat it for everybody who sends the same.
    """
    try:
        mtu_bytes = _mtu_for(incoming, request)
        size_bytes = file.size_bytes
        negotiated = negotiate(request, size_bytes=size_bytes, limits=limits, mtu_bytes=mtu_bytes)
        context = TransferContext(request, size_bytes, negotiated, file.held)
        plan = freeze_read(incoming.transfer_id, file.fd, size_bytes, negotiated, context)
    except BaseException:
        file.close()
        raise
    # What the route decides holds for nobody else.
    return Accepted(plan, flow if mtu_bytes is None else None)


def accept_stream(
    incoming: IncomingRequest,
    request: Request,
    limits: OptionLimits,
    size_bytes: int | None,
    open_stream: Callable[[], tuple[int, Pours]],
) -> Accepted:
    """Accept a request for what comes bit by bit.

    Args:
        incoming: The request.
        request: The same, parsed.
        limits: What may be negotiated.
        size_bytes: Of all of it; None: nobody knows.
        open_stream: Makes the pipe: its non-blocking reading end, and what writes to it.

    Raises:
        RefusedError: Of `open_stream`.
    """
    negotiated = negotiate(request, size_bytes=size_bytes, limits=limits, mtu_bytes=_mtu_for(incoming, request))
    reader, stream = open_stream()
    context = StreamContext(request, size_bytes, negotiated, stream)
    return Accepted(freeze_read(incoming.transfer_id, reader, 0, negotiated, context, is_stream=True), None)


def accept_text(
    texts: Texts, text: Text, incoming: IncomingRequest, request: Request, limits: OptionLimits
) -> Accepted:
    """Accept a request for a text that is converted while it is sent.

    Args:
        texts: Which the text is of.
        text: Taken over, also on failure.
        incoming: The request.
        request: The same, parsed.
        limits: What may be negotiated.

    Raises:
        RefusedError: No descriptor is left.

    Deviates: nobody is told the size of a large text (RFC 2349 lets a server leave it out): it would have to be
        converted for everybody who asks (test_size_of_a_large_text_is_not_told).
    """
    limits = replace(limits, max_window_bytes=min(limits.max_window_bytes, _MAX_TEXT_WINDOW_BYTES))
    # Nothing before the stream is opened can fail, so the text is closed by whoever has it.
    return accept_stream(
        incoming, request, limits, None, lambda: texts.stream(text, incoming.transfer_id, incoming.peer[0])
    )


def _mtu_for(incoming: IncomingRequest, request: Request) -> int | None:
    """Return the MTU of the way to who asked to read; None: it makes no difference to what is granted."""
    return route_mtu_bytes(incoming.peer[0]) if asks_for_fragments(request) else None
