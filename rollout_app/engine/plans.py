"""Plans: the rules for a list of stages, and the saved plans of a new instance. Pure.

A plan says how fast a rollout may advance. The guardrails decide whether it does, so a plan has no margins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from controlplane.core.errors import PlanRefused
from rollout_app.engine.evidence import SHARE_ALL, Stage

MAX_STAGES = 20
_FIELDS = {field.name for field in fields(Stage)}
_MODES = ("shadow", "percentage", "full")
_TIMEOUTS = ("hold", "roll_back")


def _percent(percent: float, *, minutes: float = 15, tasks: int = 50, hours: float = 72) -> dict[str, Any]:
    share = round(percent * SHARE_ALL / 100)
    return asdict(Stage("percentage", share, min_minutes=minutes, min_tasks=tasks, max_hours=hours))


_SHADOW = asdict(Stage("shadow", min_minutes=15, min_tasks=200, max_hours=72))
# The bake: nearly all traffic for long enough that slow harm shows against the 5 % still on the baseline.
_BAKE = _percent(95, minutes=60, hours=168)
_FULL = asdict(Stage("full", share_pcm=SHARE_ALL))
# Every stage may be skipped: each evaluation enters the largest share for which every guardrail is within its
# margin. Above 50 %, a further step before full only costs time. Releasing under a bound on harm: Y. Li, J.
# Mao, I. Bojinov: Balancing risk and reward: an automated phased release strategy, arXiv 2305.09626.
_LADDER = [
    asdict(
        Stage(
            "percentage", share_pcm=1_000 * percent, min_minutes=5, min_tasks=50, max_hours=72, skippable=True
        )
    )
    for percent in (3, 4, 6, 8, 10, 13, 17, 22, 28, 36, 50)
]
_TRIAL = [
    asdict(Stage("shadow", min_minutes=1, min_tasks=20, max_hours=24)),
    asdict(Stage("percentage", share_pcm=50_000, min_minutes=2, min_tasks=50, max_hours=24)),
    asdict(Stage("full", share_pcm=SHARE_ALL, tolerance=5.0)),
]

# `audit verify` compares unchanged saved plans with these: if you change one, add a data migration like 0011 for the
# rows that still hold the old one.
SAVED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "cautious": (
        "Shadow, then 1, 5, 25, 50 and 95 % before full. For workloads where every wrong answer is expensive.",
        [_SHADOW, _percent(1), _percent(5), _percent(25), _percent(50), _BAKE, _FULL],
    ),
    "standard": (
        "Shadow, then 5, 25, 50 and 95 % before full.",
        [_SHADOW, _percent(5), _percent(25), _percent(50), _BAKE, _FULL],
    ),
    "low-traffic": (
        "Shadow, then 25 and 50 % before full. The shares are large, so a few tasks an hour are enough.",
        [_SHADOW, _percent(25, hours=336), _percent(50, hours=336), _FULL],
    ),
    "evidence": (
        "Shadow, then as fast as the evidence allows, starting at 3 %. Harm to all traffic stays within the margins.",
        [_SHADOW, *_LADDER, _FULL],
    ),
    "trial": (
        "For a first try: takes minutes and a few hundred tasks. Accepts five times the harm: not for production.",
        _TRIAL,
    ),
    "immediate": ("Full at once, without a comparison. For reverts.", [_FULL]),
}


def check(stages: Any) -> list[dict[str, Any]]:
    """Return `stages` with all defaults filled in, or raise `PlanRefused` with all problems at once.

    Shadow comes first if at all, shares grow strictly (so that a step up moves no unit back), and `full` comes last.
    """
    if not isinstance(stages, Sequence) or isinstance(stages, str) or not 1 <= len(stages) <= MAX_STAGES:
        raise PlanRefused(f"A plan is a list of 1 to {MAX_STAGES} stages.")
    problems: list[dict[str, str]] = []
    checked = [_stage(raw, f"stages[{at}]", problems) for at, raw in enumerate(stages)]
    if not problems:
        _order(checked, problems)
    if problems:
        raise PlanRefused(f"{problems[0]['path']}: {problems[0]['message']}", problems)
    return [asdict(stage) for stage in checked]


def warnings(stages: Sequence[Stage]) -> list[dict[str, str]]:
    """Return what the plan's owner should know about it, as {"path", "message"}."""
    found = []
    for at, stage in enumerate(stages):
        if stage.mode != "full" and (not stage.min_tasks or not stage.min_minutes):
            what = "min_tasks" if not stage.min_tasks else "min_minutes"
            shadow = stage.mode == "shadow"
            first = "one shadow decision is reported" if shadow else "one of its tasks is judged"
            message = f"0 lets the rollout leave this stage as soon as {first}."
            found.append({"path": f"stages[{at}].{what}", "message": message})
        if stage.tolerance > 1:
            message = (
                f"Entering this stage accepts {stage.tolerance:g} times the harm of every guardrail's margin."
            )
            found.append({"path": f"stages[{at}].tolerance", "message": message})
    return found


# Defaults: every stage but the last needs evidence of its own, unless the plan says otherwise.
_LEAST = {"min_tasks": 50, "min_minutes": 5}


def _stage(raw: Any, path: str, problems: list[dict[str, str]]) -> Stage:
    def refuse(name: str, message: str) -> None:
        problems.append({"path": f"{path}.{name}" if name else path, "message": message})

    if not isinstance(raw, Mapping):
        refuse("", "A stage is an object with a mode.")
        return Stage("full")
    for unknown in sorted(map(str, set(raw) - _FIELDS)):
        refuse(unknown, f"Unknown field; a stage has {', '.join(sorted(_FIELDS))}.")
    if raw.get("mode") not in _MODES:
        refuse("mode", f"Must be one of {', '.join(_MODES)}.")
        return Stage("full")
    defaults = {"share_pcm": SHARE_ALL} if raw["mode"] == "full" else _LEAST
    stage = Stage.from_dict(
        {**defaults, **raw, **({"share_pcm": SHARE_ALL} if raw["mode"] == "full" else {})}
    )
    if stage.mode == "percentage" and not _whole(stage.share_pcm, 1, SHARE_ALL - 1):
        refuse("share_pcm", f"A share is a whole number from 1 to {SHARE_ALL - 1} (per 100,000).")
    if stage.mode == "shadow" and stage.share_pcm != 0:
        refuse("share_pcm", "Must be 0: a shadow stage serves no traffic.")
    if raw["mode"] == "full" and raw.get("share_pcm", SHARE_ALL) != SHARE_ALL:
        refuse("share_pcm", f"The share of `full` is {SHARE_ALL}.")
    if not _number(stage.min_minutes, 0, 60 * 24 * 31):
        refuse("min_minutes", "Must be a number of minutes from 0 to 44640.")
    if not _whole(stage.min_tasks, 0, 10**9):
        refuse("min_tasks", "Must be a whole number of tasks, 0 or more.")
    if stage.max_hours is not None and not _number(stage.max_hours, 0.01, 24 * 365):
        refuse("max_hours", "Must be a number of hours from 0.01 to 8760, or null.")
    if stage.on_timeout not in _TIMEOUTS:
        refuse("on_timeout", f"Must be one of {', '.join(_TIMEOUTS)}.")
    if not isinstance(stage.approval, bool):
        refuse("approval", "Must be true or false.")
    if not isinstance(stage.skippable, bool) or (stage.skippable and stage.mode != "percentage"):
        refuse("skippable", "Must be true or false, and true only for a percentage stage.")
    if not _number(stage.tolerance, 1, 10):
        refuse(
            "tolerance", "Must be a number from 1 to 10: the factor on all margins when entering the stage."
        )
    if not _whole(stage.mirror_pcm, 0, SHARE_ALL) or (stage.mirror_pcm and stage.mode != "shadow"):
        refuse("mirror_pcm", f"Must be a whole number from 0 to {SHARE_ALL}, and above 0 only in shadow.")
    return stage


def _order(stages: Sequence[Stage], problems: list[dict[str, str]]) -> None:
    def refuse(at: int, message: str) -> None:
        problems.append({"path": f"stages[{at}]", "message": message})

    for at, stage in enumerate(stages):
        if stage.mode == "shadow" and at > 0:
            refuse(at, "Shadow can only come first.")
        if stage.mode == "full" and at + 1 < len(stages):
            refuse(at, "No stage can follow full.")
        if at and stage.share_pcm <= stages[at - 1].share_pcm and stage.mode == "percentage":
            refuse(at, "Shares must increase from stage to stage: a smaller share would move units back.")
    if stages[-1].mode != "full":
        refuse(len(stages) - 1, "The last stage must be full.")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
