"""One target under libFuzzer, in a process that `__main__` prepares.

The package's Python is instrumented by atheris while it is imported, its C was by gcc (see coverage.c). That atheris
warns of "coverage symbols" of another library is about coverage.c, which hands them on.
"""

import ctypes
import os
import sys

import atheris
from tests.fuzz.guided.targets import TARGETS, loaded


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    name = sys.argv[1]
    again = os.environ["SNOW_OWL_FUZZ_AGAIN"]  # by this name libFuzzer starts itself once more, to merge
    with atheris.instrument_imports(include=["snow_owl_tftp"]):
        target = loaded(name)
        check = target.__enter__()
    atheris.Setup([again, *sys.argv[2:], f"-max_len={TARGETS[name]}"], check)
    ctypes.CDLL(None).snow_owl_count_edges()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
