"""SIGHUP: read the configuration again, apply what can change while the server runs, name what cannot.

    file, flags ──read──► Settings ──compare with those in force──► live keys: applied
                                                                    others: "restart needed for: …"

May know: settings by key path, and who must be told of a change. Must not know signals, the engine or
what a key does.

Invariants:
- A file that cannot be read or is refused changes nothing, and costs one line at `error`.
- What is in force is known: a key that needs a restart keeps its old value here, so that the next
  reload names it again, as long as the file says something else.
- The event loop never waits for the disk that holds the file.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final

import msgspec

from snow_owl_tftp.config.load import override
from snow_owl_tftp.config.paths import by_path
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Reloader", "merge"]

_LIVE_TABLES: Final = ("performance.platform.batch.", "options.", "names.", "machines.")
_ROOT_PATIENCE_S: Final = 10.0
"""Then another root is refused: a mount that hangs must not hold up every later reload."""
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


class Reloader:
    """Reloads when it is asked to, one after another.

    Attributes:
        settings: Those in force.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings] | None,
        apply: Callable[[Settings], "FilteringBoundLogger"],
        prepare: Callable[[Settings], None] = lambda settings: None,
        threads: Executor | None = None,
    ) -> None:
        """Prepare; nothing is read before somebody asks.

        Args:
            settings: Those that the server was started with.
            read: Reads the file and lays the flags over it; runs in a thread. None: there is no file.
            apply: Puts live keys in force, in the event loop, and returns the log to use from then on; or raises
                ConfigError, and has changed nothing.
            prepare: Makes ready what `apply` puts in force, as far as that takes long; raises ConfigError where another
                root, or what links may lead to, cannot be served; runs in a thread.
            threads: Where `read` and `prepare` run; None: in the loop's own, which the end waits for.
        """
        self.settings = settings
        self._read = read
        self._make_ready = prepare
        self._threads = threads
        self._apply = apply
        self._is_asked = asyncio.Event()

    def ask(self) -> None:
        """Reload soon; what is asked for while one is under way makes one more, not several."""
        self._is_asked.set()

    async def run(self, log: "FilteringBoundLogger") -> None:
        """Reload whenever it is asked for, until this is cancelled."""
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            try:
                log = await self._reload(log)
            except Exception as error:  # a bug of ours must cost a reload, not the next ones too
                log.error("internal error", exc_info=error)

    async def _reload(self, log: "FilteringBoundLogger") -> "FilteringBoundLogger":
        if self._read is None:
            log.warning("nothing to reload: the server was started without --config")
            return log
        try:
            asked = await asyncio.get_running_loop().run_in_executor(self._threads, self._read)
            merged, changed, needs_restart = merge(self.settings, asked)
            await self._prepare(merged)
            log = self._apply(merged)
        except ConfigError as error:
            log.error("reload refused, the old settings stay", reason="; ".join(str(error).splitlines()))
            return log
        self.settings = merged
        log.info("settings reloaded", changed=",".join(changed) or "nothing")
        if needs_restart:
            log.warning("restart needed for: %s", ", ".join(needs_restart))
        return log

    async def _prepare(self, merged: Settings) -> None:
        """Raises: ConfigError."""
        asking = asyncio.get_running_loop().run_in_executor(self._threads, self._make_ready, merged)
        try:
            await asyncio.wait_for(asking, _ROOT_PATIENCE_S)
        except TimeoutError:
            raise ConfigError(
                f"root_dir: {merged.root_dir}: it, a link target, a root of a rule or a template does not answer"
            ) from None


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
