#!/usr/bin/env bash
# Brings the TFTP servers that Debian does not package, for `snow-owl-tftp bench`. No test needs them.
#
# May do:    make build/peers, a virtual environment of its own with tftpy, py3tftp and fbtftp, and have cargo build
#            rs-tftpd into it where cargo is there.
# Never:     touches the environment of the project, or anything outside build/peers but the caches of pip and cargo.
# Invariant: exit status 0 whatever happens. What could not be had is named loudly, and the benchmark leaves it out.
set -uo pipefail

readonly FOLDER=build/peers PYTHON=${PYTHON:-python3}
readonly INSTALL_LIMIT_S=600
readonly MODULES=(tftpy py3tftp fbtftp)
missing=()

say() { printf 'peers: %s\n' "$*"; }

install_module() {
    local module=$1
    "$FOLDER/bin/python" -c "import $module" 2>/dev/null && return
    timeout "$INSTALL_LIMIT_S" "$FOLDER/bin/python" -m pip --disable-pip-version-check -q install "$module" &&
        "$FOLDER/bin/python" -c "import $module"
}

# The crate is called tftpd, and so is its program.
install_rs_tftpd() {
    [ -x "$FOLDER/bin/tftpd" ] && return
    command -v cargo >/dev/null || { say "no cargo: rs-tftpd cannot be built"; return 1; }
    timeout "$INSTALL_LIMIT_S" cargo install -q --root "$FOLDER" tftpd
}

main() {
    local module
    cd -- "$(dirname -- "$0")/.." || return
    [ -x "$FOLDER/bin/python" ] || "$PYTHON" -m venv "$FOLDER"
    for module in "${MODULES[@]}"; do install_module "$module" || missing+=("$module"); done
    install_rs_tftpd || missing+=(rs-tftpd)
    if [ "${#missing[@]}" -eq 0 ]; then
        say "all present in $FOLDER"
        return
    fi
    say "****************************************************************************"
    say "MISSING: ${missing[*]}: the benchmark leaves them out"
    say "****************************************************************************"
}

main
exit 0
