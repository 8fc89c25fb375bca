"""What an operator may set: one frozen struct per table of the TOML file.

    snow-owl.toml ──load──► Settings ──with_overrides(flags)──► Settings

May know: the vocabulary, its ranges and its defaults. It must not open a socket, look for a
directory or start anything: whether `root_dir` exists is found out by who opens it.

Invariants:
- Every key here is read by some other module; a key that nothing reads is refused.
- A unit is in every name that has one, a range on every number.
- A file is refused as a whole. ConfigError lists every problem at once, each with its source, its
  key path and the remedy, since nobody wants to meet five typing errors in five restarts.
- An unknown key is an error, never ignored: a misspelt limit that is silently off is worse than a
  server that does not start.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.origin_keys import drop_hints, remedy_of

__all__ = [
    "BatchSettings",
    "FileIoSettings",
    "LimitsSettings",
    "LoggingSettings",
    "OptionsSettings",
    "PerformanceSettings",
    "PlatformSettings",
    "RetransmitSettings",
    "Settings",
    "SocketSettings",
    "WriteSettings",
    "load",
    "parse_bind",
    "parse_port_range",
]

_MAX_WORKERS = 64
"""What the engine takes (docs/engine-contract.md)."""
MAX_PORT = 65535
"""A UDP port has 16 bits (RFC 768)."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all tables share: no key that is not declared.

    `frozen=True` is repeated below only because mypy does not see it inherited.
    """


class LoggingSettings(_Table, frozen=True):
    """[logging]: what is written about the server's work, and where."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    file: str = ""
    """Empty: standard error."""
    audit_enabled: bool = False
    audit_file: str = ""
    """Empty: events go to `file`, between its lines."""

    @property
    def audit_path(self) -> str:
        """Where events go; empty: nowhere."""
        return (self.audit_file or self.file) if self.audit_enabled else ""


class OptionsSettings(_Table, frozen=True):
    """[options]: caps on what a client may negotiate."""

    max_blksize_bytes: Annotated[int, Meta(ge=8, le=65464)] = 65464
    """RFC 2348 sets the range; tunnels need a lower cap (1500 less their own headers)."""
    max_windowsize_blocks: Annotated[int, Meta(ge=1, le=65535)] = 32767
    """Beyond 32767 an old ACK that was overtaken can be taken for one of this window: 16 bits tell no more."""
    max_window_bytes: Annotated[int, Meta(ge=512, le=64 * 1024 * 1024)] = 2 * 1024 * 1024
    """windowsize times blksize; 2 MiB fill 1 Gbit/s at 16 ms round trip."""


class LimitsSettings(_Table, frozen=True):
    """[limits]: how much one client, and all of them, may hold at once."""

    max_transfers: Annotated[int, Meta(ge=1, le=10_000_000)] = 200_000
    max_transfers_per_client: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000
    max_half_open: Annotated[int, Meta(ge=1, le=10_000_000)] = 131_072
    max_half_open_per_client: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000
    max_unproven_network_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 16_777_216
    """Sent to a /24 or /56 of which no client has shown that it hears us; 0: no limit. It fills again slowly."""
    max_pending_requests: Annotated[int, Meta(ge=1, le=1_048_576)] = 65_536
    """Requests received and not yet decided; beyond it they are dropped and clients retry."""


class RetransmitSettings(_Table, frozen=True):
    """[retransmit]: bounds of the timer; a negotiated `timeout` overrides them."""

    floor_ms: Annotated[int, Meta(ge=1, le=60_000)] = 10
    """The least that the timer exceeds the measured round trip by."""
    ceiling_ms: Annotated[int, Meta(ge=10, le=255_000)] = 3_000
    initial_ms: Annotated[int, Meta(ge=1, le=255_000)] = 1_000
    """Before the first repetition to a client of which no loss is known. There are devices that pause, and
    that hang when a block comes twice."""
    give_up_s: Annotated[int, Meta(ge=1, le=3_600)] = 30
    """Without any progress; progress starts the count anew."""
    half_open_give_up_s: Annotated[int, Meta(ge=1, le=3_600)] = 10
    stalled_give_up_s: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """How long the server's own disk may hold a transfer up; a client's patience is its own affair meanwhile."""
    half_open_max_datagrams: Annotated[int, Meta(ge=1, le=64)] = 3
    """Sent to a peer that has answered nothing yet: the bound on amplification."""


class WriteSettings(_Table, frozen=True):
    """[write_config]: uploads, off unless switched on, and then only where a pattern allows."""

    enabled: bool = False
    allow_overwrite: bool = False
    allowed_patterns: tuple[str, ...] = ()
    create_directories: bool = False
    file_mode: Annotated[int, Meta(ge=0, le=0o777)] | Annotated[str, Meta(pattern="^(0o|0)?[0-7]{3}$")] = 0o644
    on_existing: Literal["refuse", "replace", "version", "replace_writable"] = "refuse"
    max_total_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """0: no limit."""
    fsync: bool = True
    on_upload: tuple[str, ...] = ()
    """Program and arguments to run after an upload; empty: none."""
    on_upload_timeout_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    on_upload_max_running: Annotated[int, Meta(ge=1, le=1_024)] = 4

    @property
    def file_mode_bits(self) -> int:
        """`file_mode` as permission bits, whichever way it was written."""
        return self.file_mode if isinstance(self.file_mode, int) else int(self.file_mode, 8)


class BatchSettings(_Table, frozen=True):
    """[performance.platform.batch]: what is gathered into one system call."""

    enable_recvmmsg: bool = True
    enable_sendmmsg: bool = True
    enable_gso: bool = True
    enable_flows: bool = True
    max_batch_size: Annotated[int, Meta(ge=1, le=1_024)] = 64
    """1024 is UIO_MAXIOV, the most one recvmmsg or sendmmsg takes."""
    batch_timeout_us: Annotated[int, Meta(ge=0, le=10_000)] = 0
    enable_adaptive_batching: bool = False
    adaptive_batch_threshold: Annotated[int, Meta(ge=1, le=1_024)] = 5


class SocketSettings(_Table, frozen=True):
    """[performance.platform.socket]: buffers asked of the kernel; what it granted is logged."""

    recv_buffer_kb: Annotated[int, Meta(ge=4, le=1_048_576)] = 16_384
    """The default of 208 KiB holds 166 datagrams of 516 bytes: a boot storm overflows it."""
    send_buffer_kb: Annotated[int, Meta(ge=4, le=1_048_576)] = 16_384


class FileIoSettings(_Table, frozen=True):
    """[performance.platform.file_io]: the threads that fetch what is not in memory."""

    io_threads: Annotated[int, Meta(ge=1, le=64)] = 4
    source_linger_s: Annotated[int, Meta(ge=0, le=3_600)] = 5
    """How long a file stays open after its last transfer; the next one finds it ready."""


class PlatformSettings(_Table, frozen=True):
    """[performance.platform]."""

    batch: BatchSettings = BatchSettings()
    socket: SocketSettings = SocketSettings()
    file_io: FileIoSettings = FileIoSettings()


class PerformanceSettings(_Table, frozen=True):
    """[performance]."""

    platform: PlatformSettings = PlatformSettings()


class Settings(_Table, frozen=True):
    """Everything that can be set. `Settings()` is the default configuration.

    Build it with `load` or `with_overrides`: only these check it. A struct built by hand is the
    caller's word.
    """

    root_dir: str = "/srv/tftp"
    link_targets: tuple[str, ...] = ()
    """Directories outside the root that links within it may lead to."""
    hidden: Literal["refuse", "serve"] = "refuse"
    """Names of which a part begins with a dot: administrators keep there what is not meant for clients."""
    bind_addr: str | tuple[str, ...] = "0.0.0.0:69"
    workers: Annotated[int, Meta(ge=1, le=_MAX_WORKERS)] | Literal["auto"] = 1
    single_port: bool = False
    tid_ports: str = ""
    """Empty: the kernel chooses."""
    tid_sockets: Annotated[int, Meta(ge=1, le=64)] = 16
    """Per worker."""
    max_file_size_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """0: no limit."""
    drain_timeout_s: Annotated[int, Meta(ge=0, le=3_600)] = 10
    logging: LoggingSettings = LoggingSettings()
    options: OptionsSettings = OptionsSettings()
    limits: LimitsSettings = LimitsSettings()
    retransmit: RetransmitSettings = RetransmitSettings()
    write_config: WriteSettings = WriteSettings()
    performance: PerformanceSettings = PerformanceSettings()

    @property
    def worker_count(self) -> int:
        """`workers` as a number: "auto" is one for each core that this process may run on."""
        return self.workers if isinstance(self.workers, int) else min(_MAX_WORKERS, _usable_cores())

    @property
    def bind_addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of every `bind_addr`."""
        texts = (self.bind_addr,) if isinstance(self.bind_addr, str) else self.bind_addr
        return tuple(parse_bind(text) for text in texts)

    @property
    def tid_port_range(self) -> tuple[int, int] | None:
        """First and last port of `tid_ports`, or None where the kernel chooses."""
        return parse_port_range(self.tid_ports) if self.tid_ports else None

    def with_overrides(self, overrides: Mapping[str, object], *, source: str = "command line") -> "Settings":
        """Lay flags over these settings and check the whole again.

        Args:
            overrides: Key path ("workers", "write_config.enabled") to value. None means that the
                flag was not given and is skipped, as command-line parsers hand it over.
            source: Whom to name in an error.

        Returns:
            New settings; these stay as they are.

        Raises:
            ConfigError: A key is unknown, a value out of range, or two contradict each other.
        """
        tree: dict[str, Any] = msgspec.to_builtins(self)
        for path, value in overrides.items():
            if value is not None:
                *tables, key = path.split(".")
                table = tree
                for name in tables:
                    table = table.setdefault(name, {})
                    if not isinstance(table, dict):
                        raise ConfigError(f"{source}: {_unknown_key(path)}")
                table[key] = value
        return _build(tree, source)


def load(path: str | Path, on_dropped: Callable[[list[str]], object] = lambda keys: None) -> Settings:
    """Read a TOML file.

    Args:
        path: The file; it need not set every key.
        on_dropped: Told the keys of the origin in it that have no effect, none or all at once.

    Returns:
        Checked settings. Relative paths in them are relative to the working directory.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or says what may not be said.
    """
    import tomllib  # lazy: a server that is run by flags alone need not pay for it

    try:
        with Path(path).open("rb") as file:
            tree = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable file, or give flags instead") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}; mend it there") from error
    tree, dropped = drop_hints(tree)
    settings = _build(tree, str(path))
    on_dropped(dropped)
    return settings


def parse_bind(text: str) -> tuple[str, int]:
    """Split "ADDR:PORT" into host and port.

    Args:
        text: "0.0.0.0:69", "[::]:69" or "[fe80::1%eth0]:69"; ":69" or "69" for every address, as
            tftpd-hpa spells it. Names are not looked up: which address a name has may change
            between two starts.

    Returns:
        (host without brackets, port 0..65535); port 0 lets the kernel choose. Every address is
        "::", which takes IPv4 too, and stands for "0.0.0.0" where there is no IPv6.

    Raises:
        ConfigError: It is none of these.
    """
    import socket  # lazy: 4 ms, and a client binds nothing

    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host and port_text.isascii() and port_text.isdigit():
        host, colon, bracketed = "[::]", ":", True
    if not colon or not port_text or port_text.endswith("]"):
        raise ConfigError(f'expected "ADDR:PORT" such as "0.0.0.0:69", or ":69" for every address, got "{text}"')
    if ":" in host and not bracketed:
        raise ConfigError(f'an IPv6 address needs brackets, such as "[::]:69", got "{text}"')
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= MAX_PORT):
        raise ConfigError(f'expected a port 0..{MAX_PORT} after the last colon, got "{text}"')
    host = host[1:-1] if bracketed else host
    address, percent, zone = host.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6 if bracketed else socket.AF_INET, address)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the text
        raise ConfigError(
            f'expected a numeric address such as "0.0.0.0" or "[::]" before the port, got "{text}"'
        ) from error
    if percent and not (bracketed and zone):
        raise ConfigError(f'expected a zone such as "[fe80::1%eth0]:69", got "{text}"')
    return host, int(port_text)


def parse_port_range(text: str) -> tuple[int, int]:
    """Split "A-B" into its first and its last port, both included.

    Raises:
        ConfigError: It is no such range, or runs backwards, or leaves 1..65535.
    """
    first, dash, last = text.partition("-")
    if dash and all(part.isascii() and part.isdigit() for part in (first, last)):
        low, high = int(first), int(last)
        if 1 <= low <= high <= MAX_PORT:
            return low, high
    raise ConfigError(f'expected two ports "A-B" with 1 <= A <= B <= {MAX_PORT}, got "{text}"')


@functools.cache
def _usable_cores() -> int:
    """Asked once: whatever happens to the process later, there are as many threads as sockets for them."""
    return len(os.sched_getaffinity(0))


def _build(tree: dict[str, Any], source: str) -> Settings:
    problems = list(_problems(Settings, tree, ""))
    if not problems:
        settings = msgspec.convert(tree, Settings)
        problems = list(_contradictions(settings))
    if problems:
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems))
    return settings


def _problems(table_type: type[Struct], tree: dict[str, Any], prefix: str) -> Iterator[str]:
    """Check key by key: msgspec alone stops at the first error and does not name the range."""
    fields = {field.name: field for field in msgspec.structs.fields(table_type)}
    for key, value in tree.items():
        path = prefix + key
        if key not in fields:
            yield _unknown_key(path)
            continue
        kind = fields[key].type
        if _is_table(kind) and isinstance(value, dict):
            yield from _problems(kind, value, path + ".")
            continue
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            yield f"{path}: expected {_expected(kind, key)}, got {_shown(value)}"


def _contradictions(settings: Settings) -> Iterator[str]:
    try:
        if not settings.bind_addresses:
            yield 'bind_addr: the list is empty; name at least one "ADDR:PORT"'
    except ConfigError as error:
        yield f"bind_addr: {error}"
    try:
        ports = settings.tid_port_range
    except ConfigError as error:
        yield f"tid_ports: {error}"
    else:
        if ports and settings.single_port:
            yield "tid_ports: has no effect with single_port = true; remove one of them"
        elif ports and ports[1] - ports[0] + 1 < settings.worker_count:
            yield f"tid_ports: every worker needs one; widen it to {settings.worker_count} ports or more"
    timer = settings.retransmit
    if not timer.floor_ms <= timer.initial_ms <= timer.ceiling_ms:
        yield (
            "retransmit: expected floor_ms <= initial_ms <= ceiling_ms, got "
            f"{timer.floor_ms}, {timer.initial_ms}, {timer.ceiling_ms}"
        )
    if settings.logging.audit_enabled and not settings.logging.audit_path:
        yield "logging.audit_file: audit_enabled = true needs it; name a file"


def _is_table(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _key_paths(table_type: type[Struct], prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(table_type):
        path = prefix + field.name
        yield path
        if _is_table(field.type):
            yield from _key_paths(field.type, path + ".")


def _unknown_key(path: str) -> str:
    remedy = remedy_of(path)
    if remedy is not None:
        return f"{path}: {remedy}"
    import difflib  # lazy: only for a file that is refused

    # By the last part of the path: a key in the wrong table is found as well as a misspelt one.
    known = {other.rpartition(".")[2]: other for other in _key_paths(Settings)}
    near = difflib.get_close_matches(path.rpartition(".")[2], known, n=1)
    return f"{path}: unknown key; " + (f"did you mean {known[near[0]]}?" if near else "remove it")


def _expected(kind: Any, key: str) -> str:
    """Put a declared type in words, with its range."""
    if key == "file_mode":
        return 'permissions 0o000..0o777, such as 0o644 or "0644"'
    metas = [arg for arg in get_args(kind) if isinstance(arg, Meta)]
    if metas:
        return f"{metas[0].ge}..{metas[0].le}"
    if get_origin(kind) is Literal:
        return ("one of " if len(get_args(kind)) > 1 else "") + ", ".join(f'"{value}"' for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_expected(part, key) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of texts"
    return {bool: "true or false", str: "a text"}.get(kind, "a table")


def _shown(value: object) -> str:
    """Show a value as the file spells it, cut so that one bad value cannot fill the screen."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
