"""What a client asks for, how long it waits and where it sends from.

May know: the ranges of the RFCs. Must not: open anything.
Invariants: frozen and checked when made; every field is read by `events`, `asking`, `attempt` or `address`; with None
the client chooses.
"""

from dataclasses import dataclass

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.protocol.constants import (
    MAX_BLKSIZE_BYTES,
    MAX_TIMEOUT_S,
    MAX_WINDOWSIZE_BLOCKS,
    MIN_BLKSIZE_BYTES,
    MIN_TIMEOUT_S,
    MIN_WINDOWSIZE_BLOCKS,
)

__all__ = ["ClientSettings"]

_FIRST_WAIT_S = 1.0
"""RFC 6298 (2.1): the timer before anything was measured."""
_LONGEST_WAIT_S = 8.0
"""Where doubling stops, so a server that comes back is found within 8 s."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a client transfers.

    Args:
        blksize: Asked for, 8..65464 bytes; None: what fits the path MTU. 512 asks for nothing.
        windowsize: Asked for, 1..65535 blocks; 1 asks for nothing.
        timeout: Seconds between retransmissions, also asked of the server where it is a whole number of 1..255;
            None: each side follows the round trip it measures.
        retries: How often a packet is repeated without an answer before the transfer has timed out, 0..1000.
        mode: 'octet' or 'netascii'; the mode of a URL comes first.
        port_range: Lowest and highest local UDP port, for firewalls; None: any.
        bind: Local address to send from; None: the routing table chooses.
        max_size_bytes: Downloads larger than this fail; 0: no limit.
        max_transfers: Transfers under way at once, the others wait their turn; 0: what the limit of open files allows.
        no_options: Ask for no options, as in RFC 1350: blocks of 512 bytes, one at a time. Otherwise a server that does
            not answer a request with options is asked without them after two tries, and for the next five minutes.

    Raises:
        ConfigError: A value is out of its range.
    """

    blksize: int | None = None
    windowsize: int = 64
    timeout: float | None = None
    retries: int = 5
    mode: str = "octet"
    port_range: tuple[int, int] | None = None
    bind: str | None = None
    max_size_bytes: int = 0
    max_transfers: int = 0
    no_options: bool = False

    def __post_init__(self) -> None:
        if self.blksize is not None and not MIN_BLKSIZE_BYTES <= self.blksize <= MAX_BLKSIZE_BYTES:
            raise ConfigError(f"blksize must be 8..65464, not {self.blksize}")
        if not MIN_WINDOWSIZE_BLOCKS <= self.windowsize <= MAX_WINDOWSIZE_BLOCKS:
            raise ConfigError(f"windowsize must be 1..65535, not {self.windowsize}")
        if self.timeout is not None and not 0.001 <= self.timeout <= MAX_TIMEOUT_S:
            raise ConfigError(f"timeout must be 0.001..255 seconds, not {self.timeout}")
        if not 0 <= self.retries <= 1000:
            raise ConfigError(f"retries must be 0..1000, not {self.retries}")
        if self.mode not in ("octet", "netascii"):
            raise ConfigError(f"mode must be octet or netascii, not {self.mode!r}")
        if self.port_range is not None and not 1 <= self.port_range[0] <= self.port_range[1] <= 65535:
            raise ConfigError(f"port_range must be two ports, lowest first, not {self.port_range}")
        if self.no_options and self.blksize is not None:
            raise ConfigError("blksize is an option, and no_options asks for none")
        if self.max_size_bytes < 0 or self.max_transfers < 0:
            raise ConfigError("limits cannot be negative")

    @property
    def asked_timeout_s(self) -> int | None:
        """The value of the `timeout` option, which knows whole seconds only (RFC 2349); None: not asked."""
        if self.timeout is None or self.timeout < MIN_TIMEOUT_S or self.timeout != int(self.timeout):
            return None
        return int(self.timeout)

    @property
    def initial_ns(self) -> int:
        """How long the first packet waits for its answer."""
        return int((self.timeout or _FIRST_WAIT_S) * 1e9)

    @property
    def give_up_ns(self) -> int:
        """Silence after which a transfer has timed out: `retries` repetitions, as long as they take unmeasured."""
        return int(self.silence_s(self.retries + 1) * 1e9)

    def silence_s(self, tries: int) -> float:
        """How long so many unanswered tries of a packet take, in seconds, while no round trip is known."""
        if self.timeout is not None:
            return self.timeout * tries
        return sum(min(_FIRST_WAIT_S * 2.0**i, _LONGEST_WAIT_S) for i in range(tries))

    @property
    def ceiling_ns(self) -> int:
        """The longest wait that doubling reaches."""
        return int(_LONGEST_WAIT_S * 1e9)
