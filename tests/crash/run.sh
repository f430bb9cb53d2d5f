#!/bin/sh
# Proves that a mirror is never harmed, as often as it takes (hours), and prints one table with rsync
# beside it. The same tests run with smaller numbers in `make test`; a variable that is set already
# keeps its value. With an argument only tests with that in their names run: `run.sh kill`.
set -eu
cd "$(dirname "$0")/../.."
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
export MIRRORNET_FIGURES="$figures"
export MIRRORNET_TEST_FULL=1
export MIRRORNET_CRASH_STATES="${MIRRORNET_CRASH_STATES:-1000000}"
export MIRRORNET_BLOCK_STATES="${MIRRORNET_BLOCK_STATES:-10000}"
export MIRRORNET_BASELINE_STATES="${MIRRORNET_BASELINE_STATES:-300}"
export MIRRORNET_DAMAGES="${MIRRORNET_DAMAGES:-10000}"
export MIRRORNET_KILLS="${MIRRORNET_KILLS:-10000}"
export MIRRORNET_HOSTILE_MANIFESTS="${MIRRORNET_HOSTILE_MANIFESTS:-100000}"
export MIRRORNET_READS="${MIRRORNET_READS:-100000}"
export MIRRORNET_PINNED_ROUNDS="${MIRRORNET_PINNED_ROUNDS:-100000}"
export MIRRORNET_DISK_FULL="${MIRRORNET_DISK_FULL:-200}"
status=0
cargo test --locked --release --package filetree --lib "${1:-area::tests}" -- --test-threads 1 --nocapture || status=1
cargo test --locked --release --package tests --test crash "${1:-}" -- --test-threads 1 --nocapture || status=1
echo
awk -F '\t' '
    BEGIN { printf "%-76s %10s %10s\n", "what", "tried", "wrong" }
    { printf "%-76s %10d %10d\n", $1, $2, $3 }' "$figures"
exit $status
