"""Which modules are mutated, and which tests are asked about each."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.sources import ROOT


@dataclass(frozen=True, slots=True)
class Target:
    """modules and tests are globs from the repository's root; the tests are run in this order."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def paths(self) -> list[Path]:
        found = sorted({path for glob in self.modules for path in ROOT.glob(glob)})
        return [path for path in found if path.name != "__init__.py"]

    def test_paths(self) -> list[str]:
        found = [str(path) for glob in self.tests for path in sorted(ROOT.glob(glob))]
        for glob in self.tests:
            if not any(ROOT.glob(glob)):
                raise FileNotFoundError(f"{self.name}: no test file is called {glob}")
        return list(dict.fromkeys(found))


ROLLOUTS = (
    "tests/rollouts/test_moves.py",
    "tests/rollouts/test_refusals.py",
    "tests/rollouts/test_approvals.py",
    "tests/rollouts/test_wrong_states.py",
    "tests/rollouts/test_api.py",
)
TARGETS = (
    Target("engine", ("rollout_app/engine/**/*.py",), ("tests/rules/test_*.py",)),
    Target("actions", ("rollout_app/actions/*.py",), (*ROLLOUTS, "tests/rollouts/test_engine.py")),
    Target(
        "evaluation",
        ("rollout_app/evaluation/*.py",),
        (
            "tests/rollouts/test_engine.py",
            "tests/rollouts/test_evaluations.py",
            "tests/rollouts/test_sweeps.py",
            "tests/rollouts/test_walk.py",
            "tests/rollouts/test_recompute.py",
            "tests/rollouts/test_concurrency.py",
        ),
    ),
    Target(
        "bucketing",
        ("router_client/pointsman/bucketing.py",),
        ("tests/client/test_bucketing.py", "tests/client/test_decide.py"),
    ),
    Target(
        "audit chain",
        ("controlplane/audit/*.py",),
        ("tests/controlplane/test_audit_chain.py", "tests/console/test_audit.py"),
    ),
    Target(
        "access",
        ("controlplane/access/*.py",),
        (
            "tests/controlplane/test_keys.py",
            "tests/controlplane/test_permissions.py",
            "tests/trust/test_*.py",
            "tests/controlplane/test_api.py",
            "tests/console/test_access.py",
        ),
    ),
)
