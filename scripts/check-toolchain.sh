#!/usr/bin/env bash
# Says in one line, before anything is built, which Debian packages this machine lacks, and exits 2.
#
# usage: check-toolchain.sh PYTHON
# Headers are asked for through sysconfig: `python3` may be a pyenv or a distribution build, with headers anywhere.
set -euo pipefail

readonly PYTHON=${1:?usage: check-toolchain.sh PYTHON}

die() {
    printf 'snow-owl-tftp: %s\n' "$*" >&2
    exit 2
}

command -v "$PYTHON" >/dev/null || die "$PYTHON not found; on Debian: apt-get install python3 python3-dev python3-venv build-essential"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or newer is needed, and $PYTHON is $("$PYTHON" -V 2>&1); name another with: make PYTHON=python3.12"

lacking=()
# CC as setuptools will use it: the environment's, or else the one Python itself was built with.
compiler=${CC:-$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')}
command -v "${compiler%% *}" >/dev/null || lacking+=("a C compiler (${compiler%% *})")
"$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || lacking+=("the Python headers")
# ensurepip is what Debian splits off into python3-venv; `import venv` alone succeeds without it.
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || lacking+=("the venv module")

if [ "${#lacking[@]}" -gt 0 ]; then
    printf -v list '%s, ' "${lacking[@]}"
    die "missing: ${list%, }; on Debian: apt-get install build-essential python3-dev python3-venv"
fi
