"""`make mutants`: change one small thing, and see whether a test notices.

Why not a library: mutmut (3.8) leaves out functions with a decorator (`@transaction.atomic`, `@property`) and tables at
the top of a module (the states, the metrics); cosmic-ray (8.7) changes the files in place, starts the suite anew for
each mutant, has a dozen variants of each arithmetic operator and none that removes a statement.

Here the third-party libraries are imported once, and each mutant is a fork of that process in which the module is
loaded changed; no file is touched. A mutant is killed when a test fails, when the tests cannot even begin, or when
they take far longer than they do without it.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.mutants import forks
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
    patience = {target.name: _patience(target, template) for target in {t.name: t for t, _ in drawn}.values()}
    results = []
    for target, mutant, outcome in _run(drawn, template, patience, options.jobs):
        results.append((target, mutant, outcome))
        if outcome == "survived":
            print(f"{_place(mutant)}  {mutant.change}", flush=True)
    _report(results, time.monotonic() - began)
    _write(options.out, options.seed, results)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", default="pointsman")
    parser.add_argument("--sample", type=int, default=1_000, help="how many are drawn; 0: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "mutants.json")
    return parser.parse_args()


def _patience(target: Target, template: Path) -> float:
    """Seconds that a mutant may take: its tests must pass without one, and tell how long they take."""
    began = time.monotonic()
    outcome = forks.Run(target.test_paths(), None, template, limit_s=1_200).wait()
    took = time.monotonic() - began
    if outcome != "survived":
        sys.exit(f"The tests of “{target.name}” fail without any mutant ({outcome}).")
    print(f"{target.name}: its tests take {took:.0f} s", flush=True)
    return 30 + 5 * took


def _run(
    drawn: list[tuple[Target, Mutant]], template: Path, patience: dict[str, float], jobs: int
) -> Iterator[tuple[Target, Mutant, str]]:
    waiting = list(reversed(drawn))
    running: dict[forks.Run, tuple[Target, Mutant]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            target, mutant = waiting.pop()
            run = forks.Run(target.test_paths(), mutant, template, limit_s=patience[target.name])
            running[run] = (target, mutant)
        for run in [run for run in running if run.done()]:
            yield (*running.pop(run), run.outcome)
        time.sleep(0.02)


def _place(mutant: Mutant) -> str:
    return f"{relative(mutant.path)}:{mutant.line} {mutant.function}"


def _report(results: list[tuple[Target, Mutant, str]], seconds: float) -> None:
    print(f"\n{'':14}{'drawn':>7}{'killed':>8}{'too slow':>10}{'survived':>10}{'killed %':>10}")
    for name in dict.fromkeys(target.name for target, _, _ in sorted(results, key=lambda r: r[0].name)):
        _row(name, Counter(outcome for target, _, outcome in results if target.name == name))
    _row("all", Counter(outcome for _, _, outcome in results))
    print(f"in {seconds / 60:.0f} min")


def _row(name: str, counts: Counter[str]) -> None:
    total = counts.total()
    killed = total - counts["survived"]
    print(
        f"{name:14}{total:7}{counts['killed']:8}{counts['too slow']:10}{counts['survived']:10}"
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
