"""Builds the native engine: each `.pyx` in a room of `_engine/` becomes one extension module of that place and name.

Everything that is not about compiling lives in pyproject.toml. The environment picks the build:

    SNOW_OWL_BUILD       release (default) | debug | sanitize | fuzz (sanitize, and tests/fuzz/guided/coverage.c is told
                         which parts of it have run) | none (the Python files alone: the Makefile's editable install,
                         whose engine `build_ext --inplace` then builds, incrementally as pip cannot)
    SNOW_OWL_WITH_PROBE  1 builds the test-only module `probe` too; default 0 for release, 1 for the others,
                         so that a wheel never carries it

The generated C is the same for all builds (only the C macro SNOW_OWL_DEBUG differs), so it is shared in
build/cython; objects and modules must not be shared, which is why each build has a build folder of its own.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCE_DIR = Path("src")
ENGINE_DIR = SOURCE_DIR / "snow_owl_tftp/_engine"
GENERATED_C_DIR = "build/cython"
TEST_ONLY_MODULES = {"probe"}

# Cython 3's C is clean under both, so nothing is silenced: a warning is about our code.
WARNINGS = ["-Wall", "-Wextra"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
SANITIZED = ["-O1", "-g", "-fno-omit-frame-pointer", "-DSNOW_OWL_DEBUG=1", *SANITIZERS]
# Build name -> (compiler flags, linker flags). Ours come after CPython's own flags, so the last -O wins.
FLAGS: dict[str, tuple[list[str], list[str]]] = {
    "release": (["-O3", "-g", "-fno-plt"], []),
    "debug": (["-O1", "-g", "-DSNOW_OWL_DEBUG=1"], []),
    "sanitize": (SANITIZED, SANITIZERS),
    "fuzz": ([*SANITIZED, "-fsanitize-coverage=trace-pc"], SANITIZERS),
}
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


def chosen_build() -> str:
    """Returns the build that SNOW_OWL_BUILD names, refusing a name that is none."""
    build = os.environ.get("SNOW_OWL_BUILD", "release")
    if build not in {*FLAGS, "none"}:
        raise SystemExit(f"SNOW_OWL_BUILD={build!r}: expected one of {', '.join(FLAGS)}, none")
    return build


def engine_extensions(build: str) -> list[Extension]:
    """Returns one extension for each `.pyx` that this build carries."""
    if build == "none":
        return []
    with_probe = os.environ.get("SNOW_OWL_WITH_PROBE", "0" if build == "release" else "1") == "1"
    compile_flags, link_flags = FLAGS[build]
    return [
        Extension(
            ".".join(source.relative_to(SOURCE_DIR).with_suffix("").parts),
            sources=[str(source)],
            # cythonize follows cimports by itself, but not C headers, and nobody looks whether the flags changed.
            depends=["setup.py", *sorted(map(str, ENGINE_DIR.rglob("*.h")))],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=[*WARNINGS, "-pthread", *compile_flags],
            extra_link_args=["-pthread", *link_flags],
        )
        for source in sorted(ENGINE_DIR.rglob("*.pyx"))
        if with_probe or source.stem not in TEST_ONLY_MODULES
    ]


setup(
    ext_modules=cythonize(
        engine_extensions(chosen_build()),
        include_path=["src"],
        build_dir=GENERATED_C_DIR,
        compiler_directives=DIRECTIVES,
    ),
)
