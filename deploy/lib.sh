# shellcheck shell=bash
# What deploy/up and tests/run have in common: messages, Debian packages, ports. To be sourced by bash.

# haproxy, debootstrap and the like live where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${0##*/}

# Colours only where somebody sees them.
if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' red='' plain=''
fi

say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
warn() { printf '%s%s: %s%s\n' "$red" "$program" "$*" "$plain" >&2; }
die() {
    warn "$@"
    exit 1
}
usage_error() {
    warn "$@"
    printf 'Try %s --help\n' "$0" >&2
    exit 2
}

# option_value OPTION COUNT VALUE: complains when OPTION is the last word or its value is empty.
option_value() {
    if (($2 < 2)) || [[ -z $3 ]]; then usage_error "$1 needs a value"; fi
}

# option_number OPTION VALUE LOW HIGH
option_number() {
    if [[ ! $2 =~ ^[1-9][0-9]{0,5}$ ]] || (($2 < $3 || $2 > $4)); then
        usage_error "$1 takes a number from $3 to $4, not '$2'"
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

# ---- Debian packages -------------------------------------------------------------------------------------------------

# Runs a command as root: directly, or with sudo.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# packages_missing SET...: prints a line for each package of these sets that is not installed, with its alternatives.
packages_missing() {
    local -A installed=()
    local set line name alternative found
    while read -r name; do
        installed[${name%%:*}]=1
    done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p')
    while read -r set line; do
        [[ " $* " == *" $set "* ]] || continue
        found=
        for alternative in ${line//|/ }; do
            if [[ -n ${installed[$alternative]:-} ]]; then found=1; fi
        done
        if [[ -z $found ]]; then echo "$line"; fi
    done < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$root/deploy/packages")
}

# The first of some alternative names that this release has.
package_choose() {
    local name
    for name in "$@"; do
        if [[ $(apt-cache policy "$name" 2>/dev/null) == *'Candidate: '[^\(]* ]]; then
            echo "$name"
            return
        fi
    done
    die "no package called ${*// / or } is to be had; is this Debian 12 or 13, and does 'apt-get update' work?"
}

# Debian starts a daemon when its package is installed, and at every boot from then on. These are wanted as programs only:
# while they are installed a policy says no, for just these, and afterwards they are off at boot. A policy that the machine
# has already, and daemons that it had before, are left alone.
quiet_daemons='redis-server haproxy nginx nats-server mosquitto'
policy=/usr/sbin/policy-rc.d

# packages_apt LOG PACKAGE...: in a subshell, so that its traps end with it and are nobody else's.
packages_apt() (
    log=$1 daemons='' status=0
    shift
    for daemon in $quiet_daemons; do
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$daemon" 2>/dev/null) != installed ]]; then daemons+=" $daemon"; fi
    done
    if [[ -n $daemons && ! -e $policy ]]; then
        trap 'as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM HUP
        # shellcheck disable=SC2016 # for the shell that runs it
        printf '#!/bin/sh\nfor daemon in%s; do\n    [ "${1%%.service}" != "$daemon" ] || exit 101\ndone\n' "$daemons" |
            as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null 2>&1 | tee -a "$log" |
        awk '/newly installed/ { total = $3 } /^Setting up / { printf "    %d/%d %s\n", ++n, total, $3; fflush() }' >&2 ||
        status=1
    for daemon in $daemons; do
        if [[ -e /lib/systemd/system/$daemon.service ]] && have systemctl; then
            as_root systemctl --quiet --no-reload disable "$daemon" >>"$log" 2>&1 || true
        fi
    done
    exit "$status"
)

# packages_install SET...: installs what is missing of these sets; says nothing and takes no time when nothing is.
packages_install() {
    local line log name
    local -a lines=() names=()
    have dpkg-query || die "this is not Debian: install what deploy/packages names, then use --no-install"
    mapfile -t lines < <(packages_missing "$@")
    if ((${#lines[@]} == 0)); then return 0; fi
    if ((EUID != 0)) && ! have sudo; then
        die "missing packages: ${lines[*]} (installing them needs root or sudo)"
    fi
    say "installing from Debian: ${lines[*]}"
    log=$(mktemp "${TMPDIR:-/tmp}/switchboard-apt.XXXXXX")
    if ! as_root apt-get update -qq -o DPkg::Lock::Timeout=300 </dev/null >>"$log" 2>&1; then
        warn "apt-get update failed, going on with the package lists as they are"
    fi
    for line in "${lines[@]}"; do
        # shellcheck disable=SC2086 # alternatives are words
        name=$(package_choose ${line//|/ }) || exit 1
        names+=("$name")
    done
    if ! packages_apt "$log" "${names[@]}"; then
        tail -n 25 "$log" >&2
        die "installing failed; everything that apt said is in $log"
    fi
    rm -f "$log"
}

# ---- ports -----------------------------------------------------------------------------------------------------------

# port_used PORT: somebody listens there, on whatever address. Read from the kernel, since trying to bind proves nothing
# among servers that share ports.
port_used() {
    awk -v port="$(printf ':%04X' "$1")" \
        '$4 == "0A" && substr($2, length($2) - 4) == port { used = 1 } END { exit !used }' /proc/net/tcp* 2>/dev/null
}

# port_free FROM: the first port from FROM on that nobody listens on.
port_free() {
    local port
    for ((port = $1; port < 65536; port++)); do
        if ! port_used "$port"; then
            echo "$port"
            return
        fi
    done
    die "no free port from $1 on"
}

# http_status ADDRESS PORT PATH: the status of a GET, empty when nobody answers.
http_status() (
    exec 2>/dev/null
    exec {socket}<>"/dev/tcp/$1/$2" || exit 0
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$3" >&"$socket"
    read -r -t 5 -u "$socket" _ status _ || exit 0
    echo "$status"
)
