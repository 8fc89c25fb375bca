"""A power cut behind each call of an upload.

What was acknowledged is there, whole; what was not is the old file, whole, the new one, whole, or nothing. What else is
left the next start removes.

A real server takes real uploads, one after another, and what it asks of its disk is written down; then every state that
the disk may be in is laid out and looked at. See tests/support/power_cut.py for what a disk may lose.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.client import Client
from tests.support.power_cut import Cut, Model, Tape, Tree, lay_out, tree_of
from tests.support.server import serve_command

from snow_owl_tftp.content.store.uploads import UploadArea

REPOSITORY = Path(__file__).resolve().parents[2]
BLKSIZE = 1428
OLD = b"old " * 900
MODELS: Sequence[Model] = ("journal", "adversary")


@dataclass(frozen=True, slots=True)
class Sent:
    """One upload that was acknowledged."""

    name: str
    stored: bytes
    port: int
    final_block: int

    def is_acknowledged(self, line: str) -> bool:
        return line == f"ack {self.port} {self.final_block}"


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    source = REPOSITORY / "tests/support/recorder.c"
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", library, source, "-ldl"], check=True)
    return library


def put(address: tuple[str, int], name: str, content: bytes, mode: str = "octet") -> Sent:
    wire = content if mode == "octet" else content.replace(b"\n", b"\r\n")
    with Client(address) as client:
        client.put(name, wire, mode, {"blksize": BLKSIZE, "windowsize": 8})
        return Sent(name, content, client.port, len(wire) // BLKSIZE + 1)


@dataclass(frozen=True, slots=True)
class Way:
    """How uploads are stored, and what comes."""

    name: str
    on_existing: str
    uploads: Sequence[tuple[str, bytes, str]]
    without: str = ""
    more: str = ""


def payload(number: int, size_bytes: int = 4000) -> bytes:
    return random.Random(number).randbytes(size_bytes)


NEW_ONES = (
    ("up/new", payload(1), "octet"),
    ("up/deep/er/new", payload(2, 70_000), "octet"),
    ("up/empty", b"", "octet"),
)
REPLACED = (("up/old", payload(3), "octet"), ("up/old", payload(4), "octet"))
TEXT = ("up/text", b"one line\n" * 300, "netascii")
WAYS = [
    Way("create", "refuse", (*NEW_ONES, TEXT)),
    Way("create by a hidden name", "refuse", (*NEW_ONES, TEXT), "unnamed"),
    Way("replace", "replace", (*REPLACED, NEW_ONES[0])),
    Way("replace by a hidden name", "replace", (*REPLACED, NEW_ONES[0]), "unnamed"),
    Way("version", "version", REPLACED),
    Way("version by a hidden name", "version", REPLACED, "unnamed"),
    Way("replace_writable", "replace_writable", REPLACED),
    Way("in place", "replace", (*REPLACED, ("up/old", payload(5, 2000), "octet")), "rename"),
]


def record(way: Way, root: Path, recorder: Path) -> tuple[Tape, list[Sent]]:
    """Let a server take the uploads; what is there before is on the disk."""
    (root / "up").mkdir(parents=True)
    (root / "up/old").write_bytes(OLD)
    (root / "up/old").chmod(0o666)
    tape, tape_path, config = Tape(root), root.parent / "record", root.parent / "config"
    config.write_text(
        '[write_config]\nenabled = true\nallowed_patterns = ["up/**"]\ncreate_directories = true\n'
        f'on_existing = "{way.on_existing}"\n{way.more}\n'
    )
    env = {
        **os.environ,
        "LD_PRELOAD": " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(recorder)))),
        "SNOW_OWL_RECORD": str(tape_path),
        "SNOW_OWL_RECORD_WITHOUT": way.without,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with serve_command(root, "--config", str(config), env=env) as server:
        sent = [put(server.address, *upload) for upload in way.uploads]
    tape.read(tape_path)
    assert tape.is_what_happened(), "a call was not written down"
    return tape, sent


class Restarts:
    """What the next start makes of a tree; each is tried once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._swept: dict[frozenset[tuple[str, bytes | None]], Tree] = {}

    def __len__(self) -> int:
        return len(self._swept)

    def after(self, tree: Tree) -> Tree:
        key = frozenset(tree.items())
        if key not in self._swept:
            self._folder.mkdir()
            lay_out(tree, self._folder)
            area = UploadArea(self._folder)
            area.sweep()
            area.close()
            self._swept[key] = tree_of(self._folder)
            shutil.rmtree(self._folder)
        return self._swept[key]


@dataclass(slots=True)
class Known:
    """What clients know at a cut: `acknowledged` uploads are over, the next one may be under way."""

    way: Way
    sent: Sequence[Sent]
    acknowledged: int = 0

    def hear(self, line: str) -> None:
        if self.acknowledged < len(self.sent) and self.sent[self.acknowledged].is_acknowledged(line):
            self.acknowledged += 1

    def check(self, tree: Tree, cut: Cut) -> None:
        done = {"up/old": OLD} | {one.name: one.stored for one in self.sent[: self.acknowledged]}
        coming = {one.name: one.stored for one in self.sent[self.acknowledged : self.acknowledged + 1]}
        where = f"{self.way.name}, {cut.model}, behind call {cut.number} ({cut.line[:60]})"
        is_mixture = self.way.without == "rename"  # written in place, and documented as not atomic
        for name, content in done.items():
            if name in coming and is_mixture:
                assert tree.get(name) is not None, f"{where}: {name} is gone"
            else:
                assert tree.get(name) in (content, coming.get(name, content)), f"{where}: {name} is not whole"
        for name, content in tree.items():
            if content is None or name in done or content == coming.get(name):
                continue
            assert self._is_version(name, content), f"{where}: {name} should not be there"
        self._check_versions(tree, where, cut.model)

    def _is_version(self, name: str, content: bytes) -> bool:
        return self.way.on_existing == "version" and ".~" in name and content in self._contents()

    def _contents(self) -> list[bytes]:
        return [OLD, *(one.stored for one in self.sent)]

    def _check_versions(self, tree: Tree, where: str, model: Model) -> None:
        """What was replaced is kept; before the last ACK an adversary may lose the old name and keep the new one."""
        if self.way.on_existing != "version":
            return
        replaced = self.acknowledged
        if model == "journal" and self.sent[replaced:] and tree["up/old"] == self.sent[replaced].stored:
            replaced += 1
        for number, content in enumerate(self._contents()[:replaced], 1):
            assert tree.get(f"up/old.~{number}~") == content, f"{where}: version {number} is lost"


def cuts_of(tape: Tape, known: Known, model: Model) -> Iterator[Cut]:
    for cut in tape.cuts(model):
        known.hear(cut.line)
        yield cut


def look_at_every_state(way: Way, tape: Tape, sent: Sequence[Sent], model: Model, folder: Path) -> None:
    known, restarts, states = Known(way, sent), Restarts(folder), 0
    for cut in cuts_of(tape, known, model):
        for tree in cut.trees():
            states += 1
            known.check(restarts.after(tree), cut)
    print(f"{way.name}, {model}: {len(tape.lines)} calls, {states} states, {len(restarts)} different trees")
    assert known.acknowledged == len(sent), "the ACKs are not on the tape"
    assert len(restarts) > len(sent) + 1, "hardly anything could be lost, so nothing was shown"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_power_cut_loses_nothing_acknowledged_and_shows_no_part(tmp_path: Path, recorder: Path, way: Way) -> None:
    tape, sent = record(way, tmp_path / "root", recorder)
    for model in MODELS:
        look_at_every_state(way, tape, sent, model, tmp_path / "after")


@pytest.mark.parametrize("model", ["journal", "adversary"])
def test_without_fsync_a_power_cut_is_seen_to_lose_what_was_acknowledged(
    tmp_path: Path, recorder: Path, model: Model
) -> None:
    """The setting promises nothing, and this look can fail."""
    way = Way("without fsync", "replace", REPLACED, more="fsync = false")
    tape, sent = record(way, tmp_path / "root", recorder)
    with pytest.raises(AssertionError, match="up/old is not whole"):
        look_at_every_state(way, tape, sent, model, tmp_path / "after")
