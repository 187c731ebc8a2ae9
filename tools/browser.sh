#!/bin/sh
# Installs Debian's Chromium for the browser tests, unless there is a browser. If this is not possible, they are
# skipped.
set -u
cd "$(dirname "$0")/.."
found() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
skipped() { echo "browser: $*: the browser tests will be skipped"; exit 0; }

if ! found >/dev/null; then
    command -v apt-get >/dev/null || skipped "there is no chromium, and no apt-get to install it"
    as_root=
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    $as_root true 2>/dev/null || skipped "there is no chromium, and only root can install it"
    started=$(date +%s)
    echo "browser: installing chromium"
    # Without its recommended packages, except fonts, it is half as large.
    export DEBIAN_FRONTEND=noninteractive
    $as_root timeout 120 apt-get -qq -o DPkg::Lock::Timeout=60 update >/dev/null 2>&1
    $as_root timeout 600 apt-get -qq -o DPkg::Lock::Timeout=60 install --yes --no-install-recommends \
        chromium fonts-liberation >/dev/null 2>&1 || skipped "apt-get could not install chromium"
    echo "browser: done in $(($(date +%s) - started)) s"
fi
touch .venv/.browser
