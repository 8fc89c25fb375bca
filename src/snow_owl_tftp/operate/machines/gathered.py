"""All that one [machines] table names: made whole, or refused whole; another table makes another one.

    MachinesSettings ─gather─► sources, in their order ─► KnownMachines
                                  ▲ tables that files and netlink fill

May know: settings, files, sources. Must not look at anything twice: `watch` does.
"""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from snow_owl_tftp.config.machines import MachinesSettings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate.machines.files import InventoryFile
from snow_owl_tftp.operate.machines.followed import FollowedFile, Told
from snow_owl_tftp.operate.machines.hearing import Hearing
from snow_owl_tftp.operate.machines.lease_file import LeaseFile
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.machines.claims import NameClaims
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.known import KnownMachines
from snow_owl_tftp.policy.machines.leases import Leases, LeaseTable
from snow_owl_tftp.policy.machines.neighbours import NeighbourTable
from snow_owl_tftp.policy.machines.sighting import Source

__all__ = ["Gathered", "Submit"]

_PATIENCE_S: Final = 10.0
"""For its bytes: an inventory that does not come within it is refused; leases come when they come."""
_LEASE_PATIENCE_S: Final = 2.0

Submit = Callable[[str, Callable[[], Any]], "Future[Any]"]
"""Has something done for a path, in a thread that only waits for that path's file system."""


class Gathered:
    """The sources of one table, and what fills them.

    Attributes:
        settings: What this was made of.
        machines: What requests are asked of.
        files: To be looked at.
        hearing: To be read; None: neighbours are not wanted, or cannot be heard.
        told: What was met on the way, for the log.
    """

    def __init__(self, settings: MachinesSettings, submit: Submit) -> None:
        """Read everything once.

        Args:
            settings: The table.
            submit: See Submit.

        Raises:
            ConfigError: The inventory cannot be read or is none, or a pattern is none.
        """
        self.settings = settings
        self.machines: Machines = NO_MACHINES
        self.files: list[FollowedFile] = []
        self.hearing: Hearing | None = None
        self.told: list[Told] = []
        self.inventory = Inventory()
        self.lease_tables: list[LeaseTable] = []
        self.neighbours = NeighbourTable()
        try:
            self._gather(submit)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up what is open, without waiting."""
        for file in self.files:
            file.close()
        if self.hearing is not None:
            self.hearing.close()

    def figures(self) -> dict[str, int]:
        """Return how many are known, and how many there was no room for."""
        left_out = self.neighbours.left_out_total + sum(table.left_out_total for table in self.lease_tables)
        return {
            "machines": self.inventory.size,
            "leases": sum(map(len, self.lease_tables)),
            "neighbours": len(self.neighbours),
            "machines_left_out": left_out,
        }

    def _gather(self, submit: Submit) -> None:
        settings = self.settings
        try:
            claims = NameClaims(settings.name_patterns, self.inventory)
        except ConfigError as error:
            raise ConfigError(f"machines.name_patterns: {error}") from error
        if settings.inventory:
            self._read_inventory(InventoryFile(settings.inventory, self.inventory), submit)
        if "leases" in settings.sources:
            self._read_leases(submit)
        if "neighbours" in settings.sources:
            self._hear()
        every: dict[str, Source] = {
            "inventory": self.inventory,
            "leases": Leases(self.lease_tables),
            "neighbours": self.neighbours,
            "name": claims,
        }
        self.machines = KnownMachines([every[name] for name in settings.sources], self.inventory)

    def _read_inventory(self, file: InventoryFile, submit: Submit) -> None:
        try:
            file.learn(submit(file.path, file.fetch).result(_PATIENCE_S))
        except ConfigError as error:
            raise ConfigError("\n".join(f"machines.inventory: {line}" for line in str(error).splitlines())) from error
        except TimeoutError:
            raise ConfigError(f"machines.inventory: {file.path}: its file system does not answer") from None
        self.files.append(file)

    def _read_leases(self, submit: Submit) -> None:
        looks = []
        for path in self.settings.leases:
            table = LeaseTable()
            file = LeaseFile(path, table)
            self.lease_tables.append(table)
            self.files.append(file)
            looks.append(submit(file.path, file.look))
        for look in looks:
            with suppress(TimeoutError):
                self.told += look.result(_LEASE_PATIENCE_S).told

    def _hear(self) -> None:
        try:
            self.hearing = Hearing(self.neighbours)
        except OSError as error:
            remedy = 'allow netlink (in a systemd unit: AF_NETLINK), or take "neighbours" out of machines.sources'
            fields: dict[str, object] = {"reason": error.strerror, "remedy": remedy}
            self.told.append(Told("warning", "neighbours are not known", fields))
