"""One configuration takes the place of another: made whole in a thread, exchanged in one turn of the event loop.

    Settings ─prepare─► Coming: directories, upload area, machines, rules, rewrites, templates, classes of clients
                           ├─exchange─► every part goes by it; what it replaced is let go of
                           │     └─ a part cannot ─► every part goes by what it went by before
                           └─ refused, late, or not to be had ─close─► nothing of it stays open

May know: the parts of the server that a configuration changes. Must not know where settings come from, or who asked.

Invariants:
- `prepare` changes nothing that anybody can see, and may run several times at once: each makes its own.
- A Coming owns what was opened for it until it is in force.
- `exchange` waits for nothing, and no request is decided while it runs: none meets a part of the old configuration and
  a part of the new one.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.operate.hooks import UploadHook
from snow_owl_tftp.operate.log_places import refuse_inventory_below_root, refuse_logs_below_root
from snow_owl_tftp.operate.machines import MachineWatch, Prepared, wanted_machines
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.loop import TransferServer
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.sources import Sources

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from snow_owl_tftp.content.store.uploads import UploadArea
    from snow_owl_tftp.operate.handlers import PluggedHandlers
    from snow_owl_tftp.server.writes import UploadAnswerer

__all__ = ["Coming", "Exchange", "with_its_classes"]


@dataclass(frozen=True, slots=True)
class Coming:
    """A configuration with all that it needs open.

    Attributes:
        settings: What it was made of.
        machines: Which machine it is that asks; what is known already, where `[machines]` is the same.
        generation: What requests are decided by.
        sources: Where content lies; shared with the configuration in force, where directories are the same.
        area: Where uploads go; None: where they went before.
        close: Gives up what was opened for it, unless it is in force; a second call does nothing.
    """

    settings: Settings
    machines: Prepared
    generation: Generation
    sources: Sources
    area: "UploadArea | None"
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Exchange:
    """The parts of one server, and how they are given another configuration.

    Attributes:
        server: Carries out what is decided.
        report: Tells of it.
        hook: What is run for uploads.
        listening: Where the server listens.
        machines: Knows who asks.
        decider: Decides about reads.
        uploads: Decides about writes; None: there are none.
        plugged: Functions of the operator's; None: there are none.
    """

    server: TransferServer
    report: Report
    hook: UploadHook
    listening: Listening
    machines: MachineWatch
    decider: FileDecider
    uploads: "UploadAnswerer | None"
    plugged: "PluggedHandlers | None"

    def prepare(self, settings: Settings) -> Coming:
        """Make everything ready, in a thread: rules take a while to compile, and disks may be slow.

        Raises:
            ConfigError: What would refuse the start; nothing stays open.
        """
        refuse_logs_below_root(settings)
        refuse_inventory_below_root(settings)
        with ExitStack() as own:
            machines = self.machines.prepare(wanted_machines(settings))
            own.callback(self.machines.discard, machines)
            generation = Generation.of(settings, self.listening, machines.machines, by_class=True)
            already = self.decider.in_force[1]
            sources = Sources.open(generation, already)
            if sources is not already:
                own.callback(sources.close_own)
            area = None if self.uploads is None else self.uploads.area_for(generation)
            if area is not None:
                own.callback(area.close)
            close = own.pop_all().close
        return Coming(settings, machines, generation, sources, area, close)

    def exchange(self, coming: Coming, before: Settings, log: "FilteringBoundLogger") -> None:
        """Have every part go by another configuration, or none; called by the event loop.

        Args:
            coming: Of `prepare`; taken over. Where this fails it is closed.
            before: The settings in force.
            log: Where lines go from now on.

        Raises:
            OSError: The kernel gives no descriptor, or watches none.
            MemoryError: There is none.
        """
        old_machines = self.machines.in_force
        with ExitStack() as always, ExitStack() as undo:
            undo.callback(coming.close)
            self._exchange(coming, before, log, undo)
            if self.uploads is not None:
                self._exchange_uploads(self.uploads, coming, undo, always)
            undo.pop_all()
        self.machines.discard(old_machines)
        if self.uploads is not None and coming.area is not None:
            self.uploads.tidy()

    def _exchange(self, coming: Coming, before: Settings, log: "FilteringBoundLogger", undo: ExitStack) -> None:
        """Each part says how it is put back before it changes."""
        (old, old_sources), old_machines = self.decider.in_force, self.machines.in_force
        undo.callback(self._decide_by, old, old_sources)
        undo.callback(self.machines.take, old_machines)
        self.machines.take(coming.machines)
        generation = self._decide_by(coming.generation, coming.sources)
        undo.callback(self._tell, before, old, self.report.log, old_machines)
        self._tell(coming.settings, generation, log, coming.machines)
        undo.callback(self.server.reload, before)
        self.server.reload(coming.settings)

    def _exchange_uploads(self, uploads: "UploadAnswerer", coming: Coming, undo: ExitStack, always: ExitStack) -> None:
        area = uploads.hold()
        always.callback(uploads.let_go, area)
        undo.callback(uploads.reload, uploads.in_force, area)
        uploads.reload(self.decider.in_force[0], coming.area)

    def _decide_by(self, generation: Generation, sources: Sources) -> Generation:
        # Classes first: by these rules nothing may be repeated for those of the old ones.
        generation = with_its_classes(self.server, generation)
        self.decider.reload(generation, sources)
        return generation

    def _tell(
        self, settings: Settings, generation: Generation, log: "FilteringBoundLogger", machines: Prepared
    ) -> None:
        if self.plugged is not None:
            self.plugged.reload(generation.limits)
        self.hook.log = log
        self.report.machines = machines.machines
        self.report.reload(settings, log)


def with_its_classes(server: TransferServer, generation: Generation) -> Generation:
    """Have a server go by the classes of what it is to decide by; where it cannot, decide for each client alone.

    What was decided before must not be repeated any more: TransferServer.reload sees to that in either case.
    """
    try:
        server.set_classes(generation.classes)
    except MemoryError:
        return generation.unclassed("out of memory")
    return generation
