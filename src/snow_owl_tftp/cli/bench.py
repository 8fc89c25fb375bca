"""`snow-owl-tftp bench`: servers side by side under the same load.

May know: flags, and how progress is shown. Must not know which runs they ask for (`bench_steps`), or how one is made.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from snow_owl_tftp.bench.provenance import machine, without_paths
from snow_owl_tftp.bench.report import write
from snow_owl_tftp.bench.runs import Bench
from snow_owl_tftp.bench.servers import KINDS, installed_peers
from snow_owl_tftp.bench.sweeps import SECTIONS, Result, Step, perform
from snow_owl_tftp.cli.bench_steps import BenchFlags, spelled, steps_of_flags, steps_of_profile
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.trace.counter import why_not_after_trying

__all__ = ["command"]

_SIZE = re.compile(r"(\d+) ?(B|KiB|MiB|GiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_INTERRUPTED = 130


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
@click.option("--transfers", type=click.IntRange(1), help="In all; default: as many as two seconds allow.")
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
@click.option(
    "--servers", metavar="NAMES", help=f"Of {', '.join(KINDS)}; default: all that are installed and may be started."
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Of every run; each figure is the median of its own.",
)
@click.option("--sweeps/--no-sweeps", default=True, help="Also against clients, and against batch_timeout_us.")
@click.option(
    "--sweep", type=click.Choice(SECTIONS[1:]), multiple=True, help="Nothing but this sweep; may be repeated."
)
@click.option(
    "--profile",
    type=click.Choice(["recvmmsg"]),
    help="The benchmark of the earlier Rust server; --file-size takes one half.",
)
@click.option("--output", type=click.Path(path_type=Path), default="bench-results", show_default=True, help="A folder.")
@click.pass_context
def command(context: click.Context, /, **flags: Any) -> int:
    """Start TFTP servers, load them with many clients, compare every byte.

    Writes report.md, results.json and pictures. A server whose run has a wrong byte or a failed transfer gets no
    speed. System calls per block are counted by eBPF in runs of their own; that needs root and bpftrace. Where they
    cannot be counted it says why, and measures the rest. Exit status 1: a run has no figure.
    """
    asked = BenchFlags(**flags)
    given = [name for name in flags if context.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    steps = steps_of_profile(asked, given, _typed()) if asked.profile else steps_of_flags(asked)
    _make_folder(asked.output)
    notes: list[str] = []
    if not (asked.servers or asked.profile):
        for name, problem in installed_peers().items():
            if problem:
                _note(notes, f"{name} is left out: it {problem}.")
    if any(step.is_traced for step in steps) and (reason := why_not_after_trying()):
        steps = [step for step in steps if not step.is_traced]
        _note(notes, f"System calls are not counted: {without_paths(reason)}.")
    results: list[Result] = []
    with Bench() as bench:
        try:
            _perform(bench, steps, results)
        except KeyboardInterrupt:
            _note(notes, f"Interrupted: {len(results)} of {len(steps)} runs were made.")
        finally:
            if results:
                _write(asked, given, bench, results, notes)
    if len(results) < len(steps):
        return _INTERRUPTED
    return _told_failures(results)


def _told_failures(results: list[Result]) -> int:
    """Say of each target once what keeps it from having a figure; returns the exit status."""
    lacks = {True: "not counted", False: "no figure"}
    failed = [result for result in results if not result.run.is_valid]
    for line in dict.fromkeys(f"{one.target.name}: {lacks[one.run.is_traced]}: {one.run.reason}" for one in failed):
        _say(line)
    return 1 if failed else 0


def _make_folder(folder: Path) -> None:
    """Before the first run: what cannot be written at the end is lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"bench: --output {folder}: {error.strerror}; name a folder that can be written") from error


def _note(notes: list[str], text: str) -> None:
    """For the report, and at once."""
    notes.append(text)
    _say(text)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


def _typed() -> dict[str, str]:
    """Name to flag, as it is typed."""
    return {str(option.name): option.opts[0] for option in command.params}


def _write(asked: BenchFlags, given: Sequence[str], bench: Bench, results: list[Result], notes: list[str]) -> None:
    how = next((result.run.cpu_counted_by for result in results if result.run.cpu_counted_by), "")
    setting = machine(
        bench.server_core,
        bench.load_core,
        how,
        arguments=spelled(asked, given, _typed()),
        servers=[result.target.server for result in results],
    )
    write(asked.output, setting, results, _draw(asked.output, results, notes), "\n\n".join(notes))
    print(asked.output / "report.md")


def _perform(bench: Bench, steps: list[Step], results: list[Result]) -> None:
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

        perform(bench, steps, on_step, results)
        progress.update(task, completed=len(steps), description="done")


def _draw(output: Path, results: list[Result], notes: list[str]) -> list[str]:
    from snow_owl_tftp.bench.pictures import MISSING, draw

    try:
        return draw(output, results)
    except ImportError:
        _note(notes, MISSING)
        return []
