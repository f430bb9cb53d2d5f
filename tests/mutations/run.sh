#!/bin/sh
# Switches off one rule after the other, in a copy of the sources, and runs the test that stands for it: it has
# to fail, or nobody would see that the rule is broken. Rows as arguments (R15 R64) restrict it to those.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$root" && tar -cf - --exclude=./target --exclude=./.git .) | tar -xf - -C "$copy"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/mutations"
export MIRRORNET_BIN_DIR="$CARGO_TARGET_DIR/debug"
cd "$copy"

# The line of $1 that is $OLD, without its indentation, becomes $NEW.
replace() {
    awk '
        { line = $0; sub(/^[ \t]+/, "", line) }
        line == ENVIRON["OLD"] { print ENVIRON["NEW"]; found++; next }
        { print }
        END { exit found != 1 }' "$1" > "$1.new" || {
        echo "$1 does not have this line once: $OLD" >&2
        exit 1
    }
    mv "$1.new" "$1"
}

restore() {
    for file in $files; do
        cp "$root/$file" "$file"
    done
    files=
}

# Builds the test, and what it runs; then runs it.
try() {
    if [ "$2" = scenarios ]; then
        cargo build --quiet --locked --workspace --bins
        set -- "$1" --test=scenarios "$3"
    fi
    cargo test --quiet --locked --package "$1" "$2" --no-run
    cargo test --quiet --locked --package "$1" "$2" "$3" > "$copy/said" 2>&1
}

wanted=" $* "
is_wanted() {
    [ "$wanted" = "  " ] && return 0
    for one in $rows; do
        case "$wanted" in *" $one "*) return 0 ;; esac
    done
    return 1
}

files= rows= what= status=0 seen=0 survived=0
while IFS= read -r line || [ -n "$line" ]; do
    case "$line" in
        'row '*) rows=${line#row } ;;
        'what '*) what=${line#what } ;;
        'file '*) file=${line#file } && files="$files $file" ;;
        '- '*) OLD=${line#- } && export OLD ;;
        '+ '*)
            NEW=${line#+ } && export NEW
            is_wanted && replace "$file"
            ;;
        'test '*)
            if is_wanted; then
                set -- ${line#test }
                seen=$((seen + 1))
                if try "$1" "$2" "$3"; then
                    survived=$((survived + 1)) status=1
                    echo "SEEN BY NO TEST  $rows: $what ($3)"
                else
                    grep -q 'test result: FAILED' "$copy/said" || {
                        cat "$copy/said" >&2
                        echo "$rows: $3 did not come to its end" >&2
                        exit 1
                    }
                    echo "seen             $rows: $what"
                fi
            fi
            restore
            ;;
    esac
done < "$root/tests/mutations/list"
echo "$seen rules were switched off, $survived of them unseen"
exit $status
