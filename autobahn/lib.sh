# What install.sh and run.sh share. Sourced after `here` has been set to this directory.

suite=$here/.suite
suite_python=$here/python2
image=crossbario/autobahn-testsuite:25.10.1

fail() {
    echo "autobahn: $*" >&2
    exit 1
}

# `docker` if an engine answers (the command alone is not enough), else `private`.
autobahn_runtime() {
    if [ -n "${AUTOBAHN_RUNTIME:-}" ]; then
        echo "$AUTOBAHN_RUNTIME"
    elif timeout 10 docker info >/dev/null 2>&1; then
        echo docker
    else
        echo private
    fi
}

private_wstest() {
    "$suite_python" "$here/wstest.py" "$@"
}
