"""SIGHUP: read the configuration again, apply what can change while the server runs, name what cannot.

    file, flags ──read──► Settings ──compare with those in force──► live keys: prepared, exchanged (see `exchange`)
                                                                    others: "restart needed for: …"

May know: settings by key path, and who must be told of a change. Must not know signals, the engine or
what a key does.

Invariants:
- One reload at a time; what is asked for meanwhile makes one more.
- A file that cannot be read or is refused changes nothing, and costs one line at `error`. What was made of it is
  closed, also where it is ready only after nobody waits for it any more.
- What is in force is known: a key that needs a restart keeps its old value here, so that the next
  reload names it again, as long as the file says something else.
- The event loop never waits for the disk that holds the file.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import msgspec

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.paths import by_path
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.linux.remedies import with_remedy

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Reloader", "merge"]

_LIVE_TABLES: Final = ("performance.platform.batch.", "options.", "names.", "machines.")
_PATIENCE_S: Final = 15.0
"""Then what is read, or made of it, is refused: a mount that hangs must not hold up every later reload. Somewhat more
than an inventory has, which says so itself."""
_UPLOAD_RULES: Final = (
    "allowed_patterns",
    "allow_overwrite",
    "on_existing",
    "create_directories",
    "file_mode",
    "fsync",
)
"""What a policy is made of. Whether there are uploads at all decides how large the engine's buffers are; the room for
them and the command behind them are kept by what lives as long as the server."""
_LIVE_LIMITS: Final = (
    *(f"max_{what}_per_network" for what in ("transfers", "half_open")),
    *(f"max_{what}_per_s{whose}" for what in ("requests", "bytes") for whose in ("", "_per_client", "_per_network")),
    "max_unproven_bytes_per_s",
)
"""Those that workers copy at each turn; the others are the sizes of what was made at the start."""
_LIVE_KEYS: Final = frozenset(
    {
        "root_dir",
        "link_targets",
        "template_dir",
        "templates",
        "max_file_size_bytes",
        "hidden",
        "rules",
        "rewrite",
        "rewrite_file",
        "rewrite_max_steps",
        "drain_timeout_s",
        "logging.level",
        *(f"write_config.{key}" for key in _UPLOAD_RULES),
        *(f"limits.{key}" for key in _LIVE_LIMITS),
    }
)


class _Closes(Protocol):
    @property
    def close(self) -> Callable[[], None]:
        """Give up what is open."""


_T = TypeVar("_T")
_Coming = TypeVar("_Coming", bound=_Closes)


class Reloader(Generic[_Coming]):
    """Reloads when it is asked to, one after another.

    Attributes:
        settings: Those in force.
    """

    def __init__(
        self,
        settings: Settings,
        threads: Executor,
        read: Callable[[], Settings] | None,
        prepare: Callable[[Settings], _Coming],
        exchange: Callable[[_Coming, Settings], "FilteringBoundLogger"],
        tell: Callable[["FilteringBoundLogger"], None] = lambda log: None,
        on_turn: Callable[[bool], None] = lambda begins: None,
    ) -> None:
        """Prepare; nothing is read before somebody asks.

        Args:
            settings: Those that the server was started with.
            threads: Where `read` and `prepare` run.
            read: Reads the file and lays the flags over it. None: there is no file.
            prepare: Makes ready what settings say; raises ConfigError where that cannot be served.
            exchange: Puts in force what is ready, in place of what these settings said, in the event loop; returns the
                log to use from then on. Where it raises, it has changed nothing and closed what was ready.
            tell: Says what is to be said about what is in force now.
            on_turn: Told when a reload begins (True), and when it is over, however it ended (False).
        """
        self.settings = settings
        self._threads = threads
        self._read = read
        self._make_ready = prepare
        self._exchange = exchange
        self._tell = tell
        self._on_turn = on_turn
        self._is_asked = asyncio.Event()

    def ask(self) -> None:
        """Reload soon; what is asked for while one is under way makes one more, not several."""
        self._is_asked.set()

    async def run(self, log: "FilteringBoundLogger") -> None:
        """Reload whenever it is asked for, until this is cancelled."""
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            self._on_turn(True)
            try:
                log = await self._reload(log)
            except Exception as error:  # a bug of ours must cost a reload, not the next ones too
                log.error("internal error", exc_info=error)
            self._on_turn(False)

    async def _reload(self, log: "FilteringBoundLogger") -> "FilteringBoundLogger":
        if self._read is None:
            log.warning("nothing to reload: the server was started without --config")
            return log
        try:
            asked = await self._in_thread(self._read, "the configuration file does not answer")
            merged, changed, needs_restart = merge(self.settings, asked)
            log = self._exchange(await self._prepare(merged), self.settings)
        except ConfigError as error:
            return _refuse(log, "; ".join(str(error).splitlines()))
        except (OSError, MemoryError) as error:  # no descriptor, no memory: an operator's affair, too
            return _refuse(log, with_remedy("it cannot be put in force", error))
        self.settings = merged
        self._tell(log)
        log.info("settings reloaded", changed=",".join(changed) or "nothing")
        if needs_restart:
            log.warning("restart needed for: %s", ", ".join(needs_restart))
        return log

    async def _prepare(self, merged: Settings) -> _Coming:
        """Raises: ConfigError."""
        what = "it, a link target, a root of a rule or a template does not answer"
        call = partial(self._make_ready, merged)
        return await self._in_thread(call, f"root_dir: {merged.root_dir}: {what}", _close_late)

    async def _in_thread(
        self, call: Callable[[], _T], unanswered: str, discard: "Callable[[Future[_T]], None] | None" = None
    ) -> _T:
        """Raises: ConfigError: It does not answer; what comes of it all the same is discarded."""
        try:
            work = self._threads.submit(call)
        except RuntimeError as error:  # no thread is to be had
            raise ConfigError(str(error)) from error
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), _PATIENCE_S)
        except BaseException as error:
            if discard is not None:
                work.add_done_callback(discard)
            if isinstance(error, TimeoutError):
                raise ConfigError(unanswered) from None
            raise


def _close_late(work: "Future[_Coming]") -> None:
    """Of what nobody waits for any more."""
    if not work.cancelled() and work.exception() is None:
        work.result().close()


def _refuse(log: "FilteringBoundLogger", reason: str) -> "FilteringBoundLogger":
    log.error("reload refused, the old settings stay", reason=reason)
    return log


def merge(running: Settings, asked: Settings) -> tuple[Settings, list[str], list[str]]:
    """Compare key by key.

    Args:
        running: Settings in force.
        asked: What the operator wants.

    Returns:
        `running` with the live keys of `asked`; the paths of the live keys that differ; those of the others.
    """
    before, after = by_path(msgspec.to_builtins(running)), by_path(msgspec.to_builtins(asked))
    differing = sorted(path for path in after if after[path] != before[path])
    live = [path for path in differing if path in _LIVE_KEYS or path.startswith(_LIVE_TABLES)]
    merged = override(running, {path: after[path] for path in live}, source="reload")
    return merged, live, [path for path in differing if path not in live]
