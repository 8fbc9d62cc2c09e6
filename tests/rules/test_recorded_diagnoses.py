"""Policies at each threshold of the diagnosis, in all pairs, and the recorded diagnosis of each.

`tests/vectors/diagnoses/` has the codes and figures. If you change one on purpose, write the files again with
`python -m tests.rules.test_recorded_diagnoses` and review the diff. `test_diagnosis` tests the thresholds themselves.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import Any

from rollout_app.engine.diagnosis import (
    Change,
    ModelRecord,
    OutcomeSums,
    PeriodComparison,
    PolicyFigures,
    RouteCost,
    compare_arms,
    compare_periods,
    cost_if_always,
    diagnose,
)
from rollout_app.engine.diagnosis.compare import around
from rollout_app.engine.diagnosis.models import recorded_success, strongest
from tests.support.recorded import as_json, differences, figures_in, write

HOME = Path(__file__).parents[1] / "vectors" / "diagnoses"


def sums(n: int, failures: int, *, cost: int = 100, **more: Any) -> OutcomeSums:
    good = n - failures
    known: dict[str, Any] = {
        "tasks": n, "successes": good, "failures": failures, "cost_n": n, "cost": cost * n, "both_n": n,
        "both_successes": good, "both_cost": cost * n, "cost_sq": 1.5 * cost * cost * n,
        "both_cost_sq": 1.5 * cost * cost * n, "both_cost_on_success": cost * good,
    }  # fmt: skip
    return OutcomeSums(**{**known, **more})


SAME = Change(0.0, -0.03, 0.03)
POLICY = sums(1_000, 100)
COMPARED = PeriodComparison(
    failures=SAME, cost_per_success=Change(0.0, -0.2, 0.2), cost_per_task=Change(0.0, -0.2, 0.2), retries=SAME,
    ungraded=(0.0, 0.0), unpriced=(0.0, 0.0), tasks=(1_000, 1_000), mix=0.0, raw=0.1,
)  # fmt: skip
FIGURES = PolicyFigures(POLICY, 0.85, COMPARED)
SUCCESS = FIGURES.success


def bars() -> Iterator[float]:
    """Yield quality bars at the ends of the interval of success, and a little to either side."""
    for at in (SUCCESS.high, SUCCESS.estimate, SUCCESS.low + 0.02):
        yield from (at, math.nextafter(at, 0), math.nextafter(at, 1), at - 0.001, at + 0.001)


def changes(border: float) -> list[Change | None]:
    """Return changes at a threshold and next to it, significant in either direction or not; some intervals end at 0."""
    found: list[Change | None] = [None]
    for at in (border, -border):
        for estimate in (at, at * 0.99, at * 1.01):
            found += [
                Change(estimate, estimate - half, estimate + half)
                for half in (abs(estimate), abs(estimate) / 2)
            ]
    return found


def models(*records: tuple[float | None, float | None, float | None]) -> tuple[ModelRecord, ...]:
    """Return models from success, declared quality and the change of cost if always used, weakest first."""
    return tuple(
        ModelRecord(
            f"m{at}",
            None if success is None else Change(success, success - 0.02, success + 0.02),
            declared,
            None if always is None else Change(always, always - 0.05, always + 0.05),
        )
        for at, (success, declared, always) in enumerate(records)
    )


def windows(*failures: int, n: int = 200) -> tuple[dict[str, OutcomeSums], ...]:
    return tuple({"/a": sums(n, x), "/b": sums(n, x)} for x in failures)


MODELS = [
    (),
    models((0.9, 0.9, 0.3)),
    models((0.9, 0.9, -0.15)),
    models((0.8, 0.5, -0.5), (0.9, 0.9, 0.3)),
    models((0.8, 0.5, 0.30), (0.9, 0.9, 0.0611111)),
    models((0.8, 0.5, 0.2), (0.9, 0.9, 0.3)),
    models((0.9, 0.5, 0.0), (0.85, 0.9, None)),
    models((None, 0.9, 0.1), (None, 0.5, 0.06)),
    models((None, None, 0.1), (None, None, -0.150000001)),
    models((0.94, 0.1, 0.0), (0.9, 0.1, -0.15), (0.8, 0.5, 0.4)),
]
# By what is varied: a function from the figures and a value, and the values.
VARIED: dict[str, list[PolicyFigures]] = {}


def vary(what: str, *found: PolicyFigures) -> None:
    VARIED[what] = list(found)


def compared(**changed: Any) -> PolicyFigures:
    return replace(FIGURES, comparison=replace(COMPARED, **changed))


def policy(**changed: Any) -> PolicyFigures:
    return replace(FIGURES, policy=POLICY._replace(**changed))


vary("bar", *(replace(FIGURES, quality_bar=bar) for bar in bars()))
vary(
    "grades",
    *(policy(successes=good, failures=bad) for good, bad in ((200, 50), (200, 49), (90, 10), (0, 0), (890, 100))),
    *(policy(tasks=100, successes=90, failures=bad) for bad in (10, 9)),
    policy(successes=891, failures=100),
    policy(tasks=0, successes=0, failures=0),
    policy(cost_n=990), policy(cost_n=991), policy(cost_n=0, successes=800, failures=100),
)  # fmt: skip
vary("sampled", replace(FIGURES, sampled=True), replace(FIGURES, deff=4.0))
vary("strong", *(replace(FIGURES, strong_tasks=n) for n in (499, 500, 501, 950, 951, 1_000, 1_500)))
vary("models", *(replace(FIGURES, models=found) for found in MODELS))
vary(
    "windows",
    *(
        replace(FIGURES, windows=found)
        for found in (
            windows(20, 40, 60), windows(60, 40, 20), windows(20, 40), windows(20, 40, 40), windows(40, 20, 60),
            windows(20, 21, 22), windows(90, 20, 40, 60), windows(2, 4, 6, n=50), windows(2, 4, 6, n=49),
        )
    ),
)  # fmt: skip
vary("none", replace(FIGURES, comparison=None))
vary("concurrent", compared(concurrent=True, tasks=(1_000, 900)))
vary("failures", *(compared(failures=change) for change in [*changes(0.01), *changes(0.04)]))
vary(
    "cost", *(compared(cost_per_success=change) for change in [*changes(0.01), *changes(0.05), *changes(0.3)])
)
vary("task cost", *(compared(cost_per_task=change) for change in changes(0.01)))
vary("retries", *(compared(retries=change) for change in changes(0.02)))
vary(
    "ungraded", *(compared(ungraded=shares) for shares in ((0.5, 0.4), (0.4, 0.5), (0.2, 0.19), (0.1, 0.02)))
)
vary(
    "unpriced", *(compared(unpriced=shares) for shares in ((0.5, 0.4), (0.4, 0.5), (0.2, 0.19), (0.1, 0.02)))
)
vary(
    "mix",
    *(
        compared(mix=mix, raw=raw)
        for mix, raw in ((0.01, 0.1), (0.0099, 0.1), (-0.2, -0.3), (None, 0.1), (0.5, None))
    ),
)
vary("covered", *(compared(covered=covered, cost_per_success=None) for covered in (0.5, 0.49, 1.0)))
vary(
    "tasks",
    *(
        compared(tasks=tasks, cost_per_success=None)
        for tasks in ((99, 1_000), (1_000, 99), (100, 100), (0, 0))
    ),
)
vary("nothing", compared(from_nothing=True))


TWO = models((0.8, 0.5, -0.5), (0.9, 0.9, 0.3))
FALLING = {
    f"{name}, {strong} strong, {len(found)} models": replace(
        FIGURES, windows=windows(*failures, n=n), strong_tasks=strong, models=found
    )
    for name, failures, n in (
        ("a hundred", (0, 10, 25), 50),
        ("fewer", (0, 10, 25), 49),
        ("many", (20, 60, 120), 200),
        ("the first are left out", (190, 20, 60, 120), 200),
        ("not the last", (20, 120, 60), 200),
        ("the same twice", (20, 60, 60), 200),
    )
    for strong in (0, 500, 501)
    for found in ((), TWO[:1], TWO)
}


def together(one: PolicyFigures, other: PolicyFigures) -> PolicyFigures:
    """Return the figures with the changes of both."""
    fields = {
        name: getattr(one, name) if getattr(one, name) is not getattr(FIGURES, name) else getattr(other, name)
        for name in PolicyFigures.__dataclass_fields__
        if name != "comparison"
    }
    a, b = one.comparison, other.comparison
    if a is None or b is None:
        return PolicyFigures(**fields, comparison=None)
    between = {
        name: getattr(a, name) if getattr(a, name) is not getattr(COMPARED, name) else getattr(b, name)
        for name in PeriodComparison.__dataclass_fields__
    }
    return PolicyFigures(**fields, comparison=PeriodComparison(**between))


def crossed() -> Iterator[tuple[str, PolicyFigures]]:
    yield from FALLING.items()
    for what, values in VARIED.items():
        for at, one in enumerate(values):
            yield f"{what} {at}", one
    for (what, values), (too, others) in combinations(VARIED.items(), 2):
        for (i, one), (j, other) in product(enumerate(values), enumerate(others)):
            if (i + j) % 3 == 0:
                yield f"{what} {i}, {too} {j}", together(one, other)


def said() -> dict[str, dict[str, list[str]]]:
    """Return the policies by diagnosis: its code and the figures in its sentence."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, figures in crossed():
        diagnosis = diagnose(figures)
        found.setdefault(diagnosis.code, {}).setdefault(figures_in(diagnosis.sentence), []).append(name)
    return found


# --- comparisons --------------------------------------------------------------------------------------------


def drawn(random: Random, n: int) -> OutcomeSums:
    graded = n - random.randrange(n // 5 + 1)
    failures = random.randrange(graded // 3 + 1)
    priced = n - random.randrange(n // 4 + 1)
    both = min(graded, priced)
    good = both - min(both, failures)
    cost = random.randrange(50, 200)
    return sums(
        n, failures, successes=graded - failures, cost_n=priced, cost=cost * priced, cost_sq=1.4 * cost * cost * priced,
        both_n=both, both_successes=good, both_cost=cost * both, both_cost_sq=1.4 * cost * cost * both,
        both_cost_on_success=cost * good, retries=random.randrange(n // 8 + 1),
    )  # fmt: skip


FREE = sums(400, 40, cost=0)
NONE_GOOD = sums(400, 400)
TWO_SIDES: dict[str, tuple[dict[str, OutcomeSums], dict[str, OutcomeSums]]] = {
    "nothing": ({}, {}),
    "no cell in both": ({"a": POLICY}, {"b": POLICY}),
    "free now": ({"a": FREE}, {"a": POLICY}),
    "free before": ({"a": POLICY}, {"a": FREE}),
    "both free": ({"a": FREE}, {"a": FREE}),
    "no success now": ({"a": NONE_GOOD}, {"a": POLICY}),
    "no success before": ({"a": POLICY}, {"a": NONE_GOOD}),
    "a hundred": ({"a": sums(100, 10)}, {"a": sums(100, 10)}),
    "too few now": ({"a": sums(99, 10)}, {"a": sums(500, 10)}),
    "too few before": ({"a": sums(500, 10)}, {"a": sums(99, 10)}),
    "a cell of twenty": ({"a": sums(20, 2), "b": sums(300, 30)}, {"a": sums(300, 30), "b": sums(20, 2)}),
    "a cell of nineteen": ({"a": sums(19, 2), "b": sums(300, 30)}, {"a": sums(300, 30), "b": sums(19, 2)}),
    "none is graded": ({"a": sums(300, 0, successes=0, both_n=0)}, {"a": sums(300, 0, successes=0)}),
    "none is priced": ({"a": sums(300, 20, cost_n=0, both_n=0)}, {"a": sums(300, 20, cost_n=0)}),
    "more retries than tasks": ({"a": sums(300, 20, retries=400)}, {"a": sums(300, 20, retries=500)}),
    "the mix shifts": (
        {"a": sums(800, 20, cost=50), "b": sums(200, 60, cost=500)},
        {"a": sums(200, 5, cost=45), "b": sums(800, 200, cost=450)},
    ),
}
for _seed in range(8):
    _random = Random(_seed)
    TWO_SIDES[f"drawn {_seed}"] = (
        {cell: drawn(_random, 40 * (1 + _random.randrange(9))) for cell in "abc"},
        {cell: drawn(_random, 40 * (1 + _random.randrange(9))) for cell in "bca"},
    )
PRICES = {"small": (100, 400), "large": (1_000, 3_000), "odd": (900, 5_000), "free": (0, 0)}
ROUTES = {
    "one model": [RouteCost("large", "large", 1_000)],
    "escalated": [RouteCost("small", "large", 500), RouteCost("small", "small", 300)],
    "a tenth has no price": [RouteCost("large", "large", 900), RouteCost("lost", "lost", 100)],
    "more has no price": [RouteCost("large", "large", 899), RouteCost("lost", "lost", 101)],
    "escalated from an unknown one": [RouteCost("lost", "large", 50), RouteCost("odd", "odd", 950)],
    "to one that is free": [RouteCost("free", "free", 50), RouteCost("odd", "odd", 950)],
    "nothing": [],
    "no cost": [RouteCost("large", "large", 0)],
}
RECORDED = {
    "two share a cell": {"small": {"a": sums(40, 9)}, "large": {"a": sums(60, 3), "b": sums(500, 50)}},
    "three share two": {
        name: {"a": sums(40 + n, n), "b": sums(90, 2 * n)} for name, n in (("x", 3), ("y", 9), ("z", 20))
    },
    "twenty are enough": {"small": {"a": sums(20, 9)}, "large": {"a": sums(20, 3)}},
    "nineteen are not": {"small": {"a": sums(20, 9)}, "large": {"a": sums(19, 3)}},
    "no cell in common": {"small": {"a": sums(40, 9)}, "large": {"b": sums(60, 3)}},
    "one alone": {"small": {"a": sums(40, 9)}},
}  # fmt: skip


def figures_of() -> dict[str, Any]:
    pairs = {
        name: list(zip(now.values(), before.values(), strict=False))
        for name, (now, before) in TWO_SIDES.items()
    }
    whole = [one for now, _ in TWO_SIDES.values() for one in now.values()]
    return {
        "periods": {name: asdict(compare_periods(*sides)) for name, sides in TWO_SIDES.items()},
        "periods of units": {name: asdict(compare_periods(*sides, 3.0)) for name, sides in TWO_SIDES.items()},
        "arms": {name: asdict(compare_arms(strata)) for name, strata in pairs.items()},
        "arms of units": {name: asdict(compare_arms(strata, 3.0)) for name, strata in pairs.items()},
        "always": {
            f"{model}, {name}": (change := cost_if_always(model, routes, PRICES)) and asdict(change)
            for name, routes in ROUTES.items()
            for model in ("small", "large", "odd", "lost")
        },
        "recorded": {
            name: {model: asdict(change) for model, change in recorded_success(cells).items()}
            for name, cells in RECORDED.items()
        },
        "strongest": [(best := strongest(found)) and best.alias for found in MODELS],
        "around": [asdict(around(0.1, error)) for error in (0.0, 1e-4, 0.01)] + [asdict(around(0.1, 1e-4, 9.0))],
        "figures": [
            [one.success, one.ungraded, one.unpriced, one.cost_per_task, one.cost_per_success] for one in whole
        ],
        "defaults": [OutcomeSums(), asdict(ModelRecord("m")), asdict(PolicyFigures(POLICY, 0.9))["retry_margin"]],
        "excess": [
            replace(COMPARED, tasks=tasks).excess(shares)
            for tasks in ((1_000, 1_000), (0, 10), (10, 0), (300, 900))
            for shares in ((0.3, 0.1), (0.1, 0.3), (0.1, 0.1), (0.11, 0.1))
        ],
    }  # fmt: skip


def test_it_matches_the_recorded_diagnoses() -> None:
    assert list(differences(json.loads((HOME / "said.json").read_text()), as_json(said()))) == []


def test_it_matches_the_recorded_comparisons() -> None:
    assert list(differences(json.loads((HOME / "figures.json").read_text()), as_json(figures_of()))) == []


if __name__ == "__main__":
    write(HOME / "said.json", said())
    write(HOME / "figures.json", figures_of())
