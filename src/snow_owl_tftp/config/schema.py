"""What an operator may set: one frozen struct per table of the TOML file.

May know: the vocabulary, its ranges and its defaults. It must not open a socket, look for a
directory or start anything: whether `root_dir` exists is found out by who opens it.

Invariants:
- Every key here is read by some other module.
- A unit is in every name that has one, a range on every number.
"""

import functools
import os
from typing import Annotated, Literal

from msgspec import Meta

from snow_owl_tftp.config.binds import parse_bind, parse_port_range
from snow_owl_tftp.config.machines import MachinesSettings
from snow_owl_tftp.config.made import HandlerEntry, TemplateEntry
from snow_owl_tftp.config.names import NamesSettings
from snow_owl_tftp.config.rules import Rule
from snow_owl_tftp.config.tables import Table

__all__ = [
    "BatchSettings",
    "FileIoSettings",
    "LimitsSettings",
    "LoggingSettings",
    "NamesSettings",
    "OptionsSettings",
    "PerformanceSettings",
    "PlatformSettings",
    "RetransmitSettings",
    "Settings",
    "SocketSettings",
    "WriteSettings",
]

_MAX_WORKERS = 64
"""What the engine takes (docs/engine-contract.md)."""


_Rate = Annotated[int, Meta(ge=0, le=10_000_000_000)]
"""A second; the engine takes no more (docs/engine-contract.md)."""


class LoggingSettings(Table, frozen=True):
    """[logging]: what is written about the server's work, and where."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The quietest lines that are written; at `warning` a transfer that went well costs nothing."""
    format: Literal["text", "json"] = "text"
    """`json`: one object a line."""
    file: str = ""
    """Where lines go; empty: standard error."""
    audit_enabled: bool = False
    """Write an event for everything asked, granted and refused."""
    audit_file: str = ""
    """Where events go; empty: to `file`, between its lines."""

    @property
    def audit_path(self) -> str:
        """Where events go; empty: nowhere."""
        return (self.audit_file or self.file) if self.audit_enabled else ""


class OptionsSettings(Table, frozen=True):
    """[options]: caps on what a client may negotiate."""

    max_blksize_bytes: Annotated[int, Meta(ge=8, le=65464)] = 65464
    """Cap on blksize; RFC 2348 sets the range; tunnels need a lower one (1500 less their own headers)."""
    max_windowsize_blocks: Annotated[int, Meta(ge=1, le=65535)] = 32767
    """Cap on windowsize; beyond 32767 an old ACK that was overtaken can be taken for one of this window."""
    max_window_bytes: Annotated[int, Meta(ge=512, le=64 * 1024 * 1024)] = 2 * 1024 * 1024
    """Cap on windowsize times blksize; 2 MiB fill 1 Gbit/s at 16 ms round trip."""


class LimitsSettings(Table, frozen=True):
    """[limits]: how much one client, and all of them, may hold at once."""

    max_transfers: Annotated[int, Meta(ge=1, le=10_000_000)] = 200_000
    """Running at once, of all clients."""
    max_transfers_per_client: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000
    """Of one address."""
    max_half_open: Annotated[int, Meta(ge=1, le=10_000_000)] = 131_072
    """Whose client has answered nothing yet; beyond it the oldest gives way."""
    max_half_open_per_client: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000
    """Of one address."""
    max_unproven_network_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 16_777_216
    """Sent to a /24 or /56 of which no client has shown that it hears us; 0: no limit. It fills again slowly."""
    max_pending_requests: Annotated[int, Meta(ge=1, le=1_048_576)] = 65_536
    """Requests received and not yet decided; beyond it they are dropped and clients retry."""
    max_transfers_per_network: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Of a /24 or /56, as in the other keys of a network; 0, here and below: no limit."""
    max_half_open_per_network: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Of a /24 or /56."""
    max_requests_per_s_per_client: _Rate = 0
    """Of one address; beyond it ERROR 0."""
    max_requests_per_s_per_network: _Rate = 0
    """Of a /24 or /56."""
    max_requests_per_s: _Rate = 0
    """Of all; networks of which no transfer has ended well get half."""
    max_bytes_per_s_per_client: _Rate = 0
    """Of DATA, its headers included, in both directions; who has had them waits, and is refused nothing."""
    max_bytes_per_s_per_network: _Rate = 0
    """Of a /24 or /56."""
    max_bytes_per_s: _Rate = 0
    """Of all."""
    max_unproven_bytes_per_s: _Rate = 0
    """Answers to networks of which no transfer has ended well; 0: half of `max_bytes_per_s`, if that is set."""


class RetransmitSettings(Table, frozen=True):
    """[retransmit]: bounds of the timer; a negotiated `timeout` overrides them."""

    floor_ms: Annotated[int, Meta(ge=1, le=60_000)] = 10
    """The least that the timer exceeds the measured round trip by."""
    ceiling_ms: Annotated[int, Meta(ge=10, le=255_000)] = 3_000
    """Where doubling of the timer stops."""
    initial_ms: Annotated[int, Meta(ge=1, le=255_000)] = 1_000
    """Before the first repetition to a client of which no loss is known. There are devices that pause, and
    that hang when a block comes twice."""
    give_up_s: Annotated[int, Meta(ge=1, le=3_600)] = 30
    """Without any progress; progress starts the count anew."""
    half_open_give_up_s: Annotated[int, Meta(ge=1, le=3_600)] = 10
    """A client that has answered nothing is given up after so long, whatever `timeout` it asked for."""
    stalled_give_up_s: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """How long the server's own disk may hold a transfer up; a client's patience is its own affair meanwhile."""
    half_open_max_datagrams: Annotated[int, Meta(ge=1, le=64)] = 3
    """Sent to a peer that has answered nothing yet: the bound on amplification."""


class WriteSettings(Table, frozen=True):
    """[write_config]: uploads, off unless switched on, and then only where a pattern allows."""

    enabled: bool = False
    """Take uploads; off: ERROR 2."""
    allow_overwrite: bool = False
    """The older spelling of `on_existing = "replace"`."""
    allowed_patterns: tuple[str, ...] = ()
    """Globs of the names that may be written: `*` within a part, `**` across parts. None match none."""
    create_directories: bool = False
    """Make missing directories when an upload is stored."""
    file_mode: Annotated[int, Meta(ge=0, le=0o777)] | Annotated[str, Meta(pattern="^(0o|0)?[0-7]{3}$")] = 0o644
    """Permissions of a new file, whatever the umask."""
    on_existing: Literal["refuse", "replace", "version", "replace_writable"] = "refuse"
    """What to do where the name exists; `replace_writable`: replace what everybody may write, as tftpd-hpa does."""
    max_total_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Most that all files of `allowed_patterns` may hold together; 0: no limit."""
    fsync: bool = True
    """A file is on the disk before the last ACK leaves."""
    on_upload: tuple[str, ...] = ()
    """Program and arguments to run after an upload; empty: none."""
    on_upload_timeout_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Then its process group is killed."""
    on_upload_max_running: Annotated[int, Meta(ge=1, le=1_024)] = 4
    """At a time; up to 1,024 more wait."""

    @property
    def file_mode_bits(self) -> int:
        """`file_mode` as permission bits, whichever way it was written."""
        return self.file_mode if isinstance(self.file_mode, int) else int(self.file_mode, 8)


class RewriteSettings(Table, frozen=True):
    """[[rewrite]]: what becomes of the names of requests; one after the other, in their order."""

    pattern: Annotated[str, Meta(min_length=1, max_length=4_096)]
    """POSIX extended regular expression, which matches anywhere in a name."""
    replacement: Annotated[str, Meta(max_length=4_096)] = ""
    r"""What the part that matched becomes: `\1` to `\9` are groups, `\i` the client's address."""
    requests: Literal["all", "read", "write"] = "all"
    """Which requests it is for."""
    ignore_case: bool = False
    """Match letters of either case."""
    every: bool = False
    """Replace every match, not the first alone."""
    last: bool = False
    """Look at no further rule where this one matched."""


class BatchSettings(Table, frozen=True):
    """[performance.platform.batch]: what is gathered into one system call."""

    enable_recvmmsg: bool = True
    """Receive many datagrams in one call."""
    enable_sendmmsg: bool = True
    """Send many datagrams in one call."""
    enable_gso: bool = True
    """Hand the kernel a train of blocks as one (UDP_SEGMENT)."""
    enable_flows: bool = True
    """Let the engine answer by itself what Python has answered before."""
    max_batch_size: Annotated[int, Meta(ge=1, le=1_024)] = 64
    """Datagrams in one call; 1024 is UIO_MAXIOV, the most one recvmmsg or sendmmsg takes."""
    batch_timeout_us: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """How long to wait for more datagrams before a batch is answered; 0: not at all."""
    enable_adaptive_batching: bool = False
    """Let the engine find out how long waiting pays."""
    adaptive_batch_threshold: Annotated[int, Meta(ge=1, le=1_024)] = 5
    """Datagrams a call from which batching counts as worth it."""


class SocketSettings(Table, frozen=True):
    """[performance.platform.socket]: buffers asked of the kernel; what it granted is logged."""

    recv_buffer_kb: Annotated[int, Meta(ge=4, le=1_048_576)] = 16_384
    """Room for requests and ACKs; the kernel's 208 KiB hold 166 datagrams of 516 bytes: too few for a boot storm."""
    send_buffer_kb: Annotated[int, Meta(ge=4, le=1_048_576)] = 16_384
    """Room for what is sent and not yet on the wire."""


class FileIoSettings(Table, frozen=True):
    """[performance.platform.file_io]: the threads that fetch what is not in memory."""

    io_threads: Annotated[int, Meta(ge=1, le=64)] = 4
    """For each device."""
    source_linger_s: Annotated[int, Meta(ge=0, le=3_600)] = 5
    """How long a file stays open after its last transfer; the next one finds it ready."""


class PlatformSettings(Table, frozen=True):
    """[performance.platform]: how the machine is used."""

    batch: BatchSettings = BatchSettings()
    socket: SocketSettings = SocketSettings()
    file_io: FileIoSettings = FileIoSettings()


class PerformanceSettings(Table, frozen=True):
    """[performance]: what costs or saves time."""

    platform: PlatformSettings = PlatformSettings()


class Settings(Table, frozen=True):
    """Everything that can be set. `Settings()` is the default configuration.

    Build it with `load.load` or `load.override`: only these check it. A struct built by hand is the
    caller's word.
    """

    root_dir: str = "/srv/tftp"
    """Everything that can be read or written lies below it."""
    link_targets: tuple[str, ...] = ()
    """Directories outside the root that links within it may lead to."""
    hidden: Literal["refuse", "serve"] = "refuse"
    """Names of which a part begins with a dot: administrators keep there what is not meant for clients. "serve" is the
    older spelling of `names.hidden = true`."""
    rewrite: tuple[RewriteSettings, ...] = ()
    """What becomes of names, one rule after the other."""
    rewrite_file: str = ""
    """A map file of tftpd-hpa, whose rules come after those of `rewrite`; empty: none."""
    rewrite_max_steps: Annotated[int, Meta(ge=1, le=65_536)] = 4_096
    """Rules that are looked at for one name, and replacements made; tftpd-hpa's own default."""
    bind_addr: str | tuple[str, ...] = "0.0.0.0:69"
    """Where requests arrive: one "ADDR:PORT" or a list; ":69" is every address."""
    workers: Annotated[int, Meta(ge=1, le=_MAX_WORKERS)] | Literal["auto"] = 1
    """Native threads that answer; "auto": one for each usable core."""
    single_port: bool = False
    """Serve everything from the request port, for NAT and containers."""
    tid_ports: str = ""
    """UDP ports of transfers, "A-B"; empty: the kernel chooses."""
    tid_sockets: Annotated[int, Meta(ge=1, le=64)] = 16
    """UDP sockets that the transfers of one worker share, for each address."""
    max_file_size_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Larger files are neither served nor taken; 0: no limit."""
    drain_timeout_s: Annotated[int, Meta(ge=0, le=3_600)] = 10
    """How long running transfers may go on after SIGTERM."""
    names: NamesSettings = NamesSettings()
    logging: LoggingSettings = LoggingSettings()
    options: OptionsSettings = OptionsSettings()
    limits: LimitsSettings = LimitsSettings()
    retransmit: RetransmitSettings = RetransmitSettings()
    write_config: WriteSettings = WriteSettings()
    performance: PerformanceSettings = PerformanceSettings()
    machines: MachinesSettings = MachinesSettings()
    rules: tuple[Rule, ...] = ()
    """The first that fits decides."""
    template_dir: str = ""
    """Where templates lie, and what they include; empty: beside the configuration, and each alone."""
    templates: tuple[TemplateEntry, ...] = ()
    """The first that matches is meant."""
    handlers: tuple[HandlerEntry, ...] = ()
    """Likewise; they are asked before templates."""

    @property
    def serves_hidden(self) -> bool:
        """Whether names of which a part begins with a dot are served."""
        return self.names.hidden or self.hidden == "serve"

    @property
    def may_serve_hidden(self) -> bool:
        """Whether they are to somebody, by some rule."""
        return self.serves_hidden or any(rule.hidden for rule in self.rules)

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


@functools.cache
def _usable_cores() -> int:
    """Asked once: whatever happens to the process later, there are as many threads as sockets for them."""
    return len(os.sched_getaffinity(0))
