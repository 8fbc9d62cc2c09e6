"""The client under every supported version of Python: wheel and sdist, installed into an empty environment.

Interpreters are searched for on the PATH and among those of pyenv. The test of a missing one is skipped by name.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman.version import VERSION
from tests.deploy.test_wheels import CLIENT, build, run

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
# Every module, a policy in YAML, a router that decides. The command line needs packages compiled for one version.
SCRIPT = """
import importlib, pathlib, pkgutil, sys
import pointsman
for module in pkgutil.walk_packages(pointsman.__path__, "pointsman."):
    if ".integrations." not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from pointsman.policy import parse, validate
from pointsman.testing import FakeControlPlane
assert not validate(parse(pathlib.Path("policy.yaml").read_text()).data)
with FakeControlPlane() as plane:
    plane.serve("w", pathlib.Path("policy.yaml").read_text())
    with plane.router() as router:
        decision = router.decide("w", {"prompt_tokens": 900})
        router.record(decision, success=True, cost_nusd=5, latency_ms=7)
        print("%d.%d" % sys.version_info[:2], decision.model, decision.rule)
    print(sum(bucket["tasks"] for bucket in plane.buckets("w")))
"""
POLICY = """
format: 1
workload: w
models: {a: {model: x/a}, b: {model: x/b}}
rules: [{id: long, when: request.prompt_tokens > 100, use: b}]
default: a
fallback: [b]
"""


def found(version: str) -> str | None:
    """Return an interpreter of this version that starts. pyenv's shims only work for enabled versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("client")
    return {kind: build(CLIENT, folder / kind, "--target", kind) for kind in ("wheel", "sdist")}


@pytest.fixture(params=SUPPORTED)
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(version, the `bin` of an empty environment). Dependencies, pure Python, are this test's."""
    interpreter = found(request.param)
    if interpreter is None:
        pytest.skip(f"no Python {request.param} on the PATH or among pyenv's")
    home = tmp_path / "environment"
    subprocess.run([interpreter, "-m", "venv", "--without-pip", str(home)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    yield request.param, home / "bin"


def test_wheel_and_sdist_work_there(
    environment: tuple[str, Path], distributions: dict[str, Path], tmp_path: Path
) -> None:
    version, programs = environment
    (tmp_path / "policy.yaml").write_text(POLICY)
    for distribution in distributions.values():
        pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet"]
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall"]
        done = subprocess.run(
            [*pip, *options, str(distribution)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        place = run(programs / "python", "-c", "import pointsman; print(pointsman.__file__)", cwd=tmp_path)
        assert Path(place.strip()).is_relative_to(programs.parent), "not the checkout's"
        assert (
            run(programs / "python", "-W", "error", "-c", SCRIPT, cwd=tmp_path) == f"{version} x/b long\n1\n"
        )
        assert run(programs / "pointsman", "--version", cwd=tmp_path).strip() == f"pointsman {VERSION}"
