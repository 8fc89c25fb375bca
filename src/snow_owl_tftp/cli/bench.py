"""`snow-owl-tftp bench`: servers side by side under the same load.

May know: flags, and how progress is shown. Must not know how a run is made.
"""

import re
import sys
from pathlib import Path

import click

from snow_owl_tftp.client.bench.report import machine, write
from snow_owl_tftp.client.bench.runs import Bench, check_target
from snow_owl_tftp.client.bench.servers import KINDS, OURS, has_classical, installed_peers, our_targets
from snow_owl_tftp.client.bench.settings import Network, Target, Workload
from snow_owl_tftp.client.bench.sweeps import Result, Step, origin_steps, perform, standard_steps
from snow_owl_tftp.observe.trace import why_not

__all__ = ["command"]

_SIZE = re.compile(r"(\d+) ?(B|KiB|MiB|GiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_BLOCKS_A_RUN = 100_000
"""Enough for half a second of the fastest server here."""


class _Size(click.ParamType[int]):
    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value))
        if match is None:
            self.fail(f"expected a size such as 102400, 100KiB or 10MiB, got {value!r}", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


@click.command("bench")
@click.option(
    "--clients", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Transfers at any time."
)
@click.option("--transfers", type=click.IntRange(1), help="In all; default: enough for half a second.")
@click.option(
    "--file-size", "file_bytes", type=_Size(), default="1MiB", show_default=True, help="102400, 100KiB, 10MiB."
)
@click.option("--blksize", type=click.IntRange(8, 65464), default=512, show_default=True)
@click.option("--windowsize", type=click.IntRange(1, 65535), default=1, show_default=True)
@click.option(
    "--rtt-ms", type=click.FloatRange(0, 10_000), default=0.0, help="Round trip added between load and server."
)
@click.option("--loss", "loss_percent", type=click.FloatRange(0, 50), default=0.0, help="Percent, in each direction.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the losses.")
@click.option("--servers", metavar="NAMES", help=f"Of {', '.join(KINDS)}; default: all that are installed.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="The median counts.")
@click.option("--sweeps/--no-sweeps", default=True, help="Also against clients, and against batch_timeout_us.")
@click.option("--profile", type=click.Choice(["recvmmsg"]), help="The origin's benchmark, done right.")
@click.option("--output", type=click.Path(path_type=Path), default="bench-results", show_default=True, help="A folder.")
def command(
    clients: int,
    transfers: int | None,
    file_bytes: int,
    blksize: int,
    windowsize: int,
    rtt_ms: float,
    loss_percent: float,
    seed: int,
    servers: str | None,
    rounds: int,
    sweeps: bool,
    profile: str | None,
    output: Path,
) -> int:
    """Start TFTP servers, load them with many clients, compare every byte.

    Writes report.md, results.json and pictures. A server whose run has a wrong byte or a failed transfer gets no
    speed. System calls per block are counted by eBPF in runs of their own; that needs root and bpftrace.
    """
    reason = why_not()
    if profile:
        steps = origin_steps(rounds, has_classical=has_classical(), can_trace=reason is None)
    else:
        workload = Workload(
            clients=clients,
            file_bytes=file_bytes,
            blksize_bytes=blksize,
            windowsize_blocks=windowsize,
            network=Network(rtt_ms, loss_percent, seed),
        )
        workload = workload.with_transfers(transfers or -(-_BLOCKS_A_RUN // workload.blocks_each))
        steps = standard_steps(_targets(servers), workload, rounds, with_sweeps=sweeps, can_trace=reason is None)
    output.mkdir(parents=True, exist_ok=True)
    notes = [] if reason is None else [f"System calls were not counted: {reason}."]
    with Bench() as bench:
        results = _perform(bench, steps)
        how = next((result.run.cpu_counted_by for result in results if result.run.cpu_counted_by), "nothing")
        setting = machine(bench.server_core, bench.load_core, how)
    write(output, setting, results, _draw(output, results, notes), "\n\n".join(notes))
    print(output / "report.md")
    return 0 if all(result.run.is_valid for result in results) else 1


def _targets(servers: str | None) -> list[Target]:
    names = [name.strip() for name in servers.split(",")] if servers else [OURS, *installed_peers()]
    targets = []
    for name in names:
        check_target(name)
        targets += our_targets() if name == OURS else [Target(name, name)]
    return targets


def _perform(bench: Bench, steps: list[Step]) -> list[Result]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(steps))

        def on_step(number: int, step: Step) -> None:
            kind = "system calls" if step.is_traced else f"{step.workload.clients} clients"
            text = f"{number + 1}/{len(steps)} {step.section}: {step.target.name}, {kind}"
            progress.update(task, completed=number, description=text)
            bench.tell = lambda share: progress.update(task, completed=number + share)

        results = perform(bench, steps, on_step)
        progress.update(task, completed=len(steps), description="done")
    return results


def _draw(output: Path, results: list[Result], notes: list[str]) -> list[str]:
    from snow_owl_tftp.client.bench.pictures import MISSING, draw

    try:
        return draw(output, results)
    except ImportError:
        notes.append(MISSING)
        print(f"bench: {MISSING}", file=sys.stderr)
        return []
