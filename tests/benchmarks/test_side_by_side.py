"""`benchmarks/side_by_side.py`: what it prints can be believed, and what cannot be believed it does not print."""

import importlib
import json
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent.parent
BENCHMARKS = HOME / "benchmarks"
FAULTY_SERVER = HOME / "tests/support/faulty_server.py"
FIGURES = {"cpu_us_per_block", "blocks_per_s", "p99_s", "mb_per_s", "cpu_s", "wall_s"}


@pytest.fixture
def measuring(monkeypatch):
    """The modules of the script, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"measuring.{name}")


def side_by_side(tmp_path, *arguments, faulty=()):
    """Runs the script under the smallest load; returns its end, and what it wrote about each server."""
    command = [sys.executable, str(BENCHMARKS / "side_by_side.py"), "--json", str(tmp_path / "figures.json")]
    command += ["--loads", "tiny", "--scale", "0.01", "--rounds", "1", *arguments]
    for mode in faulty:
        words = shlex.join([sys.executable, str(FAULTY_SERVER)])
        command += ["--server", f"{mode}={words} {{root}} {{port}} {mode}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (tmp_path / "figures.json").exists(), done.stderr
    written = json.loads((tmp_path / "figures.json").read_text())
    return done, {row["server"]: row for row in written["rows"]}, {run["server"]: run for run in written["runs"]}


@pytest.mark.parametrize("program", ["limit", "load"])
def test_compiles_without_warnings(program, measuring, tmp_path):
    runs = measuring("runs")
    sources = [str(BENCHMARKS / source) for source in runs.SOURCES[program]]
    command = ["gcc", *runs.CFLAGS, "-Wshadow", "-Werror", "-o", str(tmp_path / program), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_honest_servers_have_figures(tmp_path):
    done, rows, runs = side_by_side(
        tmp_path, "--only", "limit", "snow-owl-tftp", "good", "--rounds", "2", faulty=["good"]
    )
    assert done.returncode == 0, done.stderr
    assert set(rows) == {"limit", "snow-owl-tftp", "good"}
    for server, row in rows.items():
        assert row["rounds"] == 2
        cpu = row["cpu_us_per_block"]
        assert 0 < cpu["least"] <= cpu["median"] <= cpu["most"], server
        assert runs[server]["counts"]["blocks"] == 200
        assert f"{cpu['median']:.2f} ({cpu['least']:.2f}–{cpu['most']:.2f})" in done.stdout


def test_figures_name_the_code_and_the_machine_but_no_host_and_no_path(tmp_path):
    side_by_side(tmp_path, "--only", "limit")
    text = (tmp_path / "figures.json").read_text()
    written = json.loads(text)
    assert {"commit", "cpu", "cores", "kernel", "pinned", "cpu_counted_by"} <= set(written["machine"])
    assert written["command"].startswith("python benchmarks/side_by_side.py")
    assert written["servers"] == {"limit": "limit ROOT PORT"}
    for private in (str(tmp_path), str(HOME), f'"{socket.gethostname()}"'):
        assert private not in text


def test_wrong_bytes_are_told_and_have_no_figure(tmp_path):
    wrong = ["flip", "short", "long"]
    done, rows, runs = side_by_side(tmp_path, "--only", "limit", *wrong, faulty=wrong)
    assert done.returncode == 1
    for mode in wrong:
        assert rows[mode]["problem"] == "mismatch: 1 blocks are not the file's"
        assert not FIGURES & set(rows[mode])
        assert runs[mode]["figures"] == {}
        assert runs[mode]["counts"]["finished"] == 200, "all the other blocks were right"
    assert set(rows["limit"]) >= FIGURES, "a neighbour's fault is not its own"
    assert done.stdout.count("mismatch: 1 blocks are not the file's") == 3 * len(wrong), "in each of three tables"


def test_one_bad_round_of_two_takes_the_figure_away(measuring):
    run, row_of = measuring("runs").Run, measuring("figures").row_of
    bad = run("tiny", "x", 2, {"blocks": 200}, problem="1 of 200 transfers failed: no file")
    row = row_of([run("tiny", "x", 1, {"blocks": 200}, {"cpu_us_per_block": 1.0}), bad])
    assert row == {"load": "tiny", "server": "x", "rounds": 2, "problem": bad.problem, "rounds_with_problems": 1}
    assert measuring("figures").cell(row, "cpu_us_per_block") == bad.problem


def test_stalled_server_ends_in_time_as_a_failure(tmp_path):
    began_s = time.monotonic()
    done, rows, runs = side_by_side(tmp_path, "--only", "stall", "--max-s", "0.5", faulty=["stall"])
    assert time.monotonic() - began_s < 30, "half a second, and what a busy machine adds"
    assert done.returncode == 2, "nothing was measured"
    assert rows["stall"]["problem"] == "196 of 200 transfers did not end in 0.5 s"
    assert runs["stall"]["counts"]["finished"] == 4


def test_server_that_does_not_start_is_told(tmp_path):
    command = f"dead={sys.executable} -c \"raise SystemExit('no port for me')\" {{root}} {{port}}"
    done, rows, _ = side_by_side(tmp_path, "--server", command, "--only", "dead", "limit")
    assert done.returncode == 1
    assert rows["dead"]["problem"] == "did not start: no port for me"
    assert set(rows["limit"]) >= FIGURES


@pytest.mark.parametrize(("mode", "problem"), [("good", ""), ("flip", "1 of 12 stored files differ")])
def test_stored_uploads_are_compared(mode, problem, measuring, monkeypatch):
    runs, loads = measuring("runs"), measuring("loads")
    monkeypatch.setitem(loads.LOADS, "few", loads.Load("a few", 1100, 4, 12, is_upload=True))
    words = shlex.join([sys.executable, str(FAULTY_SERVER)])
    server = measuring("servers").other(f"{mode}={words} {{root}} {{port}} {mode}")
    with runs.Bench(scale=1, max_s=10) as bench:
        run = bench.run(server, "few", seed=1)
    assert run.problem == problem
    assert run.counts["finished"] == 12
    assert bool(run.figures) == (not problem)


@pytest.fixture
def limit(measuring, tmp_path):
    """The limit server on a file of 100 blocks; its port and the load generator's arguments for it."""
    programs = measuring("runs").build()
    content, log, port = tmp_path / "file", tmp_path / "log", measuring("servers").free_port()
    content.write_bytes(bytes(range(256)) * 200 + b"end")
    with log.open("wb") as said, subprocess.Popen([programs["limit"], tmp_path, str(port)], stderr=said) as server:
        try:
            measuring("servers").await_ready(server, ("127.0.0.1", port), log)
            yield [str(programs["load"]), "--port", str(port), "--content", str(content)]
        finally:
            server.kill()


def loaded(command, *arguments):
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=40, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("windowsize", [1, 16])
def test_load_gets_every_byte_through_losses_of_its_own(limit, windowsize):
    arguments = ["--clients", "4", "--transfers", "40", "--windowsize", str(windowsize), "--seed", "3"]
    arguments += ["--loss-percent", "3", "--timeout-s", "0.02", "--tries", "100", "--max-s", "20"]
    status, said = loaded(limit, *arguments)
    assert (status, said["finished"], said["mismatches"]) == (0, 40, 0)
    assert said["blocks"] == 40 * 101, "each counts once, however often it came"
    assert said["lost"] > 40 * 101 * 0.03 / 3, "3 % of at least all DATA"
    assert said["timeouts"] > 0


def test_load_delays_what_it_receives(limit):
    status, said = loaded(limit, "--clients", "1", "--blksize", "65464", "--delay-ms", "20")
    assert (status, said["blocks"]) == (0, 1)
    assert said["p50_s"] >= 2 * 0.02, "an OACK and a block"


def test_load_says_what_was_granted(limit):
    _, said = loaded(limit, "--clients", "1", "--blksize", "1000", "--windowsize", "7")
    assert (said["blksize"], said["windowsize"], said["blocks"]) == (1000, 7, 52)


def test_load_tells_the_first_error(limit):
    status, said = loaded(limit, "--file", "nowhere", "--clients", "3")
    assert (status, said["failed"], said["error"]) == (1, 3, "no file")


def test_load_leaves_loopback_alone(limit):
    done = subprocess.run([*limit, "--host", "192.0.2.1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "only servers within 127.0.0.0/8" in done.stderr


@pytest.mark.parametrize(
    "text", ["x", "x=serve {root}", "x=serve {port}", "a b=serve {root} {port}", "=s {root} {port}"]
)
def test_further_servers_must_say_where_root_and_port_go(text):
    command = [sys.executable, str(BENCHMARKS / "side_by_side.py"), "--server", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not NAME=COMMAND" in done.stderr
