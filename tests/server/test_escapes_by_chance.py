"""Names, rewritings, variables and roots that chance puts together: what is opened lies where an oracle says it may.

    machine, roots, [[rewrite]], map, [names], name ─decide─► a descriptor, or a stored file
                 └─ oracle: roots by os.path.realpath ──────────► its real path lies below one of them, or link_targets

The oracle knows nothing of names: whatever they become, the kernel says where the file lies that was opened.
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from tests.support.escape_chances import CLIENT, NAMES, SETTINGS, VARIABLES, Setting
from tests.support.escape_scene import make_scene
from tests.support.soak import many
from tests.support.witness import untouched

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.verdict import Accepted, CommitRefusal, UploadContext
from snow_owl_tftp.server.writes import UploadAnswerer

VALUE_OF_ADDRESS = {"address": CLIENT, "address_hex": "7F000101"}
FEW = 200
MANY = many(2_000, full=100_000)  # SNOW_OWL_SOAK=full


@dataclass
class Asked:
    """A request as the engine hands it over, of a machine that calls itself anything."""

    datagram: bytes
    transfer_id: int = 1
    peer: tuple[str, int] = (CLIENT, 2000)
    local_address: str | None = None
    endpoint: int = 0


@dataclass
class Range:
    base: Path
    loop: asyncio.AbstractEventLoop
    touches: Callable[[], list[str]]
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def root(self) -> Path:
        return self.base / "root"

    def allowed(self, setting: Setting) -> list[str]:
        """Directories that what is served must lie below; first those of the roots."""
        if not setting.roots:
            return [str(self.root)]
        found = []
        for text in setting.roots:
            text = text.replace("{base}", str(self.base))
            filled = self._filled(text, setting.values)
            top = self.base / "absolute" if text.startswith("/") else self.root
            path = os.path.realpath(os.path.join(self.root, filled)) if filled is not None else ""  # noqa: PTH118
            if path and is_below(path, [str(top), str(self.base / "place")]):
                found.append(path)
        return found

    def _filled(self, text: str, values: Mapping[str, str]) -> str | None:
        """With variables, as long as each is one plain part of a path."""
        known = {**values, **VALUE_OF_ADDRESS}
        for name in re.findall("{([a-z_]+)}", text):
            value = known[name]
            if os.path.basename(f"x{value}") != f"x{value}" or not value or value[0] == "." or "\\" in value:  # noqa: PTH119
                return None
            if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
                return None
            try:
                if len(os.fsencode(value)) > 255:
                    return None
            except UnicodeEncodeError:
                return None
            text = text.replace("{" + name + "}", value)
        return text


def is_below(path: str, directories: Sequence[str]) -> bool:
    return any(path == directory or path.startswith(directory + "/") for directory in directories)


@pytest.fixture(scope="module")
def range_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    scene = make_scene(tmp_path_factory.mktemp("chance"))
    loop = asyncio.new_event_loop()
    try:
        with untouched(*scene.outside) as touches:
            found = Range(scene.base, loop, touches)
            yield found
    finally:
        loop.close()
    print(dict(found.outcomes))


def settings_of(where: Range, setting: Setting) -> Settings:
    """Raises: ConfigError."""
    base = str(where.base)
    chosen: dict[str, Any] = {
        "root_dir": str(where.root),
        "link_targets": [str(where.base / "place")],
        "rewrite": [
            {"pattern": pattern, "replacement": into.replace("{base}", base), "every": every, "last": last}
            for pattern, into, every, last in setting.rewrite
        ],
        **{f"names.{key}": value for key, value in setting.names.items()},
        "write_config.enabled": True,
        "write_config.allowed_patterns": ("**",),
        "write_config.create_directories": True,
        "write_config.fsync": False,
    }
    if setting.roots:
        roots = [root.replace("{base}", base) for root in setting.roots]
        chosen["rules"] = [{"roots": roots, "allow": ["read", "write"]}]
    if setting.map_lines:
        path = where.base / "own/map.chance"
        path.write_text("".join(f"{line.replace('{base}', base)}\n" for line in setting.map_lines))
        chosen["rewrite_file"] = str(path)
    return override(Settings(), chosen)


def play(where: Range, setting: Setting, name: str) -> None:
    name = name.replace("{root}", str(where.root)).replace("{base}", str(where.base)).replace("\0", "")
    stored: list[Path] = []
    with ExitStack() as stack:
        try:
            chosen = settings_of(where, setting)
            generation = Generation.of(chosen, machines=setting)
            desk = UploadAnswerer(chosen, lambda path, client: stored.append(path), generation)
            stack.callback(desk.close)
            decider = FileDecider(chosen, desk.answer, generation)
            stack.callback(decider.close)
        except ConfigError:
            where.outcomes["no configuration"] += 1
            return
        if setting.names["case"] == "insensitive":
            decider.other_names.index.settle(5)
        decider.other_names.folders.note(CLIENT, setting.folder)
        request = name.encode("utf-8", "surrogateescape") + b"\0octet\0"
        where.loop.run_until_complete(_ask(where, setting, decider, request, stored))
    assert not (touched := where.touches()), touched


async def _ask(where: Range, setting: Setting, decider: FileDecider, request: bytes, stored: list[Path]) -> None:
    allowed = where.allowed(setting)
    for kind in (b"\0\1", b"\0\2"):
        verdict = decider.decide(Asked(kind + request))
        if isinstance(verdict, Awaitable):
            verdict = await verdict
        if not isinstance(verdict, Accepted):
            where.outcomes["refused"] += 1
        elif kind == b"\0\1":
            real, content = os.readlink(f"/proc/self/fd/{verdict.plan.fd}"), os.pread(verdict.plan.fd, 600, 0)  # noqa: PTH115
            verdict.discard()
            assert is_below(real, [*allowed, str(where.base / "place")]), f"{real} was sent; {allowed}"
            assert content.startswith(b"inside"), content
            where.outcomes["read"] += 1
        else:
            await _store(where, verdict.plan.context, allowed, stored)


async def _store(where: Range, context: object, allowed: Sequence[str], stored: list[Path]) -> None:
    assert isinstance(context, UploadContext)
    sink = await context.open()
    if not isinstance(sink, CommitRefusal):
        os.pwrite(sink.fd, b"inside by chance", 0)
        await context.commit(16)
    context.retired()
    for path in stored:
        real = os.path.realpath(path)  # noqa: ASYNC240 - nobody else runs in this loop
        path.unlink()
        assert is_below(real, allowed[:1]), f"{real} was stored; {allowed}"
        assert path.parent.resolve() == path.parent
        where.outcomes["stored"] += 1


GOOD = Setting(dict.fromkeys(VARIABLES, "good"), [], [], [], {"case": "exact"}, b"x")


def test_scene_gives_what_chance_looks_for(range_: Range) -> None:
    """Or it would prove nothing: reads, refusals and uploads, by roots and by rewriting."""
    play(range_, GOOD, "Sub/File")
    assert range_.outcomes["read"] >= 1
    play(
        range_,
        Setting(GOOD.values, ["by/{dir}"], [("^new", "made/new", False, False)], [], {"case": "exact"}, b"x"),
        "new",
    )
    assert range_.outcomes["stored"] >= 1
    before = range_.outcomes["refused"]
    play(range_, GOOD, "../outside/secret")
    assert range_.outcomes["refused"] == before + 2


@settings(max_examples=FEW, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(setting=SETTINGS, name=NAMES)
@example(Setting({**GOOD.values, "dir": "Out"}, ["by/{dir}", "{dir}"], [], [], {"case": "exact"}, b"x"), "secret")
@example(Setting(GOOD.values, ["way/{dir}"], [], [], {"case": "exact"}, b"x"), "file")
@example(
    Setting(GOOD.values, [], [("^", "../", False, False)], ["rE ^ ../"], {"case": "lower"}, b"x"), "outside/secret"
)
@example(Setting({**GOOD.values, "dir": "\ud800"}, ["by/{dir}", "common"], [], [], {"case": "exact"}, b"x"), "file")
def test_what_is_opened_lies_where_it_may(range_: Range, setting: Setting, name: str) -> None:
    play(range_, setting, name)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(
    max_examples=MANY, deadline=None, derandomize=False, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(setting=SETTINGS, name=NAMES)
def test_what_is_opened_lies_where_it_may_whatever_chance_makes(range_: Range, setting: Setting, name: str) -> None:
    """2 000; with SNOW_OWL_SOAK=full, 100 000."""
    play(range_, setting, name)
