"""Verdicts in words, holds and decisions at each limit, compared with recorded results.

`tests/vectors/sentences.json` has the figures of the sentences. If you change one on purpose, write the file again with
`python -m tests.rules.test_recorded_sentences` and review the diff.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rollout_app.engine.decide import decide
from rollout_app.engine.evidence import (
    ArmSums,
    FleetView,
    MirrorSums,
    ShadowSums,
    Telemetry,
)
from rollout_app.engine.explain import (
    change,
    evidence_of,
    harm_of,
    lacking_of,
    missing_of,
    outlook_of,
    units_of,
)
from rollout_app.engine.holds import Evidence, reasons_to_hold
from rollout_app.engine.judgement import Judgement, StageTally, UnitsSeen
from rollout_app.engine.measures.shares import DIFFERING, MISSING, ShareVerdict
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import LOG_AMBER, LOG_ROLL_BACK
from rollout_app.engine.stats.srm import LOG_MISMATCH
from rollout_app.engine.verdicts import SliceVerdict, Verdict, VerdictResult
from tests.support.evidence_builders import FLEET, NOW, REFERENCE, STAGES, evidence, view
from tests.support.recorded import as_json, differences, each, write

PATH = Path(__file__).parents[1] / "vectors" / "sentences.json"
Table = Mapping[str, Any]
TABLES: dict[str, Callable[[], Table]] = {}


def table(make: Callable[[], Table]) -> Callable[[], Table]:
    TABLES[make.__name__] = make
    return make


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


def verdict(
    metric: Metric = Metric.FAILURE, result: VerdictResult = VerdictResult.PASS, **changed: Any
) -> Verdict:
    one = Verdict(
        metric.value,
        metric,
        result,
        80,
        1_000,
        0.031,
        None,
        None,
        0.0,
        1.2,
        0.02,
        0.08,
        0.3,
        counted=False,
        gates=True,
    )
    return replace(one, **changed)


def slices(n: int) -> tuple[SliceVerdict, ...]:
    return (
        *(SliceVerdict(f"endpoint /{at}", 0.1 + at / 100, 5.0, hurt=True) for at in range(n)),
        SliceVerdict("x", 0.2, 1.0, hurt=False),
    )


HARMED = verdict(result=VerdictResult.FAIL, counted=True, log_e_counted=9.0, estimate=0.12)


@table
def words() -> Table:
    bounds = [replace(verdict(metric), name=f"{metric.value}_bound") for metric in Metric]
    late = replace(HARMED, counted_since=2, counted_estimate=0.2)
    shares = [
        ShareVerdict(kind, 0.12, 0.01, 50, 900, 0.11, 9.0, shown=True) for kind in (*MISSING, DIFFERING)
    ]
    open_ones = [
        (),
        (verdict(result=VerdictResult.NO_DATA), verdict(Metric.ERROR, VerdictResult.NO_DATA)),
        (
            verdict(result=VerdictResult.INCONCLUSIVE),
            verdict(Metric.ERROR, VerdictResult.INCONCLUSIVE, needed_tasks=9),
        ),
        *(
            (
                verdict(result=VerdictResult.INCONCLUSIVE, needed_tasks=n),
                verdict(Metric.ERROR, VerdictResult.INCONCLUSIVE, needed_tasks=3),
            )
            for n in (2, 99, 100, 101, 109, 110, 999, 1_000, 1_001, 12_345)
        ),
        (verdict(result=VerdictResult.INCONCLUSIVE, gates=False),),
    ]
    codes = (
        "freeze",
        "srm",
        "telemetry",
        "baseline_unhealthy",
        "environment",
        "incomplete",
        "evaluation_failed",
        "unguarded",
        "shadow",
        "mirror",
        "amber",
        "fleet",
        "approval",
        "other",
    )
    return {
        "evidence": [
            evidence_of(math.log(e)) for e in (0.04, 0.44, 4.96, 19.94, 19.99, 20.01, 37.4, 999, 1_001, 1e9)
        ]
        + [evidence_of(math.log(1_000)), evidence_of(below(math.log(20)))],
        "change": [
            [change(one, value) for value in (None, -0.1, 0.0, 0.1234, 9e5)]
            for one in (*map(verdict, Metric), *bounds)
        ],
        "harm": [
            harm_of(replace(one, slices=slices(n)), STAGES) for one in (HARMED, late) for n in (0, 1, 3, 4, 5)
        ],
        "lacking": [
            lacking_of(verdict(result=result, note=note), STAGES)
            for result, note in product(VerdictResult, ("", "Why not.", "No dot"))
        ],
        "missing": list(map(missing_of, shares)),
        "units": each(
            units_of,
            (None,),
            *(
                (UnitsSeen(tuple(range(n)), 0.25, d),)
                for n, d in product((0, 1, 2, 3, 4), (1.0, 1.5, below(1.5), 3.14))
            ),
        ),
        "outlook": [outlook_of(code, Judgement((), 0.0, 0.0, {})) for code in codes],
        "needed": [outlook_of("evidence", Judgement(found, 0.0, 0.0, {})) for found in open_ones],
    }


# --- holds and decisions ---------------------------------------------------------------------------------


def judgement(*verdicts: Verdict, **changed: Any) -> Judgement:
    tallies = {1: StageTally(50, 950, 9, 0, 9, candidate_split=50, baseline_split=950)}
    return replace(Judgement(verdicts or (verdict(),), -3.0, 0.0, tallies), **changed)


def rates(failure: float, n: int) -> ArmSums:
    return ArmSums(tasks=n, successes=n - round(failure * n), failures=round(failure * n))


PLAN = (
    *STAGES[:2],
    replace(STAGES[2], skippable=True),
    replace(STAGES[3], skippable=True),
    replace(STAGES[4], approval=True),
    STAGES[5],
)
SKEWED = {
    1: StageTally(candidate_split=90, baseline_split=910),
    2: StageTally(candidate_split=500, baseline_split=1_000),
    5: StageTally(candidate_split=9),
}
LEVELS = Reference(5_000, {"failure": 0.1, "error": 0.01, "fallback": 0.02})


def seen() -> dict[str, Evidence]:
    hour = {
        f"an hour of {n}, {x}": {"baseline_last_hour": rates(x, n), "reference": LEVELS}
        for n, x in (
            (19, 1.0),
            (20, 1.0),
            (20, 0.15),
            (400, 0.18),
            (400, 0.19),
            (400, 0.1775),
            (100, 0.16),
            (100, 0.2),
        )
    }
    others = ArmSums(tasks=100, successes=95, failures=5, errors=30, fallbacks=4)
    found: dict[str, dict[str, Any]] = {
        "well": {},
        **hour,
        "errors": {"baseline_last_hour": others, "reference": LEVELS},
        "fallbacks": {"baseline_last_hour": replace(others, errors=1, fallbacks=90), "reference": LEVELS},
        "a high level": {
            "baseline_last_hour": rates(0.3, 400),
            "reference": LEVELS,
            "judgement": judgement(units=UnitsSeen(baseline_level=0.3)),
        },
        "a low level": {
            "baseline_last_hour": rates(0.3, 400),
            "reference": LEVELS,
            "judgement": judgement(units=UnitsSeen(baseline_level=0.01)),
        },
        **{f"known {n}": {"reference": replace(REFERENCE, outcomes=n)} for n in (999, 1_000, 0)},
        **{
            f"sticky, known {n}": {"reference": replace(REFERENCE, outcomes=n, sticky=True)}
            for n in (999, 19_999, 20_000)
        },
        **{
            f"newest {s} s ago": {"telemetry": Telemetry(30, 20, NOW - timedelta(seconds=s))}
            for s in (600, 601, 3_600)
        },
        "never": {"telemetry": Telemetry(19, 0, None)},
        "not heard of": {"telemetry": Telemetry(20, 0, None)},
        "heard of": {"telemetry": Telemetry(20, 1, NOW)},
        "at the border of a mismatch": {"judgement": judgement(srm_log_e=LOG_MISMATCH, tallies=SKEWED)},
        "below it": {"judgement": judgement(srm_log_e=below(LOG_MISMATCH), tallies=SKEWED)},
        "a mismatch of nothing": {"judgement": judgement(srm_log_e=9.0, tallies={})},
        "a mismatch elsewhere": {
            "judgement": judgement(
                srm_log_e=9.0,
                tallies={
                    1: StageTally(candidate_split=50, baseline_split=950),
                    3: StageTally(candidate_split=10, baseline_split=20),
                },
            )
        },
        "they differ": {
            "judgement": judgement(
                differing_mismatch=ShareVerdict(DIFFERING, 0.5, 0.2, 9, 9, 0.3, 9.0, shown=True)
            )
        },
        "incomplete": {
            "judgement": judgement(
                missing=tuple(
                    ShareVerdict(kind, 0.5, 0.2, 9, 9, d, 9.0, shown=shown)
                    for kind, d, shown in zip(
                        MISSING, (0.1, -0.3, 0.2, 0.9), (True, True, True, False), strict=True
                    )
                )
            )
        },
        "unguarded": {"judgement": judgement(unguarded=True)},
        "broken": {"judgement": judgement(broken=("a", "b", "c", "d"))},
        "amber": {"judgement": judgement(HARMED, log_e=LOG_AMBER)},
        "nearly amber": {"judgement": judgement(HARMED, log_e=below(LOG_AMBER))},
        "amber of none": {"judgement": judgement(log_e=2.0)},
        "rolled back": {
            "judgement": judgement(
                HARMED,
                *(
                    replace(HARMED, name=m.value, metric=m, log_e_counted=5.0 + i, weight=0.1 * (1 + i))
                    for i, m in enumerate((Metric.ERROR, Metric.RETRY, Metric.ESCALATION))
                ),
                log_e=LOG_ROLL_BACK,
            )
        },
        "nearly": {"judgement": judgement(HARMED, log_e=below(LOG_ROLL_BACK))},
        "open": {
            "judgement": judgement(
                verdict(result=VerdictResult.INCONCLUSIVE, needed_tasks=300),
                verdict(Metric.RETRY, VerdictResult.INCONCLUSIVE, log_e_safe=0.1, needed_tasks=20),
            )
        },
        "one open": {
            "judgement": judgement(
                verdict(result=VerdictResult.INCONCLUSIVE), units=UnitsSeen((3,), 0.2, 2.0)
            )
        },
        "unknown": {
            "judgement": judgement(
                verdict(result=VerdictResult.INCONCLUSIVE, log_e_safe=-9.0),
                verdict(Metric.RETRY, VerdictResult.NO_DATA),
            )
        },
        **{f"{n} tasks": {"judgement": judgement(tallies={1: StageTally(n, 900)})} for n in (0, 49, 50)},
        **{f"furthest {to}": {"judgement": judgement(furthest=to)} for to in (None, 2, 3, 4, 5)},
        "in shadow": {"shadow": ShadowSums(50, 40, 0, 900, 1_000), "mirror": MirrorSums(300, 280, 5, 5, 10)},
    }
    return {
        name: evidence(changed.pop("judgement", judgement()), **changed) for name, changed in found.items()
    }


@table
def holds() -> Table:
    fleets = {
        "all": FLEET,
        "nobody": FleetView(0, 0),
        "19 of 20": FleetView(20, 19),
        "18 of 20": FleetView(20, 18),
        "refused": FleetView(9, 9, ("a", "b", "c", "d")),
    }
    mirrored = (replace(STAGES[0], mirror_pcm=5_000), *STAGES[1:])
    views = {
        **{f"stage {stage}": view(stage, stages=PLAN) for stage in range(6)},
        "frozen": view(freeze="It is the year's end."),
        "paused": view(state=State.PAUSED),
        "mirrored": view(0, stages=mirrored),
        "mirrored before full": view(0, stages=(mirrored[0], STAGES[5])),
        "approved": view(3, stages=PLAN, next_stage_approved=True),
        "not yet": view(3, stages=PLAN),
        **{f"{minutes} min": view(minutes=minutes) for minutes in (14.5, 15, 0)},
        "after a pause": view(minutes=30, paused_seconds=960),
        **{f"{hours} h": view(minutes=60 * hours) for hours in (71.9, 72, 100)},
        "rolls back in time": view(
            minutes=60 * 72, stages=(STAGES[0], replace(STAGES[1], on_timeout="roll_back"), *STAGES[2:])
        ),
    }
    found = {}
    for (where, rollout), (what, known) in product(views.items(), seen().items()):
        if where in ("stage 1", "stage 0", "stage 5", "stage 2", "mirrored") or what in ("well", "open"):
            found[f"{where}, {what}"] = said(rollout, known, FLEET)
    found |= {
        f"fleet {name}": said(views["stage 1"], seen()["well"], fleet) for name, fleet in fleets.items()
    }
    return found


def said(rollout: Any, known: Evidence, fleet: FleetView) -> list[Any]:
    reasons = [[one.code, one.sentence, one.outlook] for one in reasons_to_hold(rollout, known, fleet, NOW)]
    decision = decide(rollout, known, fleet, NOW)
    return [
        type(decision).__name__,
        {**asdict(decision), "verdicts": [v.name for v in getattr(decision, "verdicts", ())]},
        *reasons[1:],
    ]


@pytest.mark.parametrize("name", TABLES)
def test_it_matches_the_recorded_results(name: str) -> None:
    before = json.loads(PATH.read_text())[name]
    assert list(differences(before, as_json(TABLES[name]()))) == []


if __name__ == "__main__":
    write(PATH, {name: make() for name, make in TABLES.items()})
