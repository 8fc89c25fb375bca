"""The pictures of a report, with matplotlib; without it there are none.

May know: results and matplotlib. Must not be imported before pictures are wanted.
Invariants: a run that is not valid is a gap, never a point.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from snow_owl_tftp.client.bench.report import figures_of, sections
from snow_owl_tftp.client.bench.sweeps import NO_BATCHING, Result

__all__ = ["MISSING", "draw"]

MISSING = "No pictures: matplotlib is not installed (pip install 'snow-owl-tftp[bench]')."
_SIZE_INCHES = (8, 4.5)
_DPI = 110


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
    if section == "linger" or section.startswith("origin"):
        drawn.append(_linger(folder, f"{slug}-batch-timeout.png", results))
    if section != "linger":
        drawn.append(_latency(folder, f"{slug}-latency.png", results))
        if any(result.run.trace for result in results):
            drawn.append(_calls(folder, f"{slug}-calls-per-block.png", results))
    return drawn


def _throughput(folder: Path, results: Sequence[Result]) -> str:
    figure, axes = _figure("blocks/s against clients")
    for name in dict.fromkeys(result.target.name for result in results):
        of_name = [result.run for result in results if result.target.name == name]
        points = [(run.workload.clients, run.blocks_per_s) for run in of_name if run.blocks_per_s is not None]
        axes.plot(*_columns(points), marker="o", label=name)
    axes.set(xscale="log", xlabel="clients", ylabel="blocks/s", ylim=(0, None))
    axes.legend(fontsize="small")
    return _saved(figure, folder / "throughput.png")


def _latency(folder: Path, name: str, results: Sequence[Result]) -> str:
    figure, axes = _figure(f"time of a transfer: {results[0].run.workload.text}")
    for target in dict.fromkeys(result.target.name for result in results):
        run, _ = figures_of(results, target)
        if run is not None and run.is_valid:
            quantiles_ms = [value * 1e3 for value in run.load["latency_quantiles_s"]]
            shares = [i / (len(quantiles_ms) - 1) for i in range(len(quantiles_ms))]
            axes.plot(quantiles_ms, shares, label=target)
    axes.set(xscale="log", xlabel="ms", ylabel="share of transfers", ylim=(0, 1))
    axes.legend(fontsize="small")
    return _saved(figure, folder / name)


def _calls(folder: Path, name: str, results: Sequence[Result]) -> str:
    figure, axes = _figure(f"system calls per block: {results[0].run.workload.text}")
    bars = []
    for target in dict.fromkeys(result.target.name for result in results):
        _, run = figures_of(results, target)
        if run is not None and run.is_valid and run.trace is not None:
            derived, blocks = run.trace["derived"], max(1, run.load["blocks"])
            bars.append((target, derived["receive_calls"] / blocks, derived["send_calls"] / blocks))
    places = range(len(bars))
    axes.barh([place - 0.2 for place in places], [bar[1] for bar in bars], height=0.4, label="receive calls")
    axes.barh([place + 0.2 for place in places], [bar[2] for bar in bars], height=0.4, label="send calls")
    axes.set_yticks(list(places), [bar[0] for bar in bars])
    axes.invert_yaxis()
    axes.set(xlabel="calls per block")
    axes.legend(fontsize="small")
    return _saved(figure, folder / name)


def _linger(folder: Path, name: str, results: Sequence[Result]) -> str:
    figure, axes = _figure(f"batch_timeout_us: {results[0].run.workload.text}")
    gathered = axes.twinx()
    for is_adaptive, colour in ((False, "tab:blue"), (True, "tab:orange")):
        chosen = _lingering(results, is_adaptive)
        speeds = [(us, run.blocks_per_s) for us, run, _ in chosen if run and run.blocks_per_s is not None]
        label = "adaptive" if is_adaptive else "always"
        axes.plot(*_columns(speeds), marker="o", color=colour, label=f"blocks/s, {label}")
        sizes = [(us, run.trace["derived"]["datagrams_per_receive_call"]) for us, _, run in chosen if run and run.trace]
        gathered.plot(*_columns(sizes), marker="x", linestyle="--", color=colour)
    plain, _ = figures_of(results, NO_BATCHING.name)
    if plain is not None and plain.blocks_per_s is not None:
        axes.axhline(plain.blocks_per_s, color="grey", linewidth=1, label="blocks/s, no batching")
    axes.set(xlabel="batch_timeout_us", ylabel="blocks/s (solid)", ylim=(0, None))
    gathered.set(ylabel="datagrams per receive call (dashed)", ylim=(0, None))
    # Where the curves of both axes leave room; matplotlib itself looks at one axis only.
    axes.legend(fontsize="small", loc="center right")
    return _saved(figure, folder / name)


def _lingering(results: Sequence[Result], is_adaptive: bool) -> list[tuple[int, Any, Any]]:
    chosen = {
        result.target.batch["batch_timeout_us"]: result.target.name
        for result in results
        if "batch_timeout_us" in result.target.batch and result.target.batch["enable_adaptive_batching"] == is_adaptive
    }
    return [(us, *figures_of(results, name)) for us, name in sorted(chosen.items())]


def _figure(title: str) -> tuple[Any, Any]:
    figure = import_module("matplotlib.figure").Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return figure, axes


def _saved(figure: Any, path: Path) -> str:
    figure.savefig(path)
    return path.name


def _columns(points: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [x for x, _ in points], [y for _, y in points]
