"""The contents of audit entries, field by field: the states before and after, the target, the reason, the evidence."""

import json
from typing import Any

import pytest

from controlplane.access import change_requests
from controlplane.audit import chain
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import Conflict, NotFound, PlanRefused, StaleVersion
from policies_app.four_eyes.actions import request_serving
from rollout_app import actions
from rollout_app.engine.plans import check
from rollout_app.models import GuardrailOverride, Plan
from tests.support import builders
from tests.support.places import ANNA, BEN

pytestmark = pytest.mark.django_db
FULL = [{"mode": "full"}]
HALF = [{"mode": "percentage", "share_pcm": 50_000}, {"mode": "full"}]


def said(action: str) -> dict[str, Any]:
    """Return the newest entry of an action."""
    body: dict[str, Any] = json.loads(bytes(Entry.objects.filter(action=action).latest("seq").body))
    return body


def states(entry: dict[str, Any], before: dict[str, Any] | None, after: dict[str, Any] | None) -> bool:
    """Return whether the entry has the hashes of both states, and their difference."""
    known = [None if one is None else chain.digest(chain.plain(one)) for one in (before, after)]
    difference = chain.plain(chain.difference(before or {}, after or {}))
    return [entry["before_sha256"], entry["after_sha256"]] == known and entry["diff"] == difference


def test_each_change_of_a_plan_is_recorded() -> None:
    actions.add_plan("slow", FULL, actor=ANNA, description="At once.", reason="for reverts")
    first = {"description": "At once.", "stages": check(FULL), "version": 1}
    added = said("plan.add")
    assert states(added, None, first)
    assert (added["target"], added["reason"]) == ({"kind": "plan", "id": "slow"}, "for reverts")

    actions.edit_plan("slow", actor=BEN, expected=1, stages=HALF)
    second = {**first, "stages": check(HALF), "version": 2}
    assert states(said("plan.edit"), first, second)
    actions.edit_plan("slow", actor=BEN, description="In two steps.")
    third = {**second, "description": "In two steps.", "version": 3}
    assert states(said("plan.edit"), second, third)
    kept = Plan.objects.get(name="slow")
    assert (kept.stages, kept.description, kept.version) == (check(HALF), "In two steps.", 3)

    actions.remove_plan("slow", actor=ANNA, expected=3, reason="unused")
    removed = said("plan.remove")
    assert states(removed, third, None)
    assert removed["reason"] == "unused"
    assert not Plan.objects.filter(name="slow").exists()


def test_a_missing_or_newer_plan_is_not_changed() -> None:
    with pytest.raises(NotFound, match="'slow'"):
        actions.edit_plan("slow", actor=ANNA, stages=FULL)
    with pytest.raises(NotFound, match="'slow'"):
        actions.remove_plan("slow", actor=ANNA)
    actions.add_plan("slow", FULL, actor=ANNA)
    with pytest.raises(StaleVersion, match="version 1, not 2"):
        actions.edit_plan("slow", actor=ANNA, expected=2, stages=HALF)
    with pytest.raises(StaleVersion):
        actions.remove_plan("slow", actor=ANNA, expected=0)
    with pytest.raises(PlanRefused):
        actions.edit_plan("slow", actor=ANNA, stages=[])
    assert Plan.objects.get(name="slow").stages == check(FULL)


def test_each_change_of_a_guardrail_is_recorded() -> None:
    workload = builders.workload("summaries")

    def values(version: int, **given: Any) -> dict[str, Any]:
        plain = {"metric": "failure", "enabled": True, "margin": None, "weight": None, "bound": None}
        return {**plain, **given, "version": version}

    actions.set_guardrail(workload, "failure", actor=ANNA, margin=0.01)
    first = said("guardrail.set")
    assert states(first, None, values(1, margin=0.01))
    assert first["target"] == {"kind": "guardrail", "id": "summaries/failure"}
    assert first["evidence"] == {"absolute": False}
    actions.set_guardrail(workload, "failure", actor=ANNA, margin=0.01, weight=0.4)
    assert states(said("guardrail.set"), values(1, margin=0.01), values(2, margin=0.01, weight=0.4))
    actions.set_guardrail(workload, "failure", actor=ANNA, bound=0.2, reason="at most")
    absolute = said("guardrail.set")
    assert states(absolute, None, values(1, bound=0.2))
    assert absolute["evidence"] == {"absolute": True}
    actions.remove_guardrail(workload, "failure", actor=ANNA, reason="the default will do")
    assert states(said("guardrail.remove"), values(2, margin=0.01, weight=0.4), None)
    assert [row.bound for row in GuardrailOverride.objects.all()] == [0.2]


@pytest.mark.parametrize("ended", ["reject", "withdraw"])
def test_the_end_of_a_change_request_is_recorded(ended: str) -> None:
    """With its reason, the fields before and after, the environment and the workload."""
    environment = builders.environment("production", four_eyes=True)
    version = builders.version(builders.workload("summaries"), actor=SYSTEM)
    request = request_serving(environment, version, actor=ANNA, reason="the first")
    before = change_requests.request_fields(request)
    assert (before["reason"], before["state"], before["ended_by"]) == ("the first", "waiting", "")
    by = ANNA if ended == "withdraw" else BEN
    done = getattr(change_requests, ended)(request, actor=by, reason="not now")
    assert (done.state, done.ended_by) == ({"reject": "rejected", "withdraw": "withdrawn"}[ended], by.label)
    assert done.ended_at is not None
    done.refresh_from_db()
    entry = said(f"change.{ended}")
    assert states(entry, before, {**before, "state": done.state, "ended_by": by.label})
    assert entry["target"] == {"kind": "change_request", "id": str(request.pk)}
    assert (entry["environment"], entry["workload"], entry["reason"]) == (
        "production",
        "summaries",
        "not now",
    )
    with pytest.raises(Conflict):
        getattr(change_requests, ended)(done, actor=by, reason="again")


def test_the_evidence_of_an_applied_change_names_its_request() -> None:
    environment = builders.environment("production", four_eyes=True)
    version = builders.version(builders.workload("summaries"), actor=SYSTEM)
    request = request_serving(environment, version, actor=ANNA, reason="the first")
    assert change_requests.as_evidence(request) == {
        "change_request": str(request.pk),
        "requested_by": ANNA.label,
        "reason": "the first",
        "binding": change_requests.binding(request),
    }
