"""What a benchmark is asked to do, in plain values.

May know: nothing else. Every value has its unit in its name.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

__all__ = ["BenchTarget", "Network", "Workload"]

_CLIENT_TIMEOUT_S: Final = 4.0
_LOSSY_CLIENT_TIMEOUT_S: Final = 1.0
"""Where requests get lost, long timers of the clients would be what is measured; a second is what boot ROMs use."""
_TIMEOUTS_A_RUN: Final = 8
"""A transfer that got nothing in half of a timed run has failed: a few losses in a row must not look like that."""
_LIMIT_S: Final = 120.0
_REPEAT_S: Final = 1.0
"""What a lost packet costs at most with a server whose timer is a fixed second."""


@dataclass(frozen=True, slots=True)
class Network:
    """The path between load and server.

    Attributes:
        rtt_ms: Round-trip delay added, 0 or more.
        loss_percent: Of datagrams, in each direction.
        seed: Of the losses.
    """

    rtt_ms: float = 0.0
    loss_percent: float = 0.0
    seed: int = 1

    @property
    def is_perfect(self) -> bool:
        """Nothing is between load and server."""
        return self.rtt_ms == 0 and self.loss_percent == 0


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients do.

    Attributes:
        clients: Transfers at any time.
        transfers: In all, at least `clients`; None: as many as begin before `stop_after_s`.
        file_bytes: Size of the file that all of them fetch.
        blksize_bytes: Asked for when it is not 512.
        windowsize_blocks: Asked for when it is not 1.
        network: What is between.
        stop_after_s: What still runs then is cut off, and counts with the blocks that it got; None: nothing is cut.
        client_timeout_s: When a client repeats its last packet: long, so that the server's timer is measured; None:
            four seconds, one where packets are lost, or four round trips.
        limit_s: After so long the run has failed; None: by what the network makes of it.
    """

    clients: int = 50
    transfers: int | None = 200
    file_bytes: int = 1 << 20
    blksize_bytes: int = 512
    windowsize_blocks: int = 1
    network: Network = field(default_factory=Network)
    stop_after_s: float | None = None
    client_timeout_s: float | None = None
    limit_s: float | None = None

    @property
    def blocks_each(self) -> int:
        """DATA packets of one transfer."""
        return self.file_bytes // self.blksize_bytes + 1

    @property
    def timeout_s(self) -> float:
        """The client's timer, resolved."""
        usual_s = _LOSSY_CLIENT_TIMEOUT_S if self.network.loss_percent else _CLIENT_TIMEOUT_S
        return self.client_timeout_s or max(usual_s, 4 * self.network.rtt_ms / 1e3)

    def timed(self, least_s: float) -> "Workload":
        """Cut off after `least_s`, or as long as this network needs to tell a slow transfer from a dead one."""
        losses_s = _TIMEOUTS_A_RUN * self.timeout_s if self.network.loss_percent else 0.0
        return replace(self, stop_after_s=max(least_s, 2 * self.transfer_s, losses_s))

    @property
    def transfer_s(self) -> float:
        """What the network alone makes one transfer take: a round trip a window, and what losses add."""
        windows = -(-self.blocks_each // self.windowsize_blocks)
        lost = min(1.0, 2 * self.network.loss_percent / 100 * self.windowsize_blocks)
        return windows * (self.network.rtt_ms / 1e3 + lost * max(_REPEAT_S, 2 * self.network.rtt_ms / 1e3))

    @property
    def time_limit_s(self) -> float:
        """When the run has failed, resolved."""
        if self.limit_s is not None:
            return self.limit_s
        turns = 1 if self.transfers is None else -(-self.transfers // self.clients)
        return _LIMIT_S + 3 * turns * self.transfer_s + (self.stop_after_s or 0)

    @property
    def text(self) -> str:
        """For headings."""
        parts = [f"{self.clients} clients", f"{human_bytes(self.file_bytes)}", f"blksize {self.blksize_bytes}"]
        parts.append(f"windowsize {self.windowsize_blocks}")
        if self.network.rtt_ms:
            parts.append(f"RTT {self.network.rtt_ms:g} ms")
        if self.network.loss_percent:
            parts.append(f"loss {self.network.loss_percent:g} %")
        return ", ".join(parts)

    def with_clients(self, clients: int) -> "Workload":
        """The same amount of data for another number of clients, as far as whole transfers allow."""
        changed = replace(self, clients=clients)
        return changed if self.transfers is None else changed.with_transfers(self.transfers)

    def with_transfers(self, transfers: int) -> "Workload":
        """So many in all, and a whole number for each client."""
        return replace(self, transfers=self.clients * max(1, -(-transfers // self.clients)))


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """One server in one configuration.

    Attributes:
        name: In tables and pictures.
        server: Which of `servers.KINDS`.
        batch: For ours: keys of [performance.platform.batch]; for the classical server: linger_us.
    """

    name: str
    server: str = "ours"
    batch: dict[str, Any] = field(default_factory=dict)


def human_bytes(size_bytes: int) -> str:
    """1048576 → "1 MiB"; what is no whole number of units stays in bytes."""
    for unit, text in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit} {text}"
    return f"{size_bytes} bytes"
