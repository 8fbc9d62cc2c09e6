"""A spent daily budget stops mirrors for all routers until the next day."""

import json
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit import chain
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app import actions as policies
from policies_app.models import Assignment
from rollout_app import actions
from rollout_app.actions import mirrors
from rollout_app.actions.mirrors import MirrorDay, keep_mirror_budgets, mirror_day
from rollout_app.models import ArmTotals, Rollout
from tests.support import builders

pytestmark = pytest.mark.django_db
STAGES = [
    {"mode": "shadow", "mirror_pcm": 10_000},
    {"mode": "percentage", "share_pcm": 5_000},
    {"mode": "full"},
]
DAY = timedelta(days=1)


@pytest.fixture
def rollout() -> Rollout:
    environment, workload = builders.environment("production"), builders.workload("support")
    builders.served(environment, workload)
    policies.edit_workload(workload, actor=SYSTEM, mirror_budget_usd="1.00")
    proposed = actions.propose_rollout(
        environment, workload, builders.version(workload), plan=STAGES, reason="r", actor=SYSTEM
    )
    return actions.start_rollout(proposed, actor=SYSTEM, reason="now")


def mirrored(rollout: Rollout, tasks: int, dollars: float, at: Any = None) -> None:
    ArmTotals.objects.create(
        environment=rollout.environment,
        workload=rollout.workload,
        rollout=str(rollout.pk),
        stage=0,
        arm="baseline",
        version=1,
        minute=(at or clock.now()).replace(second=0, microsecond=0),
        tasks=tasks,
        mirror={"n": tasks, "both": tasks, "candidate_cost_nusd": round(dollars * 1e9)},
    )


def share() -> tuple[int, int]:
    """Return the assignment's mirror share, and the one that routers receive."""
    served = Assignment.objects.get()
    return served.mirror_pcm, json.loads(served.fragment)["rollout"]["mirror_pcm"]


def test_within_the_budget_mirrors_run(rollout: Rollout) -> None:
    mirrored(rollout, 100, 0.99)
    assert keep_mirror_budgets() == 0
    assert share() == (10_000, 10_000)


def test_a_spent_budget_stops_them_once_and_says_so(rollout: Rollout) -> None:
    before = Assignment.objects.get().revision
    mirrored(rollout, 100, 1.00)
    assert (keep_mirror_budgets(), keep_mirror_budgets()) == (1, 0)
    assert share() == (0, 0)
    assert Assignment.objects.get().revision == before + 1
    entry = Entry.objects.get(action="rollout.mirrors")
    assert "$1.00 of today's $1.00 budget spent" in entry.reason
    body = json.loads(bytes(entry.body))
    assert body["before_sha256"] == chain.digest({"mirror_pcm": 10_000})
    assert body["after_sha256"] == chain.digest({"mirror_pcm": 0, "served_at": before + 1})
    assert body["evidence"] == {"mirrored": 100, "spent_nusd": 10**9}
    assert (body["environment"], body["workload"]) == ("production", "support")
    rollout.refresh_from_db()
    assert rollout.state == "running"


def test_the_next_day_they_run_again(rollout: Rollout) -> None:
    mirrored(rollout, 100, 5.00)
    keep_mirror_budgets()
    assert keep_mirror_budgets(clock.now() + DAY) == 1
    assert share() == (10_000, 10_000)
    body = json.loads(bytes(Entry.objects.filter(action="rollout.mirrors").latest("seq").body))
    assert body["before_sha256"] == chain.digest({"mirror_pcm": 0})
    assert body["after_sha256"] == chain.digest(
        {"mirror_pcm": 10_000, "served_at": Assignment.objects.get().revision}
    )
    assert body["reason"] == "Mirrors run again: $0.00 of $1.00 spent today."


def test_a_day_begins_at_midnight(rollout: Rollout) -> None:
    midnight = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    mirrored(rollout, 100, 0.40, at=midnight)
    mirrored(rollout, 100, 5.00, at=midnight - timedelta(minutes=1))
    assert mirror_day(rollout, clock.now()) == MirrorDay(100, 400_000_000)
    ArmTotals.objects.update(mirror={"both": 3})  # without counts and costs
    assert mirror_day(rollout, clock.now()) == MirrorDay(0, 0)


@pytest.mark.parametrize(("tasks", "changed"), [(49, 0), (50, 1)])
def test_without_costs_a_budget_cannot_be_kept(rollout: Rollout, tasks: int, changed: int) -> None:
    mirrored(rollout, tasks, 0)
    assert keep_mirror_budgets() == changed
    said = Entry.objects.filter(action="rollout.mirrors").values_list("reason", flat=True)
    assert all("no budget can be enforced" in reason for reason in said) and len(said) == changed


def test_a_budget_of_zero_stops_all_mirrors_and_no_budget_stops_none(rollout: Rollout) -> None:
    policies.edit_workload(rollout.workload, actor=SYSTEM, mirror_budget_usd="0")
    assert keep_mirror_budgets() == 1 and share() == (0, 0)
    policies.edit_workload(rollout.workload, actor=SYSTEM, mirror_budget_usd=None)
    assert keep_mirror_budgets() == 0


def test_a_rollout_that_advanced_is_not_changed(rollout: Rollout) -> None:
    mirrored(rollout, 100, 9.00)
    actions.advance_rollout(rollout, actor=SYSTEM, reason="on")
    assert keep_mirror_budgets() == 0
    assert Assignment.objects.get().mode == "percentage"


def test_a_rollout_that_advances_at_the_same_moment_is_not_changed(
    rollout: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the shadow stage would be served again, although the rollout has left it."""
    mirrored(rollout, 100, 9.00)

    def meanwhile(*place: int) -> Assignment:
        found = policies.served_assignment(*place)
        actions.advance_rollout(rollout.pk, actor=SYSTEM, reason="on")
        return found

    monkeypatch.setattr("rollout_app.actions.mirrors.served_assignment", meanwhile)
    assert keep_mirror_budgets() == 0
    assert Assignment.objects.get().mode == "percentage"
    assert not Entry.objects.filter(action="rollout.mirrors").exists()


def test_of_two_runs_at_once_one_acts(rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored(rollout, 10, 2.0)
    reason, others = mirrors._reason, iter([keep_mirror_budgets])

    def reason_after_the_other_run(*given: Any) -> str:
        for run in others:
            assert run() == 1
        return reason(*given)

    monkeypatch.setattr(mirrors, "_reason", reason_after_the_other_run)

    assert keep_mirror_budgets() == 0

    assert share() == (0, 0)
    assert Entry.objects.filter(action="rollout.mirrors").count() == 1


def test_a_rollout_that_cannot_be_checked_does_not_keep_the_others_from_it(
    rollout: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored(rollout, 10, 2.0)
    other = builders.workload()
    builders.served(rollout.environment, other)
    policies.edit_workload(other, actor=SYSTEM, mirror_budget_usd="1.00")
    broken = actions.propose_rollout(
        rollout.environment, other, builders.version(other), plan=STAGES, reason="r", actor=SYSTEM
    )
    actions.start_rollout(broken, actor=SYSTEM, reason="now")
    day = mirrors.mirror_day

    def unreadable(given: Rollout, now: Any) -> MirrorDay:
        if given.pk == broken.pk:
            raise ValueError("an unreadable row")
        return day(given, now)

    monkeypatch.setattr(mirrors, "mirror_day", unreadable)

    assert keep_mirror_budgets() == 1
