"""From runs to rows and tables.

May know: Run. Must not start anything. Invariant: a row in which any run has a problem has no figure at all.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from measuring.loads import LOADS
from measuring.runs import Run
from measuring.servers import LIMIT, OURS

TABLES = {
    "cpu_us_per_block": "Server CPU in µs per DATA block (lower is better)",
    "blocks_per_s": "DATA blocks per second (higher is better)",
    "p99_s": "p99 of a transfer's time in ms (lower is better)",
}
_MEDIANS = (*TABLES, "mb_per_s", "p50_s", "max_s", "wall_s", "cpu_s", "load_cpu_s", "memory_mb")
_MOSTS = ("steal_share", "others_cores", "timeouts", "gaps", "duplicates", "lost")

Row = dict[str, Any]


def row_of(runs: Sequence[Run]) -> Row:
    """Medians and spread of the rounds of one server under one load."""
    row: Row = {"load": runs[0].load, "server": runs[0].server, "rounds": len(runs)}
    if problems := [run.problem for run in runs if run.problem]:
        return row | {"problem": problems[0], "rounds_with_problems": len(problems)}
    for key in _MEDIANS:
        values = [run.figures[key] for run in runs]
        row[key] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    for key in _MOSTS:
        row[f"most_{key}"] = max((run.figures[key] for run in runs if run.figures[key] is not None), default=None)
    row["granted"] = {key: min(run.figures[key] for run in runs) for key in ("blksize", "windowsize")}
    return row


def cell(row: Row | None, key: str) -> str:
    """One figure with its spread, or why there is none."""
    if row is None:
        return "–"
    if "problem" in row:
        return row["problem"]
    factor, digits = (1e3, "{:,.1f}") if key == "p99_s" else (1, "{:,.0f}" if key == "blocks_per_s" else "{:.2f}")
    median, least, most = (digits.format(row[key][part] * factor) for part in ("median", "least", "most"))
    spread = f" ({least}–{most})" if row["rounds"] > 1 else ""
    load = LOADS[row["load"]]
    asked = {"blksize": load.blksize, "windowsize": load.windowsize}
    lowered = "".join(f", {name} {value}" for name, value in row["granted"].items() if value != asked[name])
    return f"{median}{spread}{lowered}"


def ratio(ours: Row | None, limit: Row | None) -> str:
    """Medians, ours over that of `limit`; below 1 ours costs less."""
    if ours is None or limit is None or "problem" in ours or "problem" in limit:
        return "–"
    return f"{ours['cpu_us_per_block']['median'] / limit['cpu_us_per_block']['median']:.2f} x"


def table(rows: Sequence[Row], key: str) -> str:
    """Markdown: a line for each load, a column for each server."""
    servers = list(dict.fromkeys(row["server"] for row in rows))
    by_place = {(row["load"], row["server"]): row for row in rows}
    has_ratio = key == "cpu_us_per_block" and {LIMIT, OURS} <= set(servers)
    heads = ["load", *servers, *(["ours / limit"] if has_ratio else [])]
    lines = [f"{TABLES[key]}: median of the rounds (least–most)", "", f"| {' | '.join(heads)} |"]
    lines.append("| --- " * len(heads) + "|")
    for name in dict.fromkeys(row["load"] for row in rows):
        cells = [cell(by_place.get((name, server)), key) for server in servers]
        cells += [ratio(by_place.get((name, OURS)), by_place.get((name, LIMIT)))] if has_ratio else []
        lines.append(f"| {name}: {LOADS[name].words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def caution(rows: Sequence[Row]) -> str:
    """How quiet the machine was: what nobody asked for took so much of it, at worst."""
    steal = max((row.get("most_steal_share") or 0.0 for row in rows), default=0.0)
    others = max((row.get("most_others_cores") or 0.0 for row in rows), default=0.0)
    return f"At worst, others used {others:.2f} cores during a run, and the hypervisor took {steal:.0%} of a core."
