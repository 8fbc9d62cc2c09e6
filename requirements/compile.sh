#!/bin/sh
# Regenerates the lock files: `sh requirements/compile.sh` (needs `uv`; add `--upgrade` to move versions).
# They contain hashes but no index URLs, so that they install from any mirror.
set -eu
cd "$(dirname "$0")/.."
lock="uv pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links"
$lock "$@" pyproject.toml --group build -o requirements/base.txt
$lock "$@" pyproject.toml --group build --group s3 -c requirements/base.txt -o requirements/s3.txt
$lock "$@" pyproject.toml --group build --group s3 --group backtest --group dev -c requirements/s3.txt -o requirements/dev.txt

