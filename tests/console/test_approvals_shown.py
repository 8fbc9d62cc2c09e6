"""What a rollout's page says about its approvals when they no longer count, or when none seems to be needed."""

from datetime import timedelta

from django.urls import reverse
from django.utils import timezone

from controlplane.access.models import Membership
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.evidence_report.gather import evidence_report
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.pages import text
from tests.support.people import ONE_STEP, People, actor_of, approve, proposed


def shown(people: People, rollout: Rollout) -> str:
    return text(people("tom", "viewer").get(reverse("console:rollout", args=[rollout.pk])))


def test_an_approval_of_an_earlier_proposal_is_marked(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = approve(proposed(summaries, production))
    page = shown(people, rollout)
    assert "for exactly this proposal" in page and "no longer counts" not in page
    actions.amend_rollout(rollout.pk, actor=actor_of("maria"), reason="slower", plan=[{"mode": "full"}])
    page = shown(people, rollout)
    assert "for exactly this proposal" not in page and "no longer counts" in page


def test_the_first_of_two_approvals_is_not_enough(
    people: People, summaries: Workload, production: Environment
) -> None:
    builders.version(summaries)  # by nobody that is known, so two people must approve it
    rollout = proposed(summaries, production)
    assert "two approvers are needed; 0 of 2 have approved" in shown(people, rollout)
    client, address = people("eva", "approver"), reverse("console:act", args=[rollout.pk, "approve"])
    form = client.get(address).context["form"]
    page = text(client.post(address, {**form.initial, "reason": "fine"}, follow=True))
    assert "An operator can start it now" not in page and "Another approver must approve it, too." in page
    assert "two approvers are needed; 1 of 2 have approved" in page
    assert address not in page, "eva has done her part"
    assert "Waiting for your approval" not in text(client.get(reverse("console:index")))
    assert "Waiting for your approval" in text(people("ben", "approver").get(reverse("console:index")))


def test_an_approval_of_somebody_who_may_no_longer_approve_is_marked(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = approve(proposed(summaries, production))
    assert "for exactly this proposal" in shown(people, rollout)
    Membership.objects.filter(user__username="eva").delete()
    page = shown(people, rollout)
    assert "no longer counts" in page and "from somebody who may no longer approve it" in page
    assert [one["counts"] for one in evidence_report(rollout)["who"]["approvals"]] == [False]


def test_an_approval_of_the_first_stage_is_marked_alike(
    people: People, summaries: Workload, production: Environment
) -> None:
    plan = [{**ONE_STEP[0], "approval": True}, *ONE_STEP[1:]]
    rollout = actions.amend_rollout(
        proposed(summaries, production), actor=actor_of("maria"), reason="careful", plan=plan
    )
    approve(rollout)
    rollout.refresh_from_db()
    actions.approve_stage(
        rollout, 0, actor=actor_of("eva"), reason="fine", expected_binding=actions.binding(rollout, 0)
    )
    assert shown(people, rollout).count("for exactly this proposal") == 2
    Membership.objects.filter(user__username="eva").delete()
    assert shown(people, rollout).count("from somebody who may no longer approve it") == 2


def test_an_approved_rollout_with_a_time_waits_for_its_time(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = actions.amend_rollout(
        proposed(summaries, production),
        actor=actor_of("maria"),
        reason="at night",
        scheduled_for=timezone.now() + timedelta(hours=8),
    )
    client, address = people("eva", "approver"), reverse("console:act", args=[rollout.pk, "approve"])
    form = client.get(address).context["form"]
    page = text(client.post(address, {**form.initial, "reason": "fine"}, follow=True))
    assert "Approved. It starts at its time." in page


def test_it_waits_for_an_approval_although_the_environment_needs_none_now(
    people: People, summaries: Workload, production: Environment
) -> None:
    """What was proposed under four eyes keeps them."""
    rollout = proposed(summaries, production)
    Environment.objects.update(four_eyes=False)
    page = shown(people, rollout)
    assert "requires no approval" not in page and "No approval yet." in page


def test_a_stage_may_need_an_approval_where_the_start_needs_none(people: People) -> None:
    staging, workload = builders.environment("staging"), builders.workload("triage")
    builders.served(staging, workload)
    plan = [
        {"mode": "percentage", "share_pcm": 5_000, "approval": True},
        {"mode": "full", "approval": True},
    ]
    for stages, says in ((plan, False), ([{"mode": "full"}], True)):
        rollout = actions.propose_rollout(
            staging, workload, builders.version(workload), plan=stages, reason="try", actor=actor_of("maria")
        )
        assert ("staging requires no approval" in shown(people, rollout)) is says
