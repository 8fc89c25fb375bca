"""The pictures of a report, with matplotlib; without it there are none.

May know: results and matplotlib. Must not be imported before pictures are wanted.
Invariants: a run that is not valid is a gap, never a point.
"""

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from snow_owl_tftp.bench.figures import Figure, Rounds, figures_of, sections
from snow_owl_tftp.bench.recvmmsg import PREFIX, derived
from snow_owl_tftp.bench.report import calls_of_kind_per_block
from snow_owl_tftp.bench.runs import Run
from snow_owl_tftp.bench.sweeps import NO_BATCHING, Result

__all__ = ["MISSING", "draw"]

MISSING = "No pictures: matplotlib is not installed (pip install 'snow-owl-tftp[bench]')."
_SIZE_INCHES = (9, 4.5)
_DPI = 110
_KINDS = ("receive", "send", "wait", "read")


def draw(folder: Path, results: Sequence[Result]) -> list[str]:
    """Draw what the results allow.

    Returns:
        File names in `folder`; none of them where there is nothing to show.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import_module("matplotlib").use("Agg")  # no display is needed, nor asked for
    drawn = []
    grouped = sections(results)
    if "clients" in grouped:
        drawn.append(_throughput(folder, grouped["clients"]))
    for section, of_section in grouped.items():
        if section != "clients":
            drawn += _of_section(folder, section, of_section)
    return drawn


def _of_section(folder: Path, section: str, results: Sequence[Result]) -> list[str]:
    drawn = []
    slug = section.replace(" ", "-").lower()
    if section == "linger" or section.startswith(PREFIX):
        drawn.append(_linger(folder, f"{slug}-batch-timeout.png", results))
    if section != "linger":
        drawn.append(_latency(folder, f"{slug}-latency.png", results))
        if _counted(results):
            drawn.append(_calls(folder, f"{slug}-calls-per-block.png", results))
    return drawn


def _throughput(folder: Path, results: Sequence[Result]) -> str:
    figure, (axes,) = _figure("blocks/s against clients")
    counts = sorted({result.run.workload.clients for result in results})
    for index, name in enumerate(_names(results)):
        rounds = [
            figures_of([result for result in results if result.run.workload.clients == count], name)[0]
            for count in counts
        ]
        speeds = [_gap(timed.median(lambda run: run.blocks_per_s) if timed else None) for timed in rounds]
        axes.plot(counts, speeds, marker="o", label=name, **_style(index))
    axes.set(xlabel="clients", ylabel="blocks/s", ylim=(0, None))
    _plain_log_axis(axes)
    _thousands(axes)
    _legend(figure)
    return _saved(figure, folder / "throughput.png")


def _latency(folder: Path, name: str, results: Sequence[Result]) -> str:
    figure, (axes,) = _figure(f"time of a transfer: {results[0].run.workload.text}")
    for index, target in enumerate(_names(results)):
        timed, _ = figures_of(results, target)
        if timed is None or not timed.is_valid:
            continue
        places = range(len(timed.first.load["latency_quantiles_s"]))
        quantiles_ms = [_gap(timed.median(_quantile_ms(place))) for place in places]
        # Where no transfer ended within the run there is no curve, and the legend says so.
        label = target if any(math.isfinite(ms) for ms in quantiles_ms) else f"{target} (none ended)"
        axes.plot(quantiles_ms, [place / (len(places) - 1) for place in places], label=label, **_style(index))
    axes.set(xlabel="ms; further left is better", ylabel="share of transfers", ylim=(0, 1.01))
    _plain_log_axis(axes)
    _legend(figure)
    return _saved(figure, folder / name)


def _quantile_ms(place: int) -> Figure:
    def figure(run: Run) -> float | None:
        value = run.load["latency_quantiles_s"][place]
        return None if value is None else float(value) * 1e3

    return figure


def _calls(folder: Path, name: str, results: Sequence[Result]) -> str:
    figure, (axes,) = _figure(f"system calls per block: {results[0].run.workload.text}")
    bars = [
        (target, [_gap(traced.median(_of_kind(kind))) for kind in _KINDS])
        for target, traced in _counted(results).items()
    ]
    left = [0.0] * len(bars)
    drawn = None
    for number, kind in enumerate(_KINDS):
        widths = [counts[number] for _, counts in bars]
        drawn = axes.barh(range(len(bars)), widths, left=left, height=0.7, label=kind)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.bar_label(drawn, labels=[f"{total:.3f}" for total in left], padding=3, fontsize="small")
    axes.set_yticks(range(len(bars)), [target for target, _ in bars])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="calls per block; the number is their sum; shorter is better")
    _legend(figure)
    return _saved(figure, folder / name)


def _counted(results: Sequence[Result]) -> dict[str, Rounds]:
    """Where there are calls per block: none of a run that failed, or in which no block came."""
    found = {target: figures_of(results, target)[1] for target in _names(results)}
    return {
        target: traced for target, traced in found.items() if traced and traced.median(_of_kind("send")) is not None
    }


def _of_kind(kind: str) -> Figure:
    return lambda run: calls_of_kind_per_block(run, kind)


def _linger(folder: Path, name: str, results: Sequence[Result]) -> str:
    figure, (speed, gathered) = _figure(f"batch_timeout_us: {results[0].run.workload.text}", rows=2)
    for index, is_adaptive in enumerate((False, True)):
        chosen = _lingering(results, is_adaptive)
        style = {"marker": "o", "label": "adaptive" if is_adaptive else "always", **_style(index)}
        lingers_us = [us for us, _, _ in chosen]
        speeds = [timed.median(lambda run: run.blocks_per_s) if timed else None for _, timed, _ in chosen]
        speed.plot(lingers_us, [_gap(value) for value in speeds], **style)
        sizes = [traced.median(_datagrams_a_call) if traced else None for _, _, traced in chosen]
        gathered.plot(lingers_us, [_gap(value) for value in sizes], **{**style, "label": None})
    plain, _ = figures_of(results, NO_BATCHING.name)
    level = plain.median(lambda run: run.blocks_per_s) if plain else None
    if level is not None:
        speed.axhline(level, color="grey", linewidth=1, label=NO_BATCHING.name)
    speed.set(ylabel="blocks/s", ylim=(0, None))
    _thousands(speed)
    gathered.set(xlabel="batch_timeout_us", ylabel="datagrams per receive call", ylim=(0, None))
    _legend(figure)
    return _saved(figure, folder / name)


def _datagrams_a_call(run: Run) -> float | None:
    return derived(run, "datagrams_per_receive_call")


def _lingering(results: Sequence[Result], is_adaptive: bool) -> list[tuple[int, Rounds | None, Rounds | None]]:
    chosen = {
        result.target.batch["batch_timeout_us"]: result.target.name
        for result in results
        if "batch_timeout_us" in result.target.batch and result.target.batch["enable_adaptive_batching"] == is_adaptive
    }
    return [(us, *figures_of(results, name)) for us, name in sorted(chosen.items())]


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.target.name for result in results))


def _gap(value: float | None) -> float:
    """Matplotlib leaves a curve open at what is no number."""
    return math.nan if value is None else value


def _style(index: int) -> dict[str, Any]:
    """Twenty that differ, neighbours in colour and in dash."""
    return {"color": f"C{index % 10}", "linestyle": ("-", "--", "-.", ":")[index % 4]}


def _plain_log_axis(axes: Any) -> None:
    ticker = import_module("matplotlib.ticker")
    if not math.isfinite(axes.dataLim.minposx):
        return  # nothing but gaps: no logarithm has a place for them
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _thousands(axes: Any) -> None:
    ticker = import_module("matplotlib.ticker")
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _figure(title: str, rows: int = 1) -> tuple[Any, list[Any]]:
    width, height = _SIZE_INCHES
    make = import_module("matplotlib.figure").Figure
    figure = make(figsize=(width, height * (1 + 0.4 * (rows - 1))), dpi=_DPI, layout="constrained")
    panels = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    panels[0].set_title(title, fontsize="medium")
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _legend(figure: Any) -> None:
    # Where everything failed there is no curve, and matplotlib warns of an empty legend.
    if any(axes.get_legend_handles_labels()[0] for axes in figure.axes):
        figure.legend(loc="outside right upper", fontsize="small")


def _saved(figure: Any, path: Path) -> str:
    figure.savefig(path)
    return path.name
