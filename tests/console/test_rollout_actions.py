"""What a person can do with a rollout: each action needs its role and a reason, and has one effect."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from controlplane.audit.models import Entry
from controlplane.audit.verification import verify
from controlplane.core.actors import SYSTEM
from policies_app import actions as policies
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.console.rollout_actions import ROLLOUT_ACTIONS
from rollout_app.engine.states import State
from rollout_app.models import Rollout
from tests.support.pages import text
from tests.support.people import ONE_STEP, People, actor_of, approve, proposed, running


def address_of(rollout: Rollout, name: str) -> str:
    return reverse("console:act", args=[rollout.pk, name])


def submit(client: Any, rollout: Rollout, name: str, **values: Any) -> Any:
    """Open the form of the action and submit it unchanged, with a reason."""
    form = client.get(address_of(rollout, name)).context["form"]
    return client.post(
        address_of(rollout, name), {**form.initial, "reason": "because", **values}, follow=True
    )


def in_state(name: str, workload: Workload, environment: Environment, by: str = "eva") -> Rollout:
    """Return a rollout whose state allows the action `name`. If it has an approval, `by` gave it."""
    if name == "submit":
        return proposed(workload, environment, draft=True)
    if name in ("approve", "reject", "cancel", "break-glass", "amend"):
        return proposed(workload, environment)
    if name in ("start", "withdraw-approval"):
        return approve(proposed(workload, environment), by)
    if name == "approve-stage":
        plan = [ONE_STEP[0], {**ONE_STEP[1], "approval": True}]
        rollout = actions.amend_rollout(
            proposed(workload, environment), actor=actor_of("maria"), reason="careful", plan=plan
        )
        approve(rollout)
        return actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    rollout = running(workload, environment)
    if name == "resume":
        return actions.pause_rollout(rollout, actor=SYSTEM, reason="wait")
    if name in ("complete", "revert"):
        actions.advance_rollout(rollout, actor=SYSTEM, reason="on")
    if name == "revert":
        return actions.complete_rollout(rollout, actor=SYSTEM, reason="done")
    return rollout


AFTER = {
    "submit": (State.AWAITING_APPROVAL, 0),
    "complete": (State.COMPLETED, 1),
    "approve": (State.SCHEDULED, 0),
    "reject": (State.REJECTED, 0),
    "withdraw-approval": (State.AWAITING_APPROVAL, 0),
    "start": (State.RUNNING, 0),
    "break-glass": (State.RUNNING, 0),
    "approve-stage": (State.RUNNING, 0),
    "advance": (State.RUNNING, 1),
    "pause": (State.PAUSED, 0),
    "resume": (State.RUNNING, 0),
    "roll-back": (State.ROLLING_BACK, 0),
    "cancel": (State.CANCELLED, 0),
    "abort": (State.ROLLING_BACK, 0),
    "amend": (State.AWAITING_APPROVAL, 0),
    "revert": (State.COMPLETED, 1),
}


def test_every_action_is_tested() -> None:
    assert set(AFTER) == set(ROLLOUT_ACTIONS)


@pytest.mark.parametrize("name", ROLLOUT_ACTIONS)
def test_it_has_its_effect_and_confirms_it(
    people: People, summaries: Workload, production: Environment, name: str
) -> None:
    rollout = in_state(name, summaries, production, by="tom")
    before = Entry.objects.count()
    response = submit(people("tom", ROLLOUT_ACTIONS[name].role, team=summaries.owner), rollout, name)
    rollout.refresh_from_db()
    assert (rollout.state, rollout.stage) == AFTER[name]
    assert ROLLOUT_ACTIONS[name].said in text(response)
    entry = Entry.objects.order_by("seq")[before:].get()
    assert (entry.actor_label, entry.reason, entry.outcome) == ("tom", "because", "done")


@pytest.mark.parametrize("name", ROLLOUT_ACTIONS)
def test_it_requires_its_role(
    people: People, summaries: Workload, production: Environment, name: str
) -> None:
    rollout = in_state(name, summaries, production)
    others = {"viewer", "editor", "approver", "operator"} - {ROLLOUT_ACTIONS[name].role.value}
    client = people("tom", *others)
    response = client.post(address_of(rollout, name), {"reason": "because", "seen": rollout.version})
    assert response.status_code == 403
    assert f"needs the role {ROLLOUT_ACTIONS[name].role.value} in production" in text(response)
    assert client.get(address_of(rollout, name)).status_code == 403
    assert Rollout.objects.get(pk=rollout.pk).version == rollout.version


@pytest.mark.parametrize("name", ROLLOUT_ACTIONS)
@pytest.mark.parametrize("reason", ["", " \n "])
def test_it_requires_a_reason(
    people: People, summaries: Workload, production: Environment, name: str, reason: str
) -> None:
    rollout = in_state(name, summaries, production)
    response = submit(
        people("tom", ROLLOUT_ACTIONS[name].role, team=summaries.owner), rollout, name, reason=reason
    )
    assert response.status_code == 422
    assert "This field is required" in text(response)
    assert Rollout.objects.get(pk=rollout.pk).version == rollout.version


@pytest.mark.parametrize("name", ROLLOUT_ACTIONS)
def test_its_button_is_shown_if_the_state_allows_it(
    people: People, summaries: Workload, production: Environment, name: str
) -> None:
    rollout = in_state(name, summaries, production, by="tom")
    tom = people("tom", ROLLOUT_ACTIONS[name].role, team=summaries.owner)
    page = tom.get(reverse("console:rollout", args=[rollout.pk]))
    assert f'href="{address_of(rollout, name)}"' in page.content.decode()


def test_editors_of_another_team_are_offered_nothing_of_it(
    people: People, summaries: Workload, production: Environment
) -> None:
    address = reverse("console:rollout", args=[proposed(summaries, production).pk])
    listed = f"{reverse('console:rollouts')}?workload=summaries"
    stranger, owner = people("otto", "editor"), people("olga", "editor", team=summaries.owner)
    for name in ("amend", "cancel"):
        assert f"/{name}/" not in text(stranger.get(address))
        assert f"/{name}/" in text(owner.get(address))
    assert f"only editors of the team {summaries.owner.name} can do it" in text(stranger.get(address))
    assert "Propose a rollout" not in text(stranger.get(listed))
    assert "Propose a rollout" in text(owner.get(listed))


def test_nobody_can_approve_their_own_proposal(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = proposed(summaries, production, by="maria")
    client = people("maria", "approver", "editor")
    page = text(client.get(reverse("console:rollout", args=[rollout.pk])))
    assert "you wrote or proposed it, so somebody else must approve it" in page
    assert address_of(rollout, "approve") not in page
    response = submit(client, rollout, "approve")
    assert response.status_code == 422
    assert "somebody else must approve it" in text(response)
    assert Rollout.objects.get(pk=rollout.pk).state == State.AWAITING_APPROVAL
    assert Entry.objects.get(outcome="refused").actor_label == "maria"


def test_not_even_a_superuser_can_approve_their_own_proposal(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = proposed(summaries, production, by="root")
    client = people("root")
    User.objects.filter(username="root").update(is_superuser=True)
    assert submit(client, rollout, "approve").status_code == 422
    assert Rollout.objects.get(pk=rollout.pk).state == State.AWAITING_APPROVAL


def test_an_approval_covers_what_was_shown(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = proposed(summaries, production)
    client = people("tom", "approver")
    form = client.get(address_of(rollout, "approve")).context["form"].initial
    actions.amend_rollout(rollout, actor=actor_of("maria"), reason="all at once", plan="immediate")
    form |= {"reason": "fine", "seen": Rollout.objects.get(pk=rollout.pk).version}
    response = client.post(address_of(rollout, "approve"), form)
    assert response.status_code == 422
    assert "changed after you opened it" in text(response)
    assert not rollout.approvals.exists()


def submitted_late(client: Any, rollout: Rollout, name: str, reason: str) -> Any:
    """Return the response to a form that was opened before the engine advanced, and submitted afterwards."""
    form = client.get(address_of(rollout, name)).context["form"].initial
    actions.advance_rollout(rollout, actor=SYSTEM, reason="safe")
    return client.post(address_of(rollout, name), {**form, "reason": reason})


def test_it_does_not_advance_a_rollout_that_has_moved_since(
    people: People, summaries: Workload, production: Environment
) -> None:
    plan = [{"mode": "percentage", "share_pcm": share} for share in (1_000, 5_000)] + [{"mode": "full"}]
    rollout = proposed(summaries, production)
    actions.amend_rollout(rollout, actor=actor_of("maria"), reason="slower", plan=plan)
    approve(rollout)
    actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    response = submitted_late(people("tom", "operator"), rollout, "advance", "hurry")
    assert response.status_code == 422
    assert "Read it again" in text(response)
    assert Rollout.objects.get(pk=rollout.pk).stage == 1


def test_a_rollback_works_in_any_later_stage(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    submitted_late(people("tom", "operator"), rollout, "roll-back", "it hurts")
    assert Rollout.objects.get(pk=rollout.pk).state == State.ROLLING_BACK
    assert summaries.assignments.get().candidate is None


def test_a_pause_works_in_any_later_stage(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    submitted_late(people("tom", "operator"), rollout, "pause", "wait")
    rollout.refresh_from_db()
    assert (rollout.state, rollout.stage) == (State.PAUSED, 1)


def test_the_page_approves_a_first_stage_that_requires_it(
    people: People, summaries: Workload, production: Environment
) -> None:
    plan = [{**ONE_STEP[0], "approval": True}, ONE_STEP[1]]
    rollout = proposed(summaries, production)
    actions.amend_rollout(rollout, actor=actor_of("maria"), reason="careful", plan=plan)
    rollout = approve(rollout.pk)
    operator = people("tom", "operator")
    page = text(operator.get(reverse("console:rollout", args=[rollout.pk])))
    assert "Nobody has approved entering" in page and address_of(rollout, "start") not in page
    assert "is approved" in text(submit(people("eva", "approver"), rollout, "approve-stage"))
    submit(operator, rollout, "start")
    assert Rollout.objects.get(pk=rollout.pk).state == State.RUNNING


@pytest.mark.parametrize("name", ["advance", "pause", "resume", "roll-back"])
def test_an_action_that_the_state_forbids_is_refused_on_the_page(
    people: People, summaries: Workload, production: Environment, name: str
) -> None:
    rollout = proposed(summaries, production)
    response = submit(people("tom", "operator"), rollout, name)
    assert response.status_code == 422
    assert "Possible now" in text(response)
    assert Rollout.objects.get(pk=rollout.pk).state == State.AWAITING_APPROVAL


def test_a_freeze_refuses_a_start_and_names_its_end(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = in_state("start", summaries, production)
    until = timezone.now() + timedelta(days=365)
    policies.edit_environment(production, actor=SYSTEM, frozen_until=until, freeze_reason="year end")
    client = people("tom", "operator")
    page = text(client.get(reverse("console:rollout", args=[rollout.pk])))
    assert f"frozen until {until:%Y-%m-%d %H:%M} UTC (year end)" in page
    assert "is frozen until" in text(submit(client, rollout, "start"))
    assert Rollout.objects.get(pk=rollout.pk).state == State.SCHEDULED


def test_a_revert_redirects_to_its_own_page(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = in_state("revert", summaries, production)
    response = submit(people("tom", "operator"), rollout, "revert")
    back = rollout.reverted_by.get()
    assert response.redirect_chain[0][0] == reverse("console:rollout", args=[back.pk])
    assert summaries.assignments.get().candidate == summaries.versions.get(number=1)


def test_the_form_is_returned_alone_for_the_page(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    address = address_of(rollout, "pause")
    page = text(people("tom", "operator").get(address, headers={"HX-Request": "true"}))
    assert "<html" not in page
    assert f'action="{address}"' in page


def test_an_unknown_action_is_not_found(people: People, summaries: Workload, production: Environment) -> None:
    rollout = proposed(summaries, production)
    assert people("tom", "admin").get(address_of(rollout, "delete")).status_code == 404


def test_only_the_approver_can_withdraw_an_approval_and_give_it_again(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = approve(proposed(summaries, production), "eva")
    other = people("tom", "approver", "operator")
    assert address_of(rollout, "withdraw-approval") not in text(
        other.get(reverse("console:rollout", args=[rollout.pk]))
    )
    assert submit(other, rollout, "withdraw-approval").status_code == 422
    eva = people("eva", "approver")
    assert "Your approval is withdrawn" in text(submit(eva, rollout, "withdraw-approval"))
    page = text(other.get(reverse("console:rollout", args=[rollout.pk])))
    assert "withdrawn" in page and "awaiting approval" in page
    rollout = approve(Rollout.objects.get(pk=rollout.pk), "eva")
    assert (rollout.state, rollout.approvals.count()) == (State.SCHEDULED, 1)
    # Teams and roles were created without entries here; only findings about the approval count.
    assert not [found for found in verify().findings if "of the start of" in found.where]
    submit(other, rollout, "start")
    assert Rollout.objects.get(pk=rollout.pk).state == State.RUNNING
