"""A configuration in place of another: all parts or none, and nothing stays open of what is not in force.

May know: the parts of a server, without its sockets. Every feature is on (tests/support/every_feature.py).
"""

import asyncio
import errno
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.descriptors import open_descriptors, settled_descriptors
from tests.support.every_feature import TwoConfigurations

from snow_owl_tftp.config.load import load
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.content.files import FileTree
from snow_owl_tftp.content.overlay import Overlay
from snow_owl_tftp.content.store.uploads import UploadArea
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.log import LogFile, make_logger
from snow_owl_tftp.operate.exchange import Coming, Exchange
from snow_owl_tftp.operate.handlers import PluggedHandlers
from snow_owl_tftp.operate.hooks import UploadHook
from snow_owl_tftp.operate.machines import MachineWatch, wanted_machines
from snow_owl_tftp.operate.machines.gathered import Gathered
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.loop import TransferServer
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.sources import Sources
from snow_owl_tftp.server.templates import Templates
from snow_owl_tftp.server.writes import UploadAnswerer

OWNED = (Coming, Generation, Sources, FileTree, Overlay, Gathered, Templates, UploadArea)
FAILS = [
    (MachineWatch, "take"),
    (FileDecider, "reload"),
    (PluggedHandlers, "reload"),
    (Report, "reload"),
    (TransferServer, "set_classes"),
    (TransferServer, "reload"),
    (UploadAnswerer, "reload"),
]


@dataclass
class Parts:
    """Of one server, which goes by "A"."""

    two: TwoConfigurations
    exchange: Exchange
    settings: Settings

    def prepare(self, which: str) -> Coming:
        return self.exchange.prepare(self.read(which))

    def read(self, which: str) -> Settings:
        self.two.write(which)
        return load(self.two.config)

    def put(self, coming: Coming) -> None:
        self.exchange.exchange(coming, self.settings, cast(Any, f"log of {coming.settings.root_dir}"))
        self.settings = coming.settings

    def in_force(self) -> list[object]:
        """All that a request meets."""
        exchange = self.exchange
        assert exchange.uploads is not None
        assert exchange.plugged is not None
        generation, sources = exchange.decider.in_force
        return [
            *(generation, sources, sources.tree.max_file_size_bytes),
            *(exchange.uploads._generation, exchange.uploads._area, exchange.uploads._area.max_file_size_bytes),
            *(exchange.machines.in_force, exchange.report.machines, exchange.report.log, exchange.hook.log),
            *(exchange.plugged._decider.limits, exchange.server._settings, exchange.server._classes),
        ]


def parts_of(two: TwoConfigurations, closing: ExitStack) -> Parts:
    """Made as the command makes them."""
    two.write("A")
    settings = load(two.config)
    log_file = LogFile(str(two.folder / "log"))
    closing.callback(log_file.close)
    log = make_logger(settings.logging, log_file)
    audit = AuditLog("")
    closing.callback(audit.close)
    report = Report(settings, log, audit, log_file)
    machines = MachineWatch(wanted_machines(settings))
    closing.callback(machines.close)
    report.machines = machines.machines
    listening = Listening()
    generation = Generation.of(settings, listening, machines.machines, by_class=True)
    uploads = UploadAnswerer(settings, generation=generation)
    closing.callback(uploads.close)
    decider = FileDecider(settings, uploads.answer, generation)
    closing.callback(decider.close)
    server = TransferServer(settings, decider, report)
    server.set_classes(generation.classes)
    hook = UploadHook(settings.write_config, log)
    plugged = PluggedHandlers(settings, generation.limits)
    closing.callback(plugged._decider.close)
    exchange = Exchange(server, report, hook, listening, machines, decider, uploads, plugged)
    return Parts(two, exchange, settings)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    two = TwoConfigurations(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    with ExitStack() as closing:
        yield parts_of(two, closing)
    sys.modules.pop("storm_handlers", None)


def which(parts: Parts) -> set[str]:
    """Whose what is in force is, as far as paths say."""
    assert parts.exchange.uploads is not None
    generation, sources = parts.exchange.decider.in_force
    settings = parts.exchange.machines.in_force.settings
    assert settings is not None
    assert sources.overlay is not None
    paths = (sources.tree.asked_for[0], generation.root_dir, sources.overlay.plan.root_dir, settings.inventory)
    return {Path(path).relative_to(parts.two.folder).parts[0] for path in (*paths, parts.exchange.uploads._area.root)}


def test_every_part_goes_by_the_other_configuration(parts: Parts) -> None:
    for name in "BAB":
        before = parts.in_force()
        parts.put(parts.prepare(name))
        assert which(parts) == {name}
        assert [at for at, (old, new) in enumerate(zip(before, parts.in_force(), strict=True)) if old is new] == []
        assert parts.exchange.uploads is not None
        assert parts.exchange.uploads._generation is parts.exchange.decider.in_force[0]


@pytest.mark.parametrize(("part", "method"), FAILS, ids=lambda value: getattr(value, "__name__", value))
def test_part_that_fails_puts_back_those_before_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, part: type, method: str
) -> None:
    works, failed = getattr(part, method), []

    def fail(self: object, *arguments: object) -> object:
        if not failed:
            failed.append(method)
            works(self, *arguments)  # it got as far as that
            raise OSError(errno.ENOSPC, "no more watches")
        return works(self, *arguments)

    for name in "BABABABA":  # as many as leave old roots open
        parts.put(parts.prepare(name))
    before, descriptors = parts.in_force(), settled_descriptors()
    coming = parts.prepare("B")
    monkeypatch.setattr(part, method, fail)
    with pytest.raises(OSError, match="no more watches"):
        parts.put(coming)
    assert failed
    assert [at for at, (old, new) in enumerate(zip(before, parts.in_force(), strict=True)) if old is not new] == []
    del coming
    assert settled_descriptors() <= descriptors
    parts.put(parts.prepare("B"))
    assert which(parts) == {"B"}


def test_server_without_memory_for_classes_decides_for_each_client(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TransferServer, classes: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TransferServer, "set_classes", fail)
    parts.put(parts.prepare("B"))
    generation = parts.exchange.decider.in_force[0]
    assert (generation.classes, generation.unclassed_why) == (None, "out of memory")
    assert which(parts) == {"B"}


@pytest.mark.parametrize("late", ["A", "B"])
@pytest.mark.parametrize("sooner", ["A", "B"])
def test_what_is_late_is_closed_and_takes_nothing_along(parts: Parts, sooner: str, late: str) -> None:
    """One that nobody waits for any more is ready before, while and after others are put in force."""
    for name in "BABABABA":  # as many as leave old roots open
        parts.put(parts.prepare(name))
    descriptors = settled_descriptors()
    for _ in range(5):
        too_late = parts.prepare(late)
        first, second = parts.prepare(sooner), parts.prepare(sooner)
        parts.put(first)
        too_late.close()
        second.close()
        assert which(parts) == {sooner}
        check_serves(parts, sooner)
        too_late = parts.prepare(late)
        parts.put(parts.prepare("A"))
        too_late.close()
        check_serves(parts, "A")
    assert settled_descriptors() == descriptors


def check_serves(parts: Parts, name: str) -> None:
    """What is in force is open."""
    assert parts.exchange.uploads is not None
    _, sources = parts.exchange.decider.in_force
    file = sources.tree.open_for_reading("plain")
    assert os.pread(file.fd, 1, 0) == name.encode()
    file.close()
    assert sources.overlay is not None
    assert all(tree.places[0].fd >= 0 for tree in sources.overlay._trees.values())
    assert parts.exchange.uploads._area.directories.holds(b"up")
    gathered = parts.exchange.machines.in_force.gathered
    assert gathered is not None
    assert gathered.hearing is None or gathered.hearing.fileno() >= 0


def test_what_is_refused_half_made_is_closed_without_the_collector(parts: Parts) -> None:
    settings = parts.read("B")
    (parts.two.folder / "B/root/common/shared").unlink(missing_ok=True)
    (parts.two.folder / "B/root/common").rmdir()
    gc.collect()
    gc.disable()
    try:
        before = open_descriptors()
        for _ in range(20):
            with pytest.raises(ConfigError, match="common"):
                parts.exchange.prepare(settings)
        assert open_descriptors() <= before
    finally:
        gc.enable()


def test_nothing_but_the_last_few_is_kept_of_a_hundred_configurations(parts: Parts) -> None:
    def live() -> dict[str, int]:
        gc.collect()
        objects = gc.get_objects()
        return {kind.__name__: sum(type(one) is kind for one in objects) for kind in OWNED}

    counts = []
    for _ in range(3):
        for number in range(34):
            parts.put(parts.prepare("BA"[number % 2]))
        counts.append(live())
    assert counts[1] == counts[2]
    assert max(counts[2].values()) <= 16, counts[2]
    assert counts[2]["Generation"] == 1


def test_descriptors_of_old_configurations_close_without_the_collector(parts: Parts) -> None:
    async def exchange() -> None:
        for number in range(40):
            parts.put(await asyncio.to_thread(parts.prepare, "BA"[number % 2]))

    asyncio.run(exchange())
    settled_descriptors()
    gc.disable()
    try:
        before = open_descriptors()
        asyncio.run(exchange())
        assert abs(open_descriptors() - before) <= 8  # threads of the index and for sweeping end when they like
    finally:
        gc.enable()
