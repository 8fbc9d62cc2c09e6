"""Which test runs which line: recorded once with coverage.py, so that a mutant runs only tests that can notice it."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutants.mutate import Mutant
from tests.support.sources import ROOT

FIRST_TESTS, FIRST_FILES = 30, 3
LATER_S = 30.0  # of tests in the second round, in seconds without a mutant; some lines are run by 2,000 tests
RECORDINGS = ROOT / "var" / "mutants"
IMPORT = ""  # coverage's context outside of any test


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """
    seconds  of each test that passes without a mutant, by its id; the quickest first
    lines    the tests that run each line of each file
    failed   the tests that fail without a mutant, which cannot be used
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, set[str]]]
    failed: list[str]

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the quickest first; empty if no test runs it.

        Code at the top of a module, and code that runs only when Django starts, is run once, and not for a test that
        depends on it. For these: every test that runs anything of the module, or whose file is named after it.
        """
        ran = self.lines.get(str(mutant.path), {})
        lines = range(mutant.lines[0], mutant.lines[1] + 1) if mutant.lines else ()
        found = set[str]().union(*(ran.get(line, set()) for line in lines))
        if mutant.lines is None or found == {IMPORT}:
            named = f"/test_{mutant.path.stem}.py::"
            found = set[str]().union(*ran.values(), (test for test in self.seconds if named in test))
        found -= {IMPORT}
        return [test for test in self.seconds if test in found]

    def rounds(self, mutant: Mutant) -> list[list[str]]:
        """Return the same in two rounds. Most mutants are killed in the first, by a few quick tests in few files.

        The second round takes the tests that are named after the module first, then the quickest, up to `LATER_S`.
        """
        first: list[str] = []
        files = set[str]()
        tests = self.tests(mutant)
        for test in tests:
            file = test.partition("::")[0]
            if len(first) < FIRST_TESTS and (file in files or len(files) < FIRST_FILES):
                files.add(file)
                first.append(test)
        chosen = set(first)
        words = {mutant.path.stem, mutant.path.parent.name, *mutant.path.stem.split("_")}
        rest = [test for test in tests if test not in chosen]
        rest.sort(key=lambda test: not any(word in test.partition("::")[0] for word in words))  # stable
        later: list[str] = []
        left = LATER_S
        for test in rest:
            left -= self.seconds[test]
            if left < 0:
                break
            later.append(test)
        return [tests for tests in (first, later) if tests]

    def limit_s(self, tests: Sequence[str]) -> float:
        """Return how long they may take with a mutant: five times as long as without, because the machine may be
        busy."""
        return 60 + 5 * sum(self.seconds[test] for test in tests)


class Recorder:
    """A pytest plugin: tells coverage which test is running, and records the duration of each."""

    def __init__(self, paths: Sequence[Path], home: Path) -> None:
        self._file, self._seconds, self._failed = home / "coverage", dict[str, float](), set[str]()
        self._measuring = coverage.Coverage(
            data_file=str(self._file), include=[str(path) for path in paths], config_file=False
        )
        self._home = home

    def start(self) -> None:
        """Call this before the modules are imported."""
        self._measuring.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self._measuring.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._measuring.switch_context(IMPORT)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self._failed.add(report.nodeid)

    def save(self) -> None:
        self._measuring.stop()
        self._measuring.save()
        (self._home / "tests.json").write_text(
            json.dumps({"seconds": self._seconds, "failed": sorted(self._failed)})
        )


def read(home: Path) -> CoverageMap:
    """Read what a recorder has stored in its directory."""
    tests = json.loads((home / "tests.json").read_text())
    passed = {test: s for test, s in tests["seconds"].items() if test not in tests["failed"]}
    data = coverage.CoverageData(basename=str(home / "coverage"))
    data.read()
    lines = {
        file: {line: set(contexts) for line, contexts in data.contexts_by_lineno(file).items()}
        for file in data.measured_files()
    }
    return CoverageMap(dict(sorted(passed.items(), key=lambda pair: float(pair[1]))), lines, tests["failed"])


def merged(parts: Sequence[CoverageMap]) -> CoverageMap:
    """Return one map of tests that were recorded in several processes."""
    seconds = {test: s for part in parts for test, s in part.seconds.items()}
    lines: dict[str, dict[int, set[str]]] = {}
    for part in parts:
        for file, ran in part.lines.items():
            known = lines.setdefault(file, {})
            for line, tests in ran.items():
                known.setdefault(line, set()).update(tests)
    failed = [test for part in parts for test in part.failed]
    return CoverageMap(dict(sorted(seconds.items(), key=lambda pair: pair[1])), lines, failed)


def new_homes(count: int) -> list[Path]:
    """Return an empty directory for each process that records; `recorded_homes` finds them again."""
    shutil.rmtree(RECORDINGS, ignore_errors=True)
    homes = [RECORDINGS / str(i) for i in range(count)]
    for home in homes:
        home.mkdir(parents=True)
    return homes


def recorded_homes() -> list[Path]:
    return sorted(RECORDINGS.glob("*"))
