"""What the flags of `bench` ask for: which runs, and how they are spelled in the report.

May know: flags by name, and which runs a benchmark may consist of. Must not know: click, or how a run is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snow_owl_tftp.bench.runs import check_target
from snow_owl_tftp.bench.servers import OURS, has_classical, installed_peers, our_targets
from snow_owl_tftp.bench.settings import BenchTarget, Network, Workload
from snow_owl_tftp.bench.sweeps import PROFILE_SIZES_BYTES, RUN_S, SECTIONS, Step, profile_steps, standard_steps
from snow_owl_tftp.errors import ConfigError

__all__ = ["BenchFlags", "spelled", "steps_of_flags", "steps_of_profile"]

_OF_PROFILE = ("file_bytes", "rounds", "output", "profile")
"""What may be said beside --profile; the rest is the profile's own."""


@dataclass(frozen=True, slots=True)
class BenchFlags:
    """The flags of `bench`, by their names there."""

    clients: int
    transfers: int | None
    file_bytes: int
    blksize: int
    windowsize: int
    rtt_ms: float
    loss_percent: float
    seed: int
    servers: str | None
    rounds: int
    sweeps: bool
    sweep: tuple[str, ...]
    profile: str | None
    output: Path


def steps_of_profile(asked: BenchFlags, given: Sequence[str], typed: Mapping[str, str]) -> list[Step]:
    """The runs of `--profile`.

    Args:
        asked: The flags.
        given: Which of them the user gave.
        typed: Name to flag, as it is typed.

    Raises:
        ConfigError: One was given that the profile sets itself.
    """
    if refused := [typed[name] for name in given if name not in _OF_PROFILE]:
        raise ConfigError(
            f"bench: --profile sets {', '.join(refused)} itself; it takes --file-size, --rounds, --output"
        )
    sizes_bytes = (asked.file_bytes,) if "file_bytes" in given else PROFILE_SIZES_BYTES
    return profile_steps(asked.rounds, has_classical=has_classical(), sizes_bytes=sizes_bytes)


def steps_of_flags(asked: BenchFlags) -> list[Step]:
    """The runs that the other flags ask for.

    Raises:
        ConfigError: A server is unknown or cannot be started; a sweep makes no sense without ours.
    """
    workload = Workload(
        clients=asked.clients,
        transfers=None,
        file_bytes=asked.file_bytes,
        blksize_bytes=asked.blksize,
        windowsize_blocks=asked.windowsize,
        network=Network(asked.rtt_ms, asked.loss_percent, asked.seed),
    )
    if asked.transfers:
        workload = workload.with_transfers(asked.transfers)
    else:
        workload = workload.timed(RUN_S)
    targets = _targets(asked.servers)
    if "linger" in asked.sweep and all(target.server != OURS for target in targets):
        raise ConfigError("bench: --sweep linger is about ours; name it among --servers")
    chosen = asked.sweep or (SECTIONS if asked.sweeps else SECTIONS[:1])
    return standard_steps(targets, workload, asked.rounds, chosen=chosen)


def spelled(asked: BenchFlags, given: Sequence[str], typed: Mapping[str, str]) -> list[str]:
    """The flags that were given, for the report; not the folder, which is this machine's."""
    words = []
    for name in given:
        value = getattr(asked, name)
        if name == "sweeps":
            words.append("--sweeps" if value else "--no-sweeps")
        elif name != "output":
            for one in value if isinstance(value, tuple) else (value,):
                words += [typed[name], f"{one:g}" if isinstance(one, float) else str(one)]
    return words


def _targets(servers: str | None) -> list[BenchTarget]:
    peers = [name for name, problem in installed_peers().items() if problem is None]
    names = [name.strip() for name in servers.split(",")] if servers else [OURS, *peers]
    targets = []
    for name in names:
        check_target(name)
        targets += our_targets() if name == OURS else [BenchTarget(name, name)]
    return targets
