#!/bin/sh
# Writes the lock files anew: `sh requirements/compile.sh` (needs `uv`; add `--upgrade` to move versions).
# Hashes are kept and index addresses are not, so the locks install from any mirror.
set -eu
cd "$(dirname "$0")/.."
lock="uv pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links"
$lock "$@" pyproject.toml --group build -o requirements/base.txt
$lock "$@" pyproject.toml --group build --group s3 -c requirements/base.txt -o requirements/s3.txt
$lock "$@" pyproject.toml --group build --group s3 --group backtest --group dev -c requirements/s3.txt -o requirements/dev.txt

