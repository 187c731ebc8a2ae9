#!/usr/bin/env bash
# Runs check, the fast tests and the faults on each installed Python, and a real Airflow on the oldest and newest.
# The oldest Python uses the oldest packages that pyproject.toml allows. The others use constraints.txt.
#
#   PYTHONS="3.10 3.13" tools/test_all.sh   only these. LOWEST= uses the oldest packages on none of them
#   UNIT=0, E2E=0, CHECK=0                  skips types, fast tests and faults, the real Airflow, or check
set -euo pipefail
cd "$(dirname "$0")/.."
uv="$PWD/.venv/bin/uv"

python_of() { # finds a Python of this version: in the path, in pyenv, or with uv
    local found
    for found in "$(command -v "python$1")" ~/.pyenv/versions/"$1".*/bin/python \
        "$("$uv" python find --no-python-downloads --no-project "$1" 2>/dev/null)"; do
        [ -x "$found" ] && "$found" -c '' 2>/dev/null && echo "$found" && return
    done
    return 1
}

versions=() missing=()
for version in ${PYTHONS:-3.10 3.11 3.12 3.13}; do
    if python_of "$version" >/dev/null; then versions+=("$version"); else missing+=("$version"); fi
done
[ ${#versions[@]} -gt 0 ] || { echo "test-all: there is no Python ${missing[*]}: install one of them" >&2; exit 1; }

lowest=${LOWEST-${versions[0]}}
failed=()
try() { # arguments: a name, and the command
    echo "test-all: $1"
    "${@:2}" || failed+=("$1")
}
for number in "${!versions[@]}"; do
    # Commands below don't quote this path, so it must have no spaces, as the clone's may.
    version=${versions[number]} env=".venvs/${versions[number]}"
    "$uv" venv --quiet --allow-existing --python "$(python_of "$version")" "$env"
    if [ "$version" = "$lowest" ]; then
        packages=(--requirements constraints-lowest.txt --editable .)
    else
        packages=(--constraint constraints.txt --editable ".[dev]")
    fi
    "$uv" pip install --quiet --system-certs --python "$env/bin/python" "${packages[@]}"
    if [ "${UNIT:-1}" = 1 ]; then
        # Linters give the same result on each Python, but the types may differ.
        [ "$version" = "$lowest" ] || try "types on Python $version" "$env/bin/mypy" --python-version "$version"
        try "unit tests on Python $version" make --no-print-directory test-unit BIN="$env/bin"
        try "integration tests on Python $version" make --no-print-directory test-integration BIN="$env/bin"
        try "faults on Python $version" make --no-print-directory test-faults BIN="$env/bin"
    fi
    if [ "${E2E:-1}" = 1 ] && { [ "$number" = 0 ] || [ "$version" = "${versions[-1]}" ]; }; then
        try "a real Airflow on Python $version" env BIN="$env/bin" tools/end_to_end.sh
    fi
done
[ "${CHECK:-1}" = 0 ] || try "check" make --no-print-directory check
[ ${#missing[@]} = 0 ] || echo "test-all: not tested, because they are not installed: Python ${missing[*]}"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'test-all: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "test-all: passed on Python ${versions[*]}"
