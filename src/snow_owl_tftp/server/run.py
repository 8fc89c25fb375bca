"""The process around one Server: descriptors, log, signals, and how it ends.

    SIGTERM, SIGINT   take no more requests, let transfers finish (at most drain_timeout_s), exit 0
    a second one      exit at once with 128 + its number, as a shell counts a process that was killed
    SIGHUP            read the configuration again (see `reload`); ignored by a server that is ending

May know: the process. Must not know requests or transfers. It runs in the main thread of a process
of its own, since signals and the limit of descriptors belong to the process.
"""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from snow_owl_tftp import __version__
from snow_owl_tftp.config import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.observe.audit import AuditLog
from snow_owl_tftp.observe.log import LogFile, make_logger
from snow_owl_tftp.server.core import Server
from snow_owl_tftp.server.decide import FileDecider
from snow_owl_tftp.server.hooks import UploadHook
from snow_owl_tftp.server.reload import Reloader
from snow_owl_tftp.server.report import Report
from snow_owl_tftp.server.sockets import format_address

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from snow_owl_tftp.server.uploads import UploadDesk

__all__ = ["serve"]


def serve(
    settings: Settings, announce: Callable[[str], None], read_again: Callable[[], Settings] | None = None
) -> None:
    """Serve until a signal ends it.

    Args:
        settings: All of them.
        announce: Told every bound address, once requests to it are answered.
        read_again: Reads all settings anew, for SIGHUP; called in a thread. None: they come from no file.

    Raises:
        ConfigError: The root, a log file or an address is not what the settings say.
        EngineError: The operating system refused a socket, memory or a thread.
    """
    raise_descriptor_limit()
    with ExitStack() as closing:
        log_file = LogFile(settings.logging.file)
        closing.callback(log_file.close)
        log = make_logger(settings.logging, log_file)
        audit = AuditLog(settings.logging.audit_file if settings.logging.audit_enabled else "")
        closing.callback(audit.close)
        report = Report(settings, log, audit)
        hook = UploadHook(settings.write_config, log)
        uploads = _open_uploads(settings, hook, log) if settings.write_config.enabled else None
        if uploads is not None:
            closing.callback(uploads.close)
        decider = FileDecider(settings, uploads)
        closing.callback(decider.close)
        if not os.access(settings.root_dir, os.X_OK):
            raise ConfigError(f"root_dir: {settings.root_dir}: Permission denied; let this user enter it (chmod o+x)")
        server = Server(settings, decider, report)

        def apply(changed: Settings) -> "FilteringBoundLogger":
            log = make_logger(changed.logging, log_file)
            hook.log = log
            decider.reload(changed)
            if uploads is not None:
                uploads.reload(changed)
            report.reload(changed, log)
            server.reload(changed)
            return log

        reloader = Reloader(settings, read_again, apply)
        asyncio.run(_serve(reloader, server, report, audit, hook, announce))


def _open_uploads(settings: Settings, hook: UploadHook, log: "FilteringBoundLogger") -> "UploadDesk":
    from snow_owl_tftp.server.uploads import UploadDesk  # lazy: most servers take no uploads

    desk = UploadDesk(settings, hook.submit)
    swept = desk.swept
    if swept.removed_files or not swept.is_complete:
        log.warning("uploads of a crash removed", files=swept.removed_files, whole_tree_seen=swept.is_complete)
    return desk


def raise_descriptor_limit() -> None:
    """Let the process open as many files as the system permits it: every file being sent takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # cannot fail: the hard limit is always allowed


async def _serve(
    reloader: Reloader,
    server: Server,
    report: Report,
    audit: AuditLog,
    hook: UploadHook,
    announce: Callable[[str], None],
) -> None:
    settings = reloader.settings
    ended_by = _catch_signals(reloader.ask)
    async with server:
        texts = [format_address(host, port) for host, port in server.addresses]
        # What start-up made lives as long as the process: not worth a look at every collection.
        gc.freeze()
        for text in texts:
            announce(text)
        audit.server_started(
            version=__version__, bind_addresses=texts, root_dir=settings.root_dir, workers=settings.worker_count
        )
        audit.flush()
        report.log.info("server started", version=__version__, root=settings.root_dir, addresses=",".join(texts))
        reloading = asyncio.create_task(reloader.run(report.log))
        reason = await ended_by
        reloading.cancel()
        report.log.info("asked to stop", by=reason)
        is_drained = await server.drain(reloader.settings.drain_timeout_s)
        aborted = server.live_transfers
    await hook.close()
    report.log.info("server stopped", transfers=server.transfers_total, aborted=aborted, drained=is_drained)
    audit.server_shutdown(reason=reason, transfers_total=server.transfers_total, aborted_transfers=aborted)


def _catch_signals(on_hangup: Callable[[], None]) -> asyncio.Future[str]:
    loop = asyncio.get_running_loop()
    ended_by: asyncio.Future[str] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if ended_by.done():
            os._exit(128 + number)
        ended_by.set_result(number.name)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return ended_by
