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
count=0
for command in "$@"; do
    [ "$count" -lt "${JOBS:-$#}" ] || wait -n
    [ "$stops" = 0 ] || break
    {
        trap : INT TERM # it ends with the command, and not before
        bash -c "$command" >"$logs/$count" 2>&1
        echo $? >"$logs/$count.code"
    } &
    count=$((count + 1))
done
while [ -n "$(jobs -pr)" ]; do wait; done
[ "$stops" = 0 ] || exit 130
failed=0
for ((number = 0; number < count; number++)); do
    cat "$logs/$number"
    [ "$(cat "$logs/$number.code")" = 0 ] || failed=1
done
exit "$failed"
