#!/usr/bin/env bash
# Runs the end-to-end tests in several processes, each with an Airflow of its own: what they do most is wait.
set -euo pipefail
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
)
commands=()
for group in "${groups[@]}"; do
    commands+=(".venv/bin/pytest -m e2e tests/e2e -k '$group' --durations 5")
done
# These have API servers of their own, and the pages a browser.
commands+=(".venv/bin/pytest -m e2e tests/ui/e2e tests/incoming/e2e --durations 5")
exec tools/side_by_side.sh "${commands[@]}"
