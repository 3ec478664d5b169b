#!/bin/sh
# Puts a locked set of packages, and this project, into .venv: `setup.sh run`, `setup.sh otel`
# (with OpenTelemetry's SDK), `setup.sh s3` (with that and what speaks S3), `setup.sh cluster` (with
# all that and Ray, for several machines) or `setup.sh test`.
#
# Needs Python 3.10 to 3.14 with venv, and no other system package. Does nothing when nothing has
# changed, and starts over when the last call was cut off. PYTHON names the Python to use.
set -eu

package_set=${1:-}
case $package_set in
    run) download='about 290 MB' ;;
    otel) download='about 290 MB' ;;
    s3) download='about 310 MB' ;;
    cluster) download='about 410 MB' ;;
    test) download='about 450 MB' ;;
    *) echo "Usage: scripts/setup.sh run|otel|s3|cluster|test" >&2 && exit 2 ;;
esac

CDPATH='' cd -P -- "$(dirname -- "$0")/.."
root=$PWD
venv_python=.venv/bin/python
# Holds a line per installed set, or the one word `unfinished` while .venv is being changed.
state=.venv/setup-state

main() {
    if is_set_up; then return; fi

    [ -w . ] || fail "Cannot write to $root. Start as the user who owns this folder."
    python=$(find_python)
    wait_for_other_setups
    if is_set_up; then return; fi

    if ! venv_is_whole; then create_venv; fi
    echo unfinished >"$state"
    # A pip that fails leaves the packages as they were; one that is killed may not.
    install_packages || { rm -f "$state" && explain_failed_install; }
    record_installed
    say "Set up."
}

is_set_up() {
    grep -qxF "$(fingerprint "$package_set")" "$state" 2>/dev/null &&
        has_wanted_version "$venv_python" && "$venv_python" -c 'import simple_asr' 2>/dev/null
}

# Changes whenever a set would be installed otherwise, or this folder was moved or copied.
fingerprint() {
    echo "$1 $(cat "requirements/$1.txt" pyproject.toml scripts/setup.sh | cksum) $root"
}

# PYTHON is obeyed also when .venv was made with another version.
has_wanted_version() {
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$1")" ]
}

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# Prints the first Python that will do.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.13 python3.12 python3.11 python3.10 python3.14 python3
    fi
    without_venv=''
    unsuitable=''
    for candidate; do
        version=$(version_of "$candidate") || continue
        case $version in
            3.1[0-4]) ;;
            *) unsuitable="$candidate is Python $version." && continue ;;
        esac
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        without_venv=${without_venv:-$version}
    done
    if [ -n "$without_venv" ]; then
        explain_missing_venv "$without_venv"
    fi
    explain_missing_python "$*" "$unsuitable"
}

explain_missing_venv() {
    fail "Python $1 is here, but not its venv module. Install it, then start again:
    Debian, Ubuntu:  sudo apt install python$1-venv
    elsewhere:       the package that holds Python's venv and ensurepip modules"
}

explain_missing_python() {
    fail "No Python 3.10 to 3.14 was found; looked for: $1.${2:+ $2}
Install one, then start again:
    Debian, Ubuntu:  sudo apt install python3 python3-venv
    Fedora:          sudo dnf install python3
    openSUSE:        sudo zypper install python312
    Arch:            sudo pacman -S python
Or say where it is, as in PYTHON=/opt/python/bin/python3 ./start_server.sh"
}

# Holds a lock until this script ends, however it ends: the lock belongs to descriptor 9, which
# Python shares with this shell. flock(1) does the same, but is not everywhere.
wait_for_other_setups() {
    mkdir -p .cache
    exec 9>.cache/setup.lock
    "$python" -c '
import fcntl
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Waiting for another start, which is installing...", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
'
}

# False also for a .venv that was moved or copied here: its commands begin with the old path.
venv_is_whole() {
    ! grep -qx unfinished "$state" 2>/dev/null &&
        grep -qF "$root/.venv/bin/python" .venv/bin/pip 2>/dev/null &&
        "$venv_python" -m pip --version >/dev/null 2>&1 && has_wanted_version "$venv_python"
}

create_venv() {
    say "Making .venv with $python (Python $(version_of "$python"))..."
    rm -rf .venv
    mkdir .venv
    echo unfinished >"$state"
    "$python" -m venv .venv
}

# The sets are complete, so --no-deps; wheels only, so that nothing is compiled and no build tool
# is fetched from outside the locked set.
install_packages() {
    say "Installing the packages of requirements/$package_set.txt ($download, once)..." &&
        pip install --no-deps --only-binary :all: --require-hashes \
            --requirement "requirements/$package_set.txt" &&
        pip install --quiet --no-deps --no-build-isolation --editable .
}

# `user = true` in someone's pip configuration cannot hold inside a virtual environment.
pip() {
    PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv_python" -m pip "$@"
}

explain_failed_install() {
    fail "The packages could not be installed: pip's message is above. Most often the network or
the disk is at fault; start again once that is mended. There are ready-made packages for Linux
with glibc 2.28 or newer (x86-64, ARM64) and for macOS; elsewhere, use Docker."
}

record_installed() {
    {
        fingerprint run # Every set holds the run set.
        if [ "$package_set" != run ]; then fingerprint "$package_set"; fi
    } >"$state"
}

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# A signal ends the script here, before it can take a killed pip for one that failed.
trap 'exit 130' INT
trap 'exit 143' HUP TERM
main
