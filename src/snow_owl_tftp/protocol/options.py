"""What a server grants: blksize, timeout, tsize, windowsize; and blksize2, utimeout, rollover, cookie of tftpd-hpa.

    RRQ / WRQ ──negotiate──► Negotiated + OACK bytes        (the client's side: `oack`)

Invariants:
- The server never answers an option that was not asked for, never raises blksize or windowsize,
  and never refuses a request for an option's sake: RFC 2347 has no ERROR for "I do not know this
  option" and a boot ROM has no second plan. What cannot be granted is left out of the OACK.
- An option counts once, at its first mention; its name is compared without regard to case and
  echoed as the client spelled it.

May know: the request, and the size of a file. Must not know any other packet, or what a file is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.protocol.burst import blocks_of_a_usual_buffer
from snow_owl_tftp.protocol.constants import (
    DEFAULT_BLKSIZE_BYTES,
    DEFAULT_WINDOW_MAX_BYTES,
    DEFAULT_WINDOWSIZE_BLOCKS,
    MAX_BLKSIZE_BYTES,
    MAX_TIMEOUT_S,
    MAX_TSIZE_BYTES,
    MAX_UTIMEOUT_US,
    MAX_WINDOWSIZE_BLOCKS,
    MIN_BLKSIZE_BYTES,
    MIN_TIMEOUT_S,
    MIN_UTIMEOUT_US,
    MIN_WINDOWSIZE_BLOCKS,
    Opcode,
)
from snow_owl_tftp.protocol.packets import Option, Request, build_oack
from snow_owl_tftp.protocol.seq import MAX_WINDOWSIZE_TO_1_BLOCKS, Rollover

__all__ = [
    "Negotiated",
    "OptionLimits",
    "asks_for_fragments",
    "key_of",
    "negotiate",
    "number_of",
    "options_by_name",
]


@dataclass(frozen=True, slots=True)
class OptionLimits:
    """What a server grants at most.

    Attributes:
        max_blksize_bytes: 8..65464; a tunnel or a broken ROM wants less than the MTU allows.
        max_windowsize_blocks: 1..65535.
        max_window_bytes: At least 1; windowsize is lowered until windowsize times blksize fits,
            but never below one block.
        allow_blksize: Whether blksize is negotiated at all; the same for the next three.
        allow_timeout: See allow_blksize.
        allow_tsize: See allow_blksize.
        allow_windowsize: See allow_blksize.
        allow_extensions: Whether tftpd-hpa's blksize2, utimeout, rollover and cookie are negotiated.
        refused: Options, in lower case, that are answered as if nobody knew them.
        usual_rollover: What follows block 65535 where the client does not ask.
        patience_ns: How long to wait before a repetition where the client negotiates no timeout; 0: as measured.

    Raises:
        ConfigError: A number is out of its range.
    """

    max_blksize_bytes: int = MAX_BLKSIZE_BYTES
    max_windowsize_blocks: int = MAX_WINDOWSIZE_BLOCKS
    max_window_bytes: int = DEFAULT_WINDOW_MAX_BYTES
    allow_blksize: bool = True
    allow_timeout: bool = True
    allow_tsize: bool = True
    allow_windowsize: bool = True
    allow_extensions: bool = True
    refused: frozenset[str] = frozenset()
    usual_rollover: Rollover = Rollover.TO_0
    patience_ns: int = 0

    def __post_init__(self) -> None:
        if not MIN_BLKSIZE_BYTES <= self.max_blksize_bytes <= MAX_BLKSIZE_BYTES:
            raise ConfigError(f"max_blksize_bytes out of 8..65464: {self.max_blksize_bytes}")
        if not MIN_WINDOWSIZE_BLOCKS <= self.max_windowsize_blocks <= MAX_WINDOWSIZE_BLOCKS:
            raise ConfigError(f"max_windowsize_blocks out of 1..65535: {self.max_windowsize_blocks}")
        if self.max_window_bytes < 1:
            raise ConfigError(f"max_window_bytes below 1: {self.max_window_bytes}")


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What holds for one transfer.

    Attributes:
        blksize_bytes: 8..65464.
        windowsize_blocks: 1..65535.
        timeout_s: 1..255, or None: the sender measures instead.
        tsize: Size in bytes, or None if unknown or not asked. For an RRQ what the server told,
            for a WRQ what the client announced, which is a claim and no fact.
        accepted: The options of the OACK, in its order.
        oack: The OACK itself, sent or received; empty if there is none, and then an RRQ is
            answered with DATA 1 and a WRQ with ACK 0.
        utimeout_us: 10,000..255,000,000, or None; the finer spelling of timeout_s, and counts before it.
        rollover: What follows block 65535; TO_0 unless the other was agreed on, or is what this server does unasked.
        patience_ns: Of OptionLimits; counts where there is no timeout.
    """

    blksize_bytes: int = DEFAULT_BLKSIZE_BYTES
    windowsize_blocks: int = DEFAULT_WINDOWSIZE_BLOCKS
    timeout_s: int | None = None
    tsize: int | None = None
    accepted: tuple[Option, ...] = ()
    oack: bytes = b""
    utimeout_us: int | None = None
    rollover: Rollover = Rollover.TO_0
    patience_ns: int = 0

    @property
    def timeout_ns(self) -> int:
        """What was agreed on, as a TransferPlan has it: 0 where the sender measures instead."""
        if self.utimeout_us is not None:
            return self.utimeout_us * _NS_PER_US
        return self.timeout_s * _NS_PER_S if self.timeout_s else self.patience_ns


_NS_PER_US: Final = 1_000
_NS_PER_S: Final = 1_000_000_000
_NOTHING: Final = Negotiated()
_HEADERS_BYTES: Final = 32
"""IPv4, UDP and DATA: 20 + 8 + 4."""
_USUAL_MTU_BYTES: Final = 1500

_MOST_REMEMBERED: Final = 16
"""Options of one request of which the answer is remembered; there are eight that anybody knows. At most 1,024 answers
of 3 KiB: boot storms ask for the same few combinations, and peers choose them."""

# 20 digits without leading zeros exceed every limit here, the 19 digits of MAX_TSIZE_BYTES too.
_ENOUGH_DIGITS: Final = 20


def asks_for_fragments(request: Request) -> bool:
    """Whether a reader wants windows of blocks that Ethernet carries in fragments only: then the MTU matters."""
    options = request.options
    if not options:
        return False
    return (_asks_for_fragments if len(options) <= _MOST_REMEMBERED else _asks_for_fragments.__wrapped__)(options)


@lru_cache(maxsize=1024)
def _asks_for_fragments(options: tuple[Option, ...]) -> bool:
    asked = options_by_name(options)
    sizes = [_asked_number(asked, name) or 0 for name in ("blksize", "blksize2")]
    windowsize = _asked_number(asked, "windowsize") or 0
    return windowsize > 1 and max(sizes) > _USUAL_MTU_BYTES - _HEADERS_BYTES


def negotiate(
    request: Request, *, size_bytes: int | None, limits: OptionLimits, mtu_bytes: int | None = None
) -> Negotiated:
    """Decide what a server grants of a request's options.

    Args:
        request: The RRQ or WRQ.
        size_bytes: Bytes the transfer will carry (after netascii conversion, if so), or None if
            nobody knows. Only an RRQ's tsize looks at it.
        limits: What to grant at most.
        mtu_bytes: Of the way to a reader, if known. Of blocks that are larger a window is no longer than what a
            socket of the usual size holds: one fragment that finds no room takes its block along, and the window.

    Returns:
        The values for the transfer and the OACK that announces them. It never fails: an option
        with a value that makes no sense is ignored as if the client had not sent it.

    Spec: RFC 2347, Negotiation Protocol; RFC 2348, Blocksize Option Specification; RFC 2349, both
    Option Specifications; RFC 7440 section 3.

    Deviates:
        - blksize and windowsize above the range of their RFC are lowered into it rather than ignored; the
          answer is still one the client has to accept (test_blksize_is_lowered_to_the_largest_of_the_rfc).
        - The size of an empty file is not told: curl refuses a tsize of 0, and the one short block that
          follows says the same (test_size_of_an_empty_file_is_left_out_for_curl).
        - blksize2 (the power of two at or below the number asked), utimeout, rollover and cookie are
          tftpd-hpa's, of no RFC. Where blksize is granted blksize2 is not, as there.
    """
    options = request.options
    if not options:
        return _unasked(limits)
    grant = _grant if len(options) <= _MOST_REMEMBERED else _grant.__wrapped__
    return grant(options, request.kind, size_bytes, limits, mtu_bytes)


@lru_cache(maxsize=1024)
def _grant(
    options: tuple[Option, ...], kind: Opcode, size_bytes: int | None, limits: OptionLimits, mtu_bytes: int | None
) -> Negotiated:
    asked = options_by_name(options)
    if limits.refused:
        asked = {name: option for name, option in asked.items() if name not in limits.refused}
    blksize_bytes = _grant_blksize(asked, limits)
    blksize2_bytes = _grant_blksize2(asked, limits) if blksize_bytes is None else None
    holds_bytes = blksize_bytes or blksize2_bytes or DEFAULT_BLKSIZE_BYTES
    rollover = _grant_rollover(asked, limits)
    # Only now: the cap on the window is in bytes, whichever of the two the client named first.
    rolls_over_to = limits.usual_rollover if rollover is None else rollover
    windowsize_blocks = _grant_windowsize(asked, limits, holds_bytes, rolls_over_to)
    if windowsize_blocks is not None and mtu_bytes is not None and holds_bytes + _HEADERS_BYTES > mtu_bytes:
        windowsize_blocks = min(windowsize_blocks, blocks_of_a_usual_buffer(holds_bytes))
    timeout_s = _grant_timeout(asked, limits)
    utimeout_us = _grant_utimeout(asked, limits)
    tsize = _grant_tsize(asked, limits, kind, size_bytes)
    granted = {
        "blksize": blksize_bytes,
        "blksize2": blksize2_bytes,
        "windowsize": windowsize_blocks,
        "timeout": timeout_s,
        "utimeout": utimeout_us,
        "rollover": rollover,
        "tsize": tsize,
    }
    accepted = tuple(
        [
            (name, value if number is None else _spell(number, value))
            for key, (name, value) in asked.items()
            if (number := granted.get(key)) is not None or _is_echoed(key, value, limits)
        ]
    )
    if not accepted:
        return _unasked(limits)
    return Negotiated(
        blksize_bytes=holds_bytes,
        windowsize_blocks=windowsize_blocks or DEFAULT_WINDOWSIZE_BLOCKS,
        timeout_s=timeout_s,
        tsize=tsize,
        accepted=accepted,
        oack=build_oack(accepted),
        utimeout_us=utimeout_us,
        rollover=rolls_over_to,
        patience_ns=limits.patience_ns,
    )


def _unasked(limits: OptionLimits) -> Negotiated:
    if limits.usual_rollover is Rollover.TO_0 and not limits.patience_ns:
        return _NOTHING
    return Negotiated(rollover=limits.usual_rollover, patience_ns=limits.patience_ns)


def _grant_blksize(asked: Mapping[str, Option], limits: OptionLimits) -> int | None:
    number = _asked_number(asked, "blksize") if limits.allow_blksize else None
    if number is None or number < MIN_BLKSIZE_BYTES:
        return None
    return min(number, limits.max_blksize_bytes)


def _grant_blksize2(asked: Mapping[str, Option], limits: OptionLimits) -> int | None:
    number = _asked_number(asked, "blksize2") if limits.allow_blksize and limits.allow_extensions else None
    if number is None or number < MIN_BLKSIZE_BYTES:
        return None
    most = min(number, limits.max_blksize_bytes)
    return 1 << (most.bit_length() - 1)


def _grant_utimeout(asked: Mapping[str, Option], limits: OptionLimits) -> int | None:
    number = _asked_number(asked, "utimeout") if limits.allow_timeout and limits.allow_extensions else None
    if number is None or not MIN_UTIMEOUT_US <= number <= MAX_UTIMEOUT_US:
        return None
    return number


def _grant_rollover(asked: Mapping[str, Option], limits: OptionLimits) -> Rollover | None:
    number = _asked_number(asked, "rollover") if limits.allow_extensions else None
    return Rollover(number) if number in (Rollover.TO_0, Rollover.TO_1) else None


def _is_echoed(key: str, value: str, limits: OptionLimits) -> bool:
    """A cookie means something to the client alone; an option without a value means nothing to anybody."""
    return key == "cookie" and value != "" and limits.allow_extensions


def _grant_windowsize(
    asked: Mapping[str, Option], limits: OptionLimits, blksize_bytes: int, rollover: Rollover
) -> int | None:
    number = _asked_number(asked, "windowsize") if limits.allow_windowsize else None
    if number is None or number < MIN_WINDOWSIZE_BLOCKS:
        return None
    fitting_blocks = max(MIN_WINDOWSIZE_BLOCKS, limits.max_window_bytes // blksize_bytes)
    distinct_blocks = MAX_WINDOWSIZE_TO_1_BLOCKS if rollover is Rollover.TO_1 else MAX_WINDOWSIZE_BLOCKS
    return min(number, limits.max_windowsize_blocks, fitting_blocks, distinct_blocks)


def _grant_timeout(asked: Mapping[str, Option], limits: OptionLimits) -> int | None:
    number = _asked_number(asked, "timeout") if limits.allow_timeout else None
    if number is None or not MIN_TIMEOUT_S <= number <= MAX_TIMEOUT_S:
        # RFC 2349: the answer must equal the question, so there is nothing to lower it to.
        return None
    return number


def _grant_tsize(asked: Mapping[str, Option], limits: OptionLimits, kind: Opcode, size_bytes: int | None) -> int | None:
    number = _asked_number(asked, "tsize") if limits.allow_tsize else None
    if number is None:
        return None
    if kind == Opcode.RRQ:
        # The RFC has the client send 0; whatever number it is, the question is the same.
        return size_bytes or None
    return number if number <= MAX_TSIZE_BYTES else None


def _spell(number: int, asked_value: str) -> str:
    # RFC 2349: the timeout of the answer "must match", and a client may compare text.
    return asked_value if number_of(asked_value) == number else str(number)


def options_by_name(options: Sequence[Option]) -> dict[str, Option]:
    """Index options by lower-case name, first mention first, later mentions dropped."""
    named: dict[str, Option] = {}
    for option in options:
        named.setdefault(key_of(option[0]), option)
    return named


def key_of(name: str) -> str:
    """Return an option's name in lower case."""
    # Only ASCII has a lower case here: the Kelvin sign would become the k of blksize.
    return name.lower() if name.isascii() else name


def _asked_number(asked: Mapping[str, Option], key: str) -> int | None:
    option = asked.get(key)
    return None if option is None else number_of(option[1])


def number_of(value: str) -> int | None:
    """Read an option's value; None: it is no plain run of ASCII digits.

    int() alone would also take signs, blanks, underscores and the digits of other scripts. A
    number beyond every limit is cut to 20 digits, which leaves it beyond every limit.
    """
    if not (value.isascii() and value.isdigit()):
        return None
    return int(value.lstrip("0")[:_ENOUGH_DIGITS] or "0")
