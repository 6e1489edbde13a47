# Sourced by ./run and ./test: finds Python and makes .venv hold exactly the pinned packages. Needs `program` to be set.
# .venv/installed names each requirements file that is in, with its hash and the Python it was installed for. It is
# written last: without it .venv is a leftover of an interrupted run, and is made anew.

# Say in one line what is wrong and what to do, and end.
die() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

# Print a Python that can be started and is new enough. PYTHON in the environment may name it.
find_python() {
    local candidate version seen= candidates=(python3 python3.14 python3.13 python3.12 python3.11)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if version=$("$candidate" -c '
import sys
print("%d.%d.%d" % sys.version_info[:3])
sys.exit(sys.version_info < (3, 11))' 2>/dev/null); then
            printf '%s\n' "$candidate"
            return
        fi
        [ -z "$version" ] || seen=${seen:-"$candidate is Python $version"}
    done
    [ -z "$seen" ] || die "$seen, but 3.11 or newer is needed: install it, or name one with PYTHON=/path/to/python3"
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON cannot be started: name a Python 3.11 or newer, or unset PYTHON"
    die "Python was not found: install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)"
}

# Print one line for each requirements file: its name, its hash, and the Python ($1) that it is installed for.
describe() {
    local python=$1
    shift
    "$python" -c '
import hashlib, pathlib, sys
for name in sys.argv[1:]:
    digest = hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest()
    print(name, digest, "%d.%d.%d" % sys.version_info[:3], sys.base_prefix)
' "$@" 2>/dev/null
}

# Whether .venv works, is of this Python ($1), and holds these requirements files.
is_provided() {
    local python=$1 line wanted
    shift
    wanted=$(describe "$python" "$@") && [ "$(describe .venv/bin/python "$@")" = "$wanted" ] || return 1
    while IFS= read -r line; do
        grep -qxF -- "$line" .venv/installed 2>/dev/null || return 1
    done <<<"$wanted"
}

# Make .venv hold these requirements files; does nothing, and asks no network, when it already does.
provide() {
    local python
    python=$(find_python) || exit 1
    is_provided "$python" "$@" && return
    [ -w . ] && { [ ! -e .venv ] || [ -w .venv ]; } ||
        die "cannot write to $PWD, where the packages go (.venv): make it writable for $(id -un), or use a copy elsewhere"
    # Two of us at once: the second waits, and then finds the work done. The lock is on the folder itself.
    exec 9<.
    ! command -v flock >/dev/null || flock 9
    is_provided "$python" "$@" || { make_venv "$python" "$@" && install "$python" "$@"; }
    exec 9<&-
}

# Make .venv anew, unless it is whole and of this Python ($1).
make_venv() {
    local python=$1
    shift
    [ -s .venv/installed ] && [ "$(describe .venv/bin/python "$@")" = "$(describe "$python" "$@")" ] && return
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv) and start again"
    [ ! -e .venv ] || echo "$program: .venv is unfinished or of another Python: making it anew"
    rm -rf .venv && "$python" -m venv .venv >/dev/null 2>&1 ||
        die "$python -m venv .venv failed in $PWD: run it by hand to see why (disk full?)"
}

# Two steps, because one package is published without a wheel: what builds it is pinned by hash too.
install() {
    local python=$1 log=.venv/install.log name files=()
    shift
    for name in "$@"; do files+=(-r "$name"); done
    echo "$program: installing the packages of $* into .venv (once, about half a minute)"
    rm -f .venv/installed.before
    [ ! -e .venv/installed ] || mv .venv/installed .venv/installed.before
    if ! { pip_install -r requirements-build.txt && pip_install --no-build-isolation "${files[@]}"; } >"$log" 2>&1; then
        # What pip gave up before it changed anything is still good: ./run must not suffer from a failed ./test.
        if [ -e .venv/installed.before ] && ! grep -q '^Installing collected packages' "$log"; then
            mv .venv/installed.before .venv/installed
        fi
        die "$(explain_failure "$log")"
    fi
    describe "$python" "$@" >.venv/installed.new && mv .venv/installed.new .venv/installed
}

pip_install() {
    .venv/bin/python -m pip --disable-pip-version-check --no-input install --use-pep517 --retries 3 --require-hashes "$@"
}

network_trouble='ConnectionError|name ?resolution|connection (refused|reset|broken|aborted)|failed to (connect|establish)'
network_trouble+='|timed out|unreachable|ProxyError|SSLError'

# Say in one line why pip failed, from its log.
explain_failure() {
    local log=$1
    if grep -qiE 'No space left|Disk quota' "$log"; then
        echo "the disk is full: make room (about 300 MB) and start again; details in $log"
    elif grep -qE 'DO NOT MATCH THE HASHES' "$log"; then
        echo "the package index served a file whose hash is not the pinned one; nothing was installed; details in $log"
    elif grep -qiE "$network_trouble" "$log"; then
        echo "the package index cannot be reached: connect to the network (or set HTTPS_PROXY, PIP_INDEX_URL)" \
            "and start again; details in $log"
    else
        echo "the packages could not be installed: $(grep -i error "$log" | tail -n 1); details in $log"
    fi
}
