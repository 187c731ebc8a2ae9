#!/usr/bin/env bash
# Builds the sdist and the wheel into dist/, checks them, and tries the wheel in a new environment.
# Two builds of the same commit are equal, byte for byte, because files have the time of the commit.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="$PWD/.venv/bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
umask 022 # the archives hold the files' modes

rm -rf dist
export UV_CONSTRAINT="$PWD/constraints.txt" # for hatchling, too: another version may build another wheel
build() { "$bin/python" -m build --installer uv "$@" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }; }
build --sdist --outdir dist
build --wheel --outdir dist
sdist="$(echo dist/*.tar.gz)" wheel="$(echo dist/*.whl)"

echo "dist: checking their contents"
"$bin/twine" check --strict dist/*
"$bin/check-wheel-contents" "$wheel"
"$bin/python" tools/check_dist.py "$wheel" "$sdist"

echo "dist: building the wheel again, from the sdist"
tar -xzf "$sdist" -C "$work"
(cd "$work"/airflow_insightly_hooks-* && build --wheel --outdir "$work")
cmp "$wheel" "$work/$(basename "$wheel")"

echo "dist: installing the wheel into a new environment"
"$bin/uv" venv --quiet --python "$bin/python" "$work/venv"
"$bin/uv" pip install --quiet --system-certs --python "$work/venv/bin/python" --constraint constraints.txt "$wheel"
cp tools/check_installed.py "$work"
cd "$work" # not in the clone, because Python would find its modules first
env -u PYTHONPATH AIRFLOW_HOME="$work/airflow" venv/bin/python check_installed.py
if [ "${DEMO:-1}" = 1 ]; then
    echo "dist: running the demo of the installed wheel"
    env -u PYTHONPATH -u AIRFLOW_HOME venv/bin/python -m airflow_insightly_hooks.demo --once >demo.log || { tail -n 20 demo.log; exit 1; }
    grep "From change to acknowledgement" demo.log
fi
echo "dist: $(cd "$OLDPWD" && sha256sum dist/*)"
