#!/usr/bin/env bash
# Runs all 517 cases of the Autobahn test suite against steadfast and compares the outcome with
# expected.json: exit status 0 if they agree, 1 if anything differs or does not run.
#
#   autobahn/run.sh server    the suite's fuzzing client against /echo of `steadfast serve`
#   autobahn/run.sh client    our client role against the suite's fuzzing server
#   autobahn/run.sh           both, one after the other
#   autobahn/run.sh ROLE PART...   only these parts of the suite, from 0 on, and no comparison
#
#   STEADFAST         the server's binary      (default target/release/steadfast)
#   AUTOBAHN_CLIENT   the client's binary, called with the fuzzing server's URL
#                     (default target/release/examples/autobahn_client)
#   AUTOBAHN_SECONDS  bound on each part       (default 900)
# It builds nothing. The suite runs in parts, since its memory grows with every case, and in two halves
# side by side, since it is slow and uses one core alone; the reports (index.html, for reading) stay in
# autobahn/reports/<role>/<part>.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/lib.sh"
target=${CARGO_TARGET_DIR:-$(dirname "$here")/target}
server_binary=${STEADFAST:-$target/release/steadfast}
client_binary=${AUTOBAHN_CLIENT:-$target/release/examples/autobahn_client}
seconds_max=${AUTOBAHN_SECONDS:-900}
agent=steadfast # the client role names itself so too
# All of the suite's groups of cases, by part; compare.py counts that none is missing. A group of 18
# cases takes the suite some 6 GB, and two run at a time.
parts=("1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.* 10.*" "12.1.*" "12.2.*" "12.3.*" "12.4.*" "12.5.*" "13.1.*"
       "13.2.*" "13.3.*" "13.4.*" "13.5.*" "13.6.*" "13.7.*")
# Parts that take about as long together.
halves=("1 2 3 4 5" "0 6 7 8 9 10 11 12")
children=()     # process ids of `timeout`s, each the leader of its own process group

main() {
    role=${1:-}
    case $role in
        server) need_binary "$server_binary" ;;
        client) need_binary "$client_binary" ;;
        "")
            need_binary "$server_binary"
            need_binary "$client_binary"
            "$here/run.sh" server
            "$here/run.sh" client
            return
            ;;
        *)
            echo "usage: $0 [server|client [PART...]]" >&2
            exit 2
            ;;
    esac
    "$here/install.sh"
    if [ $# -gt 1 ]; then
        run_parts "${@:2}"
    else
        run_role
    fi
}

# All parts, in halves, each in a process of its own; then the comparison.
run_role() {
    local half part status=0 pids=() indices=() begin=$SECONDS
    rm -rf "$here/reports/$role"
    for half in "${halves[@]}"; do
        # shellcheck disable=SC2086 # a list of numbers
        "$here/run.sh" "$role" $half &
        pids+=($!)
    done
    trap 'kill -TERM "${pids[@]}" 2>/dev/null; wait; exit 143' INT TERM HUP
    for pid in "${pids[@]}"; do
        wait "$pid" || status=1
    done
    [ "$status" -eq 0 ] || return "$status"
    for part in "${!parts[@]}"; do
        indices+=("$here/reports/$role/$part/index.json")
    done
    python3 "$here/compare.py" --agent "$agent" --seconds $((SECONDS - begin)) \
        --expected "$here/expected.json" "${indices[@]}"
}

run_parts() {
    trap stop_children EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    local begin=$SECONDS part
    for part in "$@"; do
        reports=$here/reports/$role/$part
        mkdir -p "$reports"
        cases=$(sed 's/[^ ]*/"&"/g; s/ /, /g' <<<"${parts[$part]}")
        choose_wstest
        port=$(free_port)
        "run_$role"
        stop_children
        echo "autobahn: $role, part $part done after $((SECONDS - begin)) s"
    done
}

run_server() {
    start server "$server_binary" serve --no-supervisor --config "$here/server.toml" --listen "127.0.0.1:$port"
    wait_accepting server
    write_spec "\"servers\": [{\"agent\": \"$agent\", \"url\": \"ws://127.0.0.1:$port/echo\"}]"
    start wstest "${wstest[@]}" --mode fuzzingclient --spec "$spec_path"
    wait_success wstest
}

run_client() {
    # --webport 0: no web interface beside it.
    write_spec "\"url\": \"ws://127.0.0.1:$port\""
    start wstest "${wstest[@]}" --mode fuzzingserver --webport 0 --spec "$spec_path"
    wait_accepting wstest
    start client "$client_binary" "ws://127.0.0.1:$port"
    wait_success client
}

need_binary() {
    [ -x "$1" ] || fail "no program $1: build it first (cargo build --release --bins --examples)"
}

# Sets how wstest is started and where it finds and leaves its files.
choose_wstest() {
    container=
    if [ "$(autobahn_runtime)" = docker ]; then
        container=autobahn-$role-$part-$$
        outdir=/reports
        wstest=(docker run --rm --name "$container" --network host --user "$(id -u):$(id -g)"
                --volume "$reports:$outdir" "$image" wstest)
    else
        outdir=$reports
        wstest=("$suite_python" "$here/wstest.py")
    fi
    spec_path=$outdir/spec.json
}

# `write_spec ENDPOINT`: the suite's instructions. No case is excluded, here or anywhere.
write_spec() {
    cat >"$reports/spec.json" <<JSON
{
  "options": {"failByDrop": false},
  "outdir": "$outdir",
  $1,
  "cases": [$cases],
  "exclude-cases": [],
  "exclude-agent-cases": {}
}
JSON
}

# `start NAME COMMAND...`: in the background, logging to NAME.log. `timeout` bounds it, gives it a
# process group, and passes on the signal that ends it, with SIGKILL five seconds later.
start() {
    name=$1
    shift
    timeout --kill-after=5 "$seconds_max" "$@" </dev/null >"$reports/$name.log" 2>&1 &
    children+=($!)
}

# `wait_success NAME`: for the child started last. `wait` lets the traps run at once, as a
# foreground command would not.
wait_success() {
    local status=0
    wait "${children[-1]}" || status=$?
    [ "$status" -ne 124 ] || fail_with_log "$1" "$1 was not done after $seconds_max s"
    [ "$status" -eq 0 ] || fail_with_log "$1" "$1 failed with status $status"
}

# `wait_accepting NAME`: until the child started last accepts on $port, 30 s at most.
wait_accepting() {
    local tries
    for tries in $(seq 300); do
        kill -0 "${children[-1]}" 2>/dev/null || fail_with_log "$1" "$1 exited at its start"
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        sleep 0.1
    done
    fail_with_log "$1" "$1 does not accept on port $port"
}

# A port that was free a moment ago. If another program takes it in between, the child cannot bind
# and exits, which `wait_accepting` reports.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

stop_children() {
    [ "${#children[@]}" -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null || true
    [ -z "$container" ] || docker rm --force "$container" >/dev/null 2>&1 || true
    wait
    children=()
}

fail_with_log() {
    tail -n 20 "$reports/$1.log" >&2
    shift
    fail "$@"
}

main "$@"
