"""The state machines of a transfer against model clients over model networks, in virtual time; prints tables.

    python benchmarks/simulate.py [--quick] [--seeds N] [--first-seed K] [--processes N] [GROUP ...]

Groups: patience, loss, jitter, reordering, bottleneck, buffers, clients, uploads, lossy-uploads, last-acks; all
without an argument. It plays `protocol/transfer.py`, which the engine is held to, so it measures the law and not the
machine: the same seeds give the same tables anywhere. Its parts, and the two oracles: `tests/support/simulation`.
Exit status 1: some row misses a bar.

Columns: first and then: seconds of a client's first transfer, and of its later ones (means over the seeds);
lock-step: the same two on the same path without windows; sent: DATA per block; early: repeated within a second of the
last copy (or the negotiated `timeout`), in all seeds; timers: that sent something again, per transfer; ideal and
prompt: goodput of the later transfers as a part of that of the two oracles; the last column names the missed bars.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the model clients are the tests' own

from tests.support.simulation.cases import READS, WRITES
from tests.support.simulation.measure import (
    Row,
    Tally,
    measure_beside_oracles,
    measure_write,
    missed_by_read,
    missed_by_write,
)
from tests.support.simulation.play import Case

QUICK_BLOCKS = 130
GROUPS = (*READS, *WRITES)
NAME_WIDTH = 54
READ_HEAD = (
    f"{'':{NAME_WIDTH}} {'window':>6} {'first':>8} {'then':>8} {'lock-step':>17} {'sent':>6} "
    f"{'early':>6} {'timers':>7} {'ideal':>6} {'prompt':>6}  missed"
)
WRITE_HEAD = (
    f"{'':{NAME_WIDTH}} {'window':>6} {'first':>8} {'then':>8} {'early':>6} {'timers':>7} {'failed':>6}  missed"
)


def part_of(ratio: float | None) -> str:
    return f"{'-':>6}" if ratio is None else f"{ratio:6.2f}"


def read_line(row: Row) -> tuple[str, list[str]]:
    real, walks, missed = row.real, row.lock_step, missed_by_read(row)
    beside = f"{walks.cold.took_s:8.3f} {walks.warm.took_s:8.3f}" if walks else f"{'':17}"
    ideal, prompt = part_of(row.of_clairvoyant), part_of(row.of_prompt)
    return (
        f"{row.case.name:{NAME_WIDTH}} {row.case.agreed.windowsize:6} {real.cold.took_s:8.3f} {real.warm.took_s:8.3f} "
        f"{beside} {max(real.cold.sent_per_block, real.warm.sent_per_block):6.2f} {real.early:6} "
        f"{(real.cold.timeouts + real.warm.timeouts) / 2:7.1f} {ideal} {prompt}  {', '.join(missed)}"
    ), missed


def write_line(case: Case, tally: Tally) -> tuple[str, list[str]]:
    missed = missed_by_write(case, tally)
    return (
        f"{case.name:{NAME_WIDTH}} {case.agreed.windowsize:6} {tally.cold.took_s:8.3f} {tally.warm.took_s:8.3f} "
        f"{tally.early:6} {(tally.cold.timeouts + tally.warm.timeouts) / 2:7.1f} {tally.failed:6}  {', '.join(missed)}"
    ), missed


def play_read(seeds: Sequence[int], case: Case) -> tuple[str, list[str]]:
    return read_line(measure_beside_oracles(case, seeds))


def play_write(seeds: Sequence[int], case: Case) -> tuple[str, list[str]]:
    return write_line(case, measure_write(case, seeds))


def quick(cases: list[Case]) -> list[Case]:
    """Every third case, of short files: a look, not a measurement."""
    return [replace(case, blocks=min(case.blocks, QUICK_BLOCKS)) for case in cases[::3]]


def print_table(
    name: str,
    cases: list[Case],
    play: Callable[[Case], tuple[str, list[str]]],
    processes: int,
) -> dict[str, int]:
    """Prints a group, and returns how many of its rows miss each bar."""
    missed_total: dict[str, int] = {}
    print(f"\n{name}\n{WRITE_HEAD if name in WRITES else READ_HEAD}")
    with multiprocessing.Pool(processes) as pool:
        for line, missed in pool.imap(play, cases):
            print(line.rstrip(), flush=True)
            for bar in missed:
                missed_total[bar] = missed_total.get(bar, 0) + 1
    return missed_total


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The law of a transfer over simulated networks.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="every third row, short files, one seed")
    parser.add_argument("--seeds", type=int, default=3, help="seeds a row (default 3)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    seeds = range(arguments.first_seed, arguments.first_seed + (1 if arguments.quick else arguments.seeds))
    groups = arguments.groups or GROUPS
    print(f"seeds {seeds.start} to {seeds.stop - 1}" + (", quick" if arguments.quick else ""))
    began_s = time.monotonic()
    summary = []
    for name in groups:
        cases = list({**READS, **WRITES}[name]())
        cases = quick(cases) if arguments.quick else cases
        play = partial(play_write if name in WRITES else play_read, list(seeds))
        missed = print_table(name, cases, play, arguments.processes)
        summary.append(
            f"{name:12} {len(cases):4} rows; missed: " + (", ".join(f"{k} {v}" for k, v in missed.items()) or "none")
        )
    print("\n" + "\n".join(summary))
    print(f"{time.monotonic() - began_s:.0f} s")
    return int(any(not line.endswith("none") for line in summary))


if __name__ == "__main__":
    raise SystemExit(main())
