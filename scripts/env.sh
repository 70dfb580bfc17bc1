# Sourced by every verb in this folder: find Pythons, make environments, say in plain words what happens.

set -eu
cd "$(dirname "$0")/.."
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME
unset PYTHONDONTWRITEBYTECODE   # containers set it; but pytest rewrites the asserts of all tests, and every process compiles all it imports
export PIP_DISABLE_PIP_VERSION_CHECK=1

SUPPORTED="3.11 3.12 3.13 3.14"

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# candidates VERSION: every path where that Python may live, the likeliest first.
candidates() {
    # The whole PATH, not its first hit only: a shim of pyenv that runs nothing may stand before a Python that works.
    for name in "python$1" python3; do
        printf '%s\n' "${PATH:-}" | tr ':' '\n' | sed "s|\$|/$name|"
    done
    home=${HOME-}
    for root in ${PYENV_ROOT:+"$PYENV_ROOT"} "$home/.pyenv"; do
        printf '%s\n' "$root/versions/$1".*/bin/python
    done
    # uv's, which work without uv.
    printf '%s\n' "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$home/.local/share}/uv/python}/cpython-$1".*/bin/python3
    if have uv; then uv python find --system --no-python-downloads "$1" 2>/dev/null || true; fi
}

# resolved PATH VERSION [MODULE]: the interpreter behind PATH, if it runs, is that version and can make environments.
# Debian's, without the package python3-venv, has no ensurepip; uv does without.
resolved() {
    if have uv; then needs=venv; else needs=${3-ensurepip}; fi
    found=$("$1" -c "import sys, $needs; print('%d.%d' % sys.version_info[:2], sys.executable)" 2>/dev/null </dev/null) || return 1
    [ "${found%% *}" = "$2" ] && printf '%s\n' "${found#* }"
}

# python_for VERSION: the path of a Python of that version; fails if there is none.
python_for() {
    candidates "$1" 2>/dev/null | while read -r candidate; do
        if [ -x "$candidate" ] && resolved "$candidate" "$1"; then break; fi
    done | grep .
}

# versions: the supported versions that this machine has, oldest first.
versions() {
    for version in $SUPPORTED; do
        if python_for "$version" >/dev/null; then printf '%s\n' "$version"; fi
    done | grep . || missing_python
}

missing_python() {
    for version in $SUPPORTED; do
        if candidates "$version" | while read -r candidate; do
            if [ -x "$candidate" ] && resolved "$candidate" "$version" sys; then break; fi
        done | grep -q .; then
            die "Python $version is here but cannot make a virtual environment; on Debian: apt-get install python$version-venv"
        fi
    done
    die "found no Python of $SUPPORTED; on Debian: apt-get install python3 python3-venv"
}

oldest() { found=$(versions) && printf '%s\n' "$found" | head -1; }
newest() { found=$(versions) && printf '%s\n' "$found" | tail -1; }

# suite PROGRAM-AND-ITS-ARGUMENTS... -- ARGUMENTS...: pytest on all cores, then, one after the other, the tests that need
# the machine to themselves. Each worker gets a file at a time, so that what a module makes is made once.
suite() {
    program=
    while [ "$1" != -- ]; do program="$program $1"; shift; done
    shift
    say "Tests that share the machine"
    together=0
    $program --part=together --hypothesis-profile=short --numprocesses=auto --dist=loadfile --no-loadscope-reorder "$@" || together=$?
    [ "$together" != 2 ] || return 2   # interrupted
    say "Tests that need the machine to themselves"
    alone=0
    $program --part=alone "$@" || alone=$?
    # 5: nothing was chosen, which is no failure where the other phase had something.
    case $together-$alone in
        0-0 | 0-5 | 5-0) ;;
        5-5) return 5 ;;
        *) return 1 ;;
    esac
}

# debian PACKAGES...: installs those of Debian's packages that are missing.
debian() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    have apt-get || die "there is no apt-get here; install by hand what these packages of Debian hold:$missing"
    root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || die "run this as root, or install sudo; missing:$missing"
        root=sudo
    fi
    say "Installing$missing"
    $root apt-get update -qq
    # shellcheck disable=SC2086  # a list of names
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# environment NAME VERSION INSTALL-ARGUMENTS...: makes .venv/NAME, unless it is there and pyproject.toml is as it was
# then; sets $bin to the folder of its programs.
environment() {
    name=$1 version=$2
    shift 2
    bin=.venv/$name/bin
    python=$(python_for "$version") || die "found no Python $version"
    wanted="$PWD $python $* $(cat pyproject.toml scripts/floors.txt | cksum)"
    if [ "$(cat ".venv/$name/ready" 2>/dev/null)" != "$wanted" ]; then
        rm -rf ".venv/$name"
        if have uv; then
            say "Making .venv/$name from $python with uv"
            uv venv --quiet --python "$python" ".venv/$name"
            uv pip install --quiet --python "$bin/python" "$@"
        else
            say "Making .venv/$name from $python with pip; this takes about a minute, once"
            "$python" -m venv ".venv/$name"
            "$bin/python" -m pip install -qq --upgrade 'pip>=25.1'   # the first that knows --group
            "$bin/python" -m pip install -qq "$@"
        fi
        printf '%s\n' "$wanted" >".venv/$name/ready"
    fi
}
