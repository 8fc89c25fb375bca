"""Cells and tables of a report. May know: nothing of what they are about."""

from collections.abc import Iterable, Sequence

__all__ = ["change", "number", "table"]


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    """A figure in this format; a dash where there is none."""
    return "–" if value is None else format(value * factor, form)


def change(new: float | None, old: float | None) -> str:
    """From old to new, in percent."""
    return f"{100 * (new / old - 1):+.1f} %".replace("-", "−") if new is not None and old else "–"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
