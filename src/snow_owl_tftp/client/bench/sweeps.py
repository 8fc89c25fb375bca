"""Which runs a benchmark consists of, in which order.

    steps = standard_steps(...) or origin_steps(...)
    results = perform(steps, ...)

May know: targets and workloads. Must not know how a run is made or shown.

Invariants: servers alternate round by round, so that a machine that gets slower does so for all of them; timed and
traced runs are different runs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from snow_owl_tftp.client.bench.runs import Bench, Run
from snow_owl_tftp.client.bench.settings import Target, Workload, human_bytes

__all__ = ["ORIGIN_SIZES", "Result", "Step", "origin_steps", "perform", "standard_steps"]

CLIENT_LADDER: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
LINGERS_US: Final = (0, 100, 500, 1000, 2000)
"""Those of the origin's benchmark."""
ORIGIN_SIZES: Final = (100 << 10, 10 << 20)
ORIGIN_CLIENTS: Final = 50
_ORIGIN_BLOCKS: Final = 100_000
"""At least so many in a run: half a second of work, against the noise of a machine."""

PLAIN: Final = {"enable_recvmmsg": False, "enable_sendmmsg": False, "enable_gso": False}
NO_BATCHING: Final = Target("no batching", batch=dict(PLAIN))


@dataclass(frozen=True, slots=True)
class Step:
    """One run to make; `section` says which table or picture it is for."""

    section: str
    target: Target
    workload: Workload
    is_traced: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One run that was made."""

    section: str
    target: Target
    run: Run


def standard_steps(
    targets: Sequence[Target], workload: Workload, rounds: int, *, with_sweeps: bool, can_trace: bool
) -> list[Step]:
    """Every target under one workload; then clients, and batch_timeout_us, swept."""
    steps = [Step("main", target, workload) for _ in range(rounds) for target in targets]
    steps += _traced("main", targets, workload, can_trace)
    if with_sweeps:
        ladder = [n for n in CLIENT_LADDER if n < workload.clients] + [workload.clients]
        steps += [Step("clients", target, workload.with_clients(n)) for n in ladder for target in targets]
        lingering = list(linger_targets())
        steps += [Step("linger", target, workload) for target in lingering]
        steps += _traced("linger", lingering, workload, can_trace)
    return steps


def origin_steps(rounds: int, *, has_classical: bool, can_trace: bool) -> list[Step]:
    """The origin's benchmark: 50 clients, 100 KiB and 10 MiB at 512 bytes, with and without batching."""
    targets = [NO_BATCHING, *linger_targets()]
    classical = [Target("classical", "classical"), Target("classical, no recvmmsg", "classical-plain")]
    steps = []
    for size_bytes in ORIGIN_SIZES:
        workload = origin_workload(size_bytes)
        chosen = targets + (classical if has_classical else [])
        section = f"origin {human_bytes(size_bytes)}"
        steps += [Step(section, target, workload) for _ in range(rounds) for target in chosen]
        steps += _traced(section, chosen, workload, can_trace)
    return steps


def origin_workload(size_bytes: int) -> Workload:
    """50 clients of one file of this size; as many transfers as make a run long enough."""
    workload = Workload(clients=ORIGIN_CLIENTS, file_bytes=size_bytes, limit_s=600.0)
    rounds = -(-_ORIGIN_BLOCKS // (workload.blocks_each * ORIGIN_CLIENTS))
    return replace(workload, transfers=ORIGIN_CLIENTS * rounds)


def linger_targets() -> Iterable[Target]:
    """Batching with adaptive off and on, for each linger."""
    for is_adaptive in (False, True):
        for linger_us in LINGERS_US:
            name = f"{'adaptive' if is_adaptive else 'always'}, linger {linger_us} µs"
            yield Target(name, batch={"batch_timeout_us": linger_us, "enable_adaptive_batching": is_adaptive})


def perform(bench: Bench, steps: Sequence[Step], tell: Callable[[int, Step], None]) -> list[Result]:
    """Make all runs; `tell` hears the number and the step that begins."""
    results = []
    for number, step in enumerate(steps):
        tell(number, step)
        make = bench.traced if step.is_traced else bench.timed
        results.append(Result(step.section, step.target, make(step.target, step.workload)))
    return results


def _traced(section: str, targets: Iterable[Target], workload: Workload, can_trace: bool) -> list[Step]:
    return [Step(section, target, workload, is_traced=True) for target in targets] if can_trace else []
