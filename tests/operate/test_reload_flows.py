"""What the engine repeats by itself is not the answer of before: neither after a reload, nor after a change of files.

May know: the command, and that a transfer which the engine began has no line "transfer started".
"""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from tests.support.client import Client, Refused
from tests.support.server import ServerProcess, serve_command, wait_for

Change: TypeAlias = Callable[[Path], object]
Answer: TypeAlias = bytes | int
TIMES = 5
MAC = "52:54:00:00:00:01"
FILES = {
    "boot": "of the root",
    "small": "s",
    "other": "another",
    "site/boot": "of the site",
    "common/boot": "of all",
    "common/only": "only of all",
    "empty/x": "",
}


class Served:
    """A server whose configuration and files a test changes."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self.folder = folder
        self.server = server
        self._lines: list[dict[str, Any]] = []
        self._seen_bytes = 0

    def events(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log; what was read before is not read again."""
        with self.server.stderr_path.open("rb") as file:
            file.seek(self._seen_bytes)
            new, _, _ = file.read().rpartition(b"\n")
        self._seen_bytes += len(new) + bool(new)
        self._lines += map(json.loads, new.splitlines())
        return [line for line in self._lines if line["event"].startswith(event)]

    def ask(self, name: str, source: str = "127.0.0.1") -> Answer:
        """What is answered: content, or the code of an ERROR."""
        with Client(self.server.address, source=source) as client:
            try:
                return client.get(name).payload
            except Refused as refused:
                return refused.code

    def reload(self, text: str) -> None:
        before = len(self.events("settings reloaded"))
        write(self.folder, text)
        self.server.signal(signal.SIGHUP)
        wait_for(lambda: len(self.events("settings reloaded")) > before, "a reload")

    def decisions(self) -> int:
        return len(self.events("transfer started"))


def write(folder: Path, text: str) -> None:
    """`text` may begin with keys of the top, and "---" behind them."""
    keys, _, tables = text.rpartition("---")
    head = f'root_dir = "{folder}/root"\n[logging]\nlevel = "debug"\nformat = "json"\n'
    (folder / "owl.new").write_text(f"{keys}{head}{tables}")
    (folder / "owl.new").replace(folder / "owl.toml")


@contextmanager
def serve(folder: Path, text: str) -> Iterator[Served]:
    for name, content in FILES.items():
        (folder / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / name).write_text(content)
    (folder / "made.j2").write_text("made for {{ request.name }}")
    (folder / "names.map").write_text("rE ^boot$ first/boot\n")
    write(folder, text)
    with serve_command(None, "--config", str(folder / "owl.toml"), stderr_path=folder / "stderr") as server:
        served = Served(folder, server)
        wait_for(lambda: served.events("server started"), "its first line")
        yield served


NO_RULES = ""
SITE = '[[rules]]\nroots = ["site"]\n'
RELOADS: dict[str, tuple[str, str, str, Answer, Answer]] = {
    "a rule denies": (NO_RULES, '[[rules]]\npaths = ["boot"]\nallow = []\n', "boot", b"of the root", 2),
    "a rule denies no more": (
        '[[rules]]\npaths = ["x"]\nallow = []\n',
        "[[rules]]\nallow = []\n",
        "boot",
        b"of the root",
        2,
    ),
    "a rule denies for these clients": (
        NO_RULES,
        '[[rules]]\nclients = ["127.0.0.0/24"]\npaths = ["boot"]\nallow = []\n',
        "boot",
        b"of the root",
        2,
    ),
    "a rule denies for others": (
        '[[rules]]\nclients = ["127.1.0.0/16"]\nallow = []\n',
        '[[rules]]\nclients = ["127.0.0.0/16"]\nallow = []\n',
        "boot",
        b"of the root",
        2,
    ),
    "a rule requires": (NO_RULES, '[[rules]]\nrequire = "world_readable"\n', "small", b"s", 2),
    "an earlier root": (SITE, '[[rules]]\nroots = ["common", "site"]\n', "boot", b"of the site", b"of all"),
    "another root": (SITE, '[[rules]]\nroots = ["common"]\n', "boot", b"of the site", b"of all"),
    "a root at all": (NO_RULES, SITE, "boot", b"of the root", b"of the site"),
    "a template": (
        NO_RULES,
        '[[templates]]\nmatch = "bo*t"\ntemplate = "made.j2"\n',
        "boot",
        b"of the root",
        b"made for boot",
    ),
    "a name rewritten": (
        NO_RULES,
        '[[rewrite]]\npattern = "^boot$"\nreplacement = "other"\n',
        "boot",
        b"of the root",
        b"another",
    ),
    "a size": (NO_RULES, "max_file_size_bytes = 5\n---", "boot", b"of the root", 2),
    "hidden names": ('hidden = "serve"\n---', 'hidden = "refuse"\n---', ".hidden", b"hidden", 1),
}


@pytest.mark.parametrize(("before", "after", "name", "old", "new"), RELOADS.values(), ids=RELOADS)
def test_first_request_after_a_reload_is_decided_by_it(
    tmp_path: Path, before: str, after: str, name: str, old: Answer, new: Answer
) -> None:
    with serve(tmp_path, before) as served:
        (tmp_path / "root/.hidden").write_text("hidden")
        (tmp_path / "root/small").chmod(0o600)
        for text, answer in ((before, old), (after, new), (before, old), (after, new)):
            served.reload(text)
            decided = served.decisions()
            assert [served.ask(name) for _ in range(TIMES)] == [answer] * TIMES
            if answer == old:
                assert served.decisions() - decided < TIMES, "the engine repeats nothing, so nothing is shown"


def put(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.replace(path)

    return change


ROOTS = '[[rules]]\nroots = ["empty", "common"]\n'
LATER = 'rewrite_file = "{folder}/names.map"\n---'
CHANGES: dict[str, tuple[str, Change, str, Answer, Answer]] = {
    "a file of an earlier root comes": (ROOTS, put("root/empty/boot", "earlier"), "boot", b"of all", b"earlier"),
    "a file of the first root goes": (
        '[[rules]]\nroots = ["site", "common"]\n',
        lambda folder: (folder / "root/site/boot").unlink(),
        "boot",
        b"of the site",
        b"of all",
    ),
    "the first root goes": (
        '[[rules]]\nroots = ["site", "common"]\n',
        lambda folder: shutil.rmtree(folder / "root/site"),
        "boot",
        b"of the site",
        b"of all",
    ),
    "a candidate of a map file comes": (LATER, put("root/first/boot", "first"), "boot", b"of the root", b"first"),
    "a file is no more what a rule requires": (
        '[[rules]]\nrequire = "world_readable"\n',
        lambda folder: (folder / "root/boot").chmod(0o600),
        "boot",
        b"of the root",
        2,
    ),
    "a file of a root is no more what a rule requires": (
        '[[rules]]\nrequire = "world_readable"\nroots = ["site", "common"]\n',
        lambda folder: (folder / "root/site/boot").chmod(0o600),
        "boot",
        b"of the site",
        2,
    ),
    "the name as it was sent comes": (
        NO_RULES,
        put("root/boot\x7f", "as sent"),
        "boot\x7f",
        b"of the root",
        b"as sent",
    ),
    "the case that was sent comes": (
        '[names]\ncase = "insensitive"\n',
        put("root/BOOT", "as sent"),
        "BOOT",
        b"of the root",
        b"as sent",
    ),
}


@pytest.mark.parametrize(("text", "change", "name", "old", "new"), CHANGES.values(), ids=CHANGES)
def test_first_request_after_a_change_of_files_meets_it(
    tmp_path: Path, text: str, change: Change, name: str, old: Answer, new: Answer
) -> None:
    with serve(tmp_path, text.format(folder=tmp_path)) as served:
        wait_for(lambda: served.ask(name) == old, "what is there")
        assert [served.ask(name) for _ in range(TIMES)] == [old] * TIMES
        change(tmp_path)
        assert [served.ask(name) for _ in range(TIMES)] == [new] * TIMES


def test_first_request_after_an_inventory_was_read_again_is_decided_by_it(tmp_path: Path) -> None:
    """Of a machine that has come into a group which gets nothing; others are told what they were."""
    entry = f'[[machine]]\nmac = "{MAC}"\naddress = "127.0.0.2"\ngroup = '
    text = f'[machines]\ninventory = "{tmp_path}/machines.toml"\n[[rules]]\ngroups = ["locked"]\nallow = []\n'
    (tmp_path / "machines.toml").write_text(f'{entry}"free"\n')
    with serve(tmp_path, text) as served:
        for group, answer in (("free", b"of the root"), ("locked", 2), ("free", b"of the root")):
            told = len(served.events("inventory read again"))
            put("machines.toml", f'{entry}"{group}"\n# {answer!r} {told}\n')(tmp_path)
            wait_for(lambda told=told: len(served.events("inventory read again")) > told, "the inventory")
            assert [served.ask("boot", "127.0.0.2") for _ in range(TIMES)] == [answer] * TIMES
            assert [served.ask("boot", "127.0.0.3") for _ in range(TIMES)] == [b"of the root"] * TIMES


def test_nobody_who_asks_after_a_reload_is_answered_by_the_one_before_however_many_ask(tmp_path: Path) -> None:
    """The line is told when workers may still be at what came before; what comes after it is decided anew."""
    texts = {b"of the site": SITE, b"of all": SITE.replace("site", "common")}
    is_over, heard = threading.Event(), list[tuple[float, Answer]]()
    with serve(tmp_path, texts[b"of all"]) as served:

        def hammer() -> None:
            while not is_over.is_set():
                asked_s = time.monotonic()
                heard.append((asked_s, served.ask("boot")))

        threads = [threading.Thread(target=hammer) for _ in range(6)]
        for thread in threads:
            thread.start()
        in_force = []
        try:
            for number in range(40):
                answer = list(texts)[number % 2]
                begun_s = time.monotonic()
                served.reload(texts[answer])
                in_force.append((begun_s, time.monotonic(), answer))
                time.sleep(0.02)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    assert len(heard) > 1000
    for at, (_, since_s, answer) in enumerate(in_force):
        until_s = in_force[at + 1][0] if at + 1 < len(in_force) else since_s
        wrong = [
            (asked_s - since_s, got) for asked_s, got in heard if since_s < asked_s < until_s - 0.02 and got != answer
        ]
        assert wrong == []
