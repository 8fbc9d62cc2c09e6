"""Gather everything known about a rollout as one JSON document. Reads only.

Money in nano-US-dollars, shares 0 … 1, times in RFC 3339; null: unknown.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db.models import Max, Min, Sum

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import shown
from controlplane.web.display import percent
from policies_app.documents.differences import differences
from policies_app.models import PolicyVersion
from rollout_app.actions.approvals import counting, number_needed
from rollout_app.blast_radius.answers import radius_answer
from rollout_app.blast_radius.radius import radius_of
from rollout_app.blast_radius.shadow_stage import shadow_stage_answer
from rollout_app.engine.shadow import shown_report
from rollout_app.engine.states import ENDED, Event, State
from rollout_app.evaluation import evaluations
from rollout_app.evidence_report.realised import Realised, realised
from rollout_app.evidence_report.words import realised_sentences
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import minute_totals
from rollout_app.review.answers import rollout_answer
from rollout_app.review.figures import figures
from rollout_app.review.rollouts import review_rollout

log = logging.getLogger(__name__)

FORMAT = 1
_SUMS = ("tasks", "successes", "failures", "ungraded", "errors", "cost_n", "cost_sum")


def evidence_report(rollout: Rollout) -> dict[str, Any]:
    """Return the report. A part that cannot be computed is null, and named in `failed` and in `caveats`."""
    now, failed = clock.now(), list[str]()
    parts: dict[str, Any] = {
        name: _part(name, read, failed)
        for name, read in {
            "before": lambda: radius_answer(radius_of(rollout)),
            "shadow": lambda: _shadow(rollout),
            "stages": lambda: _stages(rollout),
            "judgement": lambda: evaluations.judged(rollout).as_dict() if rollout.evidence else None,
            "review": lambda: _review(rollout),
            "realised": lambda: _realised(rollout, realised(rollout, now)),
            "audit": lambda: _audit(rollout),
        }.items()
    }
    return {
        "format": FORMAT,
        "generated_at": now,
        "what": _what(rollout),
        "who": _who(rollout),
        "why": rollout.reason,
        **parts,
        "failed": failed,
        "caveats": [
            *_caveats(rollout, parts, failed),
            *(f"{name.capitalize()} could not be computed." for name in failed),
        ],
    }


def _part(name: str, read: Callable[[], Any], failed: list[str]) -> Any:
    try:
        return read()
    except Exception:
        log.exception("%s of an evidence report could not be computed", name)
        failed.append(name)
        return None


def _what(rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout": str(rollout.pk),
        "environment": rollout.environment.name,
        "workload": rollout.workload.name,
        "owner": rollout.workload.owner.name,
        "quality_bar": float(rollout.workload.quality_bar),
        "state": rollout.state,
        "baseline": _version(rollout.baseline),
        "candidate": _version(rollout.candidate),
        "changes": [
            each.as_dict() for each in differences(rollout.baseline.document, rollout.candidate.document)
        ],
        "plan": rollout.plan_name,
        "plan_stages": rollout.stages,
        "guardrails": rollout.guardrails,
        "terms": rollout.terms,
        "created_at": rollout.created_at,
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
        "rollback_reason": rollout.rollback_reason or None,
        "readback": rollout.readback or None,
        "reverts": str(rollout.reverts_id) if rollout.reverts_id else None,
        "reverted_by": [str(pk) for pk in rollout.reverted_by.values_list("pk", flat=True)],
    }


def _version(version: PolicyVersion) -> dict[str, Any]:
    return {
        "number": version.number,
        "digest": version.digest,
        "author": version.author_label,
        "note": version.note,
        "written_at": version.created_at,
    }


def _who(rollout: Rollout) -> dict[str, Any]:
    approvals = list(rollout.approvals.order_by("pk"))
    counted = counting(rollout, approvals)
    return {
        "proposer": rollout.proposer_label,
        "four_eyes": rollout.four_eyes,
        "approvals_needed": number_needed(rollout),
        "approvals": [
            {
                "stage": approval.stage,
                "by": approval.approver_label,
                "reason": approval.reason,
                "at": approval.at,
                "binding": approval.binding,
                "withdrawn_at": approval.withdrawn_at,
                "counts": approval.pk in counted,
            }
            for approval in approvals
        ],
        "history": [
            {
                "event": transition.event,
                "by": shown(transition.actor_kind, transition.actor_label),
                "kind": transition.actor_kind,
                "reason": transition.reason,
                "at": transition.at,
                "state": transition.after_state,
                "stage": transition.after_stage,
                "revision": transition.revision,
            }
            for transition in rollout.transitions.all()
        ],
    }


def _shadow(rollout: Rollout) -> dict[str, Any] | None:
    report = shown_report(*minute_totals.shadow_and_mirror(rollout))
    return asdict(report) | shadow_stage_answer(rollout) if report.decisions else None


def _stages(rollout: Rollout) -> list[dict[str, Any]]:
    """Return each stage with the time in which it served, and the outcomes of both arms in it."""
    entered = _entered(rollout)
    sums: Any = ArmTotals.of_rollout(rollout).order_by().values("stage", "arm")
    found = {(row["stage"], row["arm"]): row for row in sums.annotate(**{f"{n}_": Sum(n) for n in _SUMS})}
    return [
        {
            "stage": number,
            **{name: stage.get(name) for name in ("mode", "share_pcm", "approval", "mirror_pcm")},
            "entered_at": entered.get(number),
            "left_at": _left(rollout, entered, number),
            "arms": {
                # A grade can be counted before its task is reported: then `ungraded` is below 0.
                arm: {name: max(0, int(row[f"{name}_"] or 0)) for name in _SUMS}
                if (row := found.get((number, arm)))
                else None
                for arm in ("baseline", "candidate")
            },
        }
        for number, stage in enumerate(rollout.stages)
    ]


def _entered(rollout: Rollout) -> dict[int, datetime]:
    """Return when each stage began; stages that were never reached are missing."""
    began = {Event.START, Event.BREAK_GLASS, Event.ADVANCE, Event.REVERT}
    entered: dict[int, datetime] = {}
    for transition in rollout.transitions.filter(event__in=sorted(began)).order_by("sequence"):
        entered.setdefault(transition.after_stage, transition.at)
    return entered


def _left(rollout: Rollout, entered: Mapping[int, datetime], number: int) -> datetime | None:
    """Return when a stage ceased to serve: at the next stage that was entered (some may be skipped), or at the end.

    A rollback takes the traffic back at once, and ends minutes later, when the routers have confirmed it.
    """
    if number not in entered:
        return None
    later = [at for stage, at in entered.items() if stage > number]
    return min(later) if later else rollout.rolling_back_at or rollout.ended_at


def _review(rollout: Rollout) -> dict[str, Any] | None:
    found = review_rollout(rollout)
    return None if found is None else rollout_answer(rollout, found)


def _realised(rollout: Rollout, found: Realised | None) -> dict[str, Any] | None:
    return None if found is None else realised_answer(rollout, found)


def realised_answer(rollout: Rollout, found: Realised) -> dict[str, Any]:
    """Return the realised effect as the API returns it."""
    return {
        "start": found.start,
        "end": found.end,
        "days": found.span.days,
        "before": figures(found.before),
        "after": figures(found.after),
        "other_tasks": found.others,
        "cost_per_success": found.comparison.cost_per_success and asdict(found.comparison.cost_per_success),
        "projected_cost_per_success": found.projected and asdict(found.projected),
        "failures": found.comparison.failures and asdict(found.comparison.failures),
        "projected_failures": found.projected_failures and asdict(found.projected_failures),
        "saved_nusd": found.saved and asdict(found.saved),
        "saved_a_day_nusd": found.saved_a_day and asdict(found.saved_a_day),
        "parts": [
            {
                "start": part.start,
                "end": part.end,
                **figures(part.sums),
                "failures": part.comparison.failures and asdict(part.comparison.failures),
            }
            for part in found.parts
        ],
        "sentences": realised_sentences(found, float(rollout.workload.quality_bar)),
    }


def _audit(rollout: Rollout) -> dict[str, Any]:
    """Return where the audit log records the rollout. `manage.py audit verify` proves that the entries are
    unchanged.
    """
    entries = Entry.objects.filter(target_kind="rollout", target_id=str(rollout.pk))
    found = entries.aggregate(first=Min("seq"), last=Max("seq"))
    last = entries.order_by("-seq").values_list("hash", flat=True).first()
    return {"entries": entries.count(), "first": found["first"], "last": found["last"], "last_hash": last}


# --- caveats ------------------------------------------------------------------------------------------------


def _caveats(rollout: Rollout, parts: dict[str, Any], failed: Collection[str]) -> list[str]:
    """Return the caveats of the parts that could be computed: of the others, nothing is known."""
    unjudged = parts["judgement"] is None and "judgement" not in failed
    return [
        *_of_the_state(rollout),
        *(() if "review" in failed else _of_the_arms(parts["review"])),
        *((parts["before"] or {}).get("unknown", ()) if rollout.started_at is None else ()),
        *(["Nothing has been judged yet."] if unjudged else ()),
    ]


def _of_the_state(rollout: Rollout) -> Iterable[str]:
    events = set(rollout.transitions.values_list("event", flat=True))
    if Event.BREAK_GLASS in events:
        yield "It was started without an approval (break-glass)."
    elif not (number_needed(rollout) or rollout.approvals.filter(stage=None, withdrawn_at=None).exists()):
        yield "It was proposed without four eyes, so one person could start it alone."
    if State(rollout.state) not in ENDED:
        yield f"It has not ended ({rollout.state.replace('_', ' ')}): these are the figures so far."
    by_hand = rollout.transitions.filter(event__in=[Event.ADVANCE, Event.COMPLETE]).exclude(
        actor_kind="system"
    )
    if by_hand.exists():
        yield "A person advanced or completed it without waiting for the evidence that it normally needs."
    if stragglers := (rollout.readback or {}).get("stragglers"):
        yield f"Routers that never confirmed the rollback: {', '.join(map(str, stragglers))}."


def _of_the_arms(review: dict[str, Any] | None) -> Iterable[str]:
    if review is None:
        yield "It has not started, so no arm has served anything."
        return
    for arm in ("candidate", "baseline"):
        sums = review[arm]
        if not sums["tasks"]:
            yield f"The {arm} has not served any task."
            continue
        for name, what in (("ungraded", "a grade"), ("unpriced", "a cost")):
            if sums[name]:
                yield f"{percent(sums[name])} of the {arm}'s tasks lack {what} and are left out where it is needed."
