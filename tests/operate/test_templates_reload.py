"""Templates in the command: beside their configuration, taken anew at SIGHUP, and never half."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client, Refused
from tests.support.server import ServerProcess, run_command, serve_command, wait_for

ENTRY = '[[templates]]\nmatch = "cfg/{mac_dashes}"\ntemplate = "pxe.j2"\n'
NAME = "cfg/52-54-00-00-00-07"


class Served:
    """A command, its configuration and its template."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.config = folder / "snow-owl.toml"
        self.template = folder / "pxe.j2"

    def get(self, name: str = NAME) -> bytes:
        with Client(self.server.address) as client:
            return client.get(name).payload

    def lines(self, event: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.server.log.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in parsed if line["event"].startswith(event)]

    def reload(self) -> str:
        wait_for(lambda: self.lines("server started"), "its first line")
        before = len(self.lines("settings reloaded") + self.lines("reload refused"))
        self.server.signal(signal.SIGHUP)
        wait_for(lambda: len(self.lines("settings reloaded") + self.lines("reload refused")) > before, "a reload")
        refused = self.lines("reload refused")
        return str(refused[-1]["reason"]) if refused else ""


@contextmanager
def serve(tmp_path: Path, source: str, toml: str = ENTRY) -> Iterator[Served]:
    root, folder = tmp_path / "root", tmp_path / "etc"
    root.mkdir()
    folder.mkdir()
    (root / "small").write_bytes(b"ten bytes.")
    (folder / "pxe.j2").write_text(source)
    (folder / "snow-owl.toml").write_text(toml)
    arguments = ("--config", str(folder / "snow-owl.toml"), "--log-format", "json")
    with serve_command(root, *arguments, stderr_path=tmp_path / "stderr") as server:
        yield Served(server, folder)


def test_template_lies_beside_the_configuration_and_is_never_served(tmp_path: Path) -> None:
    with serve(tmp_path, "made for {{ mac_dashes }}") as served:
        assert served.get() == b"made for 52-54-00-00-00-07"
        for name in ("pxe.j2", "../etc/pxe.j2", "/etc/pxe.j2"):
            with pytest.raises(Refused):
                served.get(name)


def test_changed_template_is_taken_at_a_reload(tmp_path: Path) -> None:
    with serve(tmp_path, "one") as served:
        assert [served.get() for _ in range(3)] == [b"one"] * 3
        served.template.write_text("two")
        assert served.get() == b"one"
        assert served.reload() == ""
        wait_for(lambda: served.get() == b"two", "the new one")


def test_entry_comes_and_goes_at_a_reload(tmp_path: Path) -> None:
    with serve(tmp_path, "made", "") as served:
        with pytest.raises(Refused, match="ERROR 1"):
            served.get()
        served.config.write_text(ENTRY)
        assert served.reload() == ""
        wait_for(lambda: _made(served), "the template")
        assert served.lines("settings reloaded")[-1]["changed"] == "templates"
        served.config.write_text("")
        assert served.reload() == ""
        wait_for(lambda: not _made(served), "no template")


def _made(served: Served) -> bool:
    try:
        return served.get() == b"made"
    except Refused:
        return False


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("one\n{% if %}", "/pxe.j2:2: "),
        ("{{ mac_dshes }}", "there is no mac_dshes; did you mean mac_dashes?"),
        ("{% include 'other.j2' %}", 'no template "other.j2"'),
        (None, "/pxe.j2: no such file; "),
    ],
)
def test_bad_template_changes_nothing_at_a_reload_and_refuses_the_start(
    tmp_path: Path, source: str | None, problem: str
) -> None:
    with serve(tmp_path, "old {{ mac_dashes }}") as served:
        assert served.get() == b"old 52-54-00-00-00-07"
        if source is None:
            served.template.unlink()
        else:
            served.template.write_text(source)
        assert problem in served.reload()
        assert served.get() == b"old 52-54-00-00-00-07"
        done = run_command(str(tmp_path / "root"), "--config", str(served.config), "--bind", "127.0.0.1:0")
        assert done.returncode == 2
        assert problem in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_is_under_way_ends_with_the_text_it_began_with(tmp_path: Path) -> None:
    with serve(tmp_path, "a" * 2000) as served, Client(served.server.address) as client:
        changed: list[str] = []

        def change(index: int) -> None:
            if not changed:
                served.template.write_text("b" * 2000)
                changed.append(served.reload())

        assert client.get(NAME, on_block=change).payload == b"a" * 2000
        assert changed == [""]
        assert served.get() == b"b" * 2000


def test_templates_of_a_directory_may_include_one_another(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    (folder / "parts").mkdir(parents=True)
    (folder / "pxe.j2").write_text("{% include 'parts/tail.j2' %}")
    (folder / "parts/tail.j2").write_text("tail of {{ mac_dashes }}")
    with serve(tmp_path, "not this one", f'template_dir = "{folder}"\n{ENTRY}') as served:
        assert served.get() == b"tail of 52-54-00-00-00-07"


def test_template_dir_alone_is_told_to_be_idle(tmp_path: Path) -> None:
    with serve(tmp_path, "", f'template_dir = "{tmp_path}"\n') as served:
        wait_for(lambda: served.lines("setting without effect"), "the warning")
        assert served.lines("setting without effect")[0]["setting"] == "template_dir"
