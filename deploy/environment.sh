# shellcheck shell=bash
# Sourced by deploy/quickstart and deploy/test: gives them a Python with everything they need.
#
#   prepare_environment run      what the gateway needs
#   prepare_environment test     the same, and the tools of the tests
#
# Afterwards $python is that interpreter, and Python code finds this checkout first. The environment lies in .venv of the
# checkout; it is made when it is missing, completed when pyproject.toml has changed or an earlier run was cut short, and
# otherwise left alone. FORWARDER_VENV names another one, which is used as it is: nothing is installed into it.
#
# Needs bash 4, and the network the first time. Ends the calling script with a message when something is missing.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

fail() {
    printf '%s: %s\n' "$(basename -- "$0")" "$1" >&2
    exit 1
}

# Prints the first interpreter that is new enough.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, and none was found as python3 or python3.11 to python3.14.
On Debian 12 and Ubuntu 24.04 or newer: sudo apt-get install python3 python3-venv"
}

# What must be installed, as one line: it changes with the dependencies and with the place of the checkout.
fingerprint() {
    printf '%s %s %s\n' "$1" "$root" "$(cksum <"$root/pyproject.toml")"
}

make_venv() {
    local venv=$1 base
    base=$(find_python) || exit 1
    printf 'Creating %s with %s\n' "$venv" "$("$base" --version)"
    if "$base" -m venv --clear "$venv" >/dev/null 2>&1; then
        return
    fi
    # Debian splits ensurepip off into a package of its own; pip or virtualenv can stand in for it.
    if "$base" -m venv --clear --without-pip "$venv" >/dev/null 2>&1 &&
        "$base" -m pip --python "$venv/bin/python" install --quiet --no-input pip >/dev/null 2>&1; then
        return
    fi
    if "$base" -m virtualenv --quiet --clear "$venv" >/dev/null 2>&1; then
        return
    fi
    rm -rf -- "$venv"
    fail "$base cannot create a virtual environment. On Debian and Ubuntu: sudo apt-get install python3-venv"
}

# Whether an earlier run has finished, for this purpose and this state of the checkout.
is_ready() {
    local stamp=$1/forwarder-$2.stamp
    [[ -x $1/bin/python && -f $stamp && $(<"$stamp") == "$(fingerprint "$2")" ]]
}

prepare_environment() {
    find_environment "$1"
    # Where byte code is not written by itself (PYTHONDONTWRITEBYTECODE, another user), every start would compile anew.
    (cd -- "$root" && "$python" -m compileall -q forwarder deploy tests) >/dev/null 2>&1 || true
}

find_environment() {
    local purpose=$1 venv=${FORWARDER_VENV:-$root/.venv} what=.
    [[ $purpose == run ]] || what=".[$purpose,uvloop]" # the tests cover both event loops
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    python=$venv/bin/python
    if [[ -n ${FORWARDER_VENV:-} ]]; then
        [[ -x $python ]] || fail "FORWARDER_VENV names $venv, which has no bin/python"
        return
    fi
    if is_ready "$venv" "$purpose" || is_ready "$venv" test; then # the tests need all that the gateway does
        return
    fi
    "$python" -m pip --version >/dev/null 2>&1 || make_venv "$venv"
    printf 'Installing packages from PyPI into %s (once; needs a minute at most)\n' "$venv"
    (cd -- "$root" && "$python" -m pip install --quiet --no-input --disable-pip-version-check --retries 5 \
        --editable "$what") </dev/null || fail "the packages could not be installed: see above"
    fingerprint "$purpose" >"$venv/forwarder-$purpose.stamp"
}
