#!/bin/sh
# Runs every test: with nextest where it is installed, else with cargo itself. Scenarios in which packs
# matter run a second time with librsync deltas forced into each of them. The last line counts both.
set -eu
again='chains damage interrupted points private resume update'

log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT
bad=0
run() { # COMMAND…
    # `tee` hides the exit status of what is before it.
    { status=0; "$@" || status=$?; echo "$status" >"$log.status"; } 2>&1 | tee -a "$log"
    [ "$(cat "$log.status")" = 0 ] || bad=1
}

if cargo nextest --version >/dev/null 2>&1; then
    run cargo nextest run --locked --workspace --no-fail-fast
    filter="binary(scenarios) & test(/^($(echo "$again" | tr ' ' '|'))::/)"
    echo 'once more with encoders = "rsync" in every tree'
    export MIRRORNET_ENCODERS=rsync
    run cargo nextest run --locked --package tests --no-fail-fast -E "$filter"
    # Summary [ 12.3s] 10 tests run: 7 passed (1 slow), 2 failed, 1 timed out, 3 skipped
    count() { # WHAT…
        sed -n 's/^ *Summary \[.*tests* run: //p' "$log" | tr ',' '\n' |
            awk -v what="^ *[0-9]+ ($1)" '$0 ~ what {n += $1} END {print n + 0}'
    }
    passed=$(count passed) failed=$(count 'failed|timed out|exec failed')
else
    run cargo test --locked --workspace --no-fail-fast
    echo 'once more with encoders = "rsync" in every tree'
    export MIRRORNET_ENCODERS=rsync
    # shellcheck disable=SC2046,SC2086 # names of modules, none of which has a space
    run cargo test --locked --package tests --test scenarios -- $(printf '%s:: ' $again)
    count() { # FIELD
        sed -n "s/^test result: .* \([0-9]*\) $1; .*/\1/p" "$log" | awk '{n += $1} END {print n + 0}'
    }
    passed=$(count passed) failed=$(count failed)
fi
# A build that failed has run nothing.
[ "$bad" = 0 ] || [ "$failed" != 0 ] || failed=1
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
