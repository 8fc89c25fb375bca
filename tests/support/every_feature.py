"""Two configurations with every feature on, which differ in all that a reload changes, and clients who use them all.

    two = TwoConfigurations(folder)          # root, rules, templates, machines, … of "A" and of "B"
    two.write("B")                           # in place of the configuration file, whole
    Visitor(two, server.address, 7).play()   # raises AssertionError where parts of both were met

May know: the configuration's words, files, the test client. Must not know how a reload is made.
Invariant: what "A" serves begins with A, and its largest blksize is A's: who gets another pair met two configurations.
"""

import os
import random
import time
from pathlib import Path
from typing import Final

from tests.support.client import Client, Refused, Transfer

from snow_owl_tftp.protocol.constants import ErrorCode

__all__ = ["BLKSIZES", "MAC", "TwoConfigurations", "Visitor"]

BLKSIZES: Final = {"A": 600, "B": 700}
MAC: Final = "52:54:00:00:00:01"
HANDLERS: Final = """
from snow_owl_tftp import ReadRequest, Response

async def answer(request: ReadRequest) -> Response:
    return Response(b"made for " + request.client.encode())
"""
TEXT_LINES: Final = 40_000
"""More than is kept as a copy: netascii of it is a stream."""
CONFIGURATION: Final = """
workers = 2
root_dir = "{folder}/{which}/root"
link_targets = ["{folder}/{which}/linked"]
template_dir = "{folder}/{which}/templates"
rewrite_file = "{folder}/{which}/names.map"
max_file_size_bytes = {size}
[options]
max_blksize_bytes = {blksize}
[names]
case = "insensitive"
siblings = ["beside"]
optional = ["optional/**"]
[machines]
inventory = "{folder}/{which}/machines.toml"
leases = ["{folder}/{which}/leases"]
[limits]
max_requests_per_s_per_network = {size}
max_bytes_per_s_per_client = {size}000
[logging]
level = "info"
format = "json"
file = "{folder}/log"
audit_enabled = true
audit_file = "{folder}/audit"
[performance.platform.file_io]
source_linger_s = 0
[write_config]
enabled = true
allowed_patterns = ["up/**"]
create_directories = true
on_existing = "version"
max_total_bytes = 1000000000
[[rewrite]]
pattern = "^rewritten$"
replacement = "plain"
[[templates]]
match = "cfg/{{mac_dashes}}"
template = "pxe.j2"
[[handlers]]
match = "made/**"
handler = "storm_handlers:answer"
[[rules]]
clients = ["127.1.0.0/16", "127.2.0.0/16"]
paths = ["shared"]
roots = ["site", "common"]
[[rules]]
clients = ["127.3.0.0/16"]
paths = ["shared"]
roots = ["common", "site"]
[[rules]]
paths = ["own"]
roots = ["machines/{{mac}}", "common"]
[[rules]]
paths = ["denied_{which}"]
allow = []
"""


class TwoConfigurations:
    """What both serve, and the file that names one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "snow-owl.toml"
        (folder / "modules").mkdir()
        (folder / "modules/storm_handlers.py").write_text(HANDLERS)
        for which in BLKSIZES:
            self._make(which)

    @property
    def environment(self) -> dict[str, str]:
        """Under which the server finds its handlers."""
        paths = [str(self.folder / "modules"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def _make(self, which: str) -> None:
        place = self.folder / which
        root = place / "root"
        for name in ("site", "common", f"machines/{MAC}", "up", "Deep/Er"):
            (root / name).mkdir(parents=True)
        for name in ("plain", "denied_A", "denied_B", "site/shared", f"machines/{MAC}/own", "Deep/Er/File"):
            (root / name).write_bytes(which.encode() + name.encode() * 100)
        (root / "text").write_bytes(f"{which} line\n".encode() * TEXT_LINES)
        (place / "linked").mkdir()
        (place / "linked/far").write_bytes(which.encode() * 1000)
        (root / "link").symlink_to(place / "linked/far")
        (place / "templates").mkdir()
        (place / "templates/pxe.j2").write_text(which + " {{ mac_dashes }}\n")
        (place / "names.map").write_text(f"r ^mapped$ plain\nrE ^first/(.*)$ {which}/\\1\n")
        (place / "machines.toml").write_text(f'[[machine]]\nmac = "{MAC}"\nname = "{which.lower()}"\n')
        leases = [f"{int(time.time()) + 86400} {MAC} 127.{net}.0.{host} * *\n" for net in (1, 2, 3) for host in (1, 2)]
        (place / "leases").write_text("".join(leases))

    def text(self, which: str, more: str = "") -> str:
        """The configuration; `more` are tables behind it."""
        size = {"A": 9_000_000, "B": 9_500_000}[which]
        return CONFIGURATION.format(folder=self.folder, which=which, blksize=BLKSIZES[which], size=size) + more

    def write(self, which: str, more: str = "") -> None:
        """As a whole: who reads it meanwhile reads the old one."""
        self.write_text(self.text(which, more))

    def write_text(self, text: str) -> None:
        """The same, with another text."""
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)


class Visitor:
    """Asks for everything, and looks whether what it gets is of one configuration."""

    def __init__(self, two: TwoConfigurations, address: tuple[str, int], seed: int) -> None:
        self._two = two
        self._rng = random.Random(seed)
        self._name = f"{seed}"
        self._address = address
        self.met: dict[str, int] = {"A": 0, "B": 0}

    def play(self) -> None:
        """Everything once, in any order."""
        steps = [
            *(lambda name=name: self._get(name) for name in ("plain", "rewritten", "mapped", "shared", "own", "link")),
            *(lambda name=name: self._get(name) for name in ("deep/er/FILE", f"cfg/{MAC.replace(':', '-')}", "plain")),
            lambda: self._get("text", "netascii"),
            self._made,
            self._denied,
            self._put,
        ]
        self._rng.shuffle(steps)
        for step in steps:
            step()

    def _client(self) -> Client:
        source = f"127.{self._rng.randint(1, 3)}.0.{self._rng.randint(1, 2)}"
        return Client(self._address, source=source, timeout_s=1, give_up_s=30)

    def _get(self, name: str, mode: str = "octet") -> None:
        with self._client() as client:
            got = client.get(name, mode, {"blksize": 1428})
        which = self._which(got)
        assert got.payload[:1] == which.encode(), (name, got.payload[:50], got.oack)
        if mode == "netascii":
            assert got.payload == f"{which} line\r\n".encode() * TEXT_LINES
        self.met[which] += 1

    def _which(self, got: Transfer) -> str:
        return next(which for which, blksize in BLKSIZES.items() if got.oack["blksize"] == str(blksize))

    def _made(self) -> None:
        with self._client() as client:
            assert client.get("made/any").payload.startswith(b"made for 127.")

    def _denied(self) -> None:
        """Each denies one, and serves the other."""
        name = self._rng.choice(["denied_A", "denied_B"])
        with self._client() as client:
            try:
                got = client.get(name, options={"blksize": 1428})
            except Refused as refused:
                if refused.code != ErrorCode.ACCESS_VIOLATION:
                    raise
                return
        assert got.payload[:1].decode() != name[-1], (name, got.payload[:50])
        assert got.payload[:1].decode() == self._which(got), (name, got.oack)

    def _put(self) -> None:
        name, content = f"up/{self._name}/{self._rng.randrange(10**9)}", b"x" * self._rng.randrange(5000)
        with self._client() as client:
            sent = client.put(name, content, options={"blksize": 1428})
        which = self._which(sent)
        for one in BLKSIZES:
            path = self._two.folder / one / "root" / name
            assert path.exists() == (one == which), (name, sent.oack)
        path = self._two.folder / which / "root" / name
        assert path.read_bytes() == content
        path.unlink()
