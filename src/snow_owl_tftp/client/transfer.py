"""One get or put from the first request to its result: what it is of, how far it is, what came of it.

              ┌──────────── RETRY ───────────────────┐
    WAITING ─ASK─► ASKED ─ANSWER─► ANSWERED ─MISANSWER─► MISANSWERED
                     │ LEAVE ─► LEFT    │
                     └─────────RECEIVE──┴─► FINISHING ─DELIVER─► DELIVERED
                                               └CANCEL─► WITHDRAWN

    FAIL and CANCEL end it from wherever it is; END comes when the engine is done with it.

May know: targets and sources. Must not: open sockets or call the engine.
Invariants: a Transfer belongs to one client, whose lock guards it; its state changes by the table `NEXT` alone; its
future is resolved exactly once, and only when the engine is done with every descriptor of it.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from snow_owl_tftp.client.address import ServerAddress
from snow_owl_tftp.client.attempt import Attempt
from snow_owl_tftp.client.progress import ProgressCallback
from snow_owl_tftp.client.sources import Source
from snow_owl_tftp.client.targets import Target
from snow_owl_tftp.plan.transfer import Role
from snow_owl_tftp.protocol.options import Negotiated
from snow_owl_tftp.protocol.packets import Option

__all__ = ["NEXT", "State", "Step", "Transfer", "TransferResult"]


class State(Enum):
    """How far a transfer is."""

    WAITING = auto()
    """Its turn to ask, or to ask again, has not come."""
    ASKED = auto()
    """The request is out. The server has sent no OACK; it may be sending the file without one (RFC 1350)."""
    LEFT = auto()
    """Nobody answered in time, so this attempt is being ended."""
    ANSWERED = auto()
    """The server sent an OACK: it does know options."""
    MISANSWERED = auto()
    """Its OACK breaks the rules, so this attempt is being ended."""
    FINISHING = auto()
    """A get has received everything, which is being made visible."""
    WITHDRAWN = auto()
    """It was cancelled while its file was being made visible."""
    DELIVERED = auto()
    """The file of a get is in place: it has succeeded, whatever follows."""
    FAILED = auto()
    """We are ending it, for its `error`."""
    CANCELLED = auto()
    """We are ending it, since nobody waits for it any more."""
    ENDED = auto()
    """The engine is done with it; its future is resolved, or about to be."""


class Step(Enum):
    """What may happen to a transfer."""

    ASK = auto()
    """Its request has left."""
    ANSWER = auto()
    """An OACK came."""
    MISANSWER = auto()
    """The OACK breaks the rules."""
    LEAVE = auto()
    """The attempt was silent for as long as it may be."""
    RECEIVE = auto()
    """Everything is here."""
    DELIVER = auto()
    """The file is in place."""
    FAIL = auto()
    """It cannot go on."""
    CANCEL = auto()
    """Nobody waits for it any more."""
    RETRY = auto()
    """The attempt has ended, and there is another way to ask."""
    END = auto()
    """The last attempt has ended."""


NEXT: Final[Mapping[tuple[State, Step], State]] = {
    (State.WAITING, Step.ASK): State.ASKED,
    (State.ASKED, Step.ANSWER): State.ANSWERED,
    (State.ANSWERED, Step.MISANSWER): State.MISANSWERED,
    (State.ASKED, Step.LEAVE): State.LEFT,
    (State.ASKED, Step.RECEIVE): State.FINISHING,
    (State.LEFT, Step.RECEIVE): State.FINISHING,  # the server spoke in the moment in which it was left
    (State.ANSWERED, Step.RECEIVE): State.FINISHING,
    (State.FINISHING, Step.DELIVER): State.DELIVERED,
    (State.WITHDRAWN, Step.DELIVER): State.DELIVERED,  # too late: nobody can take it back
    (State.ANSWERED, Step.FAIL): State.FAILED,
    (State.FINISHING, Step.FAIL): State.FAILED,
    (State.WITHDRAWN, Step.FAIL): State.CANCELLED,
    (State.ASKED, Step.CANCEL): State.CANCELLED,
    (State.LEFT, Step.CANCEL): State.CANCELLED,
    (State.ANSWERED, Step.CANCEL): State.CANCELLED,
    (State.MISANSWERED, Step.CANCEL): State.CANCELLED,
    (State.FAILED, Step.CANCEL): State.CANCELLED,
    (State.FINISHING, Step.CANCEL): State.WITHDRAWN,
    (State.ASKED, Step.RETRY): State.WAITING,
    (State.LEFT, Step.RETRY): State.WAITING,
    (State.MISANSWERED, Step.RETRY): State.WAITING,
    **{(state, Step.END): State.ENDED for state in State if state is not State.ENDED},
}
"""State and step to the next state. A step that is not named for a state comes too late, and changes nothing."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """How a transfer went.

    Attributes:
        payload_bytes: Bytes of DATA payload on the wire, each counted once.
        seconds: From the request to the last ACK, by the monotonic clock.
        options: What the server granted, as in its OACK; empty with a server of RFC 1350.
        blksize: Bytes of a full block.
        windowsize: Blocks between two ACKs.
        tsize: What the sender announced, or None.
        blocks: DATA packets of the file.
        retransmits: Packets that we sent again.
        srtt_s: The round trip we measured, in seconds; 0.0: none was.
        server: Address and TID that served, as `host:port`.
        data: What was received, where it was asked for as bytes.
    """

    payload_bytes: int
    seconds: float
    options: dict[str, str]
    blksize: int
    windowsize: int
    tsize: int | None
    blocks: int
    retransmits: int
    srtt_s: float
    server: str
    data: bytes | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Transfer:
    """A get or put under way.

    Attributes:
        role: RECEIVER: get, SENDER: put.
        name: What the request asks for.
        mode: 'octet' or 'netascii'.
        addresses: Of the server, the best first.
        target: Where a get goes.
        open_target: Makes the target when its turn comes, since one that waits must hold no descriptor.
        source: What a put sends.
        progress: Told about ten times a second, or None.
        is_probe: Only the size is wanted: it is ended at the OACK, or at the first full block of a server without one.
        future: The result; never cancelled through itself, see ClientCore.cancel.
        state: How far it is; changed by `move` alone.
        attempts: The way in which the server is asked, and those that are left while none is answered.
        asked: Options of the request that is in flight.
        asked_total: How often the request was sent in earlier ways.
        began_s: When the server was asked first, by the monotonic clock.
        due_s: When this attempt is left, unless it is answered.
        negotiated: What holds, once the server granted something.
        data: The content, where the target gives one.
        error: What we ended it for; comes before what the engine says.
        held: The Completion that came while its file was being made visible.
    """

    role: Role
    name: str
    mode: str
    addresses: list[ServerAddress]
    target: Target | None = None
    open_target: Callable[[], Target] | None = None
    source: Source | None = None
    progress: ProgressCallback | None = None
    is_probe: bool = False
    future: "Future[TransferResult]" = field(default_factory=Future)
    state: State = State.WAITING
    attempts: list[Attempt] = field(default_factory=list)
    asked: tuple[Option, ...] = ()
    asked_total: int = 0
    began_s: float = 0.0
    due_s: float = math.inf
    negotiated: Negotiated = field(default_factory=Negotiated)
    data: bytes | None = None
    error: BaseException | None = None
    held: Any = None

    @property
    def size_bytes(self) -> int | None:
        """What there is to transfer, as far as anybody said."""
        return self.source.size_bytes if self.source is not None else self.negotiated.tsize

    @property
    def is_cancelled(self) -> bool:
        """Nobody waits for it any more."""
        return self.state is State.CANCELLED or self.state is State.WITHDRAWN

    @property
    def is_being_finished(self) -> bool:
        """Its file is being read: a descriptor that were closed now could give another file's bytes."""
        return self.state is State.FINISHING or self.state is State.WITHDRAWN

    def move(self, step: Step) -> bool:
        """Go on as NEXT says; False: the step comes too late, and nothing changed."""
        state = NEXT.get((self.state, step))
        if state is None:
            return False
        self.state = state
        return True

    def discard(self) -> None:
        """Nothing of it is to become visible."""
        if self.target is not None:
            self.target.discard()

    def close(self) -> None:
        """The engine is done with its descriptors."""
        self.move(Step.END)
        if self.target is not None:
            self.target.close()
        if self.source is not None:
            self.source.close()

    def fail(self, error: BaseException) -> None:
        """It is over: nothing of it is left, and whoever waits hears why."""
        self.discard()
        self.close()
        self.future.set_exception(error)

    def result(self, completion: Any) -> TransferResult:
        """What to tell of one that went well."""
        host, port = completion.peer
        return TransferResult(
            payload_bytes=completion.payload_bytes,
            seconds=completion.duration_ns / 1e9,
            options=dict(self.negotiated.accepted),
            blksize=completion.blksize_bytes,
            windowsize=completion.windowsize_blocks,
            tsize=self.negotiated.tsize,
            blocks=completion.blocks,
            retransmits=completion.retransmits,
            srtt_s=completion.srtt_ns / 1e9,
            server=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            data=self.data,
        )
