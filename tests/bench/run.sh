#!/bin/sh
# Every benchmark, each with its peers beside it in the same run; ends with what missed its figure.
set -eu
cd "$(dirname "$0")/../.."
cargo bench --locked --package protocol --bench filter
# The filter engine beside the real rsync, and against rules of any bytes, for as long as it takes.
MIRRORNET_FILTER_CASES=100000 \
    cargo test --locked --release --package protocol --test filter_rsync -- --nocapture
# Parsers of what comes from outside, ten million times each.
export MIRRORNET_FUZZ_CASES=10000000
cargo test --locked --release --package protocol --lib fuzz:: -- --nocapture
cargo test --locked --release --package filetree --lib fuzz:: -- --nocapture
unset MIRRORNET_FUZZ_CASES
tests/crash/run.sh
exec "$MIRRORNET_BIN_DIR/bench"
