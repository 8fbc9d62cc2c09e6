#!/bin/sh
# Installs the packages for the integration tests into a virtual environment: all at once, or as many as possible.
# Each one that fails is listed with pip's reason, and its tests are then skipped by name.
# usage: install.sh DIRECTORY-OF-THE-ENVIRONMENT
set -eu
here=$(dirname "$0")
pip="$1/bin/pip --disable-pip-version-check --quiet install"
if $pip -r "$here/requirements.txt" 2>/dev/null; then exit 0; fi
echo "not all of $here/requirements.txt can be installed together; one by one:"
grep -v '^#' "$here/requirements.txt" | while read -r package; do
    why=$($pip "$package" 2>&1) || echo "  $package: $(printf '%s\n' "$why" | grep '^ERROR' | tail -n 1)"
done
"$1/bin/python" -c 'import cryptography, httpx, pytest, rfc8785, yaml'  # without these nothing runs
