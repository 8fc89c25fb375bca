"""Which machine asks, for one explanation: what the settings' sources know now, and a MAC that is taken for proved.

May know: the sources of a server. Must not follow them: each is looked at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.errors import ConfigError
from snow_owl_tftp.operate.machines.gathered import Gathered
from snow_owl_tftp.operate.machines.wanted import wanted_machines
from snow_owl_tftp.policy.machines import NO_MACHINES, Machines
from snow_owl_tftp.policy.machines.inventory import Inventory
from snow_owl_tftp.policy.machines.known import KnownMachines
from snow_owl_tftp.policy.machines.sighting import Sighting
from snow_owl_tftp.policy.machines.spellings import parse_mac
from snow_owl_tftp.server.patient import PatientThreads

__all__ = ["known_machines"]

_THREADS = 8


class _Said:
    """The source of a MAC that somebody says, of whoever asks."""

    name = "--mac"
    is_proof = True

    def __init__(self, mac: str) -> None:
        self._sighting = Sighting(mac=mac)

    def sight(self, host: str, paths: tuple[bytes, ...]) -> Sighting:
        """See Source.sight."""
        return self._sighting


@contextmanager
def known_machines(settings: Settings, mac: str | None, notes: list[str]) -> Iterator[Machines]:
    """Gather what a server with these settings would know.

    Args:
        settings: All of them.
        mac: Of whoever asks; None: as the sources know.
        notes: Takes what is not known.

    Raises:
        ConfigError: The inventory cannot be read, or the MAC is none.
    """
    said = None if mac is None else _Said(_checked(mac))
    wanted = wanted_machines(settings)
    if wanted is None:
        yield NO_MACHINES if said is None else KnownMachines([said], Inventory())
        return
    threads = PatientThreads(_THREADS, 1, "tftp-machines")
    try:
        gathered = Gathered(wanted, threads.submit_for)
        notes += [_told(told.event, told.fields) for told in gathered.told if told.level != "info"]
        try:
            machines = gathered.machines
            yield machines.behind(said) if said is not None and isinstance(machines, KnownMachines) else machines
        finally:
            gathered.close()
    finally:
        threads.shutdown(cancel_futures=True)


def _checked(mac: str) -> str:
    """Raises: ConfigError."""
    parsed = parse_mac(mac)
    if parsed is None:
        raise ConfigError(f'--mac: expected a MAC such as 52:54:00:12:34:56, got "{mac}"')
    return parsed


def _told(event: str, fields: dict[str, object]) -> str:
    return ", ".join([event, *(f"{key}: {value}" for key, value in fields.items())])
