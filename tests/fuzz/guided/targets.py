"""What is fuzzed, by name: each is a function that takes bytes and raises where something is wrong.

May know: the modules here, imported only when wanted: under `make fuzz` the package is instrumented while it is
imported.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"
TARGETS = {"requests": 600, "machines": 1000, "client": 400}
"""And the longest script, in bytes."""


@contextmanager
def loaded(target: str) -> Iterator[Callable[[bytes], None]]:
    """The function of a target; what it has started ends with the block."""
    module = importlib.import_module(f"tests.fuzz.guided.{target}")
    yield module.check
    if hasattr(module, "close"):
        module.close()


def corpus(target: str) -> list[Path]:
    """What is kept: scripts that reach something each, and every one that ever failed."""
    return sorted((CORPUS / target).iterdir())
