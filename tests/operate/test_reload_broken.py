"""Every kind of broken file: a reload that meets it leaves everything as it was, says so on one line, and leaves
nothing open; once the file is mended it works.

May know: the command, its log and /proc. Every feature is on (tests/support/every_feature.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from tests.conftest import SEED
from tests.support.at_rest import settled, wait_until_held
from tests.support.every_feature import Visitor
from tests.support.reloading import ALIKE, Reloading, serve_every_feature
from tests.support.server import wait_for

Break: TypeAlias = Callable[[Path], None]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    with serve_every_feature(tmp_path_factory.mktemp("broken")) as served:
        for which in "BABABABA":  # as many as leave old roots open
            served.reload(which)
            visit(served, which)
        yield served


def visit(served: Reloading, which: str) -> None:
    """Everything is served as one configuration says."""
    visitor = Visitor(served.two, served.server.address, SEED)
    visitor.play()
    assert [name for name, count in visitor.met.items() if count] == [which]


def lines_of(served: Reloading, reload: Callable[[], None]) -> list[dict[str, Any]]:
    """What is told meanwhile, but for transfers and what is usual."""
    before = len(served.lines())
    reload()
    usual = ("transfer", "names indexed", "inventory read again")
    return [line for line in served.lines()[before:] if not line["event"].startswith(usual)]


@contextmanager
def broken(path: Path, text: str | None) -> Iterator[None]:
    """A file with another text, or none."""
    old = path.read_bytes()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    try:
        yield
    finally:
        path.write_bytes(old)


def refused(served: Reloading, reload: Callable[[], None], reason: str) -> None:
    """A reload is refused, on one line that holds this, and what it opened is closed."""
    before = settled(served.pid, ALIKE)
    (line,) = lines_of(served, reload)
    assert (line["level"], line["event"]) == ("error", "reload refused, the old settings stay")
    assert reason in line["reason"]
    assert "\n" not in line["reason"]
    assert "Traceback" not in line["reason"]
    visit(served, "A")
    wait_until_held(served.pid, before, ALIKE)


def works(served: Reloading, which: str) -> None:
    """And so does the way back."""
    for one in (which, "A"):
        served.reload(one)
        assert served.lines()[-1]["event"] in ("settings reloaded", "names indexed")
        visit(served, one)


FILES = {
    "inventory is none": ("machines.toml", "[[machine]\n", "machines.inventory: "),
    "inventory names nobody": ("machines.toml", '[[machine]]\nmac = "52:54"\n', "machines.inventory: "),
    "inventory is missing": ("machines.toml", None, "No such file"),
    "map file has a faulty line": ("names.map", "r ^a$ b\nr ^( c\n", "line 2"),
    "map file is missing": ("names.map", None, "rewrite_file: "),
    "template is none": ("templates/pxe.j2", "B {{ mac_dashes", "pxe.j2"),
    "template asks for what nobody knows": ("templates/pxe.j2", "B {{ nobody_knows }}", "nobody_knows"),
    "template is missing": ("templates/pxe.j2", None, "pxe.j2"),
}


@pytest.mark.parametrize(
    ("which", "name", "text", "reason"),
    # The inventory in force is read again by whoever follows it, not by a reload: see below.
    [(which, *file) for file in FILES.values() for which in "AB" if (which, file[0]) != ("A", "machines.toml")],
)
def test_broken_file_that_a_configuration_names_keeps_the_old_one(
    served: Reloading, which: str, name: str, text: str | None, reason: str
) -> None:
    with broken(served.two.folder / which / name, text):
        refused(served, lambda: served.reload(which), reason)
    works(served, "B")


@pytest.mark.parametrize("text", ["[[machine]\n", '[[machine]]\nmac = "52:54"\n'])
def test_inventory_in_force_that_breaks_stays_as_it_was(served: Reloading, text: str) -> None:
    before = settled(served.pid, ALIKE)
    with broken(served.two.folder / "A/machines.toml", text):
        lines = lines_of(served, lambda: reload_and_wait(served, "inventory refused"))
        assert [line["event"] for line in lines if line["level"] == "error"] == ["inventory refused, the old one stays"]
        visit(served, "A")
        assert served.lines()[-1]["machine"] == "a"
    wait_until_held(served.pid, before, ALIKE)
    works(served, "B")


def reload_and_wait(served: Reloading, event: str, more: str = "") -> None:
    """For a line that comes of a reload, but not in its turn."""
    before = served.count(event)
    served.reload("A", more)
    wait_for(lambda: served.count(event) > before, event)


@pytest.mark.parametrize("text", ["no lease at all\n" * 1000, "x" * 10_000], ids=["text", "one line"])
def test_lease_file_that_breaks_keeps_what_is_known(served: Reloading, text: str) -> None:
    before, told = settled(served.pid, ALIKE), served.count("lease file cannot be read")
    with broken(served.two.folder / "A/leases", text):
        served.reload("A")
        wait_for(lambda: served.count("lease file cannot be read") == told + 1, "the warning")
        visit(served, "A")
    wait_for(lambda: served.lines()[-1]["event"] == "lease file is read again", "the line about it")
    wait_until_held(served.pid, before, ALIKE)
    works(served, "B")


def test_lease_file_that_is_away_is_that_of_before(served: Reloading) -> None:
    """Some servers make another one, and are between the two."""
    before = settled(served.pid, ALIKE)
    with broken(served.two.folder / "A/leases", None):
        assert [line["event"] for line in lines_of(served, lambda: served.reload("A"))] == ["settings reloaded"]
        visit(served, "A")
    wait_until_held(served.pid, before, ALIKE)
    works(served, "B")


def test_handlers_are_those_of_the_start_whatever_becomes_of_their_module(served: Reloading) -> None:
    with broken(served.two.folder / "modules/storm_handlers.py", "this is no Python"):
        lines = lines_of(served, lambda: served.reload("A"))
        assert [line.get("changed") for line in lines] == ["nothing"]
        visit(served, "A")
    other = served.two.text("A").replace("storm_handlers:answer", "no_such_module:answer")
    lines = lines_of(served, lambda: served.reload_text(other))
    assert [line["event"] for line in lines] == ["settings reloaded", "restart needed for: handlers"]
    visit(served, "A")
    works(served, "B")


CONFIGURATIONS = {
    "no TOML": ("[options]", "[options", "not TOML"),
    "a key that is none": ("[options]\nmax", "[options]\nmix", "options.mix_blksize_bytes"),
    "a value out of range": ("max_blksize_bytes = ", "max_blksize_bytes = 70", "options.max_blksize_bytes"),
    "a pattern of uploads": ('["up/**"]', '["up//x"]', "write_config.allowed_patterns"),
    "a pattern of a rule": ('["shared"]', '["a//b"]', "rules[1].paths"),
    "a prefix of a rule": ('"127.1.0.0/16"', '"127.1.0.0/99"', "rules[1].clients"),
    "a root of a rule": ('["site", "common"]', '["sites", "common"]', "rules[1]"),
    "a variable of a rule": ("{mac}", "{mac", "rules[3].roots"),
    "a pattern of names": ('["beside"]', '["a//b"]', "names.siblings"),
    "a regular expression": ("^rewritten$", "^(rewritten$", "rewrite[1]"),
    "a pattern of templates": ("cfg/{mac_dashes}", "cfg//{mac_dashes}", "templates[1].match"),
    "a template": ('"pxe.j2"', '"none.j2"', "none.j2"),
    "a folder of templates": ("/B/templates", "/B/tomplates", "template_dir"),
    "a map file": ("/B/names.map", "/B/maps.map", "rewrite_file"),
    "an inventory": ("/B/machines.toml", "/B/none.toml", "machines.inventory"),
    "a root": ("/B/root", "/B/none", "root_dir"),
    "a root that is a file": ("/B/root", "/B/machines.toml", "root_dir"),
    "a link target": ("/B/linked", "/B/none", "link_targets"),
    "an inventory below the root": ("/B/machines.toml", "/B/root/plain", "machines.inventory"),
}


@pytest.mark.parametrize(("good", "bad", "reason"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_broken_configuration_keeps_the_old_one(served: Reloading, good: str, bad: str, reason: str) -> None:
    text = served.two.text("B")
    assert good in text
    refused(served, lambda: served.reload_text(text.replace(good, bad)), reason)
    works(served, "B")


def test_configuration_that_is_missing_keeps_the_old_one(served: Reloading) -> None:
    with broken(served.two.config, None):
        refused(served, served.reload, "No such file")
    works(served, "B")


def test_root_of_a_rule_above_the_log_is_refused_as_at_the_start(served: Reloading) -> None:
    more = f'[[rules]]\npaths = ["x"]\nroots = ["{served.two.folder}"]\n'
    refused(served, lambda: served.reload("A", more), "logging.file")
    works(served, "B")
