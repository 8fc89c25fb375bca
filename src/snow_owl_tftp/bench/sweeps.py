"""Which runs a benchmark consists of, in which order.

    steps = standard_steps(...) or profile_steps(...)
    results = perform(bench, steps, tell, [])

May know: targets and workloads. Must not know how a run is made or shown.

Invariants: servers alternate round by round, so that a machine that gets slower does so for all of them; timed and
traced runs are different runs.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from snow_owl_tftp.bench.runs import Bench, Run
from snow_owl_tftp.bench.servers import OURS
from snow_owl_tftp.bench.settings import BenchTarget, Workload, human_bytes

__all__ = [
    "CLASSICAL_PLAIN",
    "NO_BATCHING",
    "PROFILE_SIZES_BYTES",
    "RUN_S",
    "SECTIONS",
    "Result",
    "Step",
    "classical_targets",
    "linger_targets",
    "perform",
    "profile_steps",
    "standard_steps",
]

CLIENT_LADDER: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
LINGERS_US: Final = (0, 100, 500, 1000, 2000)
"""Those of the earlier Rust server's benchmark."""
CLASSICAL_LINGERS_US: Final = (0, 500, 2000)
PROFILE_SIZES_BYTES: Final = (100 << 10, 10 << 20)
PROFILE_CLIENTS: Final = 50
RUN_S: Final = 2.0
"""Length of a run. Runs of half a second differed by a factor of two from round to round on a virtual machine; and
an equal time, not an equal number of blocks, keeps a slow server from taking minutes."""
_LONG_FILE_S: Final = 5.0
"""50 transfers of 10 MiB are a million blocks: a server of 250,000 blocks/s just ends them, and has a latency."""
TRACED_ROUNDS: Final = 3
"""Counts differ little between rounds, and attaching a tracer takes a second."""
SECTIONS: Final = ("main", "clients", "linger")

PLAIN: Final = {"enable_recvmmsg": False, "enable_sendmmsg": False, "enable_gso": False}
NO_BATCHING: Final = BenchTarget("no batching", batch=dict(PLAIN))
CLASSICAL_PLAIN: Final = BenchTarget("classical, no recvmmsg", "classical-plain")


@dataclass(frozen=True, slots=True)
class Step:
    """One run to make; `section` says which table or picture it is for."""

    section: str
    target: BenchTarget
    workload: Workload
    is_traced: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One run that was made."""

    section: str
    target: BenchTarget
    run: Run


def standard_steps(
    targets: Sequence[BenchTarget], workload: Workload, rounds: int, *, chosen: Collection[str]
) -> list[Step]:
    """The sections that were chosen: every target under one workload; against clients; batch_timeout_us swept.

    The last is about our own setting: it exists only where ours is among the targets.
    """
    steps = []
    if "main" in chosen:
        steps += [Step("main", target, workload) for _ in range(rounds) for target in targets]
        steps += _traced("main", targets, workload, rounds)
    if "clients" in chosen:
        ladder = [n for n in CLIENT_LADDER if n < workload.clients] + [workload.clients]
        swept = [Step("clients", target, workload.with_clients(n)) for n in ladder for target in targets]
        steps += swept * rounds
    if "linger" in chosen and any(target.server == OURS for target in targets):
        lingering = [NO_BATCHING, *linger_targets()]
        steps += [Step("linger", target, workload) for _ in range(rounds) for target in lingering]
        steps += _traced("linger", lingering, workload, rounds)
    return steps


def profile_steps(rounds: int, *, has_classical: bool, sizes_bytes: Sequence[int] = PROFILE_SIZES_BYTES) -> list[Step]:
    """The earlier Rust server's benchmark: 50 clients, 100 KiB and 10 MiB at 512 bytes, with and without batching."""
    targets = [NO_BATCHING, *linger_targets(), *(classical_targets() if has_classical else ())]
    steps = []
    for size_bytes in sizes_bytes:
        workload = profile_workload(size_bytes)
        section = f"recvmmsg {human_bytes(size_bytes)}"
        steps += [Step(section, target, workload) for _ in range(rounds) for target in targets]
        steps += _traced(section, targets, workload, rounds)
    return steps


def profile_workload(size_bytes: int) -> Workload:
    """50 clients of one file of this size, for so long."""
    is_long = size_bytes > PROFILE_SIZES_BYTES[0]
    return Workload(
        clients=PROFILE_CLIENTS,
        transfers=PROFILE_CLIENTS if is_long else None,
        file_bytes=size_bytes,
        stop_after_s=_LONG_FILE_S if is_long else RUN_S,
    )


def classical_targets() -> list[BenchTarget]:
    """The classical layout without recvmmsg, and with it after several lingers."""
    batching = [
        BenchTarget(f"classical, linger {us} µs", "classical", {"linger_us": us}) for us in CLASSICAL_LINGERS_US
    ]
    return [CLASSICAL_PLAIN, *batching]


def linger_targets() -> Iterable[BenchTarget]:
    """Batching with adaptive off and on, for each linger."""
    for is_adaptive in (False, True):
        for linger_us in LINGERS_US:
            name = f"{'adaptive' if is_adaptive else 'always'}, linger {linger_us} µs"
            yield BenchTarget(name, batch={"batch_timeout_us": linger_us, "enable_adaptive_batching": is_adaptive})


def perform(
    bench: Bench, steps: Sequence[Step], tell: Callable[[int, Step], None], results: list[Result]
) -> list[Result]:
    """Make all runs.

    Args:
        bench: Makes them.
        steps: Which.
        tell: Told the number and the step that begins.
        results: Get every run as it ends, so that those of an interrupted benchmark are not lost.

    Returns:
        `results`.
    """
    for number, step in enumerate(steps):
        tell(number, step)
        make = bench.traced if step.is_traced else bench.timed
        results.append(Result(step.section, step.target, make(step.target, step.workload)))
    return results


def _traced(section: str, targets: Iterable[BenchTarget], workload: Workload, rounds: int) -> list[Step]:
    if workload.stop_after_s is not None:
        # No latency is wanted of it: a long file need not end.
        workload = min(workload, workload.timed(RUN_S), key=lambda one: one.stop_after_s or 0)
    once = [Step(section, target, workload, is_traced=True) for target in targets]
    return once * min(rounds, TRACED_ROUNDS)
