"""The process around one TransferServer: descriptors, log, signals, and how it ends.

    SIGTERM, SIGINT   take no more requests, let transfers finish (at most drain_timeout_s), exit 0; 2 s later at
                      the latest, whatever hangs
    a second one      exit at once with 128 + its number, as a shell counts a process that was killed
    SIGHUP            open the log files by their names again, look up the root again (see `root_watch`) and read the
                      configuration again (see `reload`); a server that is ending only does the first
    SIGUSR1           open the log files by their names again

May know: the process. Must not know requests or transfers. It runs in the main thread of a process
of its own, since signals and the limit of descriptors belong to the process.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from snow_owl_tftp import __version__
from snow_owl_tftp._engine.disk import apart
from snow_owl_tftp.config.schema import LoggingSettings, Settings
from snow_owl_tftp.errors import EngineError
from snow_owl_tftp.linux.activation import take_given_sockets
from snow_owl_tftp.linux.notify import Notifier
from snow_owl_tftp.linux.remedies import with_remedy
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.log import LogFile, make_logger
from snow_owl_tftp.operate.exchange import Coming, Exchange
from snow_owl_tftp.operate.hooks import UploadHook
from snow_owl_tftp.operate.last_resort import LastResort
from snow_owl_tftp.operate.log_places import refuse_inventory_below_root, refuse_logs_below_root
from snow_owl_tftp.operate.machines import MachineWatch, wanted_machines
from snow_owl_tftp.operate.process import begin_host, occupy_standard_descriptors, raise_descriptor_limit, watch_host
from snow_owl_tftp.operate.reload import Reloader
from snow_owl_tftp.operate.root_watch import RootWatch
from snow_owl_tftp.operate.told import tell_of_configuration, warn_of_dropped_keys
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.server.answer import refuse_write
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.loop import TransferServer
from snow_owl_tftp.server.narrate import Report
from snow_owl_tftp.server.reads import FileDecider
from snow_owl_tftp.server.sockets import format_address

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from snow_owl_tftp.operate.handlers import PluggedHandlers
    from snow_owl_tftp.server.writes import UploadAnswerer

__all__ = ["serve"]

_END_S: Final = 1.8
"""After the drain: what still runs is ended, and what hangs is left behind."""
_INDEX_S: Final = 2.0
"""How long the start waits for the names below the root to be read; 200,000 of them took a second on a busy machine."""
_CONFIGURATION: Final = "configuration"
"""Key of the thread that reads it: it may lie on a mount of its own."""


def serve(
    settings: Settings,
    announce: Callable[[str], bool],
    read_again: Callable[[], Settings] | None = None,
    dropped_keys: Sequence[str] = (),
) -> None:
    """Serve until a signal ends it.

    Args:
        settings: All of them.
        announce: Told every bound address, once requests to it are answered; must not wait. Returns whether that could
            be said.
        read_again: Reads all settings anew, for SIGHUP; called in a thread. None: they come from no file.
        dropped_keys: What has no effect in what was read last; looked at now and after every reload.

    Raises:
        ConfigError: The root, a log file or an address is not what the settings say.
        EngineError: The operating system refused a descriptor, memory or a thread.
    """
    has_started = threading.Event()

    def announce_started(address: str) -> bool:
        has_started.set()
        return announce(address)

    try:
        _live(settings, announce_started, read_again, dropped_keys)
    except EngineError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:  # Python's word for a thread that cannot be had is the last
        if has_started.is_set():
            raise
        # What asyncio leaves half made complains when it is collected; all there is to say is said.
        sys.unraisablehook = lambda _: None
        raise EngineError(getattr(error, "errno", None), with_remedy("the server cannot start", error)) from error


def _live(
    settings: Settings,
    announce: Callable[[str], bool],
    read_again: Callable[[], Settings] | None,
    dropped_keys: Sequence[str],
) -> None:
    """See serve."""
    occupy_standard_descriptors()
    raise_descriptor_limit()
    # Until all is made: of 10,000 machines nothing is garbage, and to look for it took a sixth of the start.
    gc.disable()
    refuse_logs_below_root(settings)
    # Their default would end a server that logrotate meets before its loop runs.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    with ExitStack() as closing:
        given = take_given_sockets()
        for sock in given:
            closing.callback(sock.close)
        log_file = LogFile(settings.logging.file)
        closing.callback(log_file.close)
        log = make_logger(settings.logging, log_file)
        warn_of_dropped_keys(log, dropped_keys)
        audit = AuditLog(settings.logging.audit_path, into=log_file if _is_one_file(settings.logging) else None)
        closing.callback(audit.close)
        report = Report(settings, log, audit, log_file)
        log_file.on_trouble = lambda reason: _tell_of_file(report, "logging.file", reason)
        audit.on_trouble = lambda reason: _tell_of_file(report, "logging.audit_file", reason)
        hook = UploadHook(settings.write_config, log)
        host = begin_host(log)
        for lines in (log_file, audit):
            lines.begin(apart.start)
        listening = Listening()
        refuse_inventory_below_root(settings)
        machines = MachineWatch(wanted_machines(settings))
        closing.callback(machines.close)
        report.machines = machines.machines
        generation = Generation.of(settings, listening, machines.machines, by_class=True)
        uploads = _open_uploads(settings, hook, generation, log) if settings.write_config.enabled else None
        if uploads is not None:
            closing.callback(uploads.close)
        decider = FileDecider(settings, refuse_write if uploads is None else uploads.answer, generation)
        closing.callback(decider.close)
        plugged = _plug_handlers(settings, generation) if settings.handlers else None
        decider.plugged = plugged
        if given:
            log.info("listening on the sockets that were handed over, not on bind_addr", sockets=len(given))
        tell_of_configuration(log, settings, decider)
        server = TransferServer(settings, decider, report, given)
        server.set_classes(generation.classes)
        server.on_listening = lambda addresses: setattr(listening, "addresses", addresses)
        decider.texts.abort = server.abort
        if plugged is not None:
            plugged.abort_by(server.abort)
        decider.slow_opens.is_sick = decider.slow_texts.is_sick = server.is_sick
        decider.other_names.index.listen(partial(_tell_of_names, report))
        report.turned_away = lambda: _turned_away(decider, uploads, server)

        exchange = Exchange(server, report, hook, listening, machines, decider, uploads, plugged)

        def put_in_force(coming: Coming, before: Settings) -> "FilteringBoundLogger":
            log = make_logger(coming.settings.logging, log_file)
            exchange.exchange(coming, before, log)
            return log

        def tell(log: "FilteringBoundLogger") -> None:
            warn_of_dropped_keys(log, dropped_keys)
            tell_of_configuration(log, reloader.settings, decider)
            for watch in watches:
                watch.follow(reloader.settings.root_dir)

        def reopen() -> None:
            log_file.reopen()
            audit.reopen()

        threads = decider.threads.of(_CONFIGURATION)
        manager = Notifier()
        closing.callback(manager.close)
        on_turn = partial(_tell_of_reload, manager, lambda: reloader.settings)
        reloader: Reloader[Coming] = Reloader(
            settings, threads, read_again, exchange.prepare, put_in_force, tell, on_turn
        )
        looks = [decider.look_again, *([uploads.look_again] if uploads is not None else [])]
        watch = RootWatch(settings.root_dir, looks, decider.threads, server.forget_decisions, report)
        looks_at_roots = [decider.look_at_roots]
        watch_of_roots = RootWatch(
            settings.root_dir, looks_at_roots, decider.threads, server.forget_decisions, report, "roots of rules"
        )
        watches = (watch, watch_of_roots)

        def on_work() -> None:
            watch.suspect()
            watch_of_roots.suspect()

        server.on_work = on_work
        last_resort = LastResort(report, partial(_count_hung, server, decider, uploads, machines, (log_file, audit)))
        losses = partial(_count_losses, log_file, audit, hook, manager)
        parts = _Parts(
            reloader,
            watches,
            machines,
            server,
            report,
            audit,
            hook,
            plugged,
            reopen,
            host,
            last_resort,
            losses,
            manager,
        )
        decider.other_names.index.settle(_INDEX_S)  # or the first client is told that its file is not there
        serving = _serve(parts, announce)
        closing.callback(serving.close)  # where there is no event loop for it
        asyncio.run(serving)
    last_resort.leave()


def _count_hung(
    server: TransferServer,
    decider: FileDecider,
    uploads: "UploadAnswerer | None",
    machines: MachineWatch,
    lines: Sequence[LogFile | AuditLog],
) -> int:
    of_reads = decider.threads.busy_total + decider.texts.threads.busy_total + decider.rendering.busy_total
    of_uploads = uploads.busy_total if uploads is not None else 0
    return server.hung_threads + of_reads + of_uploads + machines.busy_total + sum(one.hangs for one in lines)


def _count_losses(log_file: LogFile, audit: AuditLog, hook: UploadHook, manager: Notifier) -> dict[str, int]:
    return {
        "log_lines": log_file.lost_lines_total,
        "audit_events": audit.lost_events_total,
        "on_upload_dropped": hook.dropped_total,
        "on_upload_failed": hook.failed_total,
        "manager_messages": manager.lost_total,
    }


def _turned_away(decider: FileDecider, uploads: "UploadAnswerer | None", server: TransferServer) -> dict[str, int]:
    """Totals since the start."""
    of_uploads = {"uploads_busy": uploads.slow_opens.busy_total} if uploads is not None else {}
    of_loop = {"waited_in_vain": server.tally.dropped_total, "rests": server.rests_total}
    return {**decider.turned_away(), **of_uploads, **of_loop}


def _is_one_file(logging: LoggingSettings) -> bool:
    """Whether audit events are to go between the lines of the log."""
    return bool(logging.file) and os.path.realpath(logging.file) == os.path.realpath(logging.audit_path)


def _tell_of_file(report: Report, key: str, reason: str) -> None:
    """Into the file that is still open, where it is the log's own."""
    report.log.error("file cannot be opened by its name, the old one stays", setting=key, reason=reason)


def _tell_of_names(report: Report, level: str, event: str, fields: Mapping[str, object]) -> None:
    """From a thread; the log is for several."""
    getattr(report.log, level)(event, **fields)


def _open_uploads(
    settings: Settings, hook: UploadHook, generation: Generation, log: "FilteringBoundLogger"
) -> "UploadAnswerer":
    from snow_owl_tftp.server.writes import UploadAnswerer  # lazy: most servers take no uploads

    uploads = UploadAnswerer(settings, hook.submit, generation)
    swept = uploads.swept
    if swept.removed_files or not swept.is_complete:
        log.warning("uploads of a crash removed", files=swept.removed_files, whole_tree_seen=swept.is_complete)
    return uploads


def _plug_handlers(settings: Settings, generation: Generation) -> "PluggedHandlers":
    from snow_owl_tftp.operate.handlers import PluggedHandlers  # lazy: most servers have none

    return PluggedHandlers(settings, generation.limits)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the process is made of; `reopen` opens the log files by their names again, `host` is a process id, `losses`
    counts what nobody was told line by line, or ran in vain.
    """

    reloader: Reloader[Coming]
    watches: tuple[RootWatch, ...]
    machines: MachineWatch
    server: TransferServer
    report: Report
    audit: AuditLog
    hook: UploadHook
    plugged: "PluggedHandlers | None"
    reopen: Callable[[], None]
    host: int
    last_resort: LastResort
    losses: Callable[[], dict[str, int]]
    manager: Notifier


async def _serve(parts: _Parts, announce: Callable[[str], bool]) -> None:
    reloader, server, report, audit = parts.reloader, parts.server, parts.report, parts.audit
    settings = reloader.settings

    def on_hangup() -> None:
        for watch in parts.watches:
            watch.ask()
        reloader.ask()

    ended_by = _catch_signals(on_hangup, parts.reopen)
    if parts.host:
        watch_host(parts.host, report)
    async with server:
        texts = [format_address(host, port) for host, port in server.addresses]
        # What start-up made lives as long as the process: not worth a look at every collection.
        gc.freeze()
        gc.enable()
        unsaid = [text for text in texts if not announce(text)]
        audit.server_started(
            version=__version__, bind_addresses=texts, root_dir=settings.root_dir, workers=settings.worker_count
        )
        audit.flush()
        report.log.info("server started", version=__version__, root=settings.root_dir, addresses=",".join(texts))
        if unsaid:
            report.log.warning("standard output does not take lines", lost=len(unsaid), addresses=",".join(unsaid))
        parts.manager.tell(READY="1", STATUS=f"Serving {settings.root_dir}")
        tasks = [
            asyncio.create_task(reloader.run(report.log)),
            asyncio.create_task(parts.machines.run(lambda: report.log)),
            *(asyncio.create_task(watch.run()) for watch in parts.watches),
        ]
        reason = await ended_by
        for task in tasks:
            task.cancel()
        report.log.info("asked to stop", by=reason)
        parts.manager.tell(STOPPING="1", STATUS=f"Ending {server.live_transfers} transfers")
        parts.last_resort.begin(reloader.settings.drain_timeout_s + _END_S)
        is_drained = await server.drain(reloader.settings.drain_timeout_s)
        aborted = server.live_transfers
    await parts.hook.close()
    if parts.plugged is not None:
        await parts.plugged.close()
    parts.last_resort.tell()
    tally = server.tally
    totals = {"transfers": tally.transfers_total, "aborted": aborted, "drained": is_drained}
    report.log.info("server stopped", **totals, **tally.figures(), **report.turned_away(), **parts.machines.figures())
    audit.server_shutdown(reason=reason, transfers_total=tally.transfers_total, aborted_transfers=aborted)
    if lost := {name: count for name, count in parts.losses().items() if count}:
        report.log.warning("lost since the start", **lost)


def _tell_of_reload(manager: Notifier, settings: Callable[[], Settings], begins: bool) -> None:
    if begins:
        manager.tell_reloading()
    else:
        manager.tell(READY="1", STATUS=f"Serving {settings().root_dir}")


def _catch_signals(on_hangup: Callable[[], None], reopen: Callable[[], None]) -> asyncio.Future[str]:
    loop = asyncio.get_running_loop()
    ended_by: asyncio.Future[str] = loop.create_future()

    def on_sighup() -> None:
        reopen()
        on_hangup()

    def on_signal(number: signal.Signals) -> None:
        if ended_by.done():
            os._exit(128 + number)
        ended_by.set_result(number.name)

    loop.add_signal_handler(signal.SIGHUP, on_sighup)
    loop.add_signal_handler(signal.SIGUSR1, reopen)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return ended_by
