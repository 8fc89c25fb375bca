"""How much a soak test does: minutes' worth as a rule, hours' worth with SNOW_OWL_SOAK=full.

May know: the environment. Must not: know any test.
Invariant: `make soak` takes less than ten minutes on two cores; a docstring says what the full count is.
"""

import os
from typing import TypeVar

T = TypeVar("T")
CHOICES = ("", "full")
CHOICE = os.environ.get("SNOW_OWL_SOAK", "")
if CHOICE not in CHOICES:
    raise ValueError(f"SNOW_OWL_SOAK={CHOICE!r}: expected full, or nothing")


def many(usual: T, full: T) -> T:
    """Returns `full` where the whole count is asked for."""
    return full if CHOICE == "full" else usual
