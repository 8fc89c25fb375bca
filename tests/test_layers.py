"""Which room of the package, and of the engine, may import from which (the drawing is in CONTRIBUTING.md).

May know: source text only. It reads every import as text and imports nothing of the package, so it also judges a tree
that does not build. Imports inside functions and under TYPE_CHECKING count like those at the top of a file: a layer
that needs a higher one only sometimes still needs it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "snow_owl_tftp"
SOURCE_DIR = Path(__file__).resolve().parent.parent / "src" / PACKAGE
ROOT = "(root)"  # the package's own __init__

BELOW_SERVER = frozenset({"config", "plan", "events", "protocol", "linux", "errors", "policy", "content", "observe"})
# Room -> what it may import beside itself. A room that is not named here is a wrong arrow by itself.
ALLOWED: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "linux": frozenset({"errors"}),
    "protocol": frozenset({"errors"}),
    "config": frozenset({"protocol", "errors"}),
    "plan": frozenset({"protocol", "errors"}),
    "events": frozenset({"plan", "protocol", "errors"}),
    "policy": frozenset({"config", "protocol", "errors"}),
    "content": frozenset({"linux", "protocol", "errors"}),
    "observe": frozenset({"events", "config", "linux", "errors"}),
    "client": frozenset({"plan", "protocol", "linux", "errors", "_engine"}),
    "bench": frozenset({"plan", "protocol", "linux", "errors", "observe", "_engine"}),
    "server": BELOW_SERVER | {"_engine"},
    "library": BELOW_SERVER | {"server", "_engine"},
    "operate": BELOW_SERVER | {"server", "library", "_engine"},
    "cli": BELOW_SERVER | {"operate", "client", "bench"},
    "__main__": frozenset({"cli"}),
    "_engine": frozenset(),
    ROOT: BELOW_SERVER | {"library", "client"},
}
# Room of the engine -> the rooms that it may include beside itself. Nowhere do files include one another in a circle.
ROOMS: Mapping[str, frozenset[str]] = {
    "includes": frozenset(),
    "protocol": frozenset(),
    "base": frozenset({"includes", "protocol"}),
    "memory": frozenset({"base", "protocol"}),
    "net": frozenset({"base", "includes", "protocol"}),
    "disk": frozenset({"base", "includes"}),
    "worker": frozenset({"base", "disk", "includes", "memory", "net", "protocol"}),
    "engine": frozenset({"base", "disk", "includes", "net", "protocol", "worker"}),
    "probe": frozenset({"base", "memory", "net", "protocol"}),
}
# Sans-I/O: time is an argument, and bytes come in and go out as values.
PROTOCOL_MUST_NOT = frozenset({"asyncio", "logging", "os", "select", "socket", "threading", "time"})
# The version is the one name that any layer may take from the root: everything else there is made of higher layers.
ROOT_NAMES_FOR_ALL = frozenset({"__version__"})

CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<source>[\w.]+)\s+c?import\s+(?P<names>[^#\n]*)|c?import\s+(?P<plain>[\w.]+))", re.M
)


def layer_of(path: str) -> str:
    """`protocol/packets.py` → `protocol`; `plan/transfer.py` → `plan`; `__init__.py` → the root."""
    top = path.split("/", 1)[0]
    return ROOT if top == "__init__.py" else top.removesuffix(".pyi").removesuffix(".py")


def imports_of_python(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) for every import; `from a import b` yields `a.b`, because b may be a module."""
    parents = [PACKAGE, *path.split("/")[:-1]]
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def imports_of_cython(source: str) -> Iterator[tuple[int, str]]:
    """The same for a .pyx or .pxd, which `ast` cannot parse; what these files import stands at the start of a line."""
    for match in CYTHON_IMPORT.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        if match["plain"]:
            yield line, match["plain"]
        else:
            names = re.findall(r"\w+", re.sub(r"\s+as\s+\w+", "", match["names"])) or ["*"]
            yield from ((line, f"{match['source']}.{name}") for name in names)


def complaint(layer: str, imported: str) -> str | None:
    """Returns what is wrong with this layer importing this name, or None."""
    if layer not in ALLOWED:
        return f"{layer} is no layer; name it in ALLOWED, with what it may import"
    parts = imported.split(".")
    if parts[0] != PACKAGE:
        if layer == "protocol" and parts[0] in PROTOCOL_MUST_NOT:
            return f"protocol is sans-I/O and must not import {parts[0]}"
        return None
    target = parts[1] if len(parts) > 1 else ROOT
    if target == layer or target in ROOT_NAMES_FOR_ALL:
        return None
    if target not in ALLOWED:
        target = ROOT
    return None if target in ALLOWED[layer] else f"{layer} must not import {target}"


def wrong_arrows(files: Mapping[str, str]) -> list[str]:
    """Returns one line per wrong import in these sources, whose keys are paths inside the package."""
    found = []
    for path, source in sorted(files.items()):
        cython = path.endswith((".pyx", ".pxd"))
        for line, imported in imports_of_cython(source) if cython else imports_of_python(path, source):
            if why := complaint(layer_of(path), imported):
                found.append(f"{path}:{line}: {why} ({imported})")
    return found


def engine_arrows(files: Mapping[str, str]) -> Iterator[tuple[str, int, str]]:
    """Yields (path, line, what it imports of the engine, from its room on) for every file in a room."""
    for path, source in sorted(files.items()):
        if not path.startswith("_engine/") or path.startswith("_engine/__init__"):
            continue
        cython = path.endswith((".pyx", ".pxd"))
        for line, imported in imports_of_cython(source) if cython else imports_of_python(path, source):
            if imported.startswith(f"{PACKAGE}._engine."):
                yield path, line, imported.removeprefix(f"{PACKAGE}._engine.")


def room_of(path: str) -> str:
    """`_engine/net/batch.pxd` → `net`; `_engine/probe.pyx` → `probe`."""
    return path.split("/")[1].split(".")[0]


def wrong_rooms(files: Mapping[str, str]) -> list[str]:
    """Returns one line per import of a room that may not be imported there."""
    found = []
    for path, line, imported in engine_arrows(files):
        room, target = room_of(path), imported.split(".")[0]
        if room not in ROOMS:
            found.append(f"{path}:{line}: {room} is no room; name it in ROOMS, with what it may include")
        elif target != room and target not in ROOMS[room]:
            found.append(f"{path}:{line}: {room} must not include {target} ({imported})")
    return found


def circles_of_the_engine(files: Mapping[str, str]) -> list[str]:
    """Returns a line per circle of files that include one another; a module's .pyx and .pxd are one."""
    graph: dict[str, set[str]] = {}
    for path, _, imported in engine_arrows(files):
        name = path.removeprefix("_engine/").rsplit(".", 1)[0]
        target = "/".join(imported.split(".")[:2])
        if target != name:
            graph.setdefault(name, set()).add(target)
    found: list[str] = []
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> None:
        if name in way:
            found.append(" → ".join([*way[way.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                walk(target, [*way, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found


def circles(files: Mapping[str, str]) -> list[str]:
    """Returns `a → b → a` for modules of Python that need one another, within a room too; one line a circle."""
    modules = {
        f"{PACKAGE}.{path.removesuffix('.py').replace('/', '.')}": path for path in files if path.endswith(".py")
    }
    needs = {name: sorted(needed(path, files[path]) & modules.keys() - {name}) for name, path in modules.items()}
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = [*way[way.index(name) :], name]
            found.append(" → ".join(module.removeprefix(f"{PACKAGE}.") for module in circle))
        elif name not in done:
            for other in needs[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(modules):
        visit(name, ())
    return found


def needed(path: str, source: str) -> set[str]:
    """The modules that a file may mean: `from a import b` is either of `a` and `a.b`."""
    names = {imported for _, imported in imports_of_python(path, source)}
    return names | {name.rpartition(".")[0] for name in names}


def package_sources() -> dict[str, str]:
    suffixes = {".py", ".pyi", ".pyx", ".pxd"}
    paths = [path for path in SOURCE_DIR.rglob("*") if path.suffix in suffixes]
    return {path.relative_to(SOURCE_DIR).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_package_has_no_wrong_arrow() -> None:
    sources = package_sources()
    assert "__init__.py" in sources, "nothing was walked"
    assert wrong_arrows(sources) == []


def test_package_has_no_circle() -> None:
    assert circles(package_sources()) == []


def test_every_part_of_the_package_is_a_layer() -> None:
    assert {layer_of(path) for path in package_sources()} <= ALLOWED.keys()


def test_engine_has_no_wrong_arrow_between_its_rooms() -> None:
    sources = package_sources()
    assert any(path.startswith("_engine/worker/") for path in sources), "nothing was walked"
    assert wrong_rooms(sources) == []


def test_every_part_of_the_engine_is_a_room() -> None:
    parts = {room_of(path) for path in package_sources() if path.startswith("_engine/")}
    assert parts - {"__init__"} == ROOMS.keys()


def test_no_file_of_the_engine_includes_itself_in_a_circle() -> None:
    assert circles_of_the_engine(package_sources()) == []


def test_circle_is_found() -> None:
    files = {
        "_engine/disk/jobs.pxd": "from snow_owl_tftp._engine.disk.state cimport Store",
        "_engine/disk/state.pxd": "from snow_owl_tftp._engine.disk.lanes cimport (\n    Lanes)",
        "_engine/disk/lanes.pxd": "from snow_owl_tftp._engine.disk.jobs cimport store_kick",
    }
    assert circles_of_the_engine(files) == ["disk/jobs → disk/state → disk/lanes → disk/jobs"]
    del files["_engine/disk/lanes.pxd"]
    assert circles_of_the_engine(files) == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("_engine/memory/slab.pxd", "from snow_owl_tftp._engine.worker.state cimport Worker", "include worker"),
        ("_engine/disk/sink.pxd", "from snow_owl_tftp._engine.worker.state cimport (\n    Worker)", "include worker"),
        ("_engine/protocol/window.pxd", "from snow_owl_tftp._engine.base.clock cimport clock_ns", "include base"),
        ("_engine/net/batch.pyx", "from snow_owl_tftp._engine.disk.store cimport store_open", "must not include disk"),
        ("_engine/probe.pyx", "from snow_owl_tftp._engine.engine.api cimport Engine", "must not include engine"),
        ("_engine/attic/old.pxd", "from snow_owl_tftp._engine.base.clock cimport clock_ns", "attic is no room"),
    ],
)
def test_wrong_arrow_between_rooms_is_found(path: str, source: str, expected: str) -> None:
    found = wrong_rooms({path: source})
    assert len(found) == 1, found
    assert expected in found[0]


def test_rules_have_no_cycle() -> None:
    for room, included in ROOMS.items():
        for target in included:
            assert room not in ROOMS[target], f"{room} and {target} may include one another"
    for layer, allowed in ALLOWED.items():
        for target in allowed:
            assert layer not in ALLOWED[target], f"{layer} and {target} may import one another"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("protocol/packets.py", "from snow_owl_tftp.config.schema import Settings", "protocol must not import config"),
        ("protocol/packets.py", "from ..plan import TransferPlan", "protocol must not import plan"),
        ("protocol/packets.py", "from .. import plan", "protocol must not import plan"),
        ("protocol/deep/er.py", "from ...plan import TransferPlan", "protocol must not import plan"),
        ("protocol/packets.py", "import socket", "must not import socket"),
        ("protocol/packets.py", "def f():\n    import os.path", "must not import os"),
        ("protocol/packets.py", "from time import monotonic_ns", "must not import time"),
        ("errors.py", "import snow_owl_tftp.protocol", "errors must not import protocol"),
        ("plan/transfer.py", "from snow_owl_tftp import config", "plan must not import config"),
        ("policy/rules.py", "from snow_owl_tftp.content.files import open_file", "policy must not import content"),
        ("policy/rules.py", "from snow_owl_tftp import Server", "policy must not import (root)"),
        (
            "content/files.py",
            "def f():\n    from snow_owl_tftp.observe import audit",
            "content must not import observe",
        ),
        ("observe/audit.py", "from snow_owl_tftp._engine import engine", "observe must not import _engine"),
        ("events/event.py", "from snow_owl_tftp.config.schema import Settings", "events must not import config"),
        ("events/event.py", "from snow_owl_tftp._engine.engine import Completion", "events must not import _engine"),
        ("plan/freeze.py", "from ..content.files import OpenFile", "plan must not import content"),
        ("policy/rules.py", "from ..events import event", "policy must not import events"),
        ("cli/serve.py", "from snow_owl_tftp._engine.engine import Engine", "cli must not import _engine"),
        ("client/get.py", "from snow_owl_tftp.server import loop", "client must not import server"),
        ("server/loop.py", "from snow_owl_tftp.client import get", "server must not import client"),
        ("server/loop.py", "if TYPE_CHECKING:\n    from ..cli import main", "server must not import cli"),
        (
            "server/loop.py",
            "import importlib\nimportlib.import_module('snow_owl_tftp.cli')",
            "server must not import cli",
        ),
        ("_engine/__init__.py", "from ..errors import EngineError", "_engine must not import errors"),
        (
            "_engine/engine/api.pyx",
            "from snow_owl_tftp.plan.transfer cimport TransferPlan",
            "_engine must not import plan",
        ),
        ("_engine/engine/api.pyx", "    from snow_owl_tftp import errors", "_engine must not import errors"),
        ("_engine/net/batch.pxd", "cimport snow_owl_tftp.plan.transfer", "_engine must not import plan"),
        ("__init__.py", "from ._engine import engine", "(root) must not import _engine"),
        ("helpers.py", "import json", "helpers is no layer"),
    ],
)
def test_wrong_arrow_is_found(path: str, source: str, expected: str) -> None:
    found = wrong_arrows({path: source})
    assert len(found) == 1, found
    assert expected in found[0]


def test_circle_is_found_also_where_a_function_closes_it() -> None:
    files = {
        "client/a.py": "from snow_owl_tftp.client.b import B",
        "client/b.py": "from .c import C",
        "client/c.py": "def f():\n    from . import a",
        "client/d.py": "from snow_owl_tftp.client import a, b",
    }
    assert circles(files) == ["client.a → client.b → client.c → client.a"]
    del files["client/c.py"]
    assert circles(files) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("protocol/packets.py", "import struct\nfrom ..errors import BadPacket\nfrom .constants import Opcode"),
        (
            "policy/rules.py",
            "import os\nfrom ..protocol import seq\nfrom snow_owl_tftp.config.schema import Settings",
        ),
        ("server/loop.py", "from .._engine import engine\nfrom ..content import files\nfrom . import commit"),
        ("client/get.py", "from .._engine.engine import Engine\nfrom ..plan import TransferPlan"),
        ("cli/serve.py", "from .. import __version__\ndef run():\n    from ..operate import run"),
        (
            "_engine/engine/api.pyx",
            "from libc.stdint cimport uint16_t\nfrom snow_owl_tftp._engine.net.batch cimport Tuning",
        ),
        ("__main__.py", "from snow_owl_tftp.cli import main"),
        ("observe/samples.py", "from snow_owl_tftp.events.event import BatchCalls"),
        ("plan/freeze.py", "from snow_owl_tftp.protocol.options import Negotiated"),
    ],
)
def test_right_arrow_passes(path: str, source: str) -> None:
    assert wrong_arrows({path: source}) == []
