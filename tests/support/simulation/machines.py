"""The only place that knows how the project's state machines are made: whoever changes their constructors changes this.

`Peer` is what a server remembers of one client between its transfers; the simulation plays several transfers of a
client in a row, and hands the same Peer to each.
"""

from dataclasses import dataclass, field

from tests.support.simulation.network import MS, S

from snow_owl_tftp.config.schema import Settings
from snow_owl_tftp.protocol.patience import Patience
from snow_owl_tftp.protocol.rtt import RetransmitPolicy
from snow_owl_tftp.protocol.transfer import Receiver, Sender, Terms

OACK = b"\0\6blksize\0001428\0"


@dataclass(slots=True)
class Peer:
    """One client, as the server knows it."""

    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What was negotiated."""

    windowsize: int = 1
    blksize: int = 1428
    timeout_s: int = 0
    has_oack: bool = True


def server_policy() -> RetransmitPolicy:
    """The timers of a server with the default settings."""
    timer = Settings().retransmit
    return RetransmitPolicy(
        initial_ns=timer.initial_ms * MS,
        floor_ns=timer.floor_ms * MS,
        ceiling_ns=timer.ceiling_ms * MS,
        give_up_ns=timer.give_up_s * S,
        half_open_give_up_ns=timer.half_open_give_up_s * S,
        half_open_datagrams=timer.half_open_max_datagrams,
    )


def _terms(agreed: Agreed, peer: Peer) -> Terms:
    return Terms(
        first_packet=OACK if agreed.has_oack else b"",
        blksize_bytes=agreed.blksize,
        windowsize_blocks=agreed.windowsize,
        timeout_ns=agreed.timeout_s * S,
        policy=server_policy(),
        patience=peer.patience,
    )


def make_sender(source: bytes, agreed: Agreed, peer: Peer) -> Sender:
    return Sender(source, _terms(agreed, peer))


def make_receiver(agreed: Agreed, peer: Peer) -> Receiver:
    return Receiver(_terms(agreed, peer))
