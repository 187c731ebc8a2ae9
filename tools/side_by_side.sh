#!/usr/bin/env bash
# Runs commands side by side, and shows their outputs one after the other: side_by_side.sh "sleep 1" "sleep 2"
# JOBS=2 runs two at once: when one ends, the next one begins.
set -uo pipefail
set -m # otherwise background processes would not get Ctrl-C
logs="$(mktemp -d)" || exit 1
trap 'rm -rf "$logs"' EXIT

signals=(INT TERM KILL) # commands can tidy up after the first Ctrl-C; further ones end those that go on
stops=0
stop() {
    for group in $(jobs -p); do kill -"${signals[stops]}" -- "-$group" 2>/dev/null; done
    [ "$stops" = 2 ] || stops=$((stops + 1))
}
trap stop INT TERM HUP
# Not with wait: it would forget how a command ended, and end itself at each signal.
wait_until_fewer_run_than() { while [ "$(jobs -pr | wc -l)" -ge "$1" ]; do sleep 0.1; done; }

started=()
for command in "$@"; do
    wait_until_fewer_run_than "${JOBS:-$#}"
    [ "$stops" = 0 ] || break
    bash -c "$command" >"$logs/${#started[@]}" 2>&1 &
    started+=($!)
done
wait_until_fewer_run_than 1
[ "$stops" = 0 ] || exit 130
failed=0
for number in "${!started[@]}"; do
    cat "$logs/$number"
    wait "${started[number]}" || failed=1
done
exit "$failed"
