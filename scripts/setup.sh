#!/usr/bin/env bash
# Sets up .venv with all that the demo and the tests need; instant when nothing changed since the last time.
#
#   PYTHON=python3.12 scripts/setup.sh     another interpreter than the first suitable one on the PATH
#
# pip's own configuration decides where packages come from. Where it offers a CPU build of torch, that one is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.setup-stamp
suitable='import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

fail() {
    echo "setup: $*" >&2
    exit 1
}

choose_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c "$suitable" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11, 3.12 or 3.13 found (looked for: ${PYTHON:-python3, python3.13, python3.12, python3.11});" \
        "install one or name it: make setup PYTHON=/path/to/python3.12"
}

# Installs Debian packages where that needs no question (root); otherwise says what to run, and stops.
need_packages() {
    if ! command -v apt-get >/dev/null; then
        fail "missing system packages, by their Debian names: $*; install your system's equivalents and run again"
    elif [ "$(id -u)" -ne 0 ]; then
        fail "missing system packages; run the next line, then the same command again:
    sudo apt-get update && sudo apt-get install -y $*"
    fi
    echo "setup: installing system packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null ||
        fail "apt-get could not install: $*; its messages are above"
}

environment_is_usable() {
    "$venv/bin/python" -c "$suitable" 2>/dev/null && "$venv/bin/python" -c 'import pip' 2>/dev/null || return 1
    # An interpreter named by the caller wins over the one that the environment was made with.
    [ -z "${PYTHON:-}" ] || [ "$("$python" --version)" = "$("$venv/bin/python" --version)" ]
}

# Debian packages that are missing, one per line: shared libraries, and Python's own module venv, which Debian splits off.
missing_packages() {
    [ "$(uname)" != Linux ] || "$python" scripts/system_libraries.py
    environment_is_usable || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        "$python" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")'
}

create_environment() {
    echo "setup: creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

install_python_packages() {
    echo "setup: installing Python packages into $venv (some minutes the first time)"
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt)
    # The build backend comes from constraints.txt too, instead of the newest one in an isolated build.
    "${pip[@]}" setuptools
    "${pip[@]}" --no-build-isolation --editable '.[test]'
}

report() {
    local installed torch
    installed=$("$venv/bin/python" -m pip list --disable-pip-version-check --format=freeze)
    torch=$(grep -E '^torch==' <<<"$installed")
    echo "setup: done after $SECONDS s, with ${torch/==/ }"
    if grep -q '^nvidia-' <<<"$installed" && ! command -v nvidia-smi >/dev/null; then
        echo "setup: pip took the CUDA build of torch, but no NVIDIA driver is here; it works, and takes 5 GB more than" \
            "the CPU build would (README, Installation)"
    fi
}

python=$(choose_python)

packages=$(missing_packages)
# shellcheck disable=SC2086  # one word per package
[ -z "$packages" ] || need_packages $packages
environment_is_usable || create_environment

# An environment cannot be moved, so its place counts too.
state=$({ pwd; "$venv/bin/python" --version; cat pyproject.toml constraints.txt setup.py scripts/setup.sh; } | cksum)
if [ "$(cat $stamp 2>/dev/null)" != "$state" ]; then
    install_python_packages
    echo "$state" >$stamp
    report
fi
