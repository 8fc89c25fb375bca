"""The log: structlog, set up to write one line per event, as text or as JSON.

    text  2026-01-31T12:00:00.123Z INFO    transfer completed  peer=192.0.2.7:2070 blocks=12
    json  {"timestamp":"2026-01-31T12:00:00.123Z","level":"info","event":"transfer completed",...}

May know the settings of logging. Must not know what is logged.

Invariants:
- Callers hand over names as they are; the renderers here make them harmless (see `lines`).
- A level that is off costs a call of an empty method.
- Lines come in the order in which they were told. What is held for the rest of a batch is no graver than "info".
- Nothing is configured globally: a program that embeds the server keeps its own structlog.
- Writing never raises, and waits for nothing that hangs (see `outlet`); a line that cannot be written is lost, and how
  many were is said once lines are taken again. Those that are written are whole (see `whole`).
- A file that was moved away gets no further line (see `appended`).
"""

import os
import re
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from snow_owl_tftp.config.schema import LoggingSettings
from snow_owl_tftp.observe.lines import escape_name, json_line, utc_timestamp
from snow_owl_tftp.observe.outlet import Outlet

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["LogFile", "make_logger"]

_Renderer = Callable[[object, str, MutableMapping[str, Any]], bytes]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""As the standard library numbers them."""
_EVENT_WIDTH = 24
"""Columns: the usual events line up, longer ones push their own line only."""
_PLAIN_VALUE = re.compile(r"[\w.:/@%+,\[\]-]+")
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}
"""SGR parameters of ECMA-48: faint, green, yellow, red."""


class LogFile:
    """Where lines go: a descriptor, one write(2) a line, or one for all that were held."""

    def __init__(self, path: str = "") -> None:
        """Open for appending.

        Args:
            path: Empty: standard error.

        Raises:
            ConfigError: The file cannot be opened.
        """
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._holds = False
        self._outlet = Outlet(path, "logging.file", self._write_at_once)
        # Asked before each write: O_NONBLOCK on standard error would be everybody's who has the terminal or pipe.
        self._poll = select.poll()
        self._poll.register(self._outlet.fd, select.POLLOUT)

    @property
    def on_trouble(self) -> Callable[[str], None]:
        """Told why the file's name cannot be opened any more; it may log."""
        return self._outlet.on_trouble

    @on_trouble.setter
    def on_trouble(self, tell: Callable[[str], None]) -> None:
        self._outlet.on_trouble = tell

    @property
    def lost_lines_total(self) -> int:
        """How many could not be written."""
        return self._outlet.lost_total

    @property
    def hangs(self) -> bool:
        """Whether a thread waits for the file."""
        return self._outlet.hangs

    def tell_losses_by(self, make_line: Callable[[int], bytes]) -> None:
        """Say how many lines were lost, once lines are taken again, in the words of `make_line`."""
        self._outlet.tell_losses_by(make_line)

    def begin(self, start: Callable[[threading.Thread], None]) -> None:
        """Have lines written by a thread from now on, which `start` starts; see Outlet.begin."""
        self._outlet.begin(start)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads along."""
        return os.isatty(self._outlet.fd)

    def write(self, line: bytes) -> None:
        """Write one line, its end included, or lose it; of one that was cut the rest follows later."""
        self.write_lines([line])

    def hold(self) -> None:
        """Let lines of no more than "info" wait for `release`, or for a graver one.

        A look at the file's name and a write for each cost more than to make it. Whoever calls this owes a `release`,
        within milliseconds.
        """
        self._holds = True

    def release(self) -> None:
        """Write what was held."""
        self._holds = False
        if self._held:
            self.write_lines([])

    def inform(self, line: bytes) -> None:
        """As `write`, later where lines are held."""
        if not self._holds:
            self.write_lines([line])
            return
        # Never more than a pipe takes whole, so that no other process's line comes between two halves of one.
        if self._held_bytes + len(line) > select.PIPE_BUF:
            self.write_lines([])
        with self._lock:
            self._held.append(line)
            self._held_bytes += len(line)

    def write_lines(self, lines: Sequence[bytes], on_lost: Callable[[int], None] | None = None) -> None:
        """Write several at once, behind those that were held; `on_lost` is told how many of them were lost."""
        with self._lock:
            held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self._outlet.write(held)
        if lines:
            self._outlet.write(lines, on_lost)

    def _write_at_once(self, fd: int, data: bytes) -> int:
        written_bytes = 0
        try:
            if len(data) > select.PIPE_BUF and not stat.S_ISREG(os.fstat(fd).st_mode):
                # What is writable takes PIPE_BUF bytes without waiting (pipe(7)); a traceback may be longer.
                parts = [data[at : at + select.PIPE_BUF] for at in range(0, len(data), select.PIPE_BUF)]
            else:
                parts = [data]
            for part in parts:
                count = os.write(fd, part) if self._poll.poll(0) else 0
                written_bytes += count
                if count < len(part):
                    break
        except OSError:
            pass  # disk full, or nobody reads the pipe any more
        return written_bytes

    # The names under which structlog calls whatever it wraps.
    debug = info = inform
    warning = error = critical = write

    def reopen(self) -> None:
        """Go over to the file that has the name now, without waiting for the next line."""
        self._outlet.reopen()

    def close(self) -> None:
        """Write what is held and owed, if that is possible, and close the file; standard error stays open."""
        self.release()
        self._outlet.close()


def make_logger(settings: LoggingSettings, file: LogFile) -> "FilteringBoundLogger":
    """Build the logger that the whole server uses.

    Args:
        settings: Level and format.
        file: Where the lines go; closing it is the caller's affair.

    Returns:
        A logger: `log.info("transfer completed", peer=..., blocks=...)`; `log.bind(peer=...)` keeps
        fields for later lines; `exc_info=True` adds a traceback, within the line.
    """
    structlog = _import_structlog()
    coloured = file.is_terminal and not os.environ.get("NO_COLOR")  # https://no-color.org
    render = _render_json if settings.format == "json" else _text_renderer(coloured=coloured)
    file.tell_losses_by(lambda count: render(None, "warning", {"event": "log lines were lost", "count": count}))
    logger = structlog.wrap_logger(
        file,
        processors=[
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
    )
    bound: FilteringBoundLogger = logger.bind()
    return bound


def _import_structlog() -> Any:
    """Import structlog without rich, for which it looks when it is imported.

    Its console renderer would bring in rich: 45 of 115 ms, for nothing that is used here. None in
    sys.modules is the import system's own way to say "this one is not there".
    """
    hides_rich = "rich" not in sys.modules and "structlog" not in sys.modules
    if hides_rich:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog
    finally:
        if hides_rich:
            del sys.modules["rich"]
    return structlog


def _render_json(_: object, level: str, fields: MutableMapping[str, Any]) -> bytes:
    event = fields.pop("event")
    return json_line({"timestamp": utc_timestamp(time.time()), "level": level, "event": event, **fields})


def _text_renderer(*, coloured: bool) -> _Renderer:
    def render(_: object, level: str, fields: MutableMapping[str, Any]) -> bytes:
        event = escape_name(str(fields.pop("event")))
        shown_level = f"{level.upper():7}"
        if coloured:
            shown_level = f"\x1b[{_COLOURS[level]}m{shown_level}\x1b[0m"
        values = " ".join(f"{key}={_shown(value)}" for key, value in fields.items())
        start = f"{utc_timestamp(time.time())} {shown_level} "
        return (start + (f"{event:{_EVENT_WIDTH}} {values}" if values else event) + "\n").encode()

    return render


def _shown(value: object) -> str:
    """Quote what could be taken for more than one value."""
    if type(value) is int:  # most fields of the line that is written most
        return str(value)
    text = escape_name(value if isinstance(value, (str, bytes)) else str(value))
    return text if _PLAIN_VALUE.fullmatch(text) else '"' + text.replace('"', r"\"") + '"'
