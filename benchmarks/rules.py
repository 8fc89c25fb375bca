"""What a whole configuration costs: 1,000 rules, 200 rewrites, 10,000 machines and 50 templates, and none of them.

    python benchmarks/rules.py [--rounds 5] [--scale 1] [--inventory toml] [--keep FOLDER]

Four servers take turns under the load `tiny` of side_by_side.py: without and with these, each with flows and without.
Then each is started a few times, from the command to the line that it listens. Prints one JSON object: medians, in
brackets the least and the most, and the three figures that matter. All traffic stays on loopback; all clients are
of one prefix among the rules, and of no rule that looks at the single machine for this name.

Exit status: 0; 1, if a run has no figure.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring.runs import Bench, Run
from measuring.servers import Server, Where, free_port

from snow_owl_tftp.bench.provenance import machine

RULES, REWRITES, MACHINES, TEMPLATES = 1000, 200, 10_000, 50
STARTS = 7
GROUPS = ("cnc", "switches", "phones", "hosts", "")
Table = dict[str, object]


def mac_of(number: int) -> str:
    return f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def rules() -> list[Table]:
    """Of each kind some: what one network gets, what one machine and a group get below some names, what nobody gets."""
    made: list[Table] = []
    for number in range(RULES - 1):
        network = f"10.{number // 250}.{number % 250}.0/24"
        made.append(
            (
                {"clients": [network], "allow": ["read"], "roots": ["."]},
                {"clients": [network], "options": {"max_blksize_bytes": 1024}},
                {"macs": [mac_of(number)], "paths": ["pxelinux.cfg/**"], "roots": ["."]},
                {"groups": [GROUPS[number % 4]], "paths": [f"hosts{number}/**"]},
                {"paths": [f"secret{number}/**"], "allow": []},
            )[number % 5]
        )
    random.Random(14).shuffle(made)
    return [*made, {"clients": ["127.0.0.0/8"], "allow": ["read"], "roots": ["."]}]


def rewrites() -> list[Table]:
    def one(at: int) -> Table:
        return (
            {"pattern": rf"^/?vendor{at}/(.*)\.bin$", "replacement": r"firmware/v/\1.img"},
            {"pattern": rf"^(boot|boot64)-{at}/(.+)$", "replacement": r"\2", "last": True},
            {"pattern": rf"\\x{at}", "replacement": "/x", "ignore_case": True, "every": True},
            {"pattern": rf"^ok{at}/(.*\.(efi|cfg))$", "replacement": r"ok/\1"},
        )[at % 4]

    return [one(at) for at in range(REWRITES)]


def templates() -> list[Table]:
    return [{"match": f"hosts{at}/{{name}}/01-{{mac_dashes}}.cfg", "template": "pxe.j2"} for at in range(TEMPLATES)]


def machines() -> list[Table]:
    """Every second has an address, one in five no group."""
    made: list[Table] = []
    for number in range(MACHINES):
        entry: Table = {"mac": mac_of(number), "name": f"node{number}", "vars": {"release": "13", "rack": number % 40}}
        if number % 2:
            entry["address"] = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        if group := GROUPS[number % 5]:
            entry["group"] = group
        made.append(entry)
    return made


def toml(tables: Sequence[Table], name: str) -> str:
    """Inline tables where they nest; JSON's texts, lists and numbers are TOML's."""

    def of(value: object) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {of(one)}" for key, one in value.items()) + " }"
        return json.dumps(value)

    lines = [f"[[{name}]]\n" + "".join(f"{key} = {of(value)}\n" for key, value in table.items()) for table in tables]
    return "\n".join(lines)


def write(folder: Path, inventory: str) -> dict[str, Path]:
    """Write the configurations; returns them by the name of the server."""
    listed = machines()
    known = folder / f"machines.{inventory}"
    known.write_text(toml(listed, "machine") if inventory == "toml" else json.dumps({"machine": listed}))
    (folder / "pxe.j2").write_text("DEFAULT {{ machine.name or mac_dashes }}\n")
    whole = f'template_dir = "{folder}"\n[machines]\ninventory = "{known}"\n'
    for tables, name in ((rules(), "rules"), (rewrites(), "rewrite"), (templates(), "templates")):
        whole += toml(tables, name)
    paths = {}
    for name, text in (("without", ""), ("with", whole)):
        for ending, flows in (("", "true"), ("-noflows", "false")):
            path = folder / f"{name}{ending}.toml"
            path.write_text(text + f"\n[performance.platform.batch]\nenable_flows = {flows}\n")
            paths[name + ending] = path
    return paths


def server_of(name: str, config: Path) -> Server:
    def command(where: Where) -> list[str]:
        said = [str(where.root), "--config", str(config), "--bind", f"{where.host}:{where.port}"]
        return [sys.executable, "-m", "snow_owl_tftp", "serve", *said, "--log-level", "warning"]

    return Server(name, command)


def start_s(command: Sequence[str]) -> float:
    """From the command to the line that it listens."""
    began_s = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        line = process.stdout.readline()
        took_s = time.monotonic() - began_s
        process.terminate()
    if b"listening" not in line:
        raise SystemExit("a server did not start")
    return took_s


def starts(chosen: Sequence[Server], root: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {server.name: [] for server in chosen}
    for _ in range(STARTS):
        for server in chosen:
            where = Where(root, "127.0.0.1", free_port(), root, is_upload=False)
            found[server.name].append(start_s(server.command(where)))
    return found


def told(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def compared(runs: Sequence[Run], of: str, to: str, value: Callable[[Run], float]) -> list[float]:
    """Round by round, since a busy machine changes from one to the next."""
    found = {name: {run.seed: value(run) for run in runs if run.server == name} for name in (of, to)}
    return [found[of][seed] / found[to][seed] for seed in found[of]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the transfers")
    parser.add_argument("--inventory", choices=("toml", "json"), default="toml")
    parser.add_argument("--keep", type=Path, help="write the configurations here, for other instruments")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rules-") as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = [server_of(name, path) for name, path in write(folder.absolute(), asked.inventory).items()]
        with Bench(asked.scale, 120) as bench:
            runs = []
            for number in range(1, asked.rounds + 1):
                first = number % len(chosen)
                runs += [bench.run(server, "tiny", seed=number) for server in chosen[first:] + chosen[:first]]
            said = machine(bench.server_core, bench.load_core, bench.counted_by, servers=[])
        root = Path(scratch) / "root"
        root.mkdir()
        cold = starts([server for server in chosen if "-" not in server.name], root)
    if problems := [f"{run.server}: {run.problem}" for run in runs if run.problem]:
        print("\n".join(problems), file=sys.stderr)
        return 1
    of = {server.name: [run.figures for run in runs if run.server == server.name] for server in chosen}
    figures = {
        "machine": said,
        "others_cores": told([run.figures["others_cores"] for run in runs]),
        "requests_per_s": {name: told([one["blocks_per_s"] for one in found], 0) for name, found in of.items()},
        "cpu_us_per_request": {name: told([one["cpu_us_per_block"] for one in found]) for name, found in of.items()},
        "start_s": {name: told(values) for name, values in cold.items()},
        "with/without, flows, requests_per_s": told(
            compared(runs, "with", "without", lambda run: run.figures["blocks_per_s"])
        ),
        "with/without, Python decides, cpu": told(
            compared(runs, "with-noflows", "without-noflows", lambda run: run.figures["cpu_us_per_block"])
        ),
    }
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
