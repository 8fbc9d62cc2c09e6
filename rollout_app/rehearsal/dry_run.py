"""Judge the recorded minutes of a rollout again with other guardrails, to see what they would have done. Reads only."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Max

from controlplane.core import clock
from controlplane.core.errors import InvalidInput
from controlplane.web.display import plural
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import ClosedWindow, Stage
from rollout_app.engine.explain import change, figure, harm_of
from rollout_app.engine.guardrails import DEFAULT_GUARDRAILS, Guardrail, guardrails_for
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.reference import Reference
from rollout_app.engine.verdicts import Verdict
from rollout_app.engine.windows import close_windows, closes_before
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import minute_totals


def dry_run(rollout: Rollout, overrides: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Judge every stratum of `rollout` in turn with its guardrails, changed by `overrides`.

    Return when it would have rolled back, if ever, the number of windows with both arms, and the verdicts at that time
    or at the end. The time is when the deciding window closed, including the workload's outcome lag; minutes that are
    still open are left out. The traffic stays as recorded, although an earlier stop would have exposed fewer tasks to
    the candidate. Raise `InvalidInput` for invalid overrides.
    """
    try:
        guardrails = _changed(rollout, list(overrides))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"These guardrails cannot be judged: {error}") from None
    lag = timedelta(seconds=rollout.workload.outcome_lag_s)
    reference = Reference.from_dict(rollout.reference) if rollout.reference else Reference(outcomes=0)
    stages = tuple(Stage.from_dict(stage) for stage in rollout.stages)
    ledger = Accumulator.open(guardrails, stages, reference)
    before = _open_from(rollout)
    rows = minute_totals.all_minutes(rollout, reference, before)
    strata, _ = close_windows(rows, before=before, cursors={})
    windows = sum(stages[stratum.stage].mode == "percentage" for stratum in strata)
    for stratum in strata:
        ledger.add(stratum)
        if stages[stratum.stage].mode != "percentage":
            continue
        if ledger.judge(stratum.stage, forecast=False, detail=False).roll_back:
            return _result(ledger.judge(stratum.stage), stages, windows, stratum, lag)
    return _result(ledger.judge(rollout.stage), stages, windows, None, lag)


def _open_from(rollout: Rollout) -> int:
    """Return the first minute that is still open, as the engine does: its outcomes may still arrive."""
    _, newest = minute_totals.stamped(rollout)
    received = ArmTotals.of_rollout(rollout).aggregate(at=Max("received_at"))["at"]
    if newest is None or received is None:
        return 0
    return closes_before(
        now=clock.now(),
        lag_s=rollout.workload.outcome_lag_s,
        newest_minute=minute_totals.minute_of(newest),
        last_received_at=received,
    )


def _changed(rollout: Rollout, overrides: Sequence[Mapping[str, Any]]) -> tuple[Guardrail, ...]:
    """Return the rollout's guardrails (before a start: the defaults) with the overrides applied."""
    given = Counter((override["metric"], override.get("bound") is not None) for override in overrides)
    if twice := [metric for (metric, _), count in given.items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    own = {guardrail.name: guardrail for guardrail in map(Guardrail.from_dict, rollout.guardrails)}
    if not own:
        return guardrails_for(overrides)
    was_off = [{"metric": one.metric, "enabled": False} for one in DEFAULT_GUARDRAILS if one.name not in own]
    changed = []
    for override in overrides:
        absolute = override.get("bound") is not None
        before = own.get(f"{override['metric']}_bound" if absolute else override["metric"])
        kept = before.as_dict() if before else {}
        changed.append({**kept, **{name: value for name, value in override.items() if value is not None}})
    return guardrails_for([*was_off, *(one.as_dict() for one in own.values()), *changed])


def _result(
    judgement: Judgement, stages: Sequence[Stage], windows: int, at: ClosedWindow | None, lag: timedelta
) -> dict[str, Any]:
    rolled_back = (
        None
        if at is None
        else {
            "at": minute_totals.moment(at.last_minute + 1) + lag,
            "stage": at.stage,
            "candidate_tasks": sum(tally.candidate_tasks for tally in judgement.tallies.values()),
            "guardrails": [verdict.name for verdict in judgement.harmful],
        }
    )
    sentence = _sentence(judgement, stages, windows, rolled_back)
    return {"windows": windows, "rolled_back": rolled_back, "sentence": sentence, **judgement.as_dict()}


def _limit(verdict: Verdict) -> str:
    if not verdict.is_bound:
        return change(verdict, verdict.margin)
    return f"at {'least' if verdict.metric.spec.lower_is_worse else 'most'} {change(verdict, verdict.margin)}"


def _sentence(
    judgement: Judgement, stages: Sequence[Stage], windows: int, rolled_back: Mapping[str, Any] | None
) -> str:
    margins = ", ".join(f"{figure(v.metric)} {_limit(v)}" for v in judgement.verdicts)
    if not windows:
        arms = " with both arms" if judgement.tallies else ""
        return f"There is nothing to judge: no window of this rollout{arms} has closed yet."
    if rolled_back is None:
        return (
            f"With these margins, it would not have rolled back in {plural(windows, 'window')} ({margins})."
        )
    stage = stages[rolled_back["stage"]]
    why = "; ".join(harm_of(verdict, stages) for verdict in judgement.harmful[:3])
    return (
        f"With these margins, it would have rolled back at {rolled_back['at']:%Y-%m-%d %H:%M} UTC, at "
        f"{stage.label} and after {rolled_back['candidate_tasks']:,} candidate tasks: {why}."
    )
