"""The shadow gate, plans, windows and guardrails at each limit, compared with recorded results.

`tests/vectors/plans.json` has the results. If you change one on purpose, write the file again with
`python -m tests.rules.test_recorded_plans` and review the diff.
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

from controlplane.core.errors import PlanRefused
from rollout_app.engine import plans, shadow, windows
from rollout_app.engine.evidence import (
    ArmSums,
    Differing,
    Group,
    MinuteRow,
    MirrorSums,
    ShadowSums,
    SliceSums,
    Stage,
)
from rollout_app.engine.guardrails import Guardrail, guardrails_for
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import Event, IllegalTransition, State
from tests.support.evidence_builders import NOW, STAGES
from tests.support.recorded import as_json, differences, write

PATH = Path(__file__).parents[1] / "vectors" / "plans.json"
Table = Mapping[str, Any]
TABLES: dict[str, Callable[[], Table]] = {}


def table(make: Callable[[], Table]) -> Callable[[], Table]:
    TABLES[make.__name__] = make
    return make


def refused(stages: Any) -> Any:
    try:
        return plans.check(stages)
    except PlanRefused as error:
        return [str(error), error.extra]


@table
def gates() -> Table:
    base = ShadowSums(1_000, 900, 1, 1_000, 1_000, 1_000, 1_000, 900, {"a": 5, "b": 6}, {"a": 1, "c": 3})
    varied = {
        "base": base,
        "none": ShadowSums(),
        "unknown": replace(base, candidate_priced=None, candidate_cost_nusd=0),
        "none said": replace(base, candidate_priced=None, baseline_priced=None),
        "known by a sum": replace(base, candidate_priced=None),
        "two errors": replace(base, evaluation_errors=2),
        **{f"{priced} priced": replace(base, candidate_priced=priced) for priced in (899, 900)},
        **{
            f"{priced} of the baseline's": replace(base, baseline_priced=priced)
            for priced in (899, 900, None)
        },
        **{f"cost {cost}": replace(base, candidate_cost_nusd=cost) for cost in (1_100, 1_101, 900)},
        "from nothing": replace(base, baseline_cost_nusd=0),
        "both nothing": replace(base, baseline_cost_nusd=0, candidate_cost_nusd=0),
        "not whole": replace(base, candidate_whole=899),
        "no whole": replace(base, candidate_whole=None),
        "one side's routes": replace(base, candidate_routes={}),
    }
    costs = [
        None,
        *(
            shadow.SecondStageCosts(low, 0.5, expected)
            for low, expected in product((None, 0.1, 0.11), (None, 0.1, 0.11))
        ),
    ]
    mirrors = [
        MirrorSums(),
        *(
            MirrorSums(n, 0, won, lost, 0)
            for n, won, lost in (
                (100, 5, 5),
                (100, 0, 2),
                (1_000, 5, 60),
                (1_000, 0, 20),
                (1_000, 0, 19),
                (100, 1, 40),
                (4_000, 5, 5),
                (300, 2, 2),
            )
        ),
    ]
    return {
        "gate": {
            f"{name} {least} {margin}": shadow.gate(one, min_decisions=least, cost_margin=margin)
            for (name, one), least, margin in product(varied.items(), (0, 1_000, 1_001), (None, 0.1))
        },
        "second stage": {
            name: [shadow.gate(one, min_decisions=1, cost_margin=0.1, second_stage=cost) for cost in costs]
            for name, one in varied.items()
        },
        "mirror": [
            shadow.mirror_gate(one, margin=0.02, stage_margin=stage)
            for one, stage in product(mirrors, (0.02, 0.2))
        ],
        "report": [
            asdict(shadow.shadow_report(one, mirror)) for one, mirror in product(varied.values(), mirrors[:3])
        ],
    }


@table
def planned() -> Table:
    full, percent = {"mode": "full"}, {"mode": "percentage", "share_pcm": 5_000}
    stages = [
        *(
            {**percent, **field}
            for field in (
                {},
                {"speed": 1, "a": 2},
                {"share_pcm": 0},
                {"min_minutes": -1},
                {"min_tasks": -1},
                {"max_hours": 0},
                {"on_timeout": "x"},
                {"approval": 1},
                {"skippable": 1},
                {"skippable": True},
                {"tolerance": 0.9},
                {"tolerance": 1},
                {"tolerance": 10},
                {"tolerance": 10.1},
                {"mirror_pcm": 1},
                {"mirror_pcm": -1},
            )
        ),
        {"mode": "shadow", "share_pcm": 4},
        {"mode": "shadow", "skippable": True},
        {"mode": "shadow"},
        {"mode": "x"},
        7,
    ]
    lists = [
        [full],
        None,
        [],
        "x",
        [full, full],
        [percent, percent, full],
        [percent, {"mode": "shadow"}, full],
        [percent],
        [{**full, "share_pcm": 5}],
    ]
    warned = [Stage("percentage", 5, min_tasks=n, min_minutes=m) for n, m in product((0, 1), (0, 1))] + [
        Stage("shadow"),
        Stage("full", tolerance=1.0),
        Stage("full", tolerance=1.5),
    ]
    return {
        "saved": plans.SAVED,
        "stage": [refused([one, full]) for one in stages],
        "list": list(map(refused, lists)),
        "warned": plans.warnings(warned),
        "labels": [[s.label, s.named] for s in (*STAGES, Stage("percentage", 1_250))],
    }


@table
def windowed() -> Table:
    noon = int(NOW.timestamp() // 60)

    def row(
        minute: int, tasks: int, stage: int = 1, decided: int | None = 7, pairs: int | None = 2
    ) -> MinuteRow:
        sums = ArmSums(
            tasks=tasks // 2,
            successes=tasks // 3,
            errors=1,
            cost_over=(3, 2, 1),
            decided=decided,
            quality=0.5,
        )
        differing = (
            None
            if pairs is None
            else Differing(tasks // 2, {"a": SliceSums(pairs, 1), f"b{minute % 2}": SliceSums(1)}, pairs)
        )
        part = {
            "/a": (SliceSums(tasks // 4, 2, 1), SliceSums(3)),
            f"/{minute % 3}": (SliceSums(1), SliceSums()),
        }
        cells = {5: Group(tasks // 4, 1), minute % 4: Group(2, 1)}
        return MinuteRow(
            stage,
            minute,
            sums,
            replace(sums, decided=None if minute % 5 == 0 else 4),
            {minute % 2: Group(3, 1)},
            None,
            part,
            differing,
            differing,
            cells,
            cells,
        )

    streams = {
        "full ones": [row(minute, 60) for minute in range(4)],
        "thin ones": [row(minute, 20) for minute in range(9)],
        "forty-nine": [row(0, 48), row(1, 1), row(2, 2), row(3, 50)],
        "an hour": [row(minute, 2) for minute in range(0, 200, 20)],
        "59 minutes": [row(0, 2), row(59, 2), row(60, 2), row(119, 2)],
        "stages": [row(minute, 30, stage) for stage in (2, 1) for minute in range(4)],
        "not told": [row(0, 20, pairs=None), row(1, 40)],
        "not told of nothing": [row(0, 0, pairs=None), row(1, 60)],
        "not decided": [row(0, 20, decided=None), row(1, 40)],
        "decided of nothing": [row(0, 0, decided=None), row(1, 60)],
    }
    closed = {}
    for (name, rows), before, cursors in product(streams.items(), (3, 61, 500), ({}, {1: 2})):
        strata, moved = windows.close_windows(rows, before=before, cursors=cursors)
        closed[f"{name} {before} {cursors}"] = [[asdict(one) for one in strata[:2]], len(strata), moved]
    closes = [
        windows.closes_before(
            now=NOW, lag_s=lag, newest_minute=noon + newest, last_received_at=NOW - timedelta(seconds=ago)
        )
        - noon
        for lag, newest, ago in product((0, 90, 600), (-30, 0, 5), (0, 59, 60, 149, 150, 659, 660, 661))
    ]
    return {"closed": closed, "closes": closes}


@table
def guarded() -> Table:
    overrides: list[list[dict[str, Any]]] = [
        [],
        [{"metric": "failure", "enabled": False}],
        [{"metric": "failure", "enabled": None, "margin": 0.05}],
        [{"metric": "quality"}],
        [{"metric": "error", "weight": 0.5}],
        [{"metric": "failure", "bound": 0.1}],
        [{"metric": "cost_per_success", "bound": 5}],
        [{"metric": "quality", "bound": 0.5, "margin": 0.3, "weight": 0.2}],
        *(
            [{"metric": "failure", **wrong}]
            for wrong in (
                {"bound": 0},
                {"bound": 1},
                {"bound": -1},
                {"margin": 0},
                {"weight": 0},
                {"margin": math.nan},
                {"bound": 0.999},
            )
        ),
        [{"metric": "cost_per_success", "bound": math.inf}],
        [{"metric": "cost_per_success", "bound": 1}],
        [{"metric": "speed"}],
    ]

    def chosen(given: list[dict[str, Any]]) -> Any:
        try:
            return [one.as_dict() for one in guardrails_for(given)]
        except ValueError as error:
            return str(error)

    references = [
        Reference(1),
        Reference(1, mechanisms=()),
        Reference(
            1, mechanisms=("escalate", "fallback", "retry"), latency_edge=1, cost_edge=1, mean_quality=0.5
        ),
    ]
    return {
        "chosen": list(map(chosen, overrides)),
        "why not": [
            [Guardrail(metric, 0.1, 0.1, bound).why_not(one) for one in references]
            for metric, bound in product(Metric, (None, 0.1))
        ],
        "names": [
            [one.name, one.gates]
            for one in (Guardrail(metric, 0.1, 0.1, bound) for metric, bound in product(Metric, (None, 0.1)))
        ],
        "read again": [Guardrail.from_dict({"metric": "error", "margin": 0.1, "weight": 0.2}).as_dict()],
        "metrics": [
            {
                name: value
                for name in one.spec.__dataclass_fields__
                if not callable(value := getattr(one.spec, name))
            }
            | {"cap": one.spec.cap}
            for one in Metric
        ],
        "refused": [
            str(IllegalTransition(state, event))
            for state, event in product(State, (Event.REVERT, Event.ROLL_BACK))
        ],
    }


@pytest.mark.parametrize("name", TABLES)
def test_it_matches_the_recorded_results(name: str) -> None:
    before = json.loads(PATH.read_text())[name]
    assert list(differences(before, as_json(TABLES[name]()))) == []


if __name__ == "__main__":
    write(PATH, {name: make() for name, make in TABLES.items()})
