"""Good clients beside an attacker: what 50 machines that boot in lock-step feel while somebody misuses their server.

    python benchmarks/noisy.py [--seconds 6] [--turns 1] [ATTACK ...]

Each attack gets a server of its own. The good clients are measured alone, beside an attacker who sends the same to a
socket that nobody reads (control: what his own work takes from the cores that all share), under attack, and alone
again; then the server is ended by SIGTERM. Every byte they get is compared. Each client reads 64 blocks of 512 bytes,
waits, and reads again, so that a delay of the server's shows in their time. On a machine that others use, measure in
turns: of each kind the run with the middle p99 counts.
Where an attack needs a file system that hangs it runs in a mount namespace of its own (root, or a user namespace).

Exit status 1: a good client failed, the server did not end in time, or p99 was above 1.5 times that of the clients
alone and more than `SLACK_S` above it (what two cores that also run the attacker cannot tell apart). The ratio to the
control is told beside it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the file system that falls ill is the tests' own

from tests.support.attacks import ATTACKS, Attack
from tests.support.fuse import Fuse

from snow_owl_tftp.bench.load import Load, quantile

HOME = Path(__file__).resolve().parent.parent
CLIENTS = 50
BLOCKS = 64
PAUSE_S = 0.1
"""500 transfers a second: about a tenth of one worker."""
SETTLE_S = 1.0
MAX_RATIO = 1.5
SLACK_S = 0.005
DRAIN_S = 2
MAX_END_S = DRAIN_S + 2
CONTENT = random.Random(1).randbytes(BLOCKS * 512 - 1)
LOCK_STEP = {"blksize_bytes": 512, "windowsize_blocks": 1, "client_timeout_s": 1.0}
SICK_FILES = {str(number): b"never" * 1000 for number in range(400)}
NAMESPACE = "SNOW_OWL_NOISY_NAMESPACE"
PHASES = ("before", "control", "during", "after")
SINK = """
import signal, socket
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    signal.pause()
"""
"""A process to attack that does nothing: what its socket has no room for the kernel drops."""


class PacedLoad(Load):
    """Good clients that wait between two transfers."""

    def measure(self, seconds: float) -> dict[str, float]:
        """Returns the figures of what ended within `seconds`; whoever did not end is waited for, and counts."""
        end_s = time.monotonic() + seconds
        # Their beginnings are spread over a pause, else they would come as one storm again and again.
        due_s = sorted(time.monotonic() + PAUSE_S * number / CLIENTS for number in range(CLIENTS))
        took_s, problems = [], []
        while due_s or self._running:
            now_s = time.monotonic()
            while due_s and due_s[0] <= now_s:
                due_s.pop(0)
                if now_s < end_s:
                    self._ask()
            if now_s > end_s + 20:
                problems += ["not ended"] * len(self._running)
                break
            for completion in self._completions(max(0.0, due_s[0] - now_s) if due_s else 0.2):
                due_s.append(time.monotonic() + PAUSE_S)
                problem = self._problem(completion)
                problems += [problem] if problem else []
                took_s += [] if problem else [completion.duration_ns / 1e9]
        took_s.sort()
        p50_s, p99_s, max_s = (quantile(took_s, share) or 0.0 for share in (0.5, 0.99, 1.0))
        for problem in sorted(set(problems)):
            print(f"    {problems.count(problem)} x {problem}", file=sys.stderr)
        return {"transfers": len(took_s), "failed": len(problems), "p50_s": p50_s, "p99_s": p99_s, "max_s": max_s}


@contextmanager
def serve(attack: Attack, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yields the server and its port; ends it, if that has not been done."""
    config = folder / "config.toml"
    config.write_text(f"drain_timeout_s = {DRAIN_S}\n" + attack.config)
    command = [sys.executable, "-m", "snow_owl_tftp", "serve", str(folder / "root")]
    command += ["--bind", "127.0.0.1:0", "--config", str(config)]
    with (folder / "log").open("wb") as log:
        stderr = subprocess.PIPE if attack.is_log_stuck else log
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, preexec_fn=attack.limit)
    try:
        yield server, int(server.stdout.readline().rpartition(b":")[2])
    finally:
        server.kill()
        server.wait()


@contextmanager
def attacked(name: str, port: int, pid: int, folder: Path) -> Iterator[list[float]]:
    """Runs an attack in a process of its own; afterwards the list holds how many a second there were."""
    command = [sys.executable, "-m", "tests.support.attacks", name, str(port), str(pid), str(folder)]
    rates: list[float] = []
    with subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            time.sleep(SETTLE_S)
            yield rates
            attacker.terminate()
            done, seconds = attacker.communicate(timeout=10)[0].split()
            rates.append(int(done) / float(seconds))
        finally:
            attacker.kill()


@contextmanager
def sink() -> Iterator[tuple[int, int]]:
    """Yields the port and the process id of somebody to attack who does not mind."""
    with subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def seconds_to_end(server: subprocess.Popen[bytes]) -> float | None:
    """By SIGTERM; None: it had to be killed."""
    began_s = time.monotonic()
    server.terminate()
    try:
        server.wait(MAX_END_S + 10)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - began_s


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """The run with the middle p99, with the failures of all."""
    chosen = sorted(runs, key=lambda one: one["p99_s"])[len(runs) // 2]
    return {**chosen, "failed": sum(one["failed"] for one in runs)}


def run(name: str, seconds: float, turns: int) -> dict[str, Any]:
    """Measures one attack."""
    attack = ATTACKS[name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "root" / "sick").mkdir(parents=True)
        (folder / "root" / "good").write_bytes(CONTENT)
        attack.prepare(folder)
        sick = stack.enter_context(Fuse(folder / "root" / "sick", SICK_FILES)) if attack.ill else None
        server, port = stack.enter_context(serve(attack, folder))
        if sick:
            stack.callback(sick.go_on)  # else nobody can end what hangs, SIGKILL included
        load = PacedLoad("127.0.0.1", port, "good", CONTENT, clients=CLIENTS, **LOCK_STEP)
        stack.callback(load.close)
        load.learn(5)
        measured: dict[str, list[dict[str, float]]] = {phase: [] for phase in PHASES}
        for turn in range(turns):
            measured["before"].append(load.measure(seconds))
            with sink() as (sink_port, sink_pid), attacked(name, sink_port, sink_pid, folder):
                measured["control"].append(load.measure(seconds))
            if sick and turn == 0:
                sick.hang(*attack.ill)
            with attacked(name, port, server.pid, folder) as rates:
                measured["during"].append(load.measure(seconds))
            measured["after"].append(load.measure(seconds))
        figures: dict[str, Any] = {phase: middle(runs) for phase, runs in measured.items()}
        return {"attack": name, **figures, "rate": rates[0], "ended_after_s": seconds_to_end(server)}


def missed(result: dict[str, Any]) -> list[str]:
    """Which bars it misses, in words."""
    alone_s = max(result[when]["p99_s"] for when in ("before", "after"))
    under_s = result["during"]["p99_s"]
    problems = [f"{n} failed {when}" for when in PHASES if (n := result[when]["failed"])]
    if under_s > MAX_RATIO * alone_s and under_s > alone_s + SLACK_S:
        problems.append(f"p99 {under_s / alone_s:.1f} x, {under_s / result['control']['p99_s']:.1f} x the control")
    if result["ended_after_s"] is None:
        problems.append("does not end")
    elif result["ended_after_s"] > MAX_END_S:
        problems.append(f"ended after {result['ended_after_s']:.1f} s")
    return problems


def row(result: dict[str, Any]) -> str:
    times = "".join(f"{result[when]['p99_s'] * 1e3:10.1f}" for when in PHASES)
    worst_ms, rate = result["during"]["max_s"] * 1e3, result["rate"]
    return f"{result['attack']:22}{rate:9.0f}{times}{worst_ms:10.1f}   {', '.join(missed(result)) or 'holds'}"


def enter_namespace() -> None:
    """Start anew where file systems may be mounted."""
    if os.environ.get(NAMESPACE) == "1":
        return
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    os.environ[NAMESPACE] = "1"
    os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; default: all")
    parser.add_argument("--seconds", type=float, default=6, help="for each of the four measurements")
    parser.add_argument("--turns", type=int, default=1, help="how often each is measured")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    asked = parser.parse_args()
    if unknown := set(asked.attacks) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    if any(ATTACKS[name].ill for name in asked.attacks or ATTACKS):
        enter_namespace()
    print(f"{'p99, ms':22}{'rate/s':>9}{'alone':>10}{'control':>10}{'attacked':>10}{'after':>10}{'worst':>10}")
    results = []
    for name in asked.attacks or ATTACKS:
        results.append(run(name, asked.seconds, asked.turns))
        print(row(results[-1]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))
    sys.exit(any(missed(result) for result in results))


if __name__ == "__main__":
    main()
