"""Size probes: firmware asks for `tsize`, reads the OACK and sends ERROR 0 or 8, because the size was all it wanted.

The real RRQ follows. That is no failure: a failure would page somebody at every boot. May know: how a transfer ended,
and what had been asked for.
"""

from typing import Final

from snow_owl_tftp.events.event import TransferEnded
from snow_owl_tftp.plan.transfer import Outcome, Role
from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["is_size_probe"]

_PROBE_ERRORS: Final = (ErrorCode.NOT_DEFINED, ErrorCode.OPTION_REFUSED)
"""What clients say that wanted the size only: PXE ROMs 8 ("aborted"), others 0."""


def is_size_probe(event: TransferEnded) -> bool:
    """Tell whether a client got what it wanted, though it sent an ERROR."""
    ending = event.ending
    return (
        ending.outcome == Outcome.PEER_ERROR
        and ending.role == Role.SENDER  # an upload given up at its OACK is a failure
        and ending.blocks == 0
        and ending.error in _PROBE_ERRORS
        # Asked, not granted: the size of an empty file is left out of the OACK.
        and any(name.lower() == "tsize" for name, _ in event.request.options)
    )
