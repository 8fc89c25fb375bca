"""Which answers to its options a client takes.

    OACK ──accept_oack_untrusted──► Negotiated              (the server's side: `options`)

May know: the options that were asked, and the OACK. Must not know who sent it, or what is done if it is refused.
Invariant: an OACK that breaks the rules of the RFCs is refused, since nobody can know what the server then thinks.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from snow_owl_tftp.errors import BadPacket
from snow_owl_tftp.protocol.constants import (
    DEFAULT_BLKSIZE_BYTES,
    DEFAULT_WINDOWSIZE_BLOCKS,
    MAX_TSIZE_BYTES,
    MIN_BLKSIZE_BYTES,
    MIN_WINDOWSIZE_BLOCKS,
)
from snow_owl_tftp.protocol.options import Negotiated, key_of, number_of, options_by_name
from snow_owl_tftp.protocol.packets import Option, parse_oack_untrusted
from snow_owl_tftp.protocol.seq import Rollover

__all__ = ["accept_oack_untrusted"]

# Option to (smallest, largest) value of a legal answer; None stands for what the client asked.
_ANSWER_LIMITS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "blksize": (MIN_BLKSIZE_BYTES, None),
    "windowsize": (MIN_WINDOWSIZE_BLOCKS, None),
    "timeout": (None, None),
    "blksize2": (MIN_BLKSIZE_BYTES, None),
    "utimeout": (None, None),
    "rollover": (None, None),
    "tsize": (0, MAX_TSIZE_BYTES),
}


def accept_oack_untrusted(asked: Sequence[Option], oack_bytes: bytes) -> Negotiated:
    """Read a server's OACK as the client that sent the request.

    Args:
        asked: The options of our request; one that this module does not know is accepted with
            whatever value it is answered.
        oack_bytes: The datagram.

    Returns:
        What holds for the transfer: the default for everything the server left out.

    Raises:
        BadPacket: It is no OACK, or it answers what was not asked, in two ways, or with a value
            the RFCs forbid: a larger blksize or windowsize, another timeout, no number. The
            client then sends ERROR 8 (ErrorCode.OPTION_REFUSED) and may ask without options.

    Spec: as `options.negotiate`.
    """
    wanted = options_by_name(asked)
    oack = parse_oack_untrusted(oack_bytes)
    answered = options_by_name(oack.options)
    if any(answered[key_of(name)][1] != value for name, value in oack.options):
        raise BadPacket("OACK answers an option in two ways")
    if not answered.keys() <= wanted.keys():
        raise BadPacket("OACK answers an option never asked for")
    numbers = {
        key: _check_answer_untrusted(key, wanted[key][1], value)
        for key, (_, value) in answered.items()
        if key in _ANSWER_LIMITS
    }
    return Negotiated(
        blksize_bytes=numbers.get("blksize", numbers.get("blksize2", DEFAULT_BLKSIZE_BYTES)),
        windowsize_blocks=numbers.get("windowsize", DEFAULT_WINDOWSIZE_BLOCKS),
        timeout_s=numbers.get("timeout"),
        tsize=numbers.get("tsize"),
        accepted=oack.options,
        oack=oack_bytes,
        utimeout_us=numbers.get("utimeout"),
        rollover=Rollover(numbers.get("rollover", Rollover.TO_0)),
    )


def _check_answer_untrusted(key: str, asked_value: str, value: str) -> int:
    number = number_of(value)
    # A client that asked for what is no number deserves no answer; 0 permits none.
    asked = number_of(asked_value) or 0
    smallest, largest = _ANSWER_LIMITS[key]
    low = asked if smallest is None else smallest
    high = asked if largest is None else largest
    if number is None or not low <= number <= high:
        raise BadPacket(f"OACK answers {key} with a value never offered")
    return number
