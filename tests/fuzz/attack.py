"""A victim, the fuzzers that are set on it, the honest clients beside them, and the accounts afterwards.

    with Victim(root, tmp_path, workers=2, single_port=True) as victim:
        with honest_clients(victim), changing_files(victim.root):
            victim.fuzz(seed=1, count=10_000)
        victim.check_quiet()

May know: the victim's reports, the honest client, the counters' contract. Must not: know how the server works.
Invariants: what was started is ended; an honest client never accepts a wrong byte in silence.
"""

import contextlib
import json
import os
import random
import secrets
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.accounts import check_ended, check_requests
from tests.support.client import Client, Refused, Silence
from tests.support.namespaces import is_alone
from tests.support.server import wait_for

SOURCE = Path(__file__).with_name("fuzzer.c")
CONTENT = random.Random(7).randbytes(600_000)
HONEST = {"honest/small": 400, "honest/lockstep": 30_000, "honest/window": 300_000}
SIZES = {"empty": 0, "one": 1, "511": 511, "512": 512, "513": 513, "even": 14280, "text": 9000, "wraps": 600_000}
QUIET_S = 30.0
"""The longest expiry of the victim's settings is that of the last ACK, 7 s."""
GIVE_UP_S = 2
HONEST_S = 60.0
"""So long an honest client asks on, once a second: where a server hardly gets a core, the kernel drops most of a
flood, twenty in a row now and then."""
BROKEN = ("Sanitizer", "runtime error", "invariant broken", "Traceback", "internal error")
SETTINGS = {
    "tid_sockets": 8,
    "retransmit.initial_ms": 100,
    "retransmit.give_up_s": GIVE_UP_S,
    "retransmit.half_open_give_up_s": GIVE_UP_S,
    "write_config.enabled": True,
    "write_config.allowed_patterns": ("up/**",),
    "write_config.on_existing": "replace",
    "write_config.create_directories": True,
    "write_config.fsync": False,
    "max_file_size_bytes": 2_000_000,
    "performance.platform.file_io.source_linger_s": 1,
}


def compile_fuzzer(folder: Path) -> Path:
    program = folder / "fuzzer"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(program)], check=True)
    return program


def make_root(parent: Path) -> Path:
    root = parent / "root"
    for folder in ("honest", "up", "sub", "moving"):
        (root / folder).mkdir(parents=True)
    for name, size in (HONEST | SIZES).items():
        (root / name).write_bytes(CONTENT[:size])
    (root / "text").write_bytes(b"unix\nmac\rdos\r\n\0" * 600)
    (root / os.fsdecode(b"latin\xe4")).write_bytes(b"latin")
    (root / "link").symlink_to("sub")
    (root / "out").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    return root


NAMES = [
    *(name.encode() for name in SIZES),
    *[b"moving/0", b"moving/1", b"moving/2", b"missing", b"sub", b"link/none", b"out/passwd", b"fifo", b"latin\xe4"],
    *[b"../../etc/passwd", b"/empty", b"//512", b"..\\513", b"./one", b"sub/../511", b".hidden", b"empty/", b"C:\\one"],
    *[
        b"one\xff\xff",
        b"one\r",
        b"\x1b[31mred",
        b"%s%n",
        b"a" * 250,
        b"-" * 200 + b".cfg",
        b"a/" * 100,
        b"",
        b" ",
        b"up/",
    ],
]


def address_of_its_own() -> str:
    """Among 127.64.0.0/10. At 127.0.0.1 a server also hears what others on this machine still send to a client that had
    its port before it, and the datagrams that are accounted for would be too many by those.
    """
    return f"127.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


def dropped_before_sockets() -> int:
    """Datagrams that a CPU's queue of received packets had no room for: of the whole machine, since it started."""
    return sum(int(line.split()[1], 16) for line in Path("/proc/net/softnet_stat").read_text().splitlines())


@dataclass
class Victim:
    """A server under attack. `fuzzed`: datagrams that left for it."""

    root: Path
    folder: Path
    program: Path
    overrides: dict[str, Any]
    host: str = field(default_factory=address_of_its_own)
    ports: list[int] = field(default_factory=list)
    fuzzed: int = 0
    honest_said: list[int] = field(default_factory=list)
    honest_done: int = 0
    harm: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stderr = (self.folder / "victim.stderr").open("wb")
        self._dropped_before = dropped_before_sockets()
        settings = SETTINGS | {"bind_addr": f"{self.host}:0"} | self.overrides
        command = [sys.executable, "-m", "tests.fuzz.victim", str(self.root), json.dumps(settings)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, stderr=self._stderr, **pipes)  # type: ignore[call-overload]
        self.ports = json.loads(self._line())
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self._stderr):
            file.close()

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.ports[0]

    def said(self) -> str:
        """Everything that it wrote."""
        log = self.root.parent / f"{self.root.name}.log"
        text = (self.folder / "victim.stderr").read_text(errors="replace")
        return text + (log.read_text(errors="replace") if log.exists() else "")

    def _line(self) -> str:
        line = self.process.stdout.readline().decode()
        assert line, f"the server died with {self.process.wait(10)}: {self.said()[-20_000:]}"
        return line

    def report(self, command: str = "tell") -> dict[str, Any]:
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self._line())
        return report

    # ---- attacks

    def start_fuzzer(self, seed: int, count: int, longest_timeout_s: int = 1) -> "subprocess.Popen[bytes]":
        command = [
            str(self.program),
            str(seed),
            str(count),
            str(longest_timeout_s),
            "1",
            self.host,
            *map(str, self.ports),
        ]
        fuzzer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert fuzzer.stdin
        fuzzer.stdin.write(b"\n".join(NAMES) + b"\n")
        fuzzer.stdin.close()
        return fuzzer

    def end_fuzzer(self, fuzzer: "subprocess.Popen[bytes]") -> None:
        assert fuzzer.stdout
        out = fuzzer.stdout.read()
        fuzzer.stdout.close()
        assert fuzzer.wait() == 0
        sent, _heard = map(int, out.split())
        self.fuzzed += sent

    # ---- afterwards

    def check_quiet(self) -> dict[str, Any]:
        """Every table is empty again by itself, and the counters account for every datagram and request."""
        levels = ("live_transfers", "half_open_transfers", "dallying_transfers", "files_open")

        def quiet() -> dict[str, Any] | None:
            report = self.report()
            busy = [report["kernel"]["queued_bytes"], *(report["counts"][name] for name in levels)]
            return None if any(busy) else report

        report: dict[str, Any] = wait_for(quiet, f"quiet; {self.report()}", QUIET_S)
        counts = report["counts"]
        check_requests(counts)
        self._check_datagrams(report)
        held = report["live"] | {"recipes": 0}  # flows keep theirs until the end
        assert held == dict.fromkeys(held, 0), held
        assert report["descriptors"] <= report["descriptors_before"] + len(self.ports) + 40, report
        return report

    def _check_datagrams(self, report: dict[str, Any]) -> None:
        """Whatever was sent was received, or dropped where the kernel counts it; on a loopback that others use as well
        there may be more."""
        said = self.fuzzed + sum(self.honest_said)
        missing = said - report["counts"]["datagrams_received"] - report["kernel"]["dropped"]
        unheard = dropped_before_sockets() - self._dropped_before  # by whomever: nearly always 0
        assert missing <= unheard, (said, missing, unheard, report["counts"], report["kernel"])
        assert missing >= 0 or not is_alone(), (said, missing, report["counts"], report["kernel"])

    def check_end(self) -> dict[str, Any]:
        """It stops, and nothing is left of it."""
        report = self.report("stop")
        events = Counter(report["events"])
        check_ended(
            report["counts"],
            requests=events["Request"],
            begun=events["begun"],
            flow_hits=events["flow_hits"],
        )
        assert events["Request"] == events["started"] + events["refused"], events
        assert events["Completion"] == events["started"] + events["flow_hits"], events
        assert report["live"] == dict.fromkeys(report["live"], 0), report["live"]
        assert report["contexts"] == 0, report
        assert self.process.wait(60) == 0, self.said()[-20_000:]
        assert not self.harm, self.harm
        said = self.said()
        assert not [said[max(0, said.index(word) - 2000) :][:6000] for word in BROKEN if word in said]
        return report


# ---- who else is there


def _be_honest(victim: Victim, ended: threading.Event, seed: int) -> None:
    rng = random.Random(seed)
    said = 0

    def say(datagram: bytes) -> list[bytes]:
        nonlocal said
        if ended.is_set():
            raise Silence  # nobody waits for it any more
        said += 1
        return [datagram]

    while not ended.is_set():
        with Client(victim.address, source="127.0.0.200", timeout_s=1.0, give_up_s=HONEST_S, say=say) as client:
            try:
                _transfer(victim, client, rng, seed)
            except Silence:
                if not ended.is_set():
                    victim.harm.append("an honest client heard nothing")
            except Refused as refused:
                if refused.code != 0:
                    victim.harm.append(str(refused))
    victim.honest_said.append(said)


def _transfer(victim: Victim, client: Client, rng: random.Random, seed: int) -> None:
    name = rng.choice(list(HONEST))
    options = {"blksize": 1428, "windowsize": 8} if name.endswith("window") else {"blksize": rng.choice([512, 1428])}
    if rng.random() < 0.3:
        client.put(f"up/honest-{seed}", CONTENT[: HONEST[name]], options=options)
        if (victim.root / f"up/honest-{seed}").read_bytes() != CONTENT[: HONEST[name]]:
            victim.harm.append(f"an upload of {name} is not what was sent")
    elif client.get(name, options=options).payload != CONTENT[: HONEST[name]]:
        victim.harm.append(f"{name} arrived wrong")
    victim.honest_done += 1


def _change_files(root: Path, ended: threading.Event) -> None:
    rng = random.Random(3)
    while not ended.wait(0.03):
        path = root / f"moving/{rng.randrange(3)}"
        what = rng.randrange(4)
        if what == 0:
            path.unlink(missing_ok=True)
        elif what == 1:
            path.write_bytes(CONTENT[: rng.randrange(20_000)])  # in place
        elif what == 2 and path.exists():
            os.truncate(path, rng.randrange(3000))
        else:
            (root / "moving/new").write_bytes(CONTENT[: rng.randrange(20_000)])
            (root / "moving/new").rename(path)


@contextlib.contextmanager
def company(victim: Victim) -> Iterator[None]:
    """Honest clients, and somebody who changes files, until the block ends."""
    ended = threading.Event()
    threads = [
        threading.Thread(target=_change_files, args=(victim.root, ended)),
        *(threading.Thread(target=_be_honest, args=(victim, ended, seed)) for seed in range(2)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
