"""The repository's own files, as the tests of the house read them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where the modules of each package lie.
PACKAGES = {
    "controlplane": ROOT / "controlplane",
    "policies_app": ROOT / "policies_app",
    "rollout_app": ROOT / "rollout_app",
    "pointsman": ROOT / "router_client" / "pointsman",
}


def modules(package: str) -> Iterator[Path]:
    """A package's Python files, without migrations: those are written by Django."""
    return (path for path in sorted(PACKAGES[package].rglob("*.py")) if "migrations" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
