"""The path of an outcome: folded → ingest → committed → 202 → nudge → reconcile → judged → rolled back → read back.

The candidate fails. No person is involved, and everybody can recompute the decision.
"""

import json
from math import exp, log
from typing import Any

import pytest

from rollout_app import actions
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.reference import Reference
from rollout_app.models import Rollout
from rollout_app.outcomes import minute_totals
from tests.support.places import ANNA, BEN, approve
from tests.support.plane import PATIENCE_S, until
from tests.support.town import NAME, Town


def test_a_failing_candidate_is_rolled_back(town: Town) -> None:
    candidate = town.candidate()
    with town.router() as router:
        assert router.wait_ready(PATIENCE_S)
        town.minute(router, 1_500, lambda decision: 0.97)
        until(town.environment.routers.exists)  # the fleet is written every two seconds
        rollout = actions.propose_rollout(
            town.environment,
            town.workload,
            candidate,
            plan=[{"mode": "percentage", "share_pcm": 20_000}, {"mode": "full"}],
            reason="long prompts fail too often",
            actor=ANNA,
        )
        approve(rollout, actor=BEN, reason="let us see")
        actions.start_rollout(rollout.pk, actor=BEN, reason="now")
        until(lambda: router.status()["revision"] == 2)

        def taken_back() -> bool:
            town.minute(router, 100, lambda decision: 0.3 if decision.arm == "candidate" else 0.97)
            rollout.refresh_from_db()
            return rollout.state != "running"

        until(taken_back)

        # The baseline is served again, as a new revision. The rollout ends when the routers have confirmed it.
        until(lambda: Rollout.objects.get(pk=rollout.pk).state == "rolled_back")
        assert {router.decide(NAME).version for _ in range(100)} == {town.first.number}
        rollout.refresh_from_db()
        assert rollout.readback == {"confirmed": 1, "of": 1, "stragglers": [], "silent": [], "lost": []}
        assert town.assignment().revision == rollout.rollback_revision == 3

    steps = [(step.event, step.actor_kind) for step in rollout.transitions.all()]
    assert steps[2:] == [("start", "user"), ("roll_back", "system"), ("confirm_rollback", "system")]
    entry = next(entry for entry in town.entries(rollout) if entry.action == "rollout.roll_back")
    _adds_up(rollout, json.loads(bytes(entry.body))["evidence"])
    assert town.audit_says() == "verified"


def _adds_up(rollout: Rollout, evidence: dict[str, Any]) -> None:
    """Check that the verdict follows from the entry's figures, and that the stored outcomes give the same figures."""
    judgement = evidence["judgement"]
    counted = [verdict for verdict in judgement["verdicts"] if verdict["counted"]]
    total = sum(float(v["weight"]) * exp(float(v["log_e_counted"])) for v in counted)
    assert log(total) == _about(judgement["log_e"])
    assert total >= 20
    assert "failure" in [verdict["name"] for verdict in counted]

    reference = Reference.from_dict(rollout.reference)
    ledger = Accumulator.open(
        [Guardrail.from_dict(kept) for kept in rollout.guardrails],
        [Stage.from_dict(stage) for stage in rollout.stages],
        reference,
    )
    before = judgement["strata"]["0"]["last_minute"] + 1
    ledger.take(minute_totals.all_minutes(rollout, reference, before), before=before)
    again = ledger.judge(0)
    assert again.log_e == _about(judgement["log_e"])
    assert [verdict.name for verdict in again.verdicts if verdict.counted] == [v["name"] for v in counted]


def _about(figure: Any) -> Any:
    return pytest.approx(float(figure), rel=1e-9)
