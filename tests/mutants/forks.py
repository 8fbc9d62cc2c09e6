"""A fork for each mutant, of a process that has imported every library but none of our modules."""

import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.mutants import coverage_map
from tests.mutants.mutate import Mutant, mutated
from tests.mutants.targets import SLOW
from tests.support.sources import PACKAGES, ROOT

# Imported before the forks, so that none imports them again.
LIBRARIES = [
    "celery", "cryptography.hazmat.primitives.asymmetric.ed25519", "django.contrib.admin", "django.test",
    "django.db.backends.sqlite3.base", "drf_spectacular.openapi", "httpx", "hypothesis.stateful", "msgspec",
    "numpy.random", "pytest_django.plugin", "pytest_timeout", "redis", "rest_framework.generics", "scipy.integrate",
    "scipy.special", "scipy.stats", "time_machine", "unfold.admin", "uvloop", "yaml",
]  # fmt: skip
# Only the plugins that the tests need, and no assertion rewriting: every fork would pay for both again.
OPTIONS = [
    "-q", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--assert=plain", "--no-header", "--tb=no",
]  # fmt: skip
WITH_DJANGO = ["-p", "pytest_django.plugin", "--reuse-db"]


class WithoutDjango:
    """Replaces pytest-django if no test needs it, because setting up Django takes longer than most of these tests."""

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        parser.addini("django_find_project", "an option of pytest-django")


def prepare() -> Path:
    """Import the libraries. Return an empty SQLite database with the current schema, for each fork to copy."""
    for library in LIBRARIES:
        # Some of them need Django's settings, which each fork loads itself.
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    template = Path(tempfile.mkdtemp(prefix="pointsman-mutants-")) / "template.sqlite3"
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{template}",
        "POINTSMAN_VAR": str(template.parent),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"]
    subprocess.run(command, env=environment, check=True)
    return template


class Run:
    """Tests in a fork, against one mutant or, for the recording, against the unchanged code.

    outcome  `killed`, `survived`, `too slow`; valid once `done()` is true
    """

    def __init__(self, work: Callable[[], int], template: Path, *, limit_s: float) -> None:
        self.outcome = ""
        self._limit = time.monotonic() + limit_s
        self._home = Path(tempfile.mkdtemp(prefix="pointsman-mutant-"))
        self._pid = os.fork()
        if not self._pid:
            os.setpgid(0, 0)
            _work_and_exit(work, template, self._home)

    def done(self) -> bool:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid and time.monotonic() < self._limit:
            return False
        # Everything that its tests started ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        if pid:
            self.outcome = "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        else:
            os.waitpid(self._pid, 0)
            self.outcome = "too slow"
        shutil.rmtree(self._home, ignore_errors=True)
        return True

    def wait(self) -> str:
        while not self.done():
            time.sleep(0.02)
        return self.outcome


def _work_and_exit(work: Callable[[], int], template: Path, home: Path) -> None:
    code = 1
    try:
        log = os.open(home / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(home)
        os.environ["POINTSMAN_TEST_TEMPLATE"] = str(template)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        code = work()
        sys.stdout.flush()
    finally:
        os._exit(code)


def against(mutant: Mutant, tests: Sequence[str], *, django: bool) -> int:
    _load_changed(mutant)
    return _pytest(["-x", *tests], django)


def recorded(tests: Sequence[str], paths: Sequence[Path], home: Path, *, django: bool) -> int:
    recorder = coverage_map.Recorder(paths, home)
    recorder.start()
    code = _pytest([*(f"--deselect={slow}" for slow in SLOW), *tests], django, recorder)
    recorder.save()
    return 0 if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else 1


def _pytest(arguments: Sequence[str], django: bool, *plugins: object) -> int:
    if django:
        return int(pytest.main([*OPTIONS, *WITH_DJANGO, *arguments], plugins=[*plugins]))
    return int(pytest.main([*OPTIONS, *arguments], plugins=[WithoutDjango(), *plugins]))


def _load_changed(mutant: Mutant) -> None:
    """Make every import of the mutant's module load it with its change."""
    tree = mutated(mutant)

    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType:
            return compile(tree, str(mutant.path), "exec", dont_inherit=True)

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(
            self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if fullname != _module_name(mutant.path):
                return None
            loader = Loader(fullname, str(mutant.path))
            return importlib.util.spec_from_file_location(fullname, mutant.path, loader=loader)

    sys.meta_path.insert(0, Finder())


def _module_name(path: Path) -> str:
    for package, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            return ".".join([package, *path.relative_to(folder).with_suffix("").parts])
    raise ValueError(f"{path} is in none of the packages")
