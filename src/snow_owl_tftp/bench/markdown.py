"""Cells and tables of a report. May know: nothing of what they are about."""

from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["NOT_MEASURED", "change", "number", "percent", "table"]

NOT_MEASURED: Final = "not measured"
"""What ought to be there and is not; a dash is where there is nothing to measure."""


def number(value: float | None, form: str, factor: float = 1.0, *, missing: str = "–") -> str:
    """A figure in this format; `missing` where there is none."""
    return missing if value is None else format(value * factor, form)


def percent(share: float | None, form: str) -> str:
    """A share of 1; a dash where there is none."""
    return "–" if share is None else f"{format(100 * share, form)} %"


def change(new: float | None, old: float | None) -> str:
    """From old to new, in percent."""
    return f"{100 * (new / old - 1):+.1f} %".replace("-", "−") if new is not None and old else "–"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
