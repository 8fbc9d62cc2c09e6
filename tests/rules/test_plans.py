"""The rules for plans, each just within and just beyond its limits, and the saved plans."""

from typing import Any

import pytest

from controlplane.core.errors import PlanRefused
from rollout_app.engine.evidence import Stage
from rollout_app.engine.plans import MAX_STAGES, SAVED, check, warnings

FULL: dict[str, Any] = {"mode": "full"}
SHADOW: dict[str, Any] = {"mode": "shadow"}


def percent(share_pcm: Any = 5_000, **fields: Any) -> dict[str, Any]:
    return {"mode": "percentage", "share_pcm": share_pcm, **fields}


def problems(stages: Any) -> list[str]:
    """Return the paths of all problems; empty if the plan is accepted."""
    try:
        check(stages)
    except PlanRefused as refused:
        return [problem["path"] for problem in refused.extra["problems"]]
    return []


@pytest.mark.parametrize("stages", [None, {}, "full", 7, [], [FULL] * (MAX_STAGES + 1)])
def test_it_refuses_anything_but_a_list_of_stages(stages: Any) -> None:
    with pytest.raises(PlanRefused):
        check(stages)


def test_it_accepts_the_maximum_number_of_stages() -> None:
    shares = [percent(share) for share in range(1, MAX_STAGES)]
    assert problems([*shares, FULL]) == []
    with pytest.raises(PlanRefused, match="1 to 20 stages"):
        check([SHADOW, *shares, FULL])


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        (SHADOW, []),
        ({**SHADOW, "min_tasks": 0}, ["stages[0].min_tasks: as soon as one shadow decision is reported"]),
        ({**SHADOW, "min_minutes": 0}, ["stages[0].min_minutes: as soon as one shadow decision is reported"]),
        (percent(min_tasks=0, min_minutes=0), ["stages[0].min_tasks: as soon as one of its tasks is judged"]),
        (percent(), []),
    ],
)
def test_it_warns_of_a_stage_without_evidence_of_its_own_unless_it_is_the_last(
    stage: dict[str, Any], found: list[str]
) -> None:
    stages = [Stage.from_dict(raw) for raw in check([stage, FULL])]
    said = [(one["path"], one["message"]) for one in warnings(stages)]
    assert said == [
        (path, f"0 lets the rollout leave this stage {when}.")
        for path, when in (one.split(": ") for one in found)
    ]


@pytest.mark.parametrize("raw", [None, 5, "full", [FULL]])
def test_it_refuses_an_invalid_stage(raw: Any) -> None:
    assert problems([raw, FULL])[0] == "stages[0]"


def test_it_names_every_problem_at_once() -> None:
    stages = [percent(0, speed=9), {"mode": "slow"}, percent(5_000), percent(5_000, on_timeout="ship")]
    assert problems(stages) == [
        "stages[0].speed",
        "stages[0].share_pcm",
        "stages[1].mode",
        "stages[3].on_timeout",
    ]


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        (percent(1), ""),
        (percent(99_999), ""),
        (percent(0), "share_pcm"),
        (percent(100_000), "share_pcm"),
        (percent(True), "share_pcm"),
        (percent(5_000.5), "share_pcm"),
        ({"mode": "shadow", "share_pcm": 0}, ""),
        ({"mode": "shadow", "share_pcm": 1}, "share_pcm"),
        (percent(min_minutes=0), ""),
        (percent(min_minutes=0.5), ""),
        (percent(min_minutes=44_640), ""),
        (percent(min_minutes=44_641), "min_minutes"),
        (percent(min_minutes=-1), "min_minutes"),
        (percent(min_minutes="15"), "min_minutes"),
        (percent(min_minutes=True), "min_minutes"),
        (percent(min_tasks=0), ""),
        (percent(min_tasks=10**9), ""),
        (percent(min_tasks=10**9 + 1), "min_tasks"),
        (percent(min_tasks=-1), "min_tasks"),
        (percent(min_tasks=1.5), "min_tasks"),
        (percent(max_hours=None), ""),
        (percent(max_hours=0.01), ""),
        (percent(max_hours=8_760), ""),
        (percent(max_hours=0), "max_hours"),
        (percent(max_hours=8_761), "max_hours"),
        (percent(on_timeout="hold"), ""),
        (percent(on_timeout="roll_back"), ""),
        (percent(on_timeout="ship"), "on_timeout"),
        (percent(approval=True), ""),
        (percent(approval=1), "approval"),
        ({"mode": "shadow", "mirror_pcm": 0}, ""),
        ({"mode": "shadow", "mirror_pcm": 100_000}, ""),
        ({"mode": "shadow", "mirror_pcm": 100_001}, "mirror_pcm"),
        ({"mode": "shadow", "mirror_pcm": -1}, "mirror_pcm"),
        (percent(mirror_pcm=0), ""),
        (percent(mirror_pcm=1), "mirror_pcm"),
    ],
)
def test_it_checks_the_limits_of_each_field(stage: dict[str, Any], path: str) -> None:
    assert problems([stage, FULL]) == ([f"stages[0].{path}"] if path else [])


@pytest.mark.parametrize(("share", "path"), [(100_000, []), (99_999, ["stages[0].share_pcm"])])
def test_the_full_stage_serves_all_traffic(share: int, path: list[str]) -> None:
    assert problems([{"mode": "full", "share_pcm": share}]) == path
    assert check([FULL])[0]["share_pcm"] == 100_000


@pytest.mark.parametrize(
    ("stages", "paths"),
    [
        ([SHADOW, percent(), FULL], []),
        ([percent(), SHADOW, FULL], ["stages[1]"]),
        ([percent(1_000), percent(1_001), FULL], []),
        ([percent(1_000), percent(1_000), FULL], ["stages[1]"]),
        ([percent(1_000), percent(999), FULL], ["stages[1]"]),
        ([FULL, percent(), FULL], ["stages[0]", "stages[1]"]),
        ([SHADOW], ["stages[0]"]),
        ([SHADOW, percent()], ["stages[1]"]),
    ],
)
def test_shadow_comes_first_shares_grow_and_full_comes_last(
    stages: list[dict[str, Any]], paths: list[str]
) -> None:
    assert problems(stages) == paths


def test_it_fills_in_every_default() -> None:
    """A percentage stage needs evidence of its own; the last stage requires nothing."""
    (stage, last) = check([percent(5_000), FULL])
    assert (last["min_minutes"], last["min_tasks"]) == (0, 0)
    defaults = {"min_minutes": 5, "min_tasks": 50, "max_hours": None, "on_timeout": "hold", "approval": False}
    assert {name: stage[name] for name in defaults} == defaults


# (mode, percent, minutes, tasks, hours)
SHADOW_15 = ("shadow", 0.0, 15, 200, 72)
FULL_AT_ONCE = ("full", 100.0, 0, 0, None)
BAKE = ("percentage", 95.0, 60, 50, 168)


def step(share: float, hours: int = 72) -> tuple[str, float, int, int, int]:
    return ("percentage", share, 15, 50, hours)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("cautious", [SHADOW_15, step(1), step(5), step(25), step(50), BAKE, FULL_AT_ONCE]),
        ("standard", [SHADOW_15, step(5), step(25), step(50), BAKE, FULL_AT_ONCE]),
        ("low-traffic", [SHADOW_15, step(25, 336), step(50, 336), FULL_AT_ONCE]),
        ("immediate", [FULL_AT_ONCE]),
    ],
)
def test_a_saved_plan_has_these_stages(name: str, stages: list[tuple[Any, ...]]) -> None:
    names = ("mode", "share_pcm", "min_minutes", "min_tasks", "max_hours")
    found = [[stage[field] for field in names] for stage in check(SAVED[name][1])]
    assert found == [[mode, share * 1_000, *rest] for mode, share, *rest in stages]


@pytest.mark.parametrize("name", SAVED)
def test_every_saved_plan_is_valid(name: str) -> None:
    assert problems(SAVED[name][1]) == []
    assert SAVED[name][0]
