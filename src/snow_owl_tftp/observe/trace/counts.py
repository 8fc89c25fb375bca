"""What a trace counted: figures, their differences, and what is derived from them.

    bpftrace's JSON lines ──parse──► TraceCounts ──minus(earlier)──► TraceCounts of one interval ──► Derived

May know: the calls of `script`. Must not start anything or print.

What a block is here: a tracer of system calls sees no packet. A server that sends answers each ACK with
DATA, a server that receives answers each DATA with an ACK; so a block is counted where datagrams are more:
sent (as a network device saw them: a GSO train is one message and many datagrams) or received. OACKs and
ERRORs count as blocks too; they are one in a transfer.

Datagrams pass every device of a stack (VLAN on bond on NIC), so the busiest device counts, not the sum: a
server that sends trains through several NICs shows too few blocks, and IP fragments (blksize above the MTU)
count one by one.
"""

import errno
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from snow_owl_tftp.observe.trace.script import CALLS, RESULTS_MAP, WIRE_MAP, Call

__all__ = ["CallCounts", "Derived", "TraceCounts", "bucket_label", "parse_line"]

_BY_NAME: Final = {call.name: call for call in CALLS}
_ERROR_NAMES: Final = {
    **errno.errorcode,
    # include/linux/errno.h: the kernel keeps them to itself, but a tracepoint shows them.
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
}


@dataclass(frozen=True, slots=True)
class CallCounts:
    """One system call.

    Attributes:
        results: What it returned (datagrams; a negative errno) → how often.
    """

    results: Mapping[int, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.results.values())

    @property
    def moved(self) -> int:
        """Calls that moved data."""
        return sum(calls for result, calls in self.results.items() if result > 0)

    @property
    def empty(self) -> int:
        """Calls that found nothing: EAGAIN, or a wait that timed out."""
        return self.results.get(-errno.EAGAIN, 0) + self.results.get(0, 0)

    @property
    def datagrams(self) -> int:
        """Datagrams moved (messages, where one is a GSO or GRO train); of a wait, descriptors that were ready."""
        return sum(result * calls for result, calls in self.results.items() if result > 0)

    @property
    def per_call(self) -> float | None:
        """Datagrams of a call, those counted that found nothing, as in `Derived`."""
        return _ratio(self.datagrams, self.calls)

    @property
    def errors(self) -> dict[str, int]:
        """Name of the error → calls, EAGAIN included."""
        named = Counter[str]()
        for result, calls in self.results.items():
            if result < 0:
                named[_ERROR_NAMES.get(-result, f"E{-result}")] += calls
        return dict(named)

    def histogram(self) -> dict[str, int]:
        """Datagrams of one call, in the engine's buckets ("1", "2", "3-4", …) → calls; empty buckets left out."""
        buckets = Counter[int]()
        for result, calls in self.results.items():
            if result > 0:
                buckets[(result - 1).bit_length()] += calls
        return {bucket_label(bucket): buckets[bucket] for bucket in sorted(buckets)}

    def minus(self, earlier: "CallCounts") -> "CallCounts":
        """What came since."""
        late = {result: calls - earlier.results.get(result, 0) for result, calls in self.results.items()}
        return CallCounts({result: calls for result, calls in late.items() if calls})

    def to_json(self) -> dict[str, Any]:
        """As `trace --json` writes it."""
        return {
            "calls": self.calls,
            "moved": self.moved,
            "empty": self.empty,
            "datagrams": self.datagrams,
            "errors": self.errors,
            "histogram": self.histogram(),
        }


@dataclass(frozen=True, slots=True)
class Derived:
    """Figures about batching; None where there is nothing to divide by.

    All calls are divided by, those that found nothing too: they cost the same way into the kernel.
    """

    blocks: int
    receive_calls: int
    send_calls: int
    receive_calls_per_block: float | None
    send_calls_per_block: float | None
    datagrams_per_receive_call: float | None
    batch_efficiency: float | None
    """recvmmsg / (recvmmsg + recvmsg + recvfrom)."""
    empty_receive_share: float | None
    reads_per_block: float | None
    """All reads of a descriptor: files, but also the eventfds by which threads wake each other."""

    def to_json(self) -> dict[str, Any]:
        """As `trace --json` writes it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """All calls, at one moment or of one interval.

    Attributes:
        by_name: Only calls that were made.
        wire_datagrams: Datagrams that network devices were handed, by device.
    """

    by_name: Mapping[str, CallCounts] = field(default_factory=dict)
    wire_datagrams: Mapping[str, int] = field(default_factory=dict)

    def of(self, name: str) -> CallCounts:
        """The counts of one call, zeros if it was not made."""
        return self.by_name.get(name, CallCounts())

    def of_kind(self, kind: str) -> list[CallCounts]:
        """The counts of all calls of a kind."""
        return [counts for name, counts in self.by_name.items() if _BY_NAME[name].kind == kind]

    def minus(self, earlier: "TraceCounts") -> "TraceCounts":
        """What came since."""
        late = {name: counts.minus(earlier.of(name)) for name, counts in self.by_name.items()}
        wire = {device: n - earlier.wire_datagrams.get(device, 0) for device, n in self.wire_datagrams.items()}
        return TraceCounts({name: counts for name, counts in late.items() if counts.results}, wire)

    def derived(self) -> Derived:
        """Blocks, ratios and shares."""
        receives, sends = self.of_kind("receive"), self.of_kind("send")
        receive_calls, send_calls = _calls(receives), _calls(sends)
        received = sum(counts.datagrams for counts in receives)
        sent = max(self.wire_datagrams.values(), default=0) or sum(counts.datagrams for counts in sends)
        blocks = max(received, sent)
        return Derived(
            blocks=blocks,
            receive_calls=receive_calls,
            send_calls=send_calls,
            receive_calls_per_block=_ratio(receive_calls, blocks),
            send_calls_per_block=_ratio(send_calls, blocks),
            datagrams_per_receive_call=_ratio(received, receive_calls),
            batch_efficiency=_ratio(self.of("recvmmsg").calls, receive_calls),
            empty_receive_share=_ratio(sum(counts.empty for counts in receives), receive_calls),
            reads_per_block=_ratio(_calls(self.of_kind("read")), blocks),
        )

    def to_json(self) -> dict[str, Any]:
        """As `trace --json` writes it."""
        return {
            "calls": {name: counts.to_json() for name, counts in self.by_name.items()},
            "wire_datagrams": dict(self.wire_datagrams),
            "derived": self.derived().to_json(),
        }


def bucket_label(bucket: int) -> str:
    """0 → "1", 1 → "2", 2 → "3-4", 3 → "5-8": powers of two, as the engine counts."""
    return str(bucket + 1) if bucket < 2 else f"{2 ** (bucket - 1) + 1}-{2**bucket}"


def parse_line(line: str, before: TraceCounts) -> TraceCounts | str | None:
    """Read one line of `bpftrace -f json`.

    Args:
        line: The line.
        before: The counts so far; a map that is printed replaces its part of them.

    Returns:
        New counts for a map, the text for what the program printed, None for anything else.

    Raises:
        ValueError: It is no JSON, or a map that the program does not have.
    """
    if not line.strip():
        return None
    message = json.loads(line)
    data = message.get("data")
    if message.get("type") == "printf":
        return str(data).strip()
    if message.get("type") != "map":
        return None
    if WIRE_MAP in data:
        return TraceCounts(before.by_name, {str(device): int(n) for device, n in data[WIRE_MAP].items()})
    if RESULTS_MAP in data:
        return TraceCounts(_by_name(data[RESULTS_MAP]), before.wire_datagrams)
    raise ValueError(f"bpftrace printed an unknown map: {', '.join(data)}")


def _by_name(results: Mapping[str, int]) -> dict[str, CallCounts]:
    gathered: dict[Call, dict[int, int]] = {}
    for key, calls in results.items():
        number, result = key.split(",")
        gathered.setdefault(CALLS[int(number)], {})[int(result)] = int(calls)
    return {call.name: CallCounts(gathered[call]) for call in CALLS if call in gathered}


def _calls(counts: Iterable[CallCounts]) -> int:
    return sum(one.calls for one in counts)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
