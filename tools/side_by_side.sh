#!/usr/bin/env bash
# Runs commands side by side, and shows their outputs one after the other: side_by_side.sh "sleep 1" "sleep 2"
# JOBS=2 runs two at once: when one ends, the next one begins.
set -uo pipefail
set -m # otherwise background processes would not get Ctrl-C
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

started=()
trap 'for group in "${started[@]}"; do kill -INT -- "-$group" 2>/dev/null; done; wait; exit 130' INT TERM
for command in "$@"; do
    [ ${#started[@]} -lt "${JOBS:-$#}" ] || wait -n
    {
        bash -c "$command" >"$logs/${#started[@]}" 2>&1
        echo $? >"$logs/${#started[@]}.code"
    } &
    started+=($!)
done
wait
failed=0
for number in "${!started[@]}"; do
    cat "$logs/$number"
    [ "$(cat "$logs/$number.code")" = 0 ] || failed=1
done
exit "$failed"
