"""One configuration, as far as it decides about requests: compiled once, never changed, swapped whole by a reload.

    Settings ─of─► Generation ─classes─► TransferServer.set_classes
                       └─► reads and writes, which keep to the one they began with

May know: settings, rules, templates, what may be negotiated, and how the engine tells clients apart. Must not open
anything but the files of rules and templates that settings name, for which it may wait: so it is made before the server
serves, or in a thread.
"""

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from snow_owl_tftp._engine.engine import ClientClasses
from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.rules import Policy
from snow_owl_tftp.protocol.options import OptionLimits
from snow_owl_tftp.server.name_index import Where
from snow_owl_tftp.server.other_names import NameRules
from snow_owl_tftp.server.templates import Templates

if TYPE_CHECKING:
    from snow_owl_tftp.policy.rewrite.rewrites import Rewrites

__all__ = ["Generation", "option_limits"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What a request is answered by.

    Attributes:
        root_dir: Where content lies; exchanged together with what is open of it (see `sources`).
        link_targets: Where links may lead to outside of it.
        names: How names are spelled, and what else they may mean.
        rewrites: What becomes of names before the rules see them; None: nothing.
        machines: Which machine it is that asks.
        policy: Who may read or write what; one for both.
        limits: What may be negotiated.
        max_file_size_bytes: Larger files are neither sent nor taken; 0: no limit.
        offers_flows: Whether the engine may repeat what holds for everybody.
        templates: What is made for who asks; None: nothing is.
        indexed: Which names are kept in memory; None: none.
        classes: Whom the rules tell apart, for `TransferServer.set_classes`; None: nobody is told anything that others
            are not, or it depends on who asks.
        unclassed_why: Why there are none although rules have prefixes; empty: there is no such reason.
    """

    root_dir: str
    link_targets: tuple[str, ...]
    names: NameRules
    rewrites: "Rewrites | None"
    machines: Machines
    policy: Policy
    limits: OptionLimits
    max_file_size_bytes: int
    offers_flows: bool
    templates: Templates | None = None
    indexed: Where | None = None
    classes: ClientClasses | None = None
    unclassed_why: str = ""

    @classmethod
    def of(
        cls,
        settings: Settings,
        listening: Listening | None = None,
        machines: Machines = NO_MACHINES,
        *,
        by_class: bool = False,
    ) -> Self:
        """Compile settings.

        Args:
            settings: All of them.
            listening: Where the server listens, for rules that ask; whoever starts it fills it in.
            machines: What their `machines` table has gathered; outlives a configuration, since it is kept fresh.
            by_class: Whoever asks sees to it that the server has `classes` before it decides by this, and not without.

        Raises:
            ConfigError: A pattern is none, a file of rules cannot be read, or a template is wrong or cannot be read.
        """
        limits = option_limits(settings)
        policy = Policy(
            settings.write_config,
            "serve" if settings.serves_hidden else "refuse",
            machines,
            rules=settings.rules,
            limits=limits,
            per_client=settings.limits,
            listening=listening,
        )
        offers_flows = settings.performance.platform.batch.enable_flows
        classes, why = _classes_of(policy) if by_class and offers_flows else (None, "")
        return cls(
            root_dir=settings.root_dir,
            link_targets=settings.link_targets,
            names=NameRules.of(settings.names, os.fsencode(os.path.abspath(settings.root_dir))),  # noqa: PTH100 - text only
            rewrites=_rewrites_of(settings),
            machines=machines,
            policy=policy,
            limits=limits,
            max_file_size_bytes=settings.max_file_size_bytes,
            offers_flows=offers_flows,
            templates=Templates.of(settings),
            indexed=_indexed(settings),
            classes=classes,
            unclassed_why=why,
        )

    def unclassed(self, why: str) -> Self:
        """Return the same for a server that could not be given `classes`."""
        return replace(self, policy=self.policy.unclassed(), classes=None, unclassed_why=why)


def _classes_of(policy: Policy) -> tuple[ClientClasses | None, str]:
    """Have the rules decide class by class, if that many can be told apart; else return why they do not."""
    rules = policy.rules
    if rules is None:
        return None, ""
    prefixes, limits = rules.client_classes(), rules.limits_by_class()
    if not (prefixes or limits):
        return None, ""
    try:
        classes = ClientClasses(prefixes, limits)
    except (ValueError, MemoryError) as error:
        return None, str(error) or "out of memory"
    rules.is_classed = True
    return classes, ""


def _rewrites_of(settings: Settings) -> "Rewrites | None":
    if not settings.rewrite and not settings.rewrite_file:
        return None
    from snow_owl_tftp.policy.rewrite.rewrites import Rewrites  # lazy: most servers never need it

    return Rewrites.compile(settings)


def _indexed(settings: Settings) -> Where | None:
    if settings.names.case != "insensitive":
        return None
    return Where(settings.root_dir, settings.link_targets, settings.names.max_indexed, settings.may_serve_hidden)


def option_limits(settings: Settings) -> OptionLimits:
    """Return what settings permit to negotiate."""
    return OptionLimits(
        max_blksize_bytes=settings.options.max_blksize_bytes,
        max_windowsize_blocks=settings.options.max_windowsize_blocks,
        max_window_bytes=settings.options.max_window_bytes,
    )
