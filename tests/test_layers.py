"""Which room of the package may import from which (the drawing is in CONTRIBUTING.md).

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
    "operate": BELOW_SERVER | {"server", "_engine"},
    "cli": BELOW_SERVER | {"operate", "client", "bench"},
    "__main__": frozenset({"cli"}),
    "_engine": frozenset(),
    ROOT: BELOW_SERVER | {"library", "client"},
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


def package_sources() -> dict[str, str]:
    suffixes = {".py", ".pyi", ".pyx", ".pxd"}
    paths = [path for path in SOURCE_DIR.rglob("*") if path.suffix in suffixes]
    return {path.relative_to(SOURCE_DIR).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_package_has_no_wrong_arrow() -> None:
    sources = package_sources()
    assert "__init__.py" in sources, "nothing was walked"
    assert wrong_arrows(sources) == []


def test_every_part_of_the_package_is_a_layer() -> None:
    assert {layer_of(path) for path in package_sources()} <= ALLOWED.keys()


def test_rule_has_no_cycle() -> None:
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
        ("_engine/engine.pyx", "from snow_owl_tftp.plan.transfer cimport TransferPlan", "_engine must not import plan"),
        ("_engine/engine.pyx", "    from snow_owl_tftp import errors", "_engine must not import errors"),
        ("_engine/batch.pxd", "cimport snow_owl_tftp.plan.transfer", "_engine must not import plan"),
        ("__init__.py", "from ._engine import engine", "(root) must not import _engine"),
        ("helpers.py", "import json", "helpers is no layer"),
    ],
)
def test_wrong_arrow_is_found(path: str, source: str, expected: str) -> None:
    found = wrong_arrows({path: source})
    assert len(found) == 1, found
    assert expected in found[0]


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
        ("_engine/engine.pyx", "from libc.stdint cimport uint16_t\nfrom snow_owl_tftp._engine.seq cimport next_block"),
        ("__main__.py", "from snow_owl_tftp.cli import main"),
        ("observe/samples.py", "from snow_owl_tftp.events.event import BatchCalls"),
        ("plan/freeze.py", "from snow_owl_tftp.protocol.options import Negotiated"),
    ],
)
def test_right_arrow_passes(path: str, source: str) -> None:
    assert wrong_arrows({path: source}) == []
