"""The modules to mutate, and the tests to run against the mutants of each."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.sources import ROOT


@dataclass(frozen=True, slots=True)
class Target:
    """`modules` and `tests` are globs from the root. `django`: whether tests need it; forks without are faster."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    django: bool = True

    def paths(self) -> list[Path]:
        found = sorted({path for glob in self.modules for path in ROOT.glob(glob)})
        return [path for path in found if path.name != "__init__.py"]

    def test_paths(self) -> list[str]:
        found = [str(path) for glob in self.tests for path in sorted(ROOT.glob(glob))]
        for glob in self.tests:
            if not any(ROOT.glob(glob)):
                raise FileNotFoundError(f"{self.name}: no test file is called {glob}")
        return list(dict.fromkeys(found))


# Excludes tests that start processes, which would run the unchanged code, and slow tests that detect few mutants.
DATABASE = (
    "tests/controlplane/test_[!h]*.py",  # without test_health, which starts instances
    "tests/trust/test_*.py",
    "tests/policies/test_[!p]*.py",  # without test_publishing
    "tests/rollouts/test_[!r]*.py",
    "tests/rollouts/test_refusals.py",
    "tests/rollouts/test_recompute.py",
    "tests/console/test_*.py",
)
# Each survivor would wait for these, which take seconds. Leaving them out can only add survivors.
SLOW = (
    "tests/console/test_queries.py::test_no_page_needs",
    "tests/controlplane/test_api.py::test_the_schema_describes",
    "tests/controlplane/test_upgrade.py",
    "tests/policies/test_catalogue.py::test_a_migration",
    "tests/rollouts/test_migrations.py",
    "tests/rollouts/test_stateful.py",
    "tests/trust/test_api_document.py::test_every_answer",
    "tests/trust/test_cursors.py::test_a_forged_cursor",
    "tests/trust/test_hostile_values.py",
    "tests/trust/test_matrix.py::test_everybody_may_do",
    "tests/trust/test_matrix.py::test_a_refusal_by_a_rule",
    "tests/trust/test_matrix.py::test_every_action",
    "tests/trust/test_tampering.py::test_every_kind",
)
TARGETS = (
    # Only the tests of the rules, because these should detect every mutant of the pure engine.
    Target("engine", ("rollout_app/engine/**/*.py",), ("tests/rules/test_*.py",), django=False),
    Target("actions", ("rollout_app/actions/*.py",), DATABASE),
    Target("evaluation", ("rollout_app/evaluation/*.py",), DATABASE),
    Target(
        "bucketing",
        ("router_client/pointsman/bucketing.py",),
        ("tests/client/test_bucketing.py", "tests/client/test_deci*.py", "tests/client/test_snapshot.py"),
    ),
    Target("audit chain", ("controlplane/audit/*.py",), DATABASE),
    Target(
        "access",
        tuple(f"controlplane/access/{folder}*.py" for folder in ("", "actions/", "pages/", "sign_in/")),
        ("tests/access/test_*.py", *DATABASE),
    ),
)
