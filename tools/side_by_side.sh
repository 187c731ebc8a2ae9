#!/usr/bin/env bash
# Runs the end-to-end tests in several processes, each with an Airflow of its own: what they do most is wait.
set -uo pipefail
set -m # else processes in the background would not hear of Ctrl-C
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE # with compiled modules a process takes half the time
first="test_backfill or test_events or test_example_workflows or test_windows or test_detection"
# The third one has three that are started one after another. Each looks for secrets in what it has done.
alone="test_command_line or test_doctor or test_pytest_plugin" # these start what they need themselves
groups=(
    "postgresql and not test_kills and ($first or test_secrets)"
    "postgresql and not test_kills and not ($first)"
    "(test_kills or not postgresql) and not ($alone)"
    "$alone"
    pages # these have API servers and a browser of their own
)
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT

tests=()
trap 'kill -INT "${tests[@]}" 2>/dev/null; wait; exit 130' INT TERM
for number in "${!groups[@]}"; do
    chosen=(--ignore tests/ui -k "${groups[number]}")
    [ "${groups[number]}" != pages ] || chosen=(tests/ui)
    .venv/bin/pytest -m e2e "${chosen[@]}" --durations 5 >"$logs/$number" 2>&1 &
    tests+=($!)
done
failed=0
for number in "${!groups[@]}"; do
    wait "${tests[number]}" || failed=1
    cat "$logs/$number"
done
exit "$failed"
