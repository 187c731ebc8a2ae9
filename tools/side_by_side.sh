#!/usr/bin/env bash
# Runs commands side by side, and shows their outputs one after the other: side_by_side.sh "sleep 1" "sleep 2"
set -uo pipefail
set -m # otherwise background processes would not get Ctrl-C
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

started=()
trap 'for group in "${started[@]}"; do kill -INT -- "-$group" 2>/dev/null; done; wait; exit 130' INT TERM
for command in "$@"; do
    bash -c "$command" >"$logs/${#started[@]}" 2>&1 &
    started+=($!)
done
failed=0
for number in "${!started[@]}"; do
    wait "${started[number]}" || failed=1
    cat "$logs/$number"
done
exit "$failed"
