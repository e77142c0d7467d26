#!/bin/sh
# All the set-up that `make` needs: system packages, .venv, our package in it (editable), nothing else.
# Idempotent; touches no network when nothing is missing. Run from anywhere. PYTHON chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=$root/.venv
stamp=$venv/.strongroom-stamp
say() { printf '%s\n' "setup: $*" >&2; }
fail() { printf '%s\n' "setup: $*" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "Strongroom's machine runs on Linux on x86-64 only (this is $(uname -s) on $(uname -m))"

# A `python3` on PATH may be a script of a version manager: ask the interpreter itself where it is.
usable() {
    "$1" -c 'import sys, os
if sys.version_info < (3, 11): raise SystemExit(1)
import venv, ensurepip, ssl, sqlite3
print(os.path.realpath(sys.executable))' 2>/dev/null
}
choose_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 /usr/bin/python3 python3.14}; do
        if found=$(usable "$name") && [ -n "$found" ]; then printf '%s\n' "$found"; return 0; fi
    done
    return 1
}

missing=
want() { case " $missing " in *" $1 "*) ;; *) missing="$missing $1" ;; esac; }
check_system() {
    missing=
    command -v gcc >/dev/null 2>&1 || want gcc
    command -v make >/dev/null 2>&1 || want make
    [ -e /usr/include/stdio.h ] && [ -e /usr/include/linux/types.h ] || want libc6-dev
    choose_python >/dev/null || { want python3; want python3-venv; }
}

check_system
if [ -n "$missing" ]; then
    [ -z "${PYTHON:-}" ] || choose_python >/dev/null || fail "PYTHON=$PYTHON is not Python 3.11 or later with its venv module: choose another"
    command -v apt-get >/dev/null 2>&1 || fail "missing:$missing: install these with this system's package manager"
    if [ "$(id -u)" != 0 ]; then
        fail "missing:$missing: run \`sudo apt-get install -y$missing\`, then again"
    fi
    say "installing from the distribution:$missing"
    # shellcheck disable=SC2086 # words on purpose
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >&2 ||
        fail "apt-get could not install:$missing"
    check_system
    [ -z "$missing" ] || fail "still missing:$missing (this distribution's Python may be older than 3.11: set PYTHON)"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
case "${HOME:-}" in /*) ;; *) export HOME="$root/build/home" ;; esac # pip and others expand ~
mkdir -p "$HOME" 2>/dev/null || true

# The environment is kept when its interpreter runs, is new enough, and was made for this very folder.
healthy() {
    [ "$("$venv/bin/python" -c 'import sys; print(sys.version_info >= (3, 11), sys.prefix)' 2>/dev/null)" = "True $venv" ] &&
        "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
        { [ ! -e "$venv/bin/strongroom" ] || head -n1 "$venv/bin/strongroom" | grep -qF "#!$venv/"; }
}
starts() {
    "$venv/bin/strongroom" --version >/dev/null 2>&1 && "$venv/bin/python" -c 'import capstone, dcap_qvl, mypy, pytest' >/dev/null 2>&1
}
digest=$(cat pyproject.toml requirements-dev.lock tools/setup.sh | sha256sum | cut -c1-64)
[ -z "${PYTHON:-}" ] || digest="$digest $(choose_python || true)"
[ -e "$stamp" ] && [ "$(cat "$stamp")" = "$digest $venv" ] && starts && exit 0

make_environment() {
    python=$(choose_python) || fail "PYTHON=${PYTHON:-} is not Python 3.11 or later with its venv module: choose another"
    say "making .venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "cannot make .venv with $python: try PYTHON=/usr/bin/python3 make"
    fresh=yes
}
fill_environment() {
    say "installing Python packages (the first time takes a minute; later runs need no network)"
    "$venv/bin/python" -m pip install -q -r requirements-dev.lock >&2 ||
        fail "pip could not install the packages of requirements-dev.lock: check the network and the index, then run it again"
    "$venv/bin/python" -m pip install -q --no-deps --no-build-isolation --force-reinstall -e . >&2 ||
        fail "pip could not install this folder"
}

fresh=
if ! healthy || [ -n "${PYTHON:-}" ]; then make_environment; fi
rm -f "$stamp"
fill_environment
if ! starts && [ -z "$fresh" ]; then # pip believes its records, which may be of files that are gone
    make_environment
    fill_environment
fi
starts || fail "the installed program does not start: try another PYTHON"
printf '%s\n' "$digest $venv" >"$stamp"
