"""What a start would find out beyond the settings' own words: is the root there, does every pattern compile?

    Settings ──rehearse──► nothing, or the ConfigError that `serve` would end with

May know: the parts that `serve` is made of. Must not bind an address, write a file, or start a thread that stays.
"""

from contextlib import ExitStack

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.operate.handlers import HandlerNames
from snow_owl_tftp.operate.log_places import refuse_inventory_below_root, refuse_logs_below_root
from snow_owl_tftp.operate.machines import MachineWatch, wanted_machines
from snow_owl_tftp.policy.asker import Listening
from snow_owl_tftp.server.generation import Generation
from snow_owl_tftp.server.sources import Sources

__all__ = ["rehearse"]


def rehearse(settings: Settings) -> None:
    """Open and compile what a start does, as this user, and give it up again.

    Handlers are not imported: that runs their code. Log files are not opened: that makes them.

    Args:
        settings: Checked ones.

    Raises:
        ConfigError: Something is not what the settings say; each line names the key and the remedy.
    """
    refuse_logs_below_root(settings)
    refuse_inventory_below_root(settings)
    HandlerNames(settings)
    with ExitStack() as closing:
        machines = MachineWatch(wanted_machines(settings))
        closing.callback(machines.close)
        generation = Generation.of(settings, Listening(), machines.machines, by_class=True)
        closing.callback(Sources.open(generation).close_own)
