"""One configuration, as far as it decides about requests: compiled once, never changed, swapped whole by a reload.

    Settings ─of─► Generation ─► reads and writes, which keep to the one they began with

May know: settings, rules and what may be negotiated. Must not open anything.
"""

from dataclasses import dataclass
from typing import Self

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.options import OptionLimits

__all__ = ["Generation", "option_limits"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a request is answered by.

    Attributes:
        root_dir: Where content lies; whoever opens it goes there at the next look.
        link_targets: Where links may lead to outside of it.
        machines: Which machine it is that asks; no decision depends on it yet.
        policy: Who may read or write what; one for both.
        limits: What may be negotiated.
        max_file_size_bytes: Larger files are neither sent nor taken; 0: no limit.
        offers_flows: Whether the engine may repeat what holds for everybody.
    """

    root_dir: str
    link_targets: tuple[str, ...]
    machines: Machines
    policy: Policy
    limits: OptionLimits
    max_file_size_bytes: int
    offers_flows: bool

    @classmethod
    def of(cls, settings: Settings, machines: Machines = NO_MACHINES) -> Self:
        """Compile settings.

        Args:
            settings: All of them.
            machines: What their `machines` table has gathered; outlives a configuration, since it is kept fresh.

        Raises:
            ConfigError: A pattern is none.
        """
        return cls(
            root_dir=settings.root_dir,
            link_targets=settings.link_targets,
            machines=machines,
            policy=Policy(settings.write_config, settings.hidden),
            limits=option_limits(settings),
            max_file_size_bytes=settings.max_file_size_bytes,
            offers_flows=settings.performance.platform.batch.enable_flows,
        )


def option_limits(settings: Settings) -> OptionLimits:
    """Return what settings permit to negotiate."""
    return OptionLimits(
        max_blksize_bytes=settings.options.max_blksize_bytes,
        max_windowsize_blocks=settings.options.max_windowsize_blocks,
        max_window_bytes=settings.options.max_window_bytes,
    )
