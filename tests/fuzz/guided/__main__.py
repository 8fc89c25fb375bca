"""Fuzzes each target for its share of the time, and keeps what is worth keeping: python -m tests.fuzz.guided

    python -m tests.fuzz.guided [--seconds 600] [TARGET …]

What the fuzzer finds on its way lies in build/fuzz/corpus/TARGET and is where the next run begins. The fewest scripts
that reach everything that these reach replace tests/fuzz/corpus/TARGET, which is in the repository. A script that
fails is kept there too, as crash-… or timeout-…; tests/fuzz/test_corpus.py plays all of them.

May know: gcc, atheris, libFuzzer's flags. Must not: know a target.
"""

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.guided.targets import CORPUS, TARGETS

REPOSITORY = Path(__file__).resolve().parents[3]
BUILD = REPOSITORY / "build/fuzz"
FAILURES = ("crash-", "timeout-", "leak-", "oom-")
LONGEST_S = 60
"""Of one script; a busy machine plays most of them in a hundredth of that."""


def libfuzzer() -> str:
    spec = importlib.util.find_spec("atheris")
    found = sorted(Path(spec.origin).parent.glob("core_with_libfuzzer*.so")) if spec and spec.origin else []
    if not found:
        raise SystemExit(
            "snow-owl-tftp: no atheris here (pip install '.[fuzz]'; it has wheels for Linux on x86-64 only)"
        )
    return str(found[0])


def environment() -> dict[str, str]:
    """The fuzz build, under ASan and UBSan, with coverage.so in front of them."""
    coverage = BUILD / "coverage.so"
    source = Path(__file__).with_name("coverage.c")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(coverage), "-ldl"], check=True)
    preloaded = [str(coverage), *(of_gcc(name) for name in ("libasan.so", "libstdc++.so.6"))]
    return os.environ | {
        "SNOW_OWL_LIBFUZZER": libfuzzer(),
        "PYTHONPATH": f"{BUILD / 'lib'}:{REPOSITORY}",
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0:quarantine_size_mb=64:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "LD_PRELOAD": " ".join(preloaded),
    }


def of_gcc(name: str) -> str:
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def run(target: str, *arguments: str, env: dict[str, str]) -> int:
    """libFuzzer's exit status."""
    again = BUILD / f"again-{target}"
    again.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.guided.under_libfuzzer {target} "$@"\n'
    )
    again.chmod(0o755)
    started = env | {"SNOW_OWL_FUZZ_AGAIN": str(again)}
    return subprocess.run([again, *arguments], cwd=REPOSITORY, env=started, check=False).returncode


def fuzz(target: str, seconds: int, env: dict[str, str]) -> int:
    kept, found = CORPUS / target, BUILD / "corpus" / target
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={seconds}", f"-timeout={LONGEST_S}", f"-artifact_prefix={kept}/", "-rss_limit_mb=4096"]
    flags.append("-len_control=0")  # a short script does nothing yet
    words = Path(__file__).with_name(f"{target}.dict")
    flags += [f"-dict={words}"] if words.exists() else []
    failed = run(target, str(found), str(kept), *flags, env=env)
    return failed or minimise(target, kept, found, env)


def minimise(target: str, kept: Path, found: Path, env: dict[str, str]) -> int:
    """The fewest scripts that reach every edge; how often each is reached counts for the run alone."""
    fewest = BUILD / "fewest" / target
    shutil.rmtree(fewest, ignore_errors=True)
    fewest.mkdir(parents=True)
    failed = run(target, "-merge=1", "-use_counters=0", str(fewest), str(kept), str(found), env=env)
    if failed or not any(fewest.iterdir()):
        return failed or 1
    for script in kept.iterdir():
        if not script.name.startswith(FAILURES):
            script.unlink()
    for script in fewest.iterdir():
        shutil.copy(script, kept / script.name)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided")
    parser.add_argument("--seconds", type=int, default=600, help="in all (default 600)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    asked = parser.parse_args()
    targets = asked.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}")
    env = environment()
    failed = [target for target in targets if fuzz(target, max(1, asked.seconds // len(targets)), env)]
    for target in failed:
        print(f"{target}: FAILED; what was being played lies in {CORPUS / target}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
