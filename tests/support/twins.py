"""All that the two twins of a transfer remember, the model's objects and the engine's struct, by the same names.

Whatever an object or the struct holds is listed by itself: a new attribute of the model, or a new field of the engine's
Flight, is in the comparison as soon as it exists, and without its twin it fails every step of the differential test.

May know: the model, and what a FlightProbe shows. Must not: name what is compared, but for what has two names.
"""

from dataclasses import fields
from functools import cache
from typing import Final

from snow_owl_tftp.protocol.receiver import Receiver
from snow_owl_tftp.protocol.sender import Sender
from snow_owl_tftp.protocol.transfer import Terms

NOT_COMPARED: Final = {
    "_source": "what is sent: the datagrams are compared",
    "peer_error": "what the ERROR of a peer said: the worker tells it, and its Flight is over",
    "terms.first_packet": "what is sent first: the datagrams are compared",
    "terms.proven": "how `proven` begins",
    "terms.patience": "how `patience` begins",
    "terms.rollover": "how `rollover` begins",
    "rtt._policy": "is terms.policy",
}
"""What the model alone holds, and why that is enough."""

SAME: Final = {
    "windowsize": "terms.windowsize_blocks",
    "blksize_bytes": "terms.blksize_bytes",
    "timeout_ns": "terms.timeout_ns",
}
"""Fields of the engine that are called something else in the model."""

HOLDERS: Final = {"terms", "terms.policy", "rtt", "patience", "burst"}
"""What holds more within the model. Whatever else holds something is compared as it is, and has no twin."""


def of_model(model: Sender | Receiver) -> dict[str, object]:
    """Everything that the model holds, by the names there: `terms.policy.floor_ns` for what is further inside."""
    held = {plain(name): value for name, value in all_of(model).items() if name not in NOT_COMPARED}
    trial = held["trial"]
    held["trial"] = trial and (trial.late_ns, trial.answer_ns, trial.repeats)
    held["role"] = int(isinstance(model, Receiver))
    return held


def all_of(holder: object, path: str = "") -> dict[str, object]:
    """Every attribute, private ones by their own names."""
    held = {}
    for name in names_of(holder):
        inside, value = path + name, getattr(holder, name)
        held.update(all_of(value, f"{inside}.") if inside in HOLDERS else {inside: value})
    return held


def names_of(holder: object) -> list[str]:
    return list(vars(holder)) if hasattr(holder, "__dict__") else fields_of(type(holder))


@cache
def fields_of(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


@cache
def plain(name: str) -> str:
    """Without the underscore of what is private in the model."""
    path, _, last = name.rpartition(".")
    return f"{path}.{last.lstrip('_')}" if path else last.lstrip("_")


def of_engine(probe) -> dict[str, object]:
    """The same of the engine's Flight, with all that a FlightProbe remembers beside it."""
    flight = probe.flight()
    held = {}
    for name, value in flight.items():
        if isinstance(value, dict):
            held.update({f"{name}.{inner}": deeper for inner, deeper in value.items()})
        else:
            held[SAME.get(name, name)] = value
    if probe.done:
        held.update({f"patience.{name}": value for name, value in probe.learned().items()})
    trial = [held.pop(f"trial_{name}") for name in ("late_ns", "answer_ns", "repeats")]
    held["trial"] = tuple(trial) if trial[-1] else None
    held["timed_block"] = held["timed_block"] if held["timed_block"] >= 0 else None
    held["deadline_ns"] = probe.deadline_ns
    held.update({name: getattr(probe, name) for name in ("done", "outcome", "delivered", "dallies")})
    return held | {f"terms.policy.{name}": value for name, value in probe.policy().items()}


@cache
def of_role(role: type[Sender] | type[Receiver]) -> set[str]:
    """The names of all that one role remembers."""
    return set(of_model(a_model(role)))


def a_model(role: type[Sender] | type[Receiver]) -> Sender | Receiver:
    return Sender(b"", Terms()) if role is Sender else Receiver(Terms())


def of_other_role(model: Sender | Receiver) -> set[str]:
    """The engine has one struct for both roles: names of what must stay as it was when it began."""
    other = Receiver if isinstance(model, Sender) else Sender
    return of_role(other) - of_role(type(model))
