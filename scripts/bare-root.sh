#!/usr/bin/env bash
# A new user's first hour: README's commands on a Debian that has nothing but what README says.
#
# usage: bare-root.sh [--as root|user|both] [TARGET...]
#        TARGET: for make, after `make run` (default: test); `test-fast` takes a few minutes instead of many.
#
# Makes a minimal Debian with mmdebstrap in a temporary folder, installs README's packages in it, copies a fresh clone of
# the last commit into it, and there: `make run`, a transfer with the client that it built, `make TARGET`. Once as root,
# once as an ordinary user, each from a clone of its own. Exit status 0: all of it passed.
#
# Runs as root, or as a user to whom mmdebstrap can give a user namespace (subordinate IDs in /etc/subuid).
# Never:     leaves its root behind; names a mirror or an index: both are this machine's own (below).
# From here: apt's sources, if this is the same Debian (SOURCES names other files or mirrors; else mmdebstrap's own choice),
#            and apt's proxy; PIP_*, *_proxy and SSL_CERT_FILE, pip's configuration, and the certificates that they name.
set -euo pipefail

readonly SUITE=${SUITE:-bookworm}
readonly PACKAGES=(build-essential python3-dev python3-venv)
readonly USER_NAME=owl CHECKOUT=snow-owl-tftp
readonly RUN_LIMIT_S=1200

here=$(cd "$(dirname "$0")/.." && pwd)

say() { printf 'bare-root: %s\n' "$*"; }
die() { say "$*" >&2; exit 2; }

# ---- on this machine: a clone, and mmdebstrap, which calls this script again inside its namespace ----------------------

sources_of_apt() {
    [ -z "${SOURCES:-}" ] || { printf '%s\n' $SOURCES; return; }
    [ "$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")" = "$SUITE" ] || return 0
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        # What needs a key of its own is somebody else's repository.
        if [ -s "$file" ] && grep -q "$SUITE" "$file" && ! grep -qi 'signed-by.*/etc/apt/keyrings' "$file"; then
            printf '%s\n' "$file"
        fi
    done
}

# pip's configuration file, with the certificates that it names beside it, as both will lie in the root.
take_pip_conf() {
    local file=$1 name=$2 certificates
    certificates=$(sed -n 's/^[[:space:]]*cert[[:space:]]*[=:][[:space:]]*//p' "$file" | tail -n 1)
    sed "s#^\([[:space:]]*cert[[:space:]]*\)[=:].*#\1= /opt/pip/$name.pem#" "$file" >"$work/pip/$name.conf"
    [ -z "$certificates" ] || cp -L -- "$certificates" "$work/pip/$name.pem"
}

pass_pip_on() {
    local file name value
    mkdir "$work/pip"
    [ ! -r /etc/pip.conf ] || take_pip_conf /etc/pip.conf site
    for file in "$HOME/.pip/pip.conf" "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "${PIP_CONFIG_FILE:-}"; do
        [ ! -r "$file" ] || take_pip_conf "$file" user
    done
    while IFS='=' read -r name value; do
        case "$name" in
            PIP_CERT | SSL_CERT_FILE | REQUESTS_CA_BUNDLE)
                [ -r "$value" ] || continue
                cp -L -- "$value" "$work/pip/$name.pem"
                value=/opt/pip/$name.pem
                ;;
            # Files and folders of this machine are not there.
            PIP_CONFIG_FILE | PIP_FIND_LINKS | PIP_CACHE_DIR) continue ;;
            PIP_* | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY) ;;
            *) continue ;;
        esac
        printf '%s=%s\n' "$name" "$value"
    done < <(env) >"$work/pip/environment"
    [ ! -e "$work/pip/user.conf" ] || echo PIP_CONFIG_FILE=/opt/pip/user.conf >>"$work/pip/environment"
}

outside() {
    local identities=(root "$USER_NAME") sources proxy=()
    while [ $# -gt 0 ]; do
        case "$1" in
            --as)
                case "${2:-}" in
                    root) identities=(root) ;;
                    user) identities=("$USER_NAME") ;;
                    both) ;;
                    *) die "--as takes root, user or both" ;;
                esac
                shift 2
                ;;
            -*) die "unknown flag $1; usage: $0 [--as root|user|both] [TARGET...]" ;;
            *) break ;;
        esac
    done
    command -v mmdebstrap >/dev/null || die "mmdebstrap is not installed; on Debian: apt-get install mmdebstrap"
    command -v git >/dev/null || die "git is not installed"

    work=$(mktemp -d "${TMPDIR:-/tmp}/snow-owl-bare-root.XXXXXX")
    trap 'rm -rf -- "$work"' EXIT
    chmod 755 "$work"  # mmdebstrap may run as somebody else, who cannot enter a home
    git -C "$here" diff --quiet HEAD || say "NOTE: changes that are not committed are not in the clone"
    git clone -q --no-hardlinks "$here" "$work/$CHECKOUT"
    pass_pip_on
    mapfile -t proxy < <(apt-config dump 2>/dev/null | grep -i '^Acquire::[a-z]*::Proxy ' || true)
    mapfile -t sources < <(sources_of_apt)
    cp "$here/scripts/bare-root.sh" "$work/"
    export BARE_ROOT_WORK=$work BARE_ROOT_IDENTITIES="${identities[*]}" BARE_ROOT_TARGETS
    BARE_ROOT_TARGETS=$(printf '%s\n' "${@:-test}")
    say "making a root of Debian $SUITE with ${PACKAGES[*]}"
    mmdebstrap --quiet --variant=minbase --format=null "${proxy[@]/#/--aptopt=}" \
        --customize-hook='"$BARE_ROOT_WORK/bare-root.sh" --inside "$1"' "$SUITE" - "${sources[@]}" ||
        die "it did NOT pass, or the root could not be made: see above"
    say "all passed"
}

# ---- beside the root: installs, copies, and runs as each ---------------------------------------------------------------

in_root_as() {
    local identity=$1 home=/root passed
    shift
    [ "$identity" = root ] || home=/home/$identity
    # Nothing of this machine's environment but what pip needs; signals and descriptors as a login shell has them.
    ulimit -S -n 1024
    mapfile -t passed <"$BARE_ROOT_WORK/pip/environment"
    # Its / a place where something is mounted, and /proc writable, as in a container: mmdebstrap's are neither.
    unshare --mount sh -c 'mount --rbind "$0" "$0" && mount -o remount,rw "$0/proc" && exec chroot "$0" "$@"' "$root" \
        setpriv --reuid "$identity" --regid "$identity" --init-groups \
        env -i --default-signal -C "$home" HOME="$home" USER="$identity" TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${passed[@]}" "$@" </dev/null
}

inside() {
    root=$1
    local identity home
    export DEBIAN_FRONTEND=noninteractive
    chroot "$root" apt-get -q -q -y -o DPkg::Use-Pty=0 install "${PACKAGES[@]}" >/dev/null
    chroot "$root" useradd --create-home "$USER_NAME"
    cp -r "$BARE_ROOT_WORK/pip" "$root/opt/pip"
    [ ! -e "$root/opt/pip/site.conf" ] || cp "$root/opt/pip/site.conf" "$root/etc/pip.conf"
    for identity in $BARE_ROOT_IDENTITIES; do
        home=/root
        [ "$identity" = root ] || home=/home/$identity
        cp -r "$BARE_ROOT_WORK/$CHECKOUT" "$root$home/"
        chroot "$root" chown -R "$identity:" "$home/$CHECKOUT"
        first_hour "$identity" || die "as $identity: FAILED"
        rm -rf -- "${root:?}$home/$CHECKOUT"
    done
}

first_hour() {
    local targets
    say "as $1: make run, and a transfer"
    # The suite has limits of its own; a server that never comes up has none.
    in_root_as "$1" timeout "$RUN_LIMIT_S" bash -c "$MAKE_RUN_AND_GET" || return 1
    mapfile -t targets <<<"$BARE_ROOT_TARGETS"
    say "as $1: make ${targets[*]}"
    in_root_as "$1" make -C "$CHECKOUT" "${targets[@]}"
}

# Job control gives `make run` a process group of its own, which is ended as Ctrl-C would end it.
readonly MAKE_RUN_AND_GET='
set -emu
cd snow-owl-tftp
make run >../run.log 2>&1 &
server=$!
trap "kill -INT -- -$server 2>/dev/null; wait $server 2>/dev/null || true" EXIT
until grep -q "^listening on 127.0.0.1:6969$" ../run.log; do
    kill -0 "$server" 2>/dev/null || { cat ../run.log; exit 1; }
    sleep 0.2
done
.venv/bin/snow-owl-tftp get tftp://127.0.0.1:6969/README.txt -o ../README.txt
cmp ../README.txt examples/tftpboot/README.txt
'

case "${1:-}" in
    --inside) inside "$2" ;;
    *) outside "$@" ;;
esac
