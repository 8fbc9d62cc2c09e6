"""The repository's files, for the tests of tests/house."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where the modules of each package are.
PACKAGES = {
    "controlplane": ROOT / "controlplane",
    "policies_app": ROOT / "policies_app",
    "rollout_app": ROOT / "rollout_app",
    "pointsman": ROOT / "router_client" / "pointsman",
}


def modules(package: str) -> Iterator[Path]:
    """Yield the Python files of a package without migrations, which Django writes."""
    return (path for path in sorted(PACKAGES[package].rglob("*.py")) if "migrations" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
