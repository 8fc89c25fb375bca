"""What an operator is told about a configuration that is in force: what of it has no effect, or less than it seems.

May know: settings, and what came of them. Must not know when: at the start, and after every reload.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snow_owl_tftp.config.check import without_effect
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.server.reads import FileDecider

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["tell_of_configuration", "warn_of_dropped_keys"]


def warn_of_dropped_keys(log: "FilteringBoundLogger", keys: Sequence[str]) -> None:
    """Name keys of the earlier Rust server that change nothing, on one line."""
    if keys:
        log.warning("settings without effect here", keys=", ".join(keys), remedy="remove them when it suits you")


def tell_of_configuration(log: "FilteringBoundLogger", settings: Settings, decider: FileDecider) -> None:
    """Name what other settings switch off, roots that are not there, and why each request is decided anew; a line each.

    Args:
        log: Where to.
        settings: All of them.
        decider: Decides by them.
    """
    for key, remedy in without_effect(settings).items():
        log.warning("setting without effect", setting=key, remedy=remedy)
    generation, sources = decider.in_force
    for directory in sources.missing:
        log.warning("roots of rules are skipped", missing=directory or "root_dir", remedy="make the directory")
    if generation.unclassed_why:
        log.warning(
            "requests are decided one by one where rules have clients",
            reason=generation.unclassed_why,
            remedy="use fewer prefixes in rules.clients",
        )
