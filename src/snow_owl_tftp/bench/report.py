"""report.md and results.json out of what was run.

May know: results and how to write Markdown. Must not run anything; pictures are made elsewhere.
Invariants: a run that is not valid appears with its reason and without a speed; every figure of several rounds is
the median of its own, and all rounds are in results.json; nothing is said about system calls that were not counted.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from snow_owl_tftp.bench.figures import Figure, Rounds, figures_of, sections
from snow_owl_tftp.bench.markdown import NOT_MEASURED, number, percent, table
from snow_owl_tftp.bench.provenance import Setting
from snow_owl_tftp.bench.recvmmsg import PREFIX, classical_page, derived, earlier_table, per_block
from snow_owl_tftp.bench.runs import Run
from snow_owl_tftp.bench.sweeps import Result
from snow_owl_tftp.observe.trace.script import CALLS

__all__ = ["calls_of_kind_per_block", "write"]

_TIMED: Final = ("granted", "blocks/s", "lowest – highest", "MB/s", "CPU µs/block", "load CPU µs/block")
_TIMED_LATENCY: Final = ("p50 ms", "p99 ms", "max ms", "repeated")
_TRACED: Final = ("receive calls/block", "send calls/block", "wait calls/block", "read calls/block")
_TRACED_SHARES: Final = ("datagrams/receive call", "efficiency", "empty")


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
    parts = [_heading(setting, results, notes)]
    grouped = sections(results)
    for section, of_section in grouped.items():
        if section == "clients":
            parts.append(_clients_table(of_section))
        else:
            parts.append(f"## {_title(section, of_section)}\n\n{_table(of_section)}")
    parts += [page] if (page := classical_page(grouped)) else []
    parts += [f"![{name}]({name})" for name in pictures]
    # The last word: this is what the benchmark was asked for.
    parts += [earlier_table(results) for section, results in grouped.items() if section.startswith(PREFIX)]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")


def calls_of_kind_per_block(run: Run, kind: str) -> float | None:
    """System calls of one kind (receive, send, wait, read) by the blocks that the clients got."""
    if run.trace is None:
        return None
    counted = run.trace["calls"]
    made = sum(counted[call.name]["calls"] for call in CALLS if call.kind == kind and call.name in counted)
    return run.per_block(made)


def _heading(setting: Setting, results: Sequence[Result], notes: str) -> str:
    commit = f" ({setting['commit']})" if setting["commit"] else ""
    facts = [
        f"snow-owl-tftp {setting['version']}{commit}, Python {setting['python']}, Linux {setting['kernel']}.",
        f"{setting['cpu']}, {setting['cores']} cores; {setting['pinned']}; {_cpu_account(setting)}.",
        f"Made on {setting['date']} by `{' '.join(['snow-owl-tftp bench', *setting['arguments']])}`.",
    ]
    if setting["peers"]:
        facts.append(f"Peers: {'; '.join(f'{name}: {said}' for name, said in setting['peers'].items())}.")
    facts.append("Every byte of every transfer was compared. Each figure is the median of its own over the rounds.")
    if any(result.run.trace is not None for result in results):
        facts.append("System calls were counted by eBPF in runs of their own.")
    if any(result.run.load.get("cut_off") for result in results):
        facts.append("Transfers that ran when a run's time was over were cut off: their blocks count, no latency does.")
    return f"# Benchmark\n\n{' '.join(facts)}" + (f"\n\n{notes}" if notes else "")


def _cpu_account(setting: Setting) -> str:
    how = setting["cpu_counted_by"]
    return f"server CPU by {how}" if how else f"server CPU {NOT_MEASURED}"


def _title(section: str, results: Sequence[Result]) -> str:
    titles = {"main": "Servers", "linger": "batch_timeout_us"}
    return f"{titles.get(section, section)}: {results[0].run.workload.text}"


def _table(results: Sequence[Result]) -> str:
    names = dict.fromkeys(result.target.name for result in results)
    with_calls = any(result.run.is_traced for result in results)
    headers = ["server", *_TIMED, *_TIMED_LATENCY, *((*_TRACED, *_TRACED_SHARES) if with_calls else ())]
    rows = []
    for name in names:
        timed, traced = figures_of(results, name)
        rows.append([name, *_timed_cells(timed), *(_traced_cells(traced) if with_calls else [])])
    return table(headers, rows)


def _timed_cells(rounds: Rounds | None) -> list[str]:
    empty = [""] * (len(_TIMED) + len(_TIMED_LATENCY))
    if rounds is None:
        return empty
    if rounds.failed is not None:
        return [f"**no figure**: {rounds.failed.reason}", *empty[1:]]
    lowest, highest = rounds.spread(lambda run: run.blocks_per_s) or (None, None)
    return [
        _granted(rounds.first),
        f"{number(rounds.median(lambda run: run.blocks_per_s), ',.0f')}{_marks(rounds)}",
        f"{number(lowest, ',.0f')} – {number(highest, ',.0f')}",
        number(rounds.median(lambda run: run.mb_per_s), ",.1f"),
        number(rounds.median(lambda run: run.cpu_us_per_block), ".2f", missing=NOT_MEASURED),
        number(rounds.median(lambda run: run.load_cpu_us_per_block), ".2f", missing=NOT_MEASURED)
        + (" (limit of the load)" if any(run.is_load_bound for run in rounds.runs) else ""),
        *(number(rounds.median(_of_load(key)), ".1f", 1e3) for key in ("p50_s", "p99_s", "max_s")),
        _repeated(rounds),
    ]


def _granted(run: Run) -> str:
    granted = run.load.get("granted")
    return f"{granted['blksize_bytes']} B × {granted['windowsize_blocks']}" if granted else ""


def _marks(rounds: Rounds) -> str:
    marks = " (limit of the relay)" if any(run.is_relay_bound for run in rounds.runs) else ""
    stolen = max(run.steal_share or 0.0 for run in rounds.runs)
    return marks + (f" ({100 * stolen:.0f} % stolen)" if any(run.is_stolen for run in rounds.runs) else "")


def _repeated(rounds: Rounds) -> str:
    """Behind a relay that has seen it, what the server sent again; else what reached a client twice."""
    acks = number(rounds.median(_of_load("client_retransmits")), ",.0f")
    if all(run.relay is not None for run in rounds.runs):
        data = number(
            rounds.median(lambda run: (run.relay or {}).get("repeated_by_server")), ",.0f", missing=NOT_MEASURED
        )
        return f"{data} DATA by the server, {acks} ACKs by clients"
    twice = number(rounds.median(_of_load("duplicates_received")), ",.0f")
    return f"{twice} DATA arrived twice, {acks} ACKs by clients"


def _of_load(key: str) -> Figure:
    return lambda run: run.load[key]


def _traced_cells(rounds: Rounds | None) -> list[str]:
    empty = [""] * (len(_TRACED) + len(_TRACED_SHARES))
    if rounds is None:
        return empty
    if rounds.failed is not None:
        return [f"**not counted**: {rounds.failed.reason}", *empty[1:]]
    return [
        number(rounds.median(lambda run: per_block(run, "receive_calls")), ".4f"),
        number(rounds.median(lambda run: per_block(run, "send_calls")), ".4f"),
        number(rounds.median(lambda run: calls_of_kind_per_block(run, "wait")), ".4f"),
        number(rounds.median(lambda run: calls_of_kind_per_block(run, "read")), ".4f"),
        number(rounds.median(lambda run: derived(run, "datagrams_per_receive_call")), ".2f"),
        percent(rounds.median(lambda run: derived(run, "batch_efficiency")), ".2f"),
        percent(rounds.median(lambda run: derived(run, "empty_receive_share")), ".2f"),
    ]


def _clients_table(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(result.target.name for result in results))
    counts = list(dict.fromkeys(result.run.workload.clients for result in results))
    rows = []
    for clients in counts:
        here = [result for result in results if result.run.workload.clients == clients]
        rows.append([str(clients), *(_speed(figures_of(here, name)[0]) for name in names)])
    return f"## Blocks/s against clients\n\n{table(['clients', *names], rows)}"


def _speed(rounds: Rounds | None) -> str:
    if rounds is None:
        return ""
    if rounds.failed is not None:
        return f"no figure: {rounds.failed.reason}"
    return f"{number(rounds.median(lambda run: run.blocks_per_s), ',.0f')}{_marks(rounds)}"
