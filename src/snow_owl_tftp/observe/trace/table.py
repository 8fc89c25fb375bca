"""The trace as a table for people, with rich.

May know: counts and rich. Must not be imported before somebody wants a table: rich takes 60 ms.
"""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from snow_owl_tftp.observe.trace.counts import CallCounts, TraceCounts

__all__ = ["render"]

_BAR_WIDTH = 24


def render(total: TraceCounts, interval: TraceCounts, interval_s: float, *, title: str) -> RenderableType:
    """One picture of the trace.

    Args:
        total: Since the trace began.
        interval: Since the last picture.
        interval_s: How long that was; 0: nothing is said about rates.
        title: What is traced.
    """
    figures = [Text(f"all: {_summary(total)}")]
    if interval_s > 0:
        figures.insert(0, Text(f"now: {_summary(interval)}"))
    return Group(_calls(total, interval, interval_s, title), *_histograms(total), *figures)


def _calls(total: TraceCounts, interval: TraceCounts, interval_s: float, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("call")
    for heading in ("calls", "calls/s", "moved data", "empty", "messages", "per call"):
        table.add_column(heading, justify="right")
    table.add_column("errors")
    for name, counts in total.by_name.items():
        rate = f"{interval.of(name).calls / interval_s:,.0f}" if interval_s > 0 else ""
        table.add_row(
            name,
            f"{counts.calls:,}",
            rate,
            f"{counts.moved:,}",
            f"{counts.empty:,}",
            f"{counts.datagrams:,}",
            "" if counts.per_call is None else f"{counts.per_call:.2f}",
            ", ".join(f"{error} {calls:,}" for error, calls in sorted(counts.errors.items())),
        )
    return table


def _histograms(total: TraceCounts) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for name in ("recvmmsg", "sendmmsg"):
        if total.of(name).moved:
            shown.append(_histogram(name, total.of(name)))
    return shown


def _histogram(name: str, counts: CallCounts) -> Table:
    table = Table(title=f"messages per {name}", title_justify="left", show_header=False, box=None)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(justify="right")
    buckets = counts.histogram()
    most = max(buckets.values())
    for label, calls in buckets.items():
        table.add_row(label, "█" * max(1, round(_BAR_WIDTH * calls / most)), f"{calls:,}")
    return table


def _summary(counts: TraceCounts) -> str:
    derived = counts.derived()
    figures = (
        (f"blocks {derived.blocks:,}", True),
        (f"receive calls/block {derived.receive_calls_per_block or 0:.4f}", derived.blocks > 0),
        (f"send calls/block {derived.send_calls_per_block or 0:.4f}", derived.blocks > 0),
        (f"datagrams/receive call {derived.datagrams_per_receive_call or 0:.2f}", derived.receive_calls > 0),
        (f"batch efficiency {100 * (derived.batch_efficiency or 0):.2f} %", derived.receive_calls > 0),
        (f"reads/block {derived.reads_per_block or 0:.4f}", derived.blocks > 0),
        (f"empty receives {100 * (derived.empty_receive_share or 0):.2f} %", derived.receive_calls > 0),
    )
    return " · ".join(text for text, has_sense in figures if has_sense)
