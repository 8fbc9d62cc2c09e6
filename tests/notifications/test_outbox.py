"""Notifications are stored in the transaction of the change that they report."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import transaction

from controlplane.access import actions as access
from controlplane.access.models import ChangeRequest
from controlplane.audit import checkpoints, log
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict, SelfApproval
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE
from controlplane.notifications import actions, engine_watch, events, messages
from controlplane.notifications.models import BreakGlass, Notification
from policies_app import actions as policies
from policies_app.fleet import rejections
from policies_app.four_eyes.actions import request_four_eyes_off
from policies_app.models import Environment, Router, Workload
from rollout_app import actions as rollouts
from rollout_app.evaluation import held
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.people import actor_of, logged_in, proposed, running

pytestmark = pytest.mark.django_db


def told() -> list[str]:
    return list(Notification.objects.order_by("id").values_list("type", flat=True))


@pytest.fixture
def production() -> Environment:
    return builders.environment("production", four_eyes=True)


@pytest.fixture
def summaries(production: Environment) -> Workload:
    workload = builders.workload("summaries")
    builders.served(production, workload)
    builders.version(workload, actor=actor_of("maria"))
    Notification.objects.all().delete()
    BreakGlass.objects.all().delete()
    return workload


def test_a_change_that_is_rolled_back_is_not_reported(production: Environment) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        log.record(actor=SYSTEM, action="rollout.roll_back", target=("rollout", "1"))
        assert told() == [events.ROLLED_BACK]
        raise RuntimeError
    assert told() == []


def test_a_refused_attempt_is_not_reported(production: Environment) -> None:
    refusal = log.attempt(actor=SYSTEM, action="rollout.break_glass", target=("rollout", "1"))
    with pytest.raises(Conflict), refusal:
        raise Conflict("no")
    assert (told(), BreakGlass.objects.count()) == ([], 0)


def test_a_proposal_and_its_rollback_are_reported(production: Environment, summaries: Workload) -> None:
    rollout = running(summaries, production)
    rollouts.roll_back_rollout(rollout, actor=actor_of("tom"), reason="it is slow")
    assert told() == [events.APPROVAL_WAITS, events.ROLLED_BACK]
    last = Notification.objects.order_by("id").last()
    assert last is not None
    assert last.data["sentence"] == "The rollout of summaries in production is being rolled back by tom."
    assert (last.data["reason"], last.environment) == ("it is slow", "production")


def test_an_abort_takes_routers_back_too_and_is_reported(
    production: Environment, summaries: Workload
) -> None:
    rollout = running(summaries, production)
    rollouts.abort_rollout(rollout, actor=actor_of("tom"), reason="not today")
    assert told() == [events.APPROVAL_WAITS, events.ROLLED_BACK]
    last = Notification.objects.order_by("id").last()
    assert last is not None
    assert last.data["sentence"] == "The rollout of summaries in production is being aborted by tom."


def test_a_revert_of_a_completed_rollout_is_reported(production: Environment, summaries: Workload) -> None:
    rollout = running(summaries, production)
    Rollout.objects.filter(pk=rollout.pk).update(stage=len(rollout.stages) - 1)
    rollout.refresh_from_db()
    rollouts.complete_rollout(rollout, actor=SYSTEM, reason="all done")
    Notification.objects.all().delete()
    rollouts.revert_rollout(rollout, actor=actor_of("tom"), reason="support calls")
    assert told() == [events.ROLLED_BACK]
    last = Notification.objects.get()
    assert last.data["sentence"] == (
        "The rollout of summaries in production, started by tom, reverts a completed one."
    )


def test_break_glass_is_reported_and_stays_open(production: Environment, summaries: Workload) -> None:
    rollout = proposed(summaries, production)
    rollouts.break_glass_start(rollout, actor=actor_of("tom"), reason="the site is down")
    assert told() == [events.APPROVAL_WAITS, events.BREAK_GLASS]
    assert sentences()[-1] == (
        "tom started, without approval, v1 → v2 of summaries in production (break-glass)."
    )
    opened = BreakGlass.objects.get()
    assert (opened.by_label, opened.reason, opened.target_id) == ("tom", "the site is down", str(rollout.pk))
    assert opened.reviewed_at is None


def test_a_name_that_cannot_be_read_does_not_stop_the_action() -> None:
    with transaction.atomic():
        log.record(actor=SYSTEM, action="rollout.break_glass", target=("rollout", "1"), workload="summaries")
    assert sentences() == ["Pointsman started, without approval, a rollout of summaries (break-glass)."]


def test_switching_four_eyes_off_is_reported(production: Environment) -> None:
    Notification.objects.all().delete()
    request_four_eyes_off(production, actor=actor_of("ann"), reason="a drill")
    policies.edit_environment(
        production, actor=actor_of("ann"), reason="now", break_glass=True, four_eyes=False
    )
    production.refresh_from_db()
    policies.edit_environment(production, actor=actor_of("ann"), reason="again", four_eyes=True)
    # Both of one entry may have ids of one millisecond, in any order.
    assert sorted(zip(told(), sentences(), strict=True)) == [
        (
            events.APPROVAL_WAITS,
            "ann requested the end of four eyes in production, which waits for an approval.",
        ),
        (
            events.BREAK_GLASS,
            "ann edited, without approval, environment production: four eyes are off (break-glass).",
        ),
        (events.FOUR_EYES, "Four eyes are off in production, switched by ann."),
        (events.FOUR_EYES, "Four eyes are on in production, switched by ann."),
    ]


def sentences() -> list[str]:
    return [row.data["sentence"] for row in Notification.objects.order_by("id")]


def test_a_change_that_waits_leads_to_its_page(production: Environment) -> None:
    Notification.objects.all().delete()
    request_four_eyes_off(production, actor=actor_of("ann"), reason="a drill")
    request = ChangeRequest.objects.get()
    assert messages.address(Notification.objects.get()).endswith(f"/console/changes/{request.pk}/")


@pytest.mark.parametrize(
    ("where", "says"), [("production", " in production: approver"), ("", ": approver in every environment")]
)
def test_a_role_given_without_approval_is_named_with_its_person(
    production: Environment, where: str, says: str
) -> None:
    """It said "the user of 3"."""
    logged_in("eva", "admin")  # who could approve it
    puppet = User.objects.create(username="puppet")
    Notification.objects.all().delete()
    access.grant_role(puppet, "approver", where, actor=actor_of("tom"), reason="now", break_glass=True)
    assert sentences() == [f"tom gave a role without approval to user puppet{says} (break-glass)."]
    assert messages.address(Notification.objects.get()).endswith(f"/console/people/{puppet.pk}/")


def test_a_checkpoint_is_reported_with_its_note(production: Environment) -> None:
    Notification.objects.all().delete()
    made = checkpoints.make()
    assert made is not None
    row = Notification.objects.get()
    assert (row.type, row.data["note"], row.data["seq"]) == (events.CHECKPOINT, made.note, made.seq)


def test_a_rollout_held_too_long_is_reported_once_per_stage(
    production: Environment, summaries: Workload, settings: Any
) -> None:
    settings.CLOCK = "process"
    rollout = running(summaries, production)
    Rollout.objects.filter(pk=rollout.pk).update(hold_code="evidence", hold_sentence="Too few tasks.")
    Notification.objects.all().delete()
    with time_machine.travel(clock.now(), tick=False) as now:
        assert held.tell() == 0
        now.shift(timedelta(minutes=settings.HELD_AFTER_MINUTES, seconds=1))
        assert (held.tell(), held.tell()) == (1, 0)
        Rollout.objects.filter(pk=rollout.pk).update(stage=1, stage_entered_at=clock.now())
        assert held.tell() == 0
        now.shift(timedelta(minutes=settings.HELD_AFTER_MINUTES, seconds=1))
        assert held.tell() == 1
    assert told() == [events.HELD, events.HELD]
    kept = Notification.objects.order_by("id")[1]
    assert kept.environment == "production"
    stage = {"stage": 1, "hold_code": "evidence", "workload": "summaries"}
    assert stage.items() <= kept.data.items()
    assert kept.data["target"] == {"kind": "rollout", "id": str(rollout.pk)}
    assert kept.data["sentence"] == (
        "The rollout of summaries in production has been held at stage 2 for too long: Too few tasks."
    )


def test_a_rollout_that_waits_as_planned_is_not_held(
    production: Environment, summaries: Workload, settings: Any
) -> None:
    """The stage lasts a day at least, so it was reported every time; a pause counted, too."""
    settings.CLOCK = "process"
    rollout = running(summaries, production)
    day = [{**stage, "min_minutes": 1_440} for stage in rollout.stages]
    of_it = Rollout.objects.filter(pk=rollout.pk)
    with time_machine.travel(clock.now(), tick=False) as now:
        of_it.update(hold_code="evidence", stages=day, paused_s=3_600, stage_entered_at=clock.now())
        Notification.objects.all().delete()
        now.shift(timedelta(hours=24, minutes=59))
        assert held.tell() == 0
        of_it.update(hold_code="fleet")
        assert held.tell() == 1, "that is not planned"
        of_it.update(hold_code="evidence", stage_entered_at=clock.now())
        now.shift(timedelta(hours=25, minutes=2))
        assert held.tell() == 1
        of_it.update(hold_code="fleet", stage_entered_at=clock.now())
        now.shift(timedelta(minutes=settings.HELD_AFTER_MINUTES + 59))
        assert held.tell() == 0, "an hour of it was a pause"
        now.shift(timedelta(minutes=2))
        assert held.tell() == 1


def test_a_stage_waiting_for_an_approval_is_reported_at_once(
    production: Environment, summaries: Workload
) -> None:
    rollout = running(summaries, production)
    Rollout.objects.filter(pk=rollout.pk).update(hold_code="approval", hold_sentence="None yet.")
    Notification.objects.all().delete()
    assert (held.tell(), held.tell()) == (1, 0)
    assert told() == [events.APPROVAL_WAITS]


def test_a_policy_refused_by_routers_is_reported_once_a_day(
    production: Environment, summaries: Workload
) -> None:
    served = summaries.assignments.get().baseline.digest
    refused = {"summaries": {"digest": served, "error": "unknown model\nof mine", "revision": 1}}
    now = clock.now()
    for number in range(7):
        Router.objects.create(
            environment=production,
            instance=f"gateway-{number}",
            polled_at=now,
            first_polled_at=now,
            rejected=refused,
        )
    assert (rejections.tell(), rejections.tell()) == (1, 0)
    row = Notification.objects.get(type=events.REJECTED)
    assert "and 2 more refused the policy of summaries in production" in row.data["sentence"]
    assert row.data["routers"] == 7


class TestEngineWatch:
    @pytest.fixture
    def watch(self) -> engine_watch.EngineWatch:
        """A watch that has seen nothing yet; `self.now` is its monotonic time."""
        self.now = 0.0
        return engine_watch.EngineWatch(lambda: self.now)

    def test_a_dead_engine_is_reported_each_time_it_stops(self, watch: engine_watch.EngineWatch) -> None:
        Heartbeat.objects.create(job=ENGINE, at=clock.now())
        assert not watch.check()
        for hours in (1, 2):
            Heartbeat.objects.update(at=clock.now() - timedelta(hours=hours))
            assert not watch.check()
            self.now += engine_watch.WATCHED_S
            assert watch.check()
            assert watch.check()
        assert told() == [events.ENGINE_DEAD] * 2

    def test_a_gateway_that_starts_before_the_workers_waits_for_a_sweep(
        self, watch: engine_watch.EngineWatch
    ) -> None:
        """After an upgrade the first check reported an engine that was about to start."""
        Heartbeat.objects.create(job=ENGINE, at=clock.now() - timedelta(minutes=5))
        assert not watch.check()
        self.now += engine_watch.WATCHED_S - 1
        assert not watch.check()
        Heartbeat.objects.update(at=clock.now())
        self.now += 1
        assert not watch.check()
        assert told() == []

    def test_an_engine_that_never_ran_is_not_dead(self, watch: engine_watch.EngineWatch) -> None:
        assert not watch.check()
        self.now += engine_watch.WATCHED_S
        assert not watch.check()


class TestReview:
    @pytest.fixture
    def opened(self, production: Environment, summaries: Workload) -> BreakGlass:
        rollout = proposed(summaries, production)
        rollouts.break_glass_start(rollout, actor=actor_of("tom"), reason="the site is down")
        return BreakGlass.objects.get()

    def _approver(self, name: str) -> Actor:
        logged_in(name, "approver", environment="production")
        return actor_of(name)

    def test_a_second_person_completes_it(self, opened: BreakGlass) -> None:
        actions.review(opened, actor=self._approver("eva"), reason="it was right")
        assert BreakGlass.objects.get().reviewed_by == "eva"
        assert told()[-1] == events.REVIEWED

    def test_the_person_who_did_it_cannot_review_it(self, opened: BreakGlass) -> None:
        tom = self._approver("tom")
        with pytest.raises(SelfApproval):
            actions.review(opened, actor=tom, reason="fine")
        assert BreakGlass.objects.get().reviewed_at is None

    def test_an_approver_made_by_break_glass_reviews_none_until_that_is_reviewed(
        self, opened: BreakGlass
    ) -> None:
        """Otherwise one person could make a second account an approver, and remove both banners with it."""
        eva, puppet = self._approver("eva"), actor_of("puppet")
        access.grant_role(
            User.objects.get(username="puppet"),
            "approver",
            "production",
            actor=actor_of("tom"),
            reason="now",
            break_glass=True,
        )
        made = BreakGlass.objects.get(action="membership.break_glass")
        for each in (made, opened):
            with pytest.raises(SelfApproval, match="break-glass"):
                actions.review(each, actor=puppet, reason="fine")
        assert BreakGlass.objects.filter(reviewed_at=None).count() == 2
        actions.review(made, actor=eva, reason="I know the puppet")
        assert actions.review(opened, actor=puppet, reason="it was right").reviewed_by == "puppet"

    def test_it_can_be_reviewed_once(self, opened: BreakGlass) -> None:
        actions.review(opened, actor=self._approver("eva"), reason="it was right")
        with pytest.raises(Conflict):
            actions.review(opened, actor=self._approver("ben"), reason="I, too")
