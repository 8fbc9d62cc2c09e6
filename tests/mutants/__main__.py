"""`make mutants`: make one small change, and see whether a test fails.

Why not a library: mutmut (3.8) leaves out functions with a decorator (`@transaction.atomic`, `@property`) and tables at
the top of a module (the states, the metrics); cosmic-ray (8.7) changes the files in place, restarts the suite for
each mutant, and has a dozen variants of each arithmetic operator but none that removes a statement.

Here the third-party libraries are imported once, and each mutant is a fork of that process in which the changed module
is loaded; no file is modified. It runs the tests that execute its lines, the quickest first. It is killed when a test
fails, when the tests cannot start, or when they take far longer than without it.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.mutants import coverage_map, forks
from tests.mutants.coverage_map import CoverageMap
from tests.mutants.mutate import Mutant, mutants
from tests.mutants.targets import TARGETS, Target
from tests.support.sources import ROOT, relative


def main() -> int:
    options = _options()
    targets = [target for target in TARGETS if not options.only or target.name in options.only]
    everything = [
        (target, mutant) for target in targets for path in target.paths() for mutant in mutants(path)
    ]
    chance = random.Random(options.seed)
    drawn = (
        everything if not options.sample else chance.sample(everything, min(options.sample, len(everything)))
    )
    print(f"{len(drawn)} of {len(everything)} mutants, drawn with the seed “{options.seed}”", flush=True)

    began = time.monotonic()
    template = forks.prepare()
    covered = _read_recording() if options.again else _recorded(targets, template, options.jobs)
    results = []
    for target, mutant, outcome in _run(drawn, template, covered, options.jobs):
        results.append((target, mutant, outcome))
        if outcome in ("survived", "no test"):
            print(f"{_place(mutant)}  {mutant.change}  [{outcome}]", flush=True)
        if len(results) % 25 == 0:  # so that an interrupted run has figures, too
            _report(results, time.monotonic() - began)
            _write(options.out, options.seed, results)
    _report(results, time.monotonic() - began)
    _write(options.out, options.seed, results)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", default="pointsman")
    parser.add_argument("--sample", type=int, default=1_000, help="how many are drawn; 0: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument(
        "--again", action="store_true", help="reuse the last recording of which test runs what"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "mutants.json")
    return parser.parse_args()


def _recorded(targets: list[Target], template: Path, jobs: int) -> CoverageMap:
    """Run the tests without a mutant, and record which lines each runs and how long it takes."""
    tests = list(dict.fromkeys(test for target in targets for test in target.test_paths()))
    paths = [path for target in targets for path in target.paths()]
    django = any(target.django for target in targets)
    parts = [part for i in range(jobs) if (part := tests[i::jobs])]
    runs = [
        forks.Run(partial(forks.recorded, part, paths, home, django=django), template, limit_s=3_600)
        for part, home in zip(parts, coverage_map.new_homes(len(parts)), strict=True)
    ]
    if any(run.wait() != "survived" for run in runs):
        sys.exit("The tests could not be run without a mutant: try them with pytest.")
    return _read_recording()


def _read_recording() -> CoverageMap:
    found = coverage_map.merged([coverage_map.read(home) for home in coverage_map.recorded_homes()])
    for test in found.failed:
        print(f"left out, it fails without any mutant: {test}")
    print(f"{len(found.seconds)} tests, which take {sum(found.seconds.values()):.0f} s", flush=True)
    return found


def _run(
    drawn: list[tuple[Target, Mutant]], template: Path, covered: CoverageMap, jobs: int
) -> Iterator[tuple[Target, Mutant, str]]:
    waiting = [(target, mutant, covered.rounds(mutant)) for target, mutant in reversed(drawn)]
    running: dict[forks.Run, tuple[Target, Mutant, list[list[str]]]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            target, mutant, rounds = waiting.pop()
            if not rounds:
                yield target, mutant, "no test"
                continue
            tests, *later = rounds
            work = partial(forks.against, mutant, tests, django=target.django)
            running[forks.Run(work, template, limit_s=covered.limit_s(tests))] = (target, mutant, later)
        for run in [run for run in running if run.done()]:
            target, mutant, later = running.pop(run)
            if run.outcome == "survived" and later:
                waiting.append((target, mutant, later))
            else:
                yield target, mutant, run.outcome
        time.sleep(0.02)


def _place(mutant: Mutant) -> str:
    return f"{relative(mutant.path)}:{mutant.line} {mutant.function}"


def _report(results: list[tuple[Target, Mutant, str]], seconds: float) -> None:
    print(f"\n{'':14}{'drawn':>7}{'killed':>8}{'too slow':>10}{'survived':>10}{'no test':>9}{'killed %':>10}")
    for name in dict.fromkeys(target.name for target, _, _ in sorted(results, key=lambda r: r[0].name)):
        _row(name, Counter(outcome for target, _, outcome in results if target.name == name))
    _row("all", Counter(outcome for _, _, outcome in results))
    print(f"in {seconds / 60:.0f} min")


def _row(name: str, counts: Counter[str]) -> None:
    total = counts.total()
    killed = counts["killed"] + counts["too slow"]
    print(
        f"{name:14}{total:7}{counts['killed']:8}{counts['too slow']:10}{counts['survived']:10}{counts['no test']:9}"
        f"{100 * killed / max(total, 1):10.1f}"
    )


def _write(out: Path, seed: str, results: list[tuple[Target, Mutant, str]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"target": target.name, "place": _place(mutant), "change": mutant.change, "outcome": outcome}
        for target, mutant, outcome in results
    ]
    out.write_text(json.dumps({"seed": seed, "mutants": rows}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
