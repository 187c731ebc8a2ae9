#!/bin/sh
# Fails if a release's tag is not its version, or if CHANGELOG.md has no date for it: tools/check_release.sh v0.2.0
set -eu
cd "$(dirname "$0")/.."
fail() { echo "release: $*" >&2; exit 1; }

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' airflow_insightly_hooks/version.py)
[ "$1" = "v$version" ] || fail "the tag is $1, but the version in version.py is $version: correct one of them"
grep -Eq "^## $version - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
    fail "CHANGELOG.md has no line '## $version - <date>': add it"
