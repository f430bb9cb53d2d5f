#!/bin/sh
# Every benchmark, each with its peers beside it in the same run; ends with what missed its figure.
set -eu
cd "$(dirname "$0")/../.."
cargo bench --locked --package protocol --bench filter
exec "$MIRRORNET_BIN_DIR/bench"
