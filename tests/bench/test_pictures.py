"""Pictures out of runs that were never made: which are drawn, and that a run without figures is a gap."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.bench.test_report import WORKLOAD, load, timed, traced

from snow_owl_tftp.bench import pictures
from snow_owl_tftp.bench.runs import Run
from snow_owl_tftp.bench.settings import BenchTarget
from snow_owl_tftp.bench.sweeps import NO_BATCHING, Result, linger_targets

# Looked for and not imported: that takes a third of a second in each process of a run.
pytestmark = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="the pictures need matplotlib (pip install '.[bench]')"
)

BROKEN = Run("x", WORKLOAD, problem="it did not become ready")


def of_clients(name: str, clients: int, run: Run) -> Result:
    return Result("clients", BenchTarget(name), Run(name, WORKLOAD.with_clients(clients), run.load, run.server_cpu_s))


def lingering(section: str) -> list[Result]:
    results = [Result(section, target, timed()) for target in (NO_BATCHING, *linger_targets())]
    return results + [Result(section, target, traced(1000, 0, 1000)) for target in linger_targets()]


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Label → y of every curve that was saved."""
    drawn: dict[str, list[float]] = {}
    saved = pictures._saved

    def look(figure: Any, path: Path) -> str:
        for axes in figure.axes:
            drawn.update({line.get_label(): list(line.get_ydata()) for line in axes.get_lines()})
        return saved(figure, path)

    monkeypatch.setattr(pictures, "_saved", look)
    return drawn


def test_every_section_has_its_pictures(tmp_path: Path) -> None:
    results = [Result("main", BenchTarget("a"), timed()), Result("main", BenchTarget("a"), traced(10, 0, 10))]
    results += [of_clients("a", clients, timed()) for clients in (1, 10)]
    results += lingering("linger") + lingering("recvmmsg 100 KiB")
    drawn = pictures.draw(tmp_path, results)
    assert sorted(drawn) == [
        "linger-batch-timeout.png",
        "main-calls-per-block.png",
        "main-latency.png",
        "recvmmsg-100-kib-batch-timeout.png",
        "recvmmsg-100-kib-calls-per-block.png",
        "recvmmsg-100-kib-latency.png",
        "throughput.png",
    ]
    for name in drawn:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_no_calls_are_drawn_where_none_were_counted(tmp_path: Path) -> None:
    idle = traced(10, 0, 10)
    idle.load["blocks"] = 0
    for counted in ([], [Result("main", BenchTarget("a"), idle)]):
        assert pictures.draw(tmp_path, [Result("main", BenchTarget("a"), timed()), *counted]) == ["main-latency.png"]


def test_run_that_is_not_valid_is_a_gap(tmp_path: Path, curves: dict[str, list[float]]) -> None:
    pictures.draw(
        tmp_path, [of_clients("a", 1, timed()), of_clients("a", 10, BROKEN), of_clients("a", 50, timed(wall_s=1.0))]
    )
    assert curves["a"][0] == pytest.approx(40_000)
    assert math.isnan(curves["a"][1])
    assert curves["a"][2] == pytest.approx(20_000)


def test_server_that_failed_has_no_latency(tmp_path: Path, curves: dict[str, list[float]]) -> None:
    pictures.draw(tmp_path, [Result("main", BenchTarget("good"), timed()), Result("main", BenchTarget("bad"), BROKEN)])
    assert "good" in curves
    assert "bad" not in curves


def test_server_of_which_no_transfer_ended_says_so(tmp_path: Path, curves: dict[str, list[float]]) -> None:
    endless = Run("x", WORKLOAD, load(finished=0, latency_quantiles_s=[None] * 3), server_cpu_s=0.1)
    pictures.draw(tmp_path, [Result("main", BenchTarget("slow"), endless)])
    assert "slow (none ended)" in curves


def test_lingers_without_a_figure_are_gaps(tmp_path: Path, curves: dict[str, list[float]]) -> None:
    results = [Result("linger", target, timed()) for target in linger_targets()]
    results[2] = Result("linger", results[2].target, BROKEN)
    pictures.draw(tmp_path, results)
    assert [math.isnan(y) for y in curves["always"]] == [False, False, True, False, False]


def test_nothing_but_failures_is_an_empty_picture(tmp_path: Path) -> None:
    broken = Run("x", WORKLOAD, load(failed=1), trace=traced(1, 1, 1).trace, is_traced=True)
    results = [Result("main", BenchTarget("a"), run) for run in (BROKEN, broken)]
    assert pictures.draw(tmp_path, [*results, of_clients("a", 1, BROKEN)]) == ["throughput.png", "main-latency.png"]


def test_curves_are_told_apart() -> None:
    styles = {tuple(pictures._style(index).values()) for index in range(20)}
    assert len(styles) == 20
