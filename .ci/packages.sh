# Sourced by ./test after environment.sh: the programs that the tests start. Root gets them installed, others are told.

# Make Python, the three services and the browser exist.
provide_packages() {
    local missing
    missing=$(missing_packages) || exit 1
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        die "missing: $missing. Install: sudo apt-get install -y --no-install-recommends $missing"
    install_packages $missing
}

# Print the Debian packages whose programs are not here, on one line.
missing_packages() {
    local python packages=()
    if [ -z "${PYTHON:-}" ] && ! command -v python3 >/dev/null; then
        packages+=(python3-venv)
    else
        python=$(find_python) || exit 1
        "$python" -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
    fi
    command -v redis-server >/dev/null || packages+=(redis-server)
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || packages+=(rabbitmq-server)
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
    command -v chromium >/dev/null || packages+=(chromium)
    command -v curl >/dev/null || packages+=(curl)
    # What lies under deploy/ is checked by the programs that it is for.
    [ -x /usr/sbin/nginx ] || packages+=(nginx-light)
    # Workers whose clocks are wrong.
    command -v faketime >/dev/null || packages+=(faketime)
    command -v openssl >/dev/null || packages+=(openssl)
    command -v systemd-analyze >/dev/null || packages+=(systemd)
    echo "${packages[*]:-}"
}

# Debian asks this file before it starts a service; 101 forbids it.
start_policy=/usr/sbin/policy-rc.d

# Install Debian packages without starting the services that they bring; what runs already is left alone.
install_packages() {
    local log ours=
    log=$(mktemp)
    echo "$program: installing $*"
    if [ ! -e "$start_policy" ]; then
        # Ours goes away again, whatever happens; one that is there already is the machine's own, and stays.
        ours=yes
        trap 'rm -f "$start_policy"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        printf '#!/bin/sh\nexit 101\n' >"$start_policy"
        chmod 755 "$start_policy"
    fi
    # The lists have a lock of their own that apt-get does not wait for: one more try.
    if ! { { apt_get update || { sleep 20 && apt_get update; }; } &&
        apt_get install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "apt-get install $* failed: the last lines are above, all of them in $log"
    fi
    [ -z "$ours" ] || rm -f "$start_policy"
    trap - EXIT INT TERM
    rm -f "$log"
}

# apt-get that asks nothing, tries again, and waits up to five minutes for another one to finish.
apt_get() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# The reference websocket client, for the tests that run it; they need Node, and no one else does.
provide_node_modules() {
    local folder=tests/e2e log=.venv/npm.log
    command -v node >/dev/null && command -v npm >/dev/null || {
        echo "$program: Node is not here: the tests with the npm client graphql-ws are left out" >&2
        return 0
    }
    cmp -s "$folder/package-lock.json" "$folder/node_modules/.installed" && return
    echo "$program: installing the reference client into $folder/node_modules"
    if npm ci --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error >"$log" 2>&1 </dev/null; then
        cp "$folder/package-lock.json" "$folder/node_modules/.installed"
    else
        echo "$program: npm ci failed, and what runs in Node is left out; details in $log" >&2
    fi
}
