#!/bin/sh
# Makes .venv with the packages pinned in constraints.txt. If something is missing, one line says what.
# uv uses the system's certificates, like pip, because a company's proxy may have its own.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
fail() { echo "setup: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is missing: install Python 3.10 to 3.13, or name one with 'make PYTHON=…'"
"$python" -c '' 2>/dev/null || fail "$python can't be run: name Python 3.10 to 3.13 with 'make PYTHON=…'"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
    fail "Python 3.10 to 3.13 is needed, $python is $("$python" -V 2>&1): name another with 'make PYTHON=…'"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "Python's module venv is missing: install it (on Debian: the package python3-venv)"

started=$(date +%s)
echo "setup: installing into .venv, with $("$python" -V 2>&1)"
# An existing venv is kept, because a process may be using it.
[ "$(.venv/bin/python -V 2>&1)" = "$("$python" -V 2>&1)" ] || "$python" -m venv --clear .venv
[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv ||
    fail "pip could not install uv: check that a package registry is reachable"
.venv/bin/uv pip install --quiet --system-certs --python .venv/bin/python --constraint constraints.txt --editable '.[dev]' ||
    fail "uv could not install the packages in constraints.txt: see its message above"
touch .venv/.installed
echo "setup: done in $(($(date +%s) - started)) s"
