#!/bin/sh
# Every benchmark, each with its peers beside it in the same run; ends with what missed its figure.
set -eu
cd "$(dirname "$0")/../.."
cargo bench --locked --package protocol --bench filter
# The filter engine beside the real rsync, and against rules of any bytes, for as long as it takes.
MIRRORNET_FILTER_CASES=100000 \
    cargo test --locked --release --package protocol --test filter_rsync -- --nocapture
# Parsers of what comes from outside, ten million times each.
MIRRORNET_DAMAGED_CERTIFICATES=100000 \
    cargo test --locked --release --package certs --lib damaged_certificates -- --nocapture
export MIRRORNET_FUZZ_CASES=10000000
cargo test --locked --release --package protocol --lib fuzz:: -- --nocapture
cargo test --locked --release --package filetree --lib fuzz:: -- --nocapture
unset MIRRORNET_FUZZ_CASES
# How soon a publisher refuses fifty who were revoked.
MIRRORNET_REVOCATIONS=50 \
    cargo test --locked --release --package tests --test publisher revoked:: -- --nocapture
# All that the network does, with librsync deltas forced into every pack.
MIRRORNET_ENCODERS=rsync \
    cargo test --locked --release --package tests --test scenarios --test publisher -- --test-threads 2
# Whether a test fails for each rule of mirroring that is switched off.
tests/mutations/run.sh
tests/crash/run.sh
exec "$MIRRORNET_BIN_DIR/bench"
