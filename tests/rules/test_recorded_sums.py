"""Calibration, stored sums and the harm from plain counts at many points, compared with recorded results.

`test_recorded_formulae` explains what such tests show. `tests/vectors/sums.json` has the figures;
`python -m tests.rules.test_recorded_sums` writes them again.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pointsman.reporting.histogram import Histogram, index
from rollout_app.engine import calibration, rescue
from rollout_app.engine.evidence import ArmSums, GradedCosts, Group, Stage
from rollout_app.engine.measures import base, outlook, sufficient
from rollout_app.engine.measures.rate_parts import shrinkage
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats import combine, rates, ratios, srm
from tests.support.recorded import as_json, differences, each, write

PATH = Path(__file__).parents[1] / "vectors" / "sums.json"
Table = Mapping[str, Any]
TABLES: dict[str, Callable[[], Table]] = {}


def table(make: Callable[[], Table]) -> Callable[[], Table]:
    TABLES[make.__name__] = make
    return make


STRATA = [(9, 1, 9, 2), (1, 1, 1, 0), (40, 30, 10, 2), (10, 2, 40, 39), (32, 5, 900, 90)]
PSIS = (*rates.HARM_PSIS, 0.65, 0.01, 100.0)


def arm(n: int, cost: float, good: int) -> ratios.Moments:
    return ratios.Moments(n, cost * n, good, 1.5 * cost * cost * n, cost * good * 0.9, good)


def histogram(*values: tuple[float, int]) -> Histogram:
    counts: dict[int, int] = {}
    for value, times in values:
        bucket = index(value)
        assert bucket is not None
        counts[bucket] = counts.get(bucket, 0) + times
    return Histogram(counts=counts)


def tailed(tail: int, factor: float) -> Histogram:
    """Return a thousand costs around 100, of which `tail` are `factor` times as high."""
    return histogram(
        *((80 + 2 * at, 49) for at in range(20)), (100 * factor, tail), (100 * factor * 3, tail // 3)
    )


BEFORE = ArmSums(
    tasks=1_000,
    successes=850,
    failures=120,
    errors=17,
    escalations=130,
    fallbacks=9,
    retries=31,
    cost_n=990,
    costs=GradedCosts(960, 840, 96_000, 1.4e7, 82_000, 99_000),
    quality_n=900,
    quality=700.0,
    quality_sq=560.0,
)


@table
def calibrated() -> Table:
    latency = histogram(*((100 + 10 * at, 30) for at in range(40)))
    none = Histogram(counts={})
    groups = {at: Group(30 + 5 * at, 3 + at) for at in range(8)}
    base_case: dict[str, Any] = {"latency": latency, "cost": tailed(12, 20)}
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        **{
            f"tail of {tail}, {factor}": {"cost": tailed(tail, factor)}
            for tail, factor in ((3, 9), (12, 60), (24, 90), (36, 200), (90, 90))
        },
        "nothing": {"latency": none, "cost": none},
        "few": {"cost": histogram((100, 3)), "latency": histogram((9, 2))},
        "sticky": {"unit_is_request": False, "groups": groups, "cells": {3: (5, 1, 6, 2)}},
        "sticky, unseen": {"unit_is_request": False},
        "not sticky": {"groups": groups, "cells": {3: (5, 1, 6, 2)}},
        "declared": {"latency_tolerance_ms": 250.0},
        "declared nothing": {"latency_tolerance_ms": 0.0},
        "adds one": {"mechanisms": ("retry",), "candidate_mechanisms": ("escalate",)},
        "adds none": {"mechanisms": ("retry", "escalate"), "candidate_mechanisms": ("escalate",)},
        "adds one, nothing known": {"mechanisms": (), "candidate_mechanisms": ("retry",), "latency": none},
        "nobody looked": {"candidate_mechanisms": ("retry",)},
    }
    arms = {"before": BEFORE, "empty": ArmSums(), "none good": ArmSums(tasks=50, failures=50, cost_n=50)}
    found = {
        f"{name}, {what}": calibration.calibrate(given, **{**base_case, **case})
        for (name, given), (what, case) in product(arms.items(), cases.items())
    }
    stages = [Stage("percentage", 5_000, skippable=True), Stage("full", tolerance=5.0)]
    return {
        "references": {name: one.as_dict() for name, one in found.items()},
        "noise": [
            Reference(1, cost_v=a, cost_uncapped_v=b).tail_noise
            for a, b in product((None, 0.0, 2.0, 4.0), (None, 0.0, 3.0))
        ],
        "needed": [
            calibration.outcomes_needed(given, sticky=sticky)
            for given, sticky in product((stages, stages[1:], stages[:1], []), (True, False))
        ],
        "again": [
            Reference.from_dict(json.loads(json.dumps(one.as_dict()))) == one for one in found.values()
        ],
        "older": Reference.from_dict({"outcomes": 5, "cost_whole_v": 2.0}).as_dict(),
    }


# --- statistics that are kept ----------------------------------------------------------------------------


class Grows:
    """A fake measure: its evidence is linear in the number of future tasks and falls with the design effect."""

    def __init__(self, n: int, slope: float) -> None:
        self.n, self.slope = n, slope

    def tasks(self) -> tuple[float, float]:
        return self.n, 0

    def safe_after(self, stretch: float, margin: float, conditions: base.Conditions) -> float:
        return margin + self.slope * stretch / conditions.deff


@table
def kept() -> Table:
    rate = sufficient.RateStatistics(PSIS)
    for counts in STRATA:
        rate.add(counts)
    part = sufficient.MissingStatistics()
    part.add_later(3, 2)
    part.add(5, 100, 20, 900)
    part.add(1, 50, 0, 300)
    part.add_later(3, 2)
    money = sufficient.RatioStatistics()
    money.add(arm(200, 10.0, 180), arm(150, 14.0, 100), (2_100, 2_500))
    money.add(arm(200, 10.0, 0), arm(200, 10.0, 0), (50, 60))
    money.add(arm(150, 14.0, 100), arm(100, 10.0, 90))
    stretches = (0.0, 0.5, 3.0)
    needed = [
        outlook.needed_tasks(Grows(n, slope), margin, base.Conditions(deff=d), least)  # type: ignore[arg-type]
        for n, slope, margin, d, least in product(
            (0, 1, 100), (0.0, 0.001, 0.5, 12.0), (-1.0, 2.9), (1.0, 3.0), (0, 1, 500, 2_000_000)
        )
    ]
    return {
        "rate": [
            rate.as_dict(),
            *(rate.after(stretch, share).dump() for stretch, share in product(stretches, (0.0, 0.4, 1.0))),
        ],
        "missing": [part.as_dict(), *(part.after(stretch).dump() for stretch in stretches)],
        "excess": [asdict(part.excess(z, d)) for z, d in product((0.5, 1.0), (1.0, 2.0))]
        + [asdict(sufficient.MissingStatistics().excess(1.0))],
        "ratio": [
            money.as_dict(),
            money.uncapped_ratio,
            *(money.after(stretch, f).dump() for stretch, f in product(stretches, (0.5, 1.0))),
        ],
        "ratio errors": [money.squared_errors(1.0), money.squared_errors(2.0), money.squared_errors(2.0)],
        "none": [
            *(
                sufficient.RatioStatistics(uncapped_a=a, uncapped_b=b).uncapped_ratio
                for a, b in product((0.0, 0.5, 3.0), (0.0, 0.5, 3.0))
            ),
            sufficient.RateStatistics(()).difference,
        ],
        "older": sufficient.RateStatistics.load_older(PSIS, [9, 1, 8, 2, 0.5, 4.0, 0.1, 0.2]).dump(),
        "shrinkage": [shrinkage(rate, margin, d) for margin, d in product((0.0, 0.02, 0.2), (1.0, 3.0))]
        + [shrinkage(sufficient.RateStatistics(()), 0.02, 1.0)],
        "kept": each(base.kept_of, (0.1, 0.001), (0.1, 0.0)),
        "pace": [
            asdict(outlook.pace_of(arms, share, window))
            for arms, share, window in product(
                ([], [(0, 9)], [(50, 950), (0, 5), (300, 700)], [(9, 0)]), (0.0, 0.5, 1.0), (0.0, 7.3)
            )
        ],
        "needed": needed,
    }


@table
def rescued() -> Table:
    def minutes(
        nt: int, xt: int, ut: int, nc: int, xc: int, uc: int, times: int = 6, step: int = 1, stage: int = 1
    ) -> list[rescue.PlainMinute]:
        return [rescue.PlainMinute(stage, step * at, nt, xt, ut, nc, xc, uc) for at in range(times)]

    given = {
        "none": [],
        "one arm": minutes(9, 1, 0, 0, 0, 0),
        "equal": minutes(20, 2, 0, 80, 8, 0),
        "worse": minutes(20, 9, 0, 80, 8, 0),
        "fifty": minutes(10, 3, 2, 36, 3, 2),
        "forty-nine": minutes(10, 3, 2, 35, 3, 2),
        "an hour": minutes(3, 1, 0, 9, 1, 0, step=30),
        "just not": minutes(3, 1, 0, 9, 1, 0, step=59),
        "two stages": minutes(3, 2, 0, 9, 1, 0) + minutes(3, 2, 1, 9, 1, 1, stage=2),
        "all fail": minutes(20, 20, 0, 80, 80, 0),
        "none fails": minutes(20, 0, 0, 80, 0, 0),
        "its failures have no grade": minutes(20, 5, 9, 80, 8, 1),
        "the baseline's have none": minutes(20, 9, 0, 80, 8, 30),
        "far worse": minutes(20, 20, 0, 80, 8, 0, times=3),
        "all of it has no grade": minutes(1, 1, 99, 80, 60, 0),
        "backwards": minutes(3, 2, 0, 9, 1, 0)[::-1],
    }
    found = {
        f"{name} {weight} {d} {sticky}": rescue.failures_alone(rows, weight=weight, deff=d, sticky=sticky)
        for (name, rows), (weight, d, sticky) in product(
            given.items(), ((1.0, 1.0, False), (0.3, 2.0, False), (0.3, 2.0, True))
        )
    }
    reached = [
        rescue.PlainHarm(log_e, difference, 5, 3).reaches(0.1)
        for log_e, difference in product((rescue.ENOUGH, 2.9), (0.1, 0.0999))
    ]
    return {"harm": {name: one and one.as_dict() for name, one in found.items()}, "reaches": reached}


@table
def shares_and_sums() -> Table:
    segments = [(0.05, 40, 1_000), (0.5, 700, 300), (0.0, 5, 5), (1.0, 5, 5), (0.3, 0, 0)]
    return {
        "srm": [srm.log_e_srm(segments[:at], spread) for at, spread in product(range(6), (0.0, 0.01))],
        "sum": [
            combine.log_sum_exp(one)
            for one in ([], [0.0], [-math.inf], [math.inf, 1.0], [700.0, 701.0], iter([1.0, 2.0]))
        ],
        "weighted": [
            combine.weighted(one)
            for one in ([], [(0.0, 5.0)], [(0.2, 3.0), (0.8, -1.0)], [(-0.1, 3.0), (0.5, 0.0)])
        ],
        "margin": each(
            combine.stage_margin,
            (0.02, 0.2, 0.5),
            (0.02, 0.2, 0.01),
            (0.02, 0.2, 0.1),
            (0.02, 0.2, 0.0),
            (0.02, 0.2, -1.0),
        ),
        "breach": each(combine.missing_breach, (19, 0), (20, 0), (20, 1), (21, 0)),
        "borders": [
            combine.LOG_ROLL_BACK,
            combine.LOG_SAFE,
            combine.LOG_AMBER,
            combine.LOG_SUSPICION,
            srm.LOG_MISMATCH,
        ],
    }


@pytest.mark.parametrize("name", TABLES)
def test_it_matches_the_recorded_results(name: str) -> None:
    kept_before = json.loads(PATH.read_text())[name]
    assert list(differences(kept_before, as_json(TABLES[name]()), rel=1e-8)) == []


if __name__ == "__main__":
    write(PATH, {name: make() for name, make in TABLES.items()})
