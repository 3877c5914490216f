#!/bin/sh
# Runs the fuzz targets: fuzz/run.sh SECONDS [TARGET…]
#
# Each target runs for so many seconds, on one core, from its committed seeds and its own corpus
# (fuzz/corpus, not committed). Fails at the first finding; its input is in fuzz/artifacts.
set -eu
cd "$(dirname "$0")/.."

if [ $# -lt 1 ]; then
    echo "usage: $0 SECONDS [TARGET…]" >&2
    exit 2
fi
seconds=$1
shift
[ $# -gt 0 ] || set -- head decoder session deflate differential snapshot loader

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked
fi

# cargo-fuzz asks for the sanitizer by a flag that a stable compiler takes only so.
export RUSTC_BOOTSTRAP=1

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "$@"; do
    cargo fuzz build "$target"
    mkdir -p "fuzz/corpus/$target"
    echo "fuzz: $target for $seconds s"
    if ! cargo fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -max_len=16384 \
        -print_final_stats=1 >"$log" 2>&1
    then
        tail -n 60 "$log"
        echo "fuzz: $target has found something" >&2
        exit 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    if [ -z "$executed" ] || [ "$executed" -eq 0 ]; then
        tail -n 60 "$log"
        echo "fuzz: $target has not run" >&2
        exit 1
    fi
    echo "fuzz: $target: $executed runs, peak memory $peak MB, no finding"
done
