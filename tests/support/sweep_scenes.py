"""What clients do while a system call of the server fails, and what they must find: for test_faults_*.

    scene = Scene(root); scene.play(server)      # raises Broken where somebody was harmed
    scene.check_names()

Invariants: a download is exact or refused; an upload that was acknowledged is there, whole; one that was not left the
old file or the new one, whole, or nothing. Silence is no answer: with one call that fails, who asks again is served;
only where a call fails again and again (`bears_silence`) there may be nothing to say it with.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.client import Client, Refused, Silence
from tests.support.server import wait_for
from tests.support.sweep import Server

from snow_owl_tftp.content.store.staging import is_staging_name
from snow_owl_tftp.protocol.constants import Opcode
from snow_owl_tftp.protocol.packets import Ack, build_data, build_error

FILE = bytes(range(256)) * 1200
TEXT = b"line one\nline two\r\n" * 500
OLD, NEW = b"old " * 5000, b"new!" * 9000
WINDOW = {"blksize": 1428, "windowsize": 16}
PATIENCE_S = 6.0
REST_S = 0.3


class Broken(AssertionError):  # noqa: N818 - what happened
    """Somebody was harmed."""


def settings(folder: Path, root: Path, on_existing: str) -> Path:
    """A configuration under which little waits long."""
    path = folder / f"{on_existing}.toml"
    path.write_text(
        f"""root_dir = "{root}"
bind_addr = "127.0.0.1:0"
tid_sockets = 2
drain_timeout_s = 2
[logging]
level = "debug"
file = "{folder}/log"
audit_enabled = true
audit_file = "{folder}/audit"
[retransmit]
initial_ms = 100
ceiling_ms = 200
give_up_s = 2
half_open_give_up_s = 2
[performance.platform.file_io]
source_linger_s = 0
[write_config]
enabled = true
allowed_patterns = ["up/**"]
create_directories = true
on_existing = "{on_existing}"
max_total_bytes = 5000000000
"""
    )
    return path


@dataclass(slots=True)
class Scene:
    """One root, and what may lie in it."""

    root: Path
    on_existing: str = "replace"
    bears_silence: bool = False
    plays: int = 0
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.root / "up").mkdir(parents=True)
        (self.root / "real").mkdir()
        (self.root / "file").write_bytes(FILE)
        (self.root / "real/file").write_bytes(FILE)
        (self.root / "linked").symlink_to(self.root / "real")

    def play(self, server: Server, *, hangs_up: bool = True) -> None:
        """Everything once, one after another."""
        self.plays += 1
        self.refusals.clear()
        self._prepare()
        for step in self._steps(server):
            step()
        if hangs_up:
            os.kill(server.pid, signal.SIGHUP)
        time.sleep(0.01)  # what was let go of is closed in threads; a fault may hit there too

    def _prepare(self) -> None:
        for path in sorted((self.root / "up").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (self.root / "up/old").write_bytes(OLD)
        (self.root / "up/old").chmod(0o666)
        (self.root / "text").write_bytes(TEXT)  # a new ctime: a new copy

    def _steps(self, server: Server) -> Iterator[Callable[[], None]]:
        yield lambda: self._get(server, "file", FILE)
        yield lambda: self._get(server, "linked/file", FILE)
        yield lambda: self._get(server, "text", TEXT.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n"), "netascii")
        yield lambda: self._get(server, "missing", None)
        yield lambda: self._put(server, "up/new", NEW)
        yield lambda: self._put(server, "up/old", NEW)
        if self.on_existing != "replace_writable":
            yield lambda: self._put(server, "up/deep/er/new", NEW)
            yield lambda: self._put(server, "up/text", TEXT.replace(b"\r", b""), "netascii")
            yield lambda: self._vanish(server)

    def _get(self, server: Server, name: str, content: bytes | None, mode: str = "octet") -> None:
        with Client(server.address, timeout_s=0.1, give_up_s=PATIENCE_S) as client:
            try:
                got = client.get(name, mode, WINDOW).payload
            except Refused as refused:
                self._note(name, refused)
                if refused.code == 1 and content is not None:
                    raise Broken(f"{name}: a boot loader would take the next name: {refused}") from None
            except Silence:
                self._note_silence(name)
            else:
                if got != content:
                    raise Broken(f"{name}: {len(got)} bytes, and not those of the file")

    def _put(self, server: Server, name: str, content: bytes, mode: str = "octet") -> None:
        path = self.root / name
        before = path.read_bytes() if path.exists() else None
        sent = content if mode == "octet" else content.replace(b"\n", b"\r\n")
        acknowledged = False
        with Client(server.address, timeout_s=0.1, give_up_s=PATIENCE_S) as client:
            try:
                client.put(name, sent, mode, WINDOW)
                acknowledged = True
            except Refused as refused:
                self._note(name, refused)
            except Silence:
                self._note_silence(name)
        after = path.read_bytes() if path.exists() else None
        if after not in ({content} if acknowledged else {before, content}):
            raise Broken(f"{name}: {'acknowledged' if acknowledged else 'refused'}, and {_shown(after)}")
        if self.on_existing == "version" and before is not None and after == content:
            kept = path.with_name(path.name + ".~1~")
            if not kept.exists() or kept.read_bytes() != before:
                raise Broken(f"{name}: the old version is lost")

    def _vanish(self, server: Server) -> None:
        """A client that sends a part of a file, and then an ERROR."""
        with Client(server.address) as client:
            client.request("up/vanished", kind=Opcode.WRQ)
            try:
                packet, peer = client.receive_packet(0.3)
            except Silence:
                return
            if isinstance(packet, Ack):
                client.send(build_data(1, NEW[:512]), peer)
                client.send(build_error(0, "enough"), peer)

    def _note_silence(self, name: str) -> None:
        if not self.bears_silence:
            raise Broken(f"{name}: no answer in {PATIENCE_S} s") from None
        self.refusals.append(f"{name}: silence")

    def _note(self, name: str, refused: Refused) -> None:
        self.refusals.append(f"{name}: {refused}")

    def check_names(self) -> None:
        """Nothing is half visible, or left over once those who vanished are given up."""
        try:
            wait_for(lambda: not self._hidden(), "the last hidden name gone", 10)
        except AssertionError:
            raise Broken(f"{self._hidden()}: left over") from None
        allowed = {"up/old", "up/old.~1~", "up/new", "up/deep/er/new", "up/text"}
        names = {str(path.relative_to(self.root)) for path in (self.root / "up").rglob("*") if path.is_file()}
        if names - allowed:
            raise Broken(f"{names - allowed}: nobody has sent such files")

    def _hidden(self) -> list[str]:
        return [path.name for path in (self.root / "up").rglob(".*") if is_staging_name(os.fsencode(path.name))]

    def check_serves(self, server: Server) -> None:
        """As if nothing had been."""
        self.play(server)
        wanted = ["missing: ERROR 1: File not found"]
        if self.on_existing == "replace_writable":
            wanted.append("up/new: ERROR 1: File not found")
        if self.refusals != wanted:
            raise Broken(f"afterwards: {self.refusals}")


def _shown(content: bytes | None) -> str:
    return "nothing is there" if content is None else f"{len(content)} other bytes are there"


def at_rest(server: Server) -> list[str]:
    """What is open once nothing opens and closes any more: a reload after SIGHUP reads its file for a while."""
    seen = server.descriptors()
    since = time.monotonic()
    while time.monotonic() - since < REST_S:
        time.sleep(REST_S / 10)
        now = server.descriptors()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


def settle(server: Server, wanted: list[str]) -> None:
    """Wait until the descriptors are those of before."""
    try:
        wait_for(lambda: server.descriptors() == wanted, "descriptors", 10)
    except AssertionError:
        now = server.descriptors()
        more = [name for name in now if now.count(name) > wanted.count(name)]
        fewer = [name for name in wanted if now.count(name) < wanted.count(name)]
        raise Broken(f"descriptors: {more} more, {fewer} fewer") from None
