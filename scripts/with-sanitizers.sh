#!/usr/bin/env bash
# Runs a command under the sanitize build of the engine: with-sanitizers.sh PYTHON -m pytest tests/engine
#
# The interpreter itself is not instrumented, so ASan's runtime has to be there before it starts (LD_PRELOAD), and
# libstdc++ beside it: without it ASan cannot intercept __cxa_throw and aborts at the first C++ exception of any library.
set -euo pipefail

cd "$(dirname "$0")/.."
runtime=$(gcc -print-file-name=libasan.so)
[ -e "$runtime" ] || { printf 'snow-owl-tftp: gcc has no libasan here; on Debian: apt-get install gcc\n' >&2; exit 2; }

export SNOW_OWL_BUILD=sanitize
export PYTHONPATH=$PWD/build/sanitize/lib
# pymalloc hands out pieces of arenas that ASan sees as one block: with malloc every object has its own red zones.
export PYTHONMALLOC=malloc
# Leaks: CPython never frees its interned and static objects; our own are counted by the engine's live-object counters.
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:strict_string_checks=1:detect_stack_use_after_return=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
cpp_runtime=$(gcc -print-file-name=libstdc++.so.6)
[ -e "$cpp_runtime" ] || cpp_runtime=  # gcc answers with the bare name when a machine has none: then nothing throws
export LD_PRELOAD="$runtime${cpp_runtime:+ $cpp_runtime}"
exec "$@"
