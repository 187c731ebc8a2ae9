#!/bin/sh
# Pins packages: constraints.txt has the newest ones, constraints-lowest.txt the oldest that pyproject.toml allows.
# KEEP=1 keeps the pins in constraints.txt that are still allowed.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() { "$uv" pip compile --quiet --system-certs --no-header --no-annotate --no-emit-index-url "$@" pyproject.toml; }

upgrade=--upgrade
[ -z "${KEEP:-}" ] || upgrade=
compile --universal --python-version 3.10 --all-extras $upgrade --output-file constraints.txt

# The oldest versions of the package's own dependencies, and the newest packages for the tests that fit them.
compile --python-version 3.10 --resolution lowest-direct --output-file "$work/all.txt"
needed=$(sed -n '/^dependencies = \[/,/^\]/s/^ *"\([a-z0-9-]*\).*/\1/p' pyproject.toml)
for name in $needed apache-airflow-core apache-airflow-task-sdk; do
    grep "^$name==" "$work/all.txt"
done >"$work/direct.txt"
compile --python-version 3.10 --extra test --upgrade --constraint "$work/direct.txt" --output-file constraints-lowest.txt
