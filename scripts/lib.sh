# shellcheck shell=bash
# What the scripts share: talking, packages by name, and the Rust toolchain of whoever called.
# Sourced, never run. Needs `root` to be the repository's directory.

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' plain=''
fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '  %s%s%s\n' "$dim" "$*" "$plain"; }
good() { printf '  %s✓%s %s\n' "$green" "$plain" "$*"; }
bad() { printf '  %s✗%s %s\n' "$red" "$plain" "$*"; }
die() {
  printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
  shift
  (($# == 0)) || printf '  %s\n' "$@" >&2
  exit 1
}

need_root() {
  [[ $(id -u) == 0 ]] || die "this needs root" "run: sudo $*"
}

# Whether systemd is in charge here (as in sd_booted(3)).
has_systemd() { [[ -d /run/systemd/system ]]; }

installed() {
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Installs the named Debian packages that are missing; says which. No service is started by that
# where systemd does not run: a container's or chroot's dockerd would fail, and apt with it.
packages() {
  local missing=() name policy=
  for name in "$@"; do
    installed "$name" || missing+=("$name")
  done
  if ((${#missing[@]} == 0)); then
    note "all packages are there: $*"
    return
  fi
  command -v apt-get >/dev/null || die "missing: ${missing[*]}" "install them by your distribution's means"
  note "installing ${missing[*]}"
  if ! has_systemd && [[ ! -e /usr/sbin/policy-rc.d ]]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  local status=0
  { DEBIAN_FRONTEND=noninteractive apt-get -q -y update &&
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"
  } >"${apt_log:=$(mktemp)}" 2>&1 || status=$?
  [[ -z $policy ]] || rm -f "$policy"
  ((status == 0)) || die "apt-get could not install ${missing[*]}" "$(tail -n 5 "$apt_log")"
  rm -f "$apt_log"
  newly_installed="${newly_installed:-} ${missing[*]}"
}

# Debian 13 has docker's command line in a package of its own.
docker_packages() {
  echo docker.io
  if command -v docker >/dev/null; then return; fi
  if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; fi
}

# Runs cargo as the user who called sudo, so that target/ stays theirs, with their toolchain.
cargo_run() {
  local user=${SUDO_USER:-root} home
  home=$(getent passwd "$user" | cut -d: -f6)
  local path=$PATH
  [[ ! -d $home/.cargo/bin ]] || path=$home/.cargo/bin:$path
  PATH=$path command -v cargo >/dev/null ||
    die "there is no Rust toolchain" "install one from https://rustup.rs, or Debian's cargo if it is new enough"
  if [[ $user == root ]]; then
    (cd "$root" && PATH=$path cargo "$@")
  else
    (cd "$root" && runuser -u "$user" -- env "PATH=$path" "HOME=$home" \
      ${CARGO_TARGET_DIR:+"CARGO_TARGET_DIR=$CARGO_TARGET_DIR"} cargo "$@")
  fi
}

# Waits for a command to succeed: `wait_for SECONDS COMMAND…`.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}
