"""No two classes of a package share a name."""

import ast
from collections import defaultdict

import pytest

from tests.support import sources

# Django requires this name for a management command.
FRAMEWORK_NAMES = {"Command"}


def _classes(package: str) -> dict[str, list[str]]:
    homes = defaultdict(list)
    for path in sources.modules(package):
        for node in sources.tree(path).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(sources.relative(path))
    return homes


@pytest.mark.parametrize("package", sources.PACKAGES)
def test_no_two_classes_of_a_package_share_a_name(package: str) -> None:
    shared = {name: homes for name, homes in _classes(package).items() if len(homes) > 1}
    assert {name: homes for name, homes in shared.items() if name not in FRAMEWORK_NAMES} == {}
