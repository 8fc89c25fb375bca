"""One configuration, as far as it decides about requests: compiled once, never changed, swapped whole by a reload.

    Settings ─of─► Generation ─► reads and writes, which keep to the one they began with

May know: settings, rules, templates and what may be negotiated. Must not open anything but template files, for which it
may wait: a reload makes it in a thread.
"""

from dataclasses import dataclass
from typing import Self

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.server.templates import Templates

__all__ = ["Generation", "option_limits"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a request is answered by.

    Attributes:
        root_dir: Where content lies; whoever opens it goes there at the next look.
        link_targets: Where links may lead to outside of it.
        policy: Who may read or write what; one for both.
        limits: What may be negotiated.
        max_file_size_bytes: Larger files are neither sent nor taken; 0: no limit.
        offers_flows: Whether the engine may repeat what holds for everybody.
        templates: What is made for who asks; None: nothing is.
    """

    root_dir: str
    link_targets: tuple[str, ...]
    policy: Policy
    limits: OptionLimits
    max_file_size_bytes: int
    offers_flows: bool
    templates: Templates | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Compile settings.

        Raises:
            ConfigError: A pattern is none, or a template is wrong or cannot be read.
        """
        return cls(
            root_dir=settings.root_dir,
            link_targets=settings.link_targets,
            policy=Policy(settings.write_config, settings.hidden),
            limits=option_limits(settings),
            max_file_size_bytes=settings.max_file_size_bytes,
            offers_flows=settings.performance.platform.batch.enable_flows,
            templates=Templates.of(settings),
        )


def option_limits(settings: Settings) -> OptionLimits:
    """Return what settings permit to negotiate."""
    return OptionLimits(
        max_blksize_bytes=settings.options.max_blksize_bytes,
        max_windowsize_blocks=settings.options.max_windowsize_blocks,
        max_window_bytes=settings.options.max_window_bytes,
    )
