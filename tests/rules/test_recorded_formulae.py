"""Each formula of the engine at many points, including its limits, compared with recorded results.

scipy, enumeration and the shared vectors show that the formulas are right (`test_stats`, `test_stats_vectors`,
`test_missing`). This pins every term of them at further points. `tests/vectors/formulae.json` has the figures;
`python -m tests.rules.test_recorded_formulae` writes them again.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rollout_app.engine.stats import (
    capped,
    cells,
    deff,
    missing,
    mixture,
    naming,
    paired,
    rates,
    ratios,
)
from tests.support.recorded import as_json, differences, each, write

PATH = Path(__file__).parents[1] / "vectors" / "formulae.json"
Table = Mapping[str, Any]
TABLES: dict[str, Callable[[], Table]] = {}


def table(make: Callable[[], Table]) -> Callable[[], Table]:
    TABLES[make.__name__] = make
    return make


CURVE = capped.curve([(100, 50), (400, 30), (5_000, 4), (0, 9), (50, 0)], 2_000)


@table
def capping() -> Table:
    xs = (0.02, 0.1, 0.3, 1.0, 1.07, 1.1, 6.0, 10.0, 30.0)
    return {
        "curve": [
            CURVE,
            capped.curve([(10, 3)], 5),
            capped.curve([], 5),
            capped.curve([(0, 3)], 5),
            capped.curve([(10, 0)], 5),
        ],
        "capped": [capped.capped_factor(CURVE, x) for x in xs] + [capped.capped_factor((), 3.0)],
        "uncapped": [capped.uncapped_factor(CURVE, x) for x in xs] + [capped.uncapped_factor((), 3.0)],
        "flat": [
            capped.uncapped_factor(((1.0, 1.0), (2.0, 1.0), (3.0, 2.0)), x) for x in (0.5, 1.0, 1.5, 2.5)
        ],
    }


def past(seed: int, *, spread: float, n: int = 40, size: int = 60) -> dict[int, tuple[int, int, int, int]]:
    random = Random(seed)
    found = {}
    for cell in range(n):
        p = min(max(0.1 + spread * (random.random() - 0.5), 0), 1)
        n1, n2 = (random.randrange(size) for _ in range(2))
        found[cell] = (
            n1,
            sum(random.random() < p for _ in range(n1)),
            n2,
            sum(random.random() < p for _ in range(n2)),
        )
    return found


@table
def units() -> Table:
    lone = dict.fromkeys(range(30), (20, 2, 20, 2))
    given = {
        "none": {},
        "one": {1: (5, 1, 5, 1)},
        "none fails": {1: (5, 0, 5, 0)},
        "all fail": {1: (5, 5, 5, 5), 2: (2, 2, 0, 0)},
        "empty ones": {1: (0, 0, 0, 0), 2: (9, 1, 7, 2)},
        "one half only": {1: (9, 1, 0, 0), 2: (0, 0, 9, 4), 3: (9, 2, 0, 0)},
        "second half only": {1: (0, 0, 9, 4), 2: (0, 0, 9, 1)},
        "alike": past(1, spread=0.0),
        "persist": past(2, spread=0.2),
        "persist much": past(3, spread=0.6, size=200),
        "large": past(4, spread=0.3, n=12, size=900),
        **{
            f"lone {n}, {x}": lone | {99: (n, x, n, x)}
            for n, x in ((20, 12), (19, 12), (20, 6), (20, 5), (20, 20), (40, 0))
        },
        "lone, one half": lone | {99: (20, 12, 20, 2)},
        "lone, both ways": lone | {99: (40, 20, 90, 0)},
    }
    predictions = {name: cells.predict(counts) for name, counts in given.items()}
    kinds = [
        cells.Prediction(0.1, {1: rate}).kind(1)
        for rate in (0.0, 0.001, 0.05, 0.086, 0.087, 0.1, 0.117, 0.2, 0.9, 1.0, 0.999_99)
    ]
    arms = ([(10, 40), (20, 60), (5, 500)], [(100, 40), (30, 60)])
    return {
        "predict": {name: [one.mean, one.persistent, dict(one.rates)] for name, one in predictions.items()},
        "kinds": [
            *kinds,
            cells.Prediction(0.0, {1: 0.5}).kind(1),
            cells.Prediction(1.0, {1: 0.5}).kind(1),
            cells.Prediction(0.1).kind(1),
        ],
        "rate": [cells.Prediction(0.1, {1: 0.4}).rate(cell) for cell in (1, 2)],
        "residual": each(
            cells.residual_design_effect,
            ([],),
            ([(3, 1, 1)],),
            ([(3, 1, 1), (0, 2, 1)],),
            ([(3, 1, 0.5), (0, 2, 1), (9, 1, 0)],),
            ([(1, 1, 1)] * 3,),
        ),
        "compared": each(
            cells.compared_design_effect,
            (2.5, *arms),
            (1.0, *arms),
            (1.1, *arms),
            (2.5, [], arms[1]),
            (2.5, arms[0], []),
            (2.5, [(5, 0)], [(5, 0)]),
            (2.5, [(5, 0)], arms[1]),
        ),
    }


@table
def correlated() -> Table:
    groups = [
        [],
        [(5, 1)],
        [(5, 0), (5, 0)],
        [(5, 5), (4, 4)],
        [(10, 1), (30, 9), (0, 0), (7, 2)],
        [(10, 9), (30, 1), (7, 7)],
        [(5, 1), (5, 1)],
    ]
    tasks = [
        [],
        [5],
        [0, 0],
        [10, 10],
        [10, 0],
        [40, 1, 2, 3],
        [13, 7] * 8,
        [14, 6] * 8,
        [30, 31, 29],
        [500, 1, 1, 1] * 3,
    ]
    return {
        "design effect": [deff.design_effect(one) for one in groups],
        "spread": [deff.unit_spread(one) for one in tasks],
    }


@table
def missing_ones() -> Table:
    arms = ((0, 0), (0, 100), (5, 100), (50, 100), (100, 100))
    found = {
        f"{d} {weight} {a} {b} {z}": asdict(missing.excess(d, weight, a, b, z))
        for d, weight, a, b, z in product(
            (-0.5, -0.05, 0.0, 0.05, 0.5), (0, 1.0, 50.0), arms, arms, (1.0, 2.0)
        )
        if (d > 0) == (a > b) or weight == 50.0
    }
    excesses = [
        missing.Excess(),
        *(missing.Excess(e, 30.0, side) for e in (0.1, 0.5, 0.9, 1.0) for side in (True, False)),
    ]
    costs = [(cap, spent, good) for cap in (None, 0, 50.0) for spent in (0, 900.0) for good in (0, 40)]
    return {
        "excess": found,
        "safe margin": [missing.safe_margin(0.1, p, one) for p in (0.0, 0.2, 1.0) for one in excesses],
        "harm": [missing.harm_difference(0.1, 0.2, 0.3, one) for one in excesses],
        "odds": [missing.harm_odds_ratio(p, one) for p in (0.0, 0.2, 0.95, 1.0) for one in excesses],
        "worst": [missing.log_cost_worst(one, *given) for given in costs for one in excesses],
        "best": [missing.log_cost_best(one, *given) for given in costs for one in excesses],
    }


@table
def normal() -> Table:
    return {
        "phi beyond its square": [mixture.log_phi(z) + z * z / 2 for z in (-60.0, -31.0, -30.0, -29.9, -8.0)],
        "phi": [mixture.log_phi(z) for z in (-200.0, -30.5, -30.0, -29.9, -3.0, -0.1, 0.0, 0.1, 2.0, 9.0)],
        "e": [
            mixture.log_e_normal(s, v, rho)
            for s, v, rho in product((-20.0, 0.0, 3.0, 60.0), (0.5, 30.0), (0.1, 9.0))
        ],
        "rho": [
            mixture.rho_for(v, alpha)
            for v, alpha in product((0.01, 5.0, 900.0), (0.001, 0.025, 0.05, 0.2, 0.4))
        ],
        "bound": [
            mixture.bound_normal(v, alpha, rho)
            for v, alpha, rho in product((0.01, 5.0, 900.0), (0.001, 0.05, 0.3), (0.1, 9.0))
        ],
        "lambert": [
            mixture._lambert_w_minus_1(x)
            for x in (-0.3678794, -0.36, -0.25, -0.2499, -0.1, -1e-5, -1 / math.e)
        ],
    }


@table
def named() -> Table:
    twenty = math.log(20)
    given = [
        {},
        {"a": twenty},
        {"a": 3.0},
        {"a": 3.7, "b": 2.4},
        {"a": math.nextafter(twenty, 0)},
        {"a": 0.0},
        {"a": math.log(40), "b": math.log(40)},
        {"a": math.log(39.9), "b": math.log(0.1)},
        {"a": math.log(40), "b": math.log(10)},
        {"b": 3.5, "a": 3.5, "c": -9.0},
        {"a": 700.0, "b": 800.0, "c": 2.9},
        {"a": 3.2, "b": 3.1, "c": 3.0, "d": 2.9},
        dict.fromkeys("dcba", 3.3),
        {"a": 5.0, "b": 4.0, "c": 1.0, "d": -1.0, "e": -20.0},
        {"a": 4.0, "b": 2.0, "c": 1.9, "d": 1.8},
    ]
    return {"five": [naming.hurt(one) for one in given], "twenty": [naming.hurt(one, 0.2) for one in given]}


@table
def mirrored() -> Table:
    pairs = [(0, 0), (1, 0), (0, 1), (5, 2), (2, 5), (30, 12), (0, 40), (400, 380)]
    return {
        "worse": each(paired.log_e_worse, *pairs),
        "not worse": [
            paired.log_e_not_worse(n, b, c, margin)
            for n, (b, c), margin in product((0, 40, 900), pairs, (0.0, 0.02, 0.5, 1.0))
            if n >= b + c or not n
        ],
        "p": each(paired.exact_p, *pairs),
        "interval": [
            paired.difference_interval(n, b, c)
            for n, (b, c) in product((0, 40, 900), pairs)
            if n >= b + c or not n
        ],
        "small": each(paired.difference_interval, (1, 1, 0), (1, 0, 1), (2, 0, 2)),
    }


STRATA = [
    (0, 0, 9, 1),
    (9, 1, 0, 0),
    (9, 0, 9, 0),
    (9, 9, 9, 9),
    (9, 1, 9, 2),
    (1, 1, 1, 0),
    (40, 30, 10, 2),
    (10, 2, 40, 39),
    (32, 5, 900, 90),
    (33, 5, 900, 90),
    (64, 20, 64, 12),
    (65, 21, 64, 12),
    (900, 32, 9_000, 1),
    (900, 33, 9_000, 0),
    (5_000, 600, 9_000, 700),
    (9_000, 8_990, 500, 400),
    (400, 400, 40_000, 300),
    (70, 0, 70, 70),
    (70, 70, 70, 0),
    (3, 0, 90, 60),
]
PSIS = (*rates.HARM_PSIS, *(psi for psi, _ in rates.SAFE_GRID if psi != 1), 0.01, 100.0)
ON_GRID = tuple(psi for psi, _ in (*rates.HARM_GRID, *rates.SAFE_GRID))


@table
def counted() -> Table:
    counts, llrs = (300, 31, 2_700, 210), rates.stratum_llrs(300, 31, 2_700, 210, ON_GRID)
    unseen = [*llrs[:3], rates.UNSEEN, *llrs[4:]]
    psis = (0.4, 0.65, 0.7, 1.0, 1.0 + 1e-10, 1.05, 1.2, 1.35, 2.9, 3.0, 5.0, 20.0, 25.0, 30.0)
    few = tuple(sorted(psis[:3]))
    return {
        "llr": [rates.stratum_llrs(*one, PSIS) for one in STRATA],
        "odds": each(
            rates.margin_odds_ratio, *product((0.0, 0.01, 0.3, 0.97, 1.0), (0.001, 0.0, 0.02, 0.2, 0.7))
        ),
        "alternatives": [
            rates.safe_alternatives(psi) for psi in (0.8, 0.9, 1.0, 1.05, 1.1, 1.2, 2.09, 2.11, 3.0, 25.0)
        ],
        "harm": [
            rates.harm_above(ON_GRID, given, psi, d)
            for given, psi, d in product((llrs, unseen), psis, (1.0, 2.5))
        ],
        "between": [rates.log_ratio_at(ON_GRID, given, psi) for given, psi in product((llrs, unseen), psis)],
        "of few": [rates.log_ratio_at(few, rates.stratum_llrs(*counts, few), psi) for psi in psis],
        "close": [
            rates.log_ratio_at((1.2, 1.2005, 1.21), [0.1, 0.2, 0.3], psi) for psi in (1.15, 1.2, 1.205)
        ],
        "mixture": [rates.log_mixture([0.1, 3.0, -2.0], [-1.0, -2.0, -0.5], d) for d in (1.0, 1.5)],
        "below": each(
            rates.log_e_below,
            *product((0, 40), (0, 3, 9), (0.0, 0.1, 1.0), (0.0, 0.01, 0.05, 0.1, 0.3), (1.0, 2.0)),
        ),
        "alone": each(
            rates.log_e_alone,
            *product((0, 40), (0, 3, 9), (0.0, 0.1, 1.0), (0.0, 0.05, 0.1, 0.3), (1.0, 2.0)),
        ),
        "above": each(rates.log_e_above, *product((0, 40), (0, 3, 9), (0.0, 0.1, 1.0), (1.0, 2.0))),
        "mh": [rates.mantel_haenszel(STRATA[:at]) for at in range(9)],
        "interval": each(
            rates.difference_interval,
            (0.1, 50.0, 200, 20),
            (0.1, 50.0, 200, 20, 3.0),
            (0.0, 50.0, 200, 0, 1.0, 0.01),
        ),
        "rate": each(
            rates.rate_interval, (200, 20), (200, 0), (200, 200), (20_000, 2_000, 3.0), (200, 20, 1.0, 0.01)
        ),
    }


def arm(n: int, cost: float, good: int, spread: float = 1.5) -> ratios.Moments:
    return ratios.Moments(n, cost * n, good, spread * cost * cost * n, cost * good * 0.9, good)


ARMS = [
    arm(200, 10.0, 180),
    arm(150, 14.0, 100),
    arm(100, 10.0, 90),
    arm(99, 10.0, 90),
    arm(2, 10.0, 1),
    arm(1, 10.0, 1),
    arm(200, 0.0, 180),
    arm(200, 10.0, 0),
    arm(200, 10.0, 200, 1.0),
    ratios.Moments(),
    ratios.Moments(50, 0.0, 50, 0.0, 0.0, 50),
    arm(200, 0.001, 180),
    arm(150, 0.002, 100),
]


@table
def ratio() -> Table:
    contrasts = [ratios.contrast(a, b) for a, b in product(ARMS, ARMS)]
    return {
        "arms": [
            [one.ratio, one.squared_error, one.relative_variance, list((one + ARMS[1]).figures)]
            for one in ARMS
        ],
        "contrasts": [[list(one.figures), one.ratio] for one in contrasts],
        "sum": list((contrasts[1] + contrasts[12]).figures),
        "log": [ratios.log_ratio(ratios.contrast(a, b), a) for a, b in product(ARMS, ARMS)],
        "errors": [
            ratios.squared_errors(ratios.contrast(a, b), a, b, d)
            for a, b, d in product(ARMS, ARMS, (1.0, 2.0))
        ],
        "enough": [ratios.enough(a, b) for a, b in product(ARMS, ARMS)]
        + each(ratios.enough, (ARMS[2], ARMS[3], 99)),
        "e": each(
            ratios.log_e, *product((-0.4, 0.0, 0.3), (0.0, 0.1), (0.001, 0.2), (0.0, 0.5), (0.01, 0.05))
        ),
        "interval": each(
            ratios.ratio_interval,
            *product((0.2, 1.5), (0.001, 0.4), (0.002, 900.0), (0.0, 0.5)),
            (1.0, 0.01, 0.02, 1.0, 0.2),
        ),
    }


@pytest.mark.parametrize("name", TABLES)
def test_it_matches_the_recorded_results(name: str) -> None:
    kept_before = json.loads(PATH.read_text())[name]
    assert list(differences(kept_before, as_json(TABLES[name]()), rel=1e-8)) == []


if __name__ == "__main__":
    write(PATH, {name: make() for name, make in TABLES.items()})
