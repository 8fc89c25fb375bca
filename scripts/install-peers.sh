#!/usr/bin/env bash
# Brings the programs that the tests talk to: other people's TFTP clients and servers, and bpftrace.
#
# May do:    install Debian packages that carry no service, and unpack the two TFTP servers into /usr/local/sbin.
# Never:     installs a package with a service in it. tftpd-hpa and atftpd conflict with one another and would both
#            enable a daemon on port 69; their binaries need neither, so they are taken out of their packages.
# Invariant: exit status 0 whatever happens. What could not be had is named loudly, and the tests skip by that name.
set -uo pipefail

readonly LOCK_FILE=/run/snow-owl-tftp-peers.lock
readonly UPDATE_LIMIT_S=120 INSTALL_LIMIT_S=300 LOCK_WAIT_S=600
readonly SERVER_DIR=/usr/local/sbin
readonly APT=(apt-get -q -y -o DPkg::Lock::Timeout=60 -o APT::Sandbox::User=root)
export DEBIAN_FRONTEND=noninteractive
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'peers: %s\n' "$*"; }

# Each peer answers for itself. A name on PATH is not enough: `tftp` and `in.tftpd` are shipped by several projects,
# and curl and busybox can be built without TFTP.
has() {
    case "$1" in
        atftp)        command -v atftp ;;
        tftp-hpa)     tftp -V 2>&1 </dev/null | grep -q tftp-hpa ;;
        dnsmasq-base) command -v dnsmasq ;;
        busybox)      busybox --list 2>&1 | grep -qx tftp ;;
        curl)         curl --version 2>&1 | grep -qw tftp ;;
        bpftrace)     command -v bpftrace ;;
        iproute2)     command -v ip ;;
        gcc)          [ -e "$(gcc -print-file-name=libasan.so 2>/dev/null)" ] ;;
        tftpd-hpa)    in.tftpd -V 2>&1 </dev/null | grep -q tftp-hpa ;;
        atftpd)       atftpd --version 2>&1 </dev/null | grep -q atftp ;;
    esac >/dev/null 2>&1
}

readonly PACKAGES=(atftp tftp-hpa dnsmasq-base busybox curl bpftrace iproute2 gcc)
readonly SERVERS=(tftpd-hpa atftpd)

missing_of() {
    local name
    for name in "$@"; do has "$name" || printf '%s\n' "$name"; done
}

unpack_server() {
    local package=$1 program folder status=1
    case "$package" in
        tftpd-hpa) program=in.tftpd ;;
        *)         program=$package ;;
    esac
    folder=$(mktemp -d) || return 1
    if (cd "$folder" && timeout "$INSTALL_LIMIT_S" "${APT[@]}" download "$package") >/dev/null &&
        dpkg-deb -x "$folder"/*.deb "$folder/root" &&
        install -D -m 755 "$folder/root/usr/sbin/$program" "$SERVER_DIR/$program"; then
        say "unpacked $package into $SERVER_DIR/$program (no service)"
        status=0
    fi
    rm -rf -- "$folder"
    return "$status"
}

install_missing() {
    local packages servers server
    mapfile -t packages < <(missing_of "${PACKAGES[@]}")
    mapfile -t servers < <(missing_of "${SERVERS[@]}")
    say "installing: ${packages[*]} ${servers[*]}"
    timeout "$UPDATE_LIMIT_S" "${APT[@]}" update >/dev/null || say "apt-get update failed; trying with the lists at hand"
    # The two servers are linked against libwrap and libpcre2, which their packages would have brought.
    [ "${#servers[@]}" -eq 0 ] || packages+=(libwrap0 libpcre2-8-0)
    if [ "${#packages[@]}" -gt 0 ]; then
        timeout "$INSTALL_LIMIT_S" "${APT[@]}" install --no-install-recommends "${packages[@]}" >/dev/null ||
            say "apt-get could not install all of: ${packages[*]}"
    fi
    for server in "${servers[@]}"; do
        unpack_server "$server" || say "could not unpack $server"
    done
}

report() {
    local missing
    mapfile -t missing < <(missing_of "${PACKAGES[@]}" "${SERVERS[@]}")
    if [ "${#missing[@]}" -eq 0 ]; then
        say "all present"
        return
    fi
    say "****************************************************************************"
    say "MISSING: ${missing[*]}"
    say "The tests that need them will be SKIPPED by name. To have them: run $0 as root on Debian or Ubuntu."
    say "****************************************************************************"
}

main() {
    if [ -n "$(missing_of "${PACKAGES[@]}" "${SERVERS[@]}")" ]; then
        if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
            say "not root, or no apt-get: nothing can be installed here"
        elif exec 9>"$LOCK_FILE" && flock -w "$LOCK_WAIT_S" 9; then
            # Asked again under the lock: the run that held it has usually done the work.
            [ -z "$(missing_of "${PACKAGES[@]}" "${SERVERS[@]}")" ] || install_missing 9>&-
        else
            say "another run held $LOCK_FILE for more than $LOCK_WAIT_S s"
        fi
    fi
    report
}

main
exit 0
