"""report.md and results.json out of what was run.

May know: results and how to write Markdown. Must not run anything; pictures are made elsewhere.
Invariants: a run that is not valid appears with its reason and without a speed; figures of several rounds are the
median round's, and all rounds are in results.json.
"""

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from snow_owl_tftp import __version__
from snow_owl_tftp.client.bench.runs import Run, median_run
from snow_owl_tftp.client.bench.settings import human_bytes
from snow_owl_tftp.client.bench.sweeps import NO_BATCHING, ORIGIN_SIZES, Result

__all__ = ["Setting", "figures_of", "machine", "sections", "write"]

Setting = dict[str, Any]

_ORIGIN_TABLE: Final = (
    ("recvmmsg calls", "0", "> 1,000"),
    ("recvfrom calls", "2,163", "< 500"),
    ("receive calls against no batching", "−27 %", "−60 to −80 %; here at least −90 %"),
    ("batch efficiency recvmmsg/(recvmmsg+recvfrom+recvmsg)", "0 %", "> 80 %; here at least 99 %"),
    ("datagrams per receive call", "", "at least 10 at 50 clients"),
    ("send calls against no batching", "−23 %", "at least −90 %"),
)
SHOWN: Final = "adaptive, linger 500 µs"
"""The configuration whose figures stand in the origin's table: examples/config/with-batch.toml."""


def machine(server_core: int | None, load_core: int | None, cpu_counted_by: str) -> Setting:
    """What the figures depend on beside the software."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    pinned = "server and load share one core"
    if server_core is not None:
        pinned = f"server on core {server_core}, load (and relay) on core {load_core}"
    return {
        "version": __version__,
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "pinned": pinned,
        "cpu_counted_by": cpu_counted_by,
    }


def write(folder: Path, setting: Setting, results: Sequence[Result], pictures: Sequence[str], notes: str) -> None:
    """Write report.md and results.json.

    Args:
        folder: Exists.
        setting: From `machine`.
        results: In the order of the runs.
        pictures: File names in `folder`.
        notes: What the reader must know beside it; empty: nothing.
    """
    runs = [{"section": result.section, **result.run.to_json()} for result in results]
    (folder / "results.json").write_text(json.dumps({"machine": setting, "runs": runs}, indent=1) + "\n")
    parts = [_heading(setting, notes)]
    grouped = sections(results)
    for section, of_section in grouped.items():
        if section == "clients":
            parts.append(_clients_table(of_section))
        else:
            parts.append(f"## {_title(section, of_section)}\n\n{_table(of_section)}")
    parts += [_classical_page(grouped)] if _has_classical(results) else []
    parts += [f"![{name}]({name})" for name in pictures]
    # The last word: this is what the benchmark was asked for.
    parts += [origin_table(grouped)] if _origin_section() in grouped else []
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")


def sections(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by section, in their order."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.section, []).append(result)
    return grouped


def figures_of(results: Sequence[Result], name: str) -> tuple[Run | None, Run | None]:
    """(median timed run, traced run) of one target in one section."""
    runs = [result.run for result in results if result.target.name == name]
    timed = [run for run in runs if run.trace is None]
    traced = [run for run in runs if run.trace is not None]
    return (median_run(timed) if timed else None, traced[0] if traced else None)


def origin_table(grouped: dict[str, list[Result]]) -> str:
    """The table with which the project began, filled in."""
    results = grouped[_origin_section()]
    _, ours = figures_of(results, SHOWN)
    _, plain = figures_of(results, NO_BATCHING.name)
    head = f"## The origin's table: 50 clients, {human_bytes(ORIGIN_SIZES[0])}, 512-byte blocks; ours: {SHOWN}"
    if ours is None or plain is None or not (ours.is_valid and plain.is_valid):
        return f"{head}\n\nNot filled in: the traced runs are missing or failed (see above)."
    a, b = _derived(ours), _derived(plain)
    figures = (
        f"{_calls(ours, 'recvmmsg'):,}",
        f"{_calls(ours, 'recvfrom') + _calls(ours, 'recvmsg'):,}",
        _change(a["receive_calls"] / ours.load["blocks"], b["receive_calls"] / plain.load["blocks"]),
        f"{100 * (a['batch_efficiency'] or 0):.2f} %",
        f"{a['datagrams_per_receive_call'] or 0:.1f}",
        _change(a["send_calls"] / ours.load["blocks"], b["send_calls"] / plain.load["blocks"]),
    )
    rows = [[*row, figure] for row, figure in zip(_ORIGIN_TABLE, figures, strict=True)]
    blocks = (
        f"{ours.load['blocks']:,} blocks in {ours.load['transfers']:,} transfers; calls of the server process only."
    )
    return f"{head}\n\n{_markdown(['metric', 'origin', 'target', 'ours'], rows)}\n\n{blocks}"


def _heading(setting: Setting, notes: str) -> str:
    facts = (
        f"snow-owl-tftp {setting['version']}, Linux {setting['kernel']}, {setting['cpu']}, {setting['cores']} cores, "
        f"Python {setting['python']}; {setting['pinned']}; server CPU by {setting['cpu_counted_by']}. "
        "Every byte of every transfer was compared. System calls were counted by eBPF in runs of their own."
    )
    return f"# Benchmark\n\n{facts}" + (f"\n\n{notes}" if notes else "")


def _title(section: str, results: Sequence[Result]) -> str:
    titles = {"main": "Servers", "linger": "batch_timeout_us"}
    return f"{titles.get(section, section[:1].upper() + section[1:])}: {results[0].run.workload.text}"


def _table(results: Sequence[Result]) -> str:
    headers = ["server", "blocks/s", "MB/s", "CPU µs/block", "p50 ms", "p99 ms", "max ms", "repeated"]
    headers += ["receive calls/block", "send calls/block", "datagrams/receive call", "efficiency", "empty"]
    names = dict.fromkeys(result.target.name for result in results)
    return _markdown(headers, [_row(name, *figures_of(results, name)) for name in names])


def _row(name: str, timed: Run | None, traced: Run | None) -> list[str]:
    return [name, *_timed_cells(timed), *_traced_cells(traced)]


def _timed_cells(run: Run | None) -> list[str]:
    if run is None:
        return [""] * 7
    if not run.is_valid or run.cpu_us_per_block is None:
        return [f"**no figure**: {_reason(run)}", *[""] * 6]
    load = run.load
    return [
        f"{run.blocks_per_s:,.0f}{' (limit of the relay)' if run.is_relay_bound else ''}",
        f"{run.mb_per_s:,.1f}",
        f"{run.cpu_us_per_block:.2f}",
        *(f"{load[key] * 1e3:.1f}" for key in ("p50_s", "p99_s", "max_s")),
        f"{load['duplicates_received']:,} by server, {load['client_retransmits']:,} by clients",
    ]


def _traced_cells(run: Run | None) -> list[str]:
    if run is None or not run.is_valid:
        return [""] * 5
    derived, blocks = _derived(run), max(1, run.load["blocks"])
    return [
        f"{derived['receive_calls'] / blocks:.4f}",
        f"{derived['send_calls'] / blocks:.4f}",
        f"{derived['datagrams_per_receive_call'] or 0:.2f}",
        f"{100 * (derived['batch_efficiency'] or 0):.2f} %",
        f"{100 * (derived['empty_receive_share'] or 0):.2f} %",
    ]


def _reason(run: Run) -> str:
    if run.problem:
        return run.problem
    first = next(iter(run.load.get("failures", {"no answer": 0}).items()))
    return f"{run.load.get('failed', 0)} of {run.load.get('transfers', 0)} transfers failed ({first[0]})"


def _clients_table(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(result.target.name for result in results))
    counts = list(dict.fromkeys(result.run.workload.clients for result in results))
    rows = []
    for clients in counts:
        here = [result for result in results if result.run.workload.clients == clients]
        speeds = [figures_of(here, name)[0] for name in names]
        rows.append([str(clients), *(_speed(run) for run in speeds)])
    return f"## Blocks/s against clients\n\n{_markdown(['clients', *names], rows)}"


def _speed(run: Run | None) -> str:
    if run is None:
        return ""
    return f"{run.blocks_per_s:,.0f}" if run.blocks_per_s is not None else f"no figure: {_reason(run)}"


def _classical_page(grouped: dict[str, list[Result]]) -> str:
    text = (
        "## Why the origin saw recvmmsg_calls=0\n\n"
        "`classical` binds a socket for every transfer and calls recvmmsg on the listener, as the origin did. The "
        "listener sees one datagram a transfer, its request; each ACK arrives alone on a socket of its own. Turning "
        "recvmmsg off there changes only the calls on the listener. With shared TID sockets the same ACKs lie in one "
        "queue, and one call takes them all: where recvmmsg sits decides, not its timeout."
    )
    rows = []
    for section, results in grouped.items():
        if section.startswith("origin "):
            for name in ("classical, no recvmmsg", "classical", NO_BATCHING.name, SHOWN):
                _, run = figures_of(results, name)
                rows.append([section.removeprefix("origin "), name, *_shares(run)])
    headers = ["file", "server", "receive calls", "of them recvmmsg", "datagrams by recvmmsg", "datagrams/receive call"]
    return f"{text}\n\n{_markdown(headers, rows)}"


def _shares(run: Run | None) -> list[str]:
    if run is None or run.trace is None or not run.is_valid:
        return ["not traced", "", "", ""]
    derived, calls = _derived(run), run.trace["calls"]
    received = sum(counts["datagrams"] for name, counts in calls.items() if name.startswith("recv"))
    by_batch = calls.get("recvmmsg", {}).get("datagrams", 0)
    return [
        f"{derived['receive_calls']:,}",
        f"{_calls(run, 'recvmmsg'):,}",
        f"{100 * by_batch / max(1, received):.2f} %",
        f"{derived['datagrams_per_receive_call'] or 0:.2f}",
    ]


def _has_classical(results: Iterable[Result]) -> bool:
    return any(result.target.server == "classical" for result in results)


def _origin_section() -> str:
    return f"origin {human_bytes(ORIGIN_SIZES[0])}"


def _derived(run: Run) -> dict[str, Any]:
    assert run.trace is not None
    derived: dict[str, Any] = run.trace["derived"]
    return derived


def _calls(run: Run, name: str) -> int:
    assert run.trace is not None
    return int(run.trace["calls"].get(name, {"calls": 0})["calls"])


def _change(new: float, old: float) -> str:
    return f"{100 * (new / old - 1):+.1f} %".replace("-", "−") if old else ""


def _markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
