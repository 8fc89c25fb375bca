"""What a configuration becomes."""

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.policy.machines import NO_MACHINES
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.known import KnownMachines
from snow_owl_tftp.server.generation import Generation


def test_generation_has_the_machines_that_outlive_it() -> None:
    machines = KnownMachines((), Inventory())
    assert Generation.of(Settings(), machines=machines).machines is machines
    assert Generation.of(Settings()).machines is NO_MACHINES
