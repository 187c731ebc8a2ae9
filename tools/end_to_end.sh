#!/usr/bin/env bash
# Runs the end-to-end tests in several processes, each with its own Airflow. The tests mostly wait.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE # with compiled modules, a process takes half the time

# Prints a command that runs several commands, even if one fails. It then fails, too.
# Ctrl-C ends it: otherwise it would only end the current pytest, and the next one would begin.
one_after_another() {
    printf "trap 'exit 130' INT; failed=0; "
    printf '%s || failed=1; ' "$@"
    printf 'exit $failed'
}

events="test_events or test_windows or test_backfill or test_example_workflows"
workflows="test_workflows or test_detection or test_lookback"
# These tests start their own servers.
alone="test_command_line or test_doctor or test_pytest_plugin or test_tutorial"
machines="test_celery"
# Each group searches its own results for secrets.
groups=(
    "postgresql and not test_kills and ($events or test_secrets)"
    "postgresql and not test_kills and ($workflows or test_secrets)"
    "postgresql and not test_kills and not ($events or $workflows)"
    "(test_kills or not postgresql) and not ($alone or $machines)" # two, one after the other
)
run="${BIN:-.venv/bin}/pytest -m 'e2e and not scale' --durations 5"
commands=()
for group in "${groups[@]}"; do
    commands+=("$run tests/e2e -k '$group'")
done
# Tests with their own servers follow, so that all groups end at about the same time. (The pages have a browser.)
commands[0]="$(one_after_another "${commands[0]}" "$run tests/e2e -k test_command_line")"
commands[1]="$(one_after_another "${commands[1]}" "$run tests/e2e -k test_doctor")"
commands[3]="$(one_after_another "${commands[3]}" "$run tests/ui/e2e")"
commands+=("$(one_after_another "$run tests/e2e -k '$machines'" "$run tests/e2e -k test_pytest_plugin" \
    "$run tests/incoming/e2e")")
commands+=("$(one_after_another "$run tests/e2e -k test_tutorial" "$run tests/how_to || [ \$? -eq 5 ]")")
exec tools/side_by_side.sh "${commands[@]}"
