"""What was negotiated and opened, frozen into the plan of a transfer: once for the server and the library, either way.

    Negotiated + an open source, or where an upload goes + a context ─► TransferPlan

May know: the plan and what was negotiated. Must not open, close or decide anything.
"""

from typing import Any

from snow_owl_tftp.plan.transfer import NO_SINK_YET, Role, TransferPlan
from snow_owl_tftp.protocol.options import Negotiated

__all__ = ["freeze_read", "freeze_upload"]


def freeze_read(
    transfer_id: int, fd: int, size_bytes: int, negotiated: Negotiated, context: Any, *, is_stream: bool = False
) -> TransferPlan:
    """Freeze what was decided about an RRQ.

    Args:
        transfer_id: Of the request.
        fd: The source, the engine's from `start` on.
        size_bytes: Exact; of a stream 0.
        negotiated: What was granted.
        context: Comes back with the Completion.
        is_stream: `fd` is the non-blocking reading end of a pipe.
    """
    return TransferPlan(
        transfer_id=transfer_id,
        role=Role.SENDER,
        fd=fd,
        size_bytes=size_bytes,
        blksize_bytes=negotiated.blksize_bytes,
        windowsize_blocks=negotiated.windowsize_blocks,
        timeout_ns=negotiated.timeout_ns,
        rollover=negotiated.rollover,
        first_packet=negotiated.oack,
        stream=is_stream,
        context=context,
    )


def freeze_upload(
    transfer_id: int, limit_bytes: int, announced_bytes: int | None, negotiated: Negotiated, context: Any
) -> TransferPlan:
    """Freeze what was decided about a WRQ whose file is opened when its first DATA is here.

    Args:
        transfer_id: Of the request.
        limit_bytes: The most that is accepted; 0: no limit.
        announced_bytes: What the client said it would send; None: nothing.
        negotiated: What was granted.
        context: Comes back with the events of the transfer.
    """
    return TransferPlan(
        transfer_id=transfer_id,
        role=Role.RECEIVER,
        fd=NO_SINK_YET,
        size_bytes=limit_bytes,
        blksize_bytes=negotiated.blksize_bytes,
        windowsize_blocks=negotiated.windowsize_blocks,
        timeout_ns=negotiated.timeout_ns,
        rollover=negotiated.rollover,
        first_packet=negotiated.oack,
        declared_bytes=announced_bytes,
        context=context,
    )
