"""The engine's Python face: `Engine`, what its poll() returns, and the names that both sides count by.

What is imported here is compiled; the stub beside this file says what each of it is.
"""

from snow_owl_tftp._engine.engine.api import Engine
from snow_owl_tftp._engine.engine.classes import ClientClasses
from snow_owl_tftp._engine.engine.events import (
    Answer,
    Completion,
    FirstData,
    ModeChange,
    Progress,
    Received,
    Refusals,
    Released,
    Request,
    Retired,
)
from snow_owl_tftp._engine.engine.names import CONTRACT_VERSION, COUNTERS, LIMITS, OUTCOMES, PACED

__all__ = [
    "CONTRACT_VERSION",
    "COUNTERS",
    "LIMITS",
    "OUTCOMES",
    "PACED",
    "Answer",
    "ClientClasses",
    "Completion",
    "Engine",
    "FirstData",
    "ModeChange",
    "Progress",
    "Received",
    "Refusals",
    "Released",
    "Request",
    "Retired",
]
