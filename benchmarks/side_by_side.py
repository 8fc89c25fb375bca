"""This server beside a program that makes the same system calls and nothing else (`limit`), and beside other servers.

    python benchmarks/side_by_side.py [--loads NAME ...] [--rounds 3] [--peers] [--server 'NAME=COMMAND' ...]

Compiles limit.c and load.c, starts each server on one core and the load on another (where there are two), counts the
CPU time of all the server's threads and children, and compares every byte. Servers take turns, round by round. Prints
Markdown: medians, and in brackets the least and the most. A load under which a server failed once, or brought one wrong
byte, has no figure but the reason. All traffic stays on loopback.

`--server` adds one more, any number of times: a command in the foreground with {root} and {port} in it, which listens
on 127.0.0.1 and, for uploads, lets anybody write below {root}/up.

Exit status: 0; 1, if any run has no figure; 2, if nothing could be measured.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from measuring import servers
from measuring.figures import TABLES, Row, caution, row_of, table
from measuring.loads import LOADS
from measuring.runs import Bench, Run

from snow_owl_tftp.bench.provenance import machine, without_paths


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS), metavar="NAME", help=", ".join(LOADS))
    parser.add_argument("--rounds", type=int, default=3, help="1..100; default: %(default)s")
    peers = f"{', '.join(servers.PEERS)}; none named: all that are installed"
    parser.add_argument("--peers", nargs="*", choices=servers.PEERS, metavar="NAME", help=peers)
    parser.add_argument(
        "--server", action="append", default=[], metavar="'NAME=COMMAND'", help="with {root} and {port}"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of all the servers; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the transfers; 0.001..100")
    parser.add_argument("--max-s", type=float, default=60, help="for one run, 0.1..600; default: %(default)s")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    asked = parser.parse_args(arguments)
    for name, least, most in (("rounds", 1, 100), ("scale", 0.001, 100), ("max_s", 0.1, 600)):
        if not least <= getattr(asked, name) <= most:
            parser.error(f"--{name.replace('_', '-')} must be {least}..{most}")
    try:
        asked.server = [servers.other(text) for text in asked.server]
    except ValueError as error:
        parser.error(str(error))
    return asked


def compared(asked: argparse.Namespace, limit: Path) -> list[servers.Server]:
    """All that take part; a peer that cannot is told of."""
    chosen = [servers.limit(limit), servers.Server(servers.OURS, servers.ours)]
    for name in [] if asked.peers is None else asked.peers or servers.PEERS:
        if reason := servers.why_no_peer(name):
            print(f"{name} is left out: {reason}", file=sys.stderr)
        else:
            chosen.append(servers.peer(name))
    chosen += asked.server
    names = [server.name for server in chosen]
    if wrong := [name for name in asked.only or () if name not in names] + [n for n in names if names.count(n) > 1]:
        raise SystemExit(f"no such server, or two of that name: {wrong[0]}")
    return [server for server in chosen if not asked.only or server.name in asked.only]


def tell(run: Run) -> None:
    said = run.problem
    if not said:
        figures = run.figures
        said = f"{figures['cpu_us_per_block']:8.3f} µs/block {figures['blocks_per_s']:11,.0f} blocks/s"
        said += f"  p99 {figures['p99_s'] * 1e3:7.1f} ms  {figures['memory_mb']:4.0f} MB"
        said += f"  others {figures['others_cores']:.2f} cores"
    print(f"{run.load:13}{run.server:16}{said}", file=sys.stderr, flush=True)


def measure(bench: Bench, chosen: Sequence[servers.Server], name: str, rounds: int) -> list[Run]:
    """One load: rounds in which the servers take turns, each time another first."""
    taking = [server for server in chosen if not server.lacks & LOADS[name].needs]
    runs = []
    for number in range(rounds):
        first = number % max(1, len(taking))
        for server in taking[first:] + taking[:first]:
            runs.append(bench.run(server, name, seed=number + 1))
            tell(runs[-1])
    return runs


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """One for each load and server, in the order of the first round."""
    places = dict.fromkeys((run.load, run.server) for run in runs)
    return [row_of([run for run in runs if (run.load, run.server) == place]) for place in places]


def setting(bench: Bench, chosen: Sequence[servers.Server], arguments: Sequence[str]) -> dict[str, object]:
    """What figures depend on, without a host's name or a path."""
    peers = [server.name for server in chosen if server.name in servers.PEERS]
    return {
        "command": without_paths(shlex.join(["python", "benchmarks/side_by_side.py", *arguments])),
        "machine": machine(bench.server_core, bench.load_core, bench.counted_by, servers=peers),
        "files": "in memory (tmpfs)" if bench.is_in_memory else "on a disk",
        "servers": {server.name: without_paths(servers.template(server)) for server in chosen},
    }


def main(arguments: Sequence[str]) -> int:
    asked = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers end and files go
    try:
        bench = Bench(asked.scale, asked.max_s)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the programs in C cannot be built: {error}", file=sys.stderr)
        return 2
    chosen = compared(asked, bench.programs["limit"])
    with bench:
        runs = [run for name in asked.loads for run in measure(bench, chosen, name, asked.rounds)]
        said = setting(bench, chosen, arguments)
    rows = rows_of(runs)
    if asked.json:
        said |= {"loads": {name: asdict(LOADS[name]) for name in asked.loads}, "rows": rows}
        asked.json.write_text(json.dumps(said | {"runs": [asdict(run) for run in runs]}, indent=1) + "\n")
    for key in TABLES:
        print(table(rows, key), end="\n\n")
    print(caution(rows))
    if not any("problem" not in row for row in rows):
        return 2
    return int(any("problem" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
