#!/usr/bin/env bash
# Runs the end-to-end tests in several processes, each with an Airflow of its own: what they do most is wait.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE # with compiled modules a process takes half the time

# Prints a command that runs several, each whatever becomes of those before, and fails if one of them does.
# A pytest that is interrupted ends by itself, and the next one would begin.
one_after_another() {
    printf "trap 'exit 130' INT; failed=0; "
    printf '%s || failed=1; ' "$@"
    printf 'exit $failed'
}

events="test_events or test_windows or test_backfill or test_example_workflows"
workflows="test_workflows or test_detection or test_lookback"
# These start what they need themselves.
alone="test_command_line or test_doctor or test_pytest_plugin or test_large_xcoms"
machines="test_celery"
# Each looks for secrets in what it has done.
groups=(
    "postgresql and not test_kills and ($events or test_secrets)"
    "postgresql and not test_kills and ($workflows or test_secrets)"
    "postgresql and not test_kills and not ($events or $workflows)"
    "(test_kills or not postgresql) and not ($alone or $machines)" # two, one after the other
)
commands=()
for group in "${groups[@]}"; do
    commands+=(".venv/bin/pytest -m e2e tests/e2e -k '$group' --durations 5")
done
# Two go on with tests that have API servers of their own, so that all end at about the same time.
commands[3]="$(one_after_another "${commands[3]}" ".venv/bin/pytest -m e2e tests/incoming/e2e --durations 5")"
commands+=("$(one_after_another ".venv/bin/pytest -m e2e tests/e2e -k '$machines' --durations 5" \
    ".venv/bin/pytest -m e2e tests/e2e -k '$alone' --durations 5" \
    ".venv/bin/pytest -m e2e tests/ui/e2e --durations 5")") # the pages have a browser
exec tools/side_by_side.sh "${commands[@]}"
