"""What several rounds say together.

    timed, traced = figures_of(results, "ours")
    timed.median(lambda run: run.blocks_per_s)

May know: runs. Must not know how they are made or shown.
Invariants: every figure is the median of its own over all rounds, never one round's row; if one round
failed, there is no figure.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from snow_owl_tftp.bench.runs import Run
from snow_owl_tftp.bench.sweeps import Result

__all__ = ["Figure", "Rounds", "figures_of", "sections"]

Figure = Callable[[Run], float | None]


@dataclass(frozen=True, slots=True)
class Rounds:
    """All timed, or all traced, runs of one target under one workload; at least one."""

    runs: tuple[Run, ...]

    @property
    def failed(self) -> Run | None:
        """The first round that is not valid."""
        return next((run for run in self.runs if not run.is_valid), None)

    @property
    def is_valid(self) -> bool:
        """All of them were."""
        return self.failed is None

    @property
    def first(self) -> Run:
        """For what is the same in all rounds: the workload, what was granted."""
        return self.runs[0]

    def median(self, figure: Figure) -> float | None:
        """None where a round failed, or has no such figure."""
        values = self._values(figure)
        return statistics.median(values) if values else None

    def spread(self, figure: Figure) -> tuple[float, float] | None:
        """Smallest and largest."""
        values = self._values(figure)
        return (min(values), max(values)) if values else None

    def _values(self, figure: Figure) -> list[float]:
        values = [figure(run) for run in self.runs] if self.is_valid else []
        present = [value for value in values if value is not None]
        return present if len(present) == len(values) else []


def sections(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by section, in their order."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.section, []).append(result)
    return grouped


def figures_of(results: Sequence[Result], name: str) -> tuple[Rounds | None, Rounds | None]:
    """(timed, traced) rounds of one target in one section."""
    runs = [result.run for result in results if result.target.name == name]
    timed = tuple(run for run in runs if not run.is_traced)
    traced = tuple(run for run in runs if run.is_traced)
    return (Rounds(timed) if timed else None, Rounds(traced) if traced else None)
