#!/usr/bin/env bash
# Runs the end-to-end tests in several processes, each with its own Airflow. The tests mostly wait.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE # with compiled modules, a process takes half the time

events="test_events or test_windows"
workflows="test_workflows or test_detection"
# These tests start their own servers.
alone="test_pytest_plugin or test_tutorial"
# Each group has an Airflow, and searches its own results for secrets. The longest ones begin first.
groups=(
    "postgresql and not test_kills and not ($events or $workflows)"
    "(test_kills or not postgresql) and not ($alone)" # two Airflows, one after the other
    "postgresql and not test_kills and ($events or test_secrets)"
    "postgresql and not test_kills and ($workflows or test_secrets)"
    test_pytest_plugin
    test_tutorial
)
run="${BIN:-.venv/bin}/pytest -m 'e2e and not scale' --durations 5"
commands=()
for group in "${groups[@]}"; do
    commands+=("$run tests/e2e -k '$group'")
done
others=("$run tests/ui/e2e" "$run tests/incoming/e2e")
# More at once would not be faster on two cores: an Airflow takes processor time even while it waits.
JOBS=4 exec tools/side_by_side.sh "${commands[@]:0:4}" "${others[@]}" "${commands[@]:4}"
