#!/usr/bin/env bash
# Real WebSocket clients against the release server: Python `websockets`, npm `ws`, tungstenite, and
# headless Chromium on the demo page. `make test-clients` runs this. The server is upgraded under the
# connections of all but tungstenite.
#
# Installs what it needs and fails where it cannot; nothing is skipped. What is installed stays in
# this folder (.venv, node_modules), but for Chromium, which comes from Debian's packages.
#
#   tests/clients/run.sh [python] [node] [tungstenite] [chromium]     all of them by default
#   SERVER_BIN=path                 run that binary instead of building one (not for tungstenite,
#                                   which cargo builds and starts)
#
# Last line: `N passed, N failed`. Exit status 1 if any failed or a client could not run.
# Screenshots of the demo page go to tests/clients/out/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
server=

# The server takes STEADFAST_* as configuration; these tests mean the defaults.
unset "${!STEADFAST_@}"

# The server's whole process group: a successor is no child of ours.
stop_server() {
  if [[ -n $server ]]; then
    kill -KILL -- "-$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
  fi
}
cleanup() {
  stop_server
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

say() { printf '\n== %s\n' "$*"; }
die() { printf 'tests/clients/run.sh: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Starts the server on a free port, in a process group of its own, and sets $port and $control.
start_server() {
  port=$(free_port)
  control=$work/$port.sock
  setsid "$SERVER_BIN" serve --no-supervisor --workers 2 --listen "127.0.0.1:$port" --control "$control" >"$work/server.log" 2>&1 &
  server=$!
  for _ in $(seq 200); do
    kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; die "the server ended at once"; }
    accepts "$port" && return
    sleep 0.05
  done
  die "the server does not accept on port $port after 10 s"
}

install_python() {
  need python3 "apt-get install python3 python3-venv"
  if [[ ! -x $here/.venv/bin/pip ]]; then
    python3 -m venv "$here/.venv" || die "python3 cannot make a venv: apt-get install python3-venv"
  fi
  "$here/.venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
}

install_node() {
  need node "Node.js 20 or newer"
  need npm "it comes with Node.js"
  # A copy of the lock file tells what is installed; written last, so that half is nothing.
  if ! cmp -s "$here/package-lock.json" "$here/node_modules/.installed"; then
    (cd "$here" && npm ci --silent)
    cp "$here/package-lock.json" "$here/node_modules/.installed"
  fi
}

install_chromium() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  [[ $(id -u) == 0 ]] || die "Chromium is missing; as root: apt-get install chromium"
  need apt-get "install Chromium by hand"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium >/dev/null
}

passed=0
failed=0

# count NAME COMMAND…: runs it, shows what it prints, and adds up its last line.
count() {
  local name=$1 status=0 line
  shift
  timeout --kill-after=5 300 "$@" | tee "$work/$name.out" || status=$?
  line=$(tail -n 1 "$work/$name.out")
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ && ${BASH_REMATCH[1]} -gt 0 ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    [[ $status == 0 || ${BASH_REMATCH[2]} -gt 0 ]] || failed=$((failed + 1))
  else
    echo "FAIL  $name did not run to its end (status $status)"
    failed=$((failed + 1))
  fi
}

# count, against a server of its own that must be alive and well afterwards.
count_against_server() {
  local name=$1
  shift
  start_server
  count "$name" "$@" "127.0.0.1:$port" "$SERVER_BIN" "$control"
  # By now it is a successor that answers.
  if "$SERVER_BIN" status --control "$control" >/dev/null && accepts "$port"; then
    passed=$((passed + 1))
  else
    echo "FAIL  $name: the server did not survive it"
    tail -n 20 "$work/server.log"
    failed=$((failed + 1))
  fi
  stop_server
}

# cargo's own lines, as the other clients print theirs.
tungstenite() {
  local status=0
  (cd "$repo" && cargo test --quiet --release --test server clients_tungstenite 2>&1) | tee "$work/cargo.out" || status=$?
  sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 passed, \2 failed/p' "$work/cargo.out"
  return $status
}

clients=("$@")
[[ $# -gt 0 ]] || clients=(python node tungstenite chromium)
for client in "${clients[@]}"; do
  case $client in
    python) install_python ;;
    node) install_node ;;
    tungstenite) need cargo "the Rust toolchain" ;;
    chromium) install_node; install_chromium ;;
    *) die "no such client: $client (python, node, tungstenite, chromium)" ;;
  esac
done

if [[ -z ${SERVER_BIN:-} ]]; then
  say "the release server"
  need cargo "the Rust toolchain"
  (cd "$repo" && cargo build --release)
  target=${CARGO_TARGET_DIR:-target}
  [[ $target == /* ]] || target=$repo/$target
  SERVER_BIN=$target/release/steadfast
fi
[[ -x $SERVER_BIN ]] || die "$SERVER_BIN is no program"

for client in "${clients[@]}"; do
  say "$client"
  case $client in
    python) count_against_server python "$here/.venv/bin/python" "$here/python_websockets.py" ;;
    node) count_against_server node node "$here/node_ws.mjs" ;;
    tungstenite)
      export -f tungstenite
      export repo work
      count tungstenite bash -c 'set -o pipefail; tungstenite'
      ;;
    chromium) count chromium node "$here/chromium.mjs" "$SERVER_BIN" "$(free_port)" "$here/out" ;;
  esac
done

say "all clients"
echo "$passed passed, $failed failed"
[[ $failed == 0 ]]
