"""The sentences that describe audit entries: who did what."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.urls import reverse

from controlplane.access import actions
from controlplane.access.actions import invitations
from controlplane.audit import log, pages, sentences
from controlplane.audit.entries import body_of
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict
from controlplane.core.ids import uuid7
from rollout_app.actions import propose_rollout
from tests.support import builders
from tests.support.places import ANNA

pytestmark = pytest.mark.django_db
THIN = "\u202f"


def said(**filters: Any) -> list[str]:
    return [words for _, words in sentences.told(list(Entry.objects.filter(**filters).order_by("seq")))]


@pytest.fixture
def admin() -> User:
    return actions.create_person("admin", actor=SYSTEM, reason="x", superuser=True, action="user.first_admin")


def test_an_accepted_invitation_is_not_a_role_that_somebody_gave_themselves(admin: User) -> None:
    builders.environment("staging")
    roles = [{"environment": "staging", "role": "viewer"}, {"environment": "", "role": "editor"}]
    _, token = invitations.invite("Rita Reviewer", actor=Actor.of_user(admin), reason="x", roles=roles)
    actions.accept_with_password(
        invitations.token_hash(token), username="rita", password="a long good word 7"
    )
    assert said(action="invitation.create") == ["admin invited Rita Reviewer"]
    assert said(action="user.create") == ["rita accepted an invitation by admin and created an account"]
    assert sorted(said(action="membership.grant")) == [
        "rita accepted an invitation by admin, with the role editor in every environment",
        "rita accepted an invitation by admin, with the role viewer in staging",
    ]
    assert said(action="invitation.accept") == ["rita accepted the invitation for Rita Reviewer"]


def test_a_reason_alone_does_not_make_it_an_invitation(admin: User) -> None:
    reason = f"boss invited them (invitation {uuid7()})."
    actions.grant_role(admin, "viewer", "", actor=Actor.of_user(admin), reason=reason)
    assert said(action="membership.grant") == ["admin gave a role to user admin"]


def test_the_first_administrator(admin: User) -> None:
    assert said(action="user.first_admin") == ["Pointsman created the first administrator: user admin"]


def test_an_approval_that_nobody_gave_is_not_one_by_the_engine(admin: User, client: Any) -> None:
    environment, workload = builders.environment("staging"), builders.workload("support")
    builders.served(environment, workload)
    candidate = builders.version(workload, rules=[])
    rollout = propose_rollout(environment, workload, candidate, plan="standard", reason="x", actor=ANNA)
    assert said(action="rollout.approve") == ["No approval is required for v1 → v2 of support in staging"]
    client.force_login(admin)
    page = client.get(reverse("console:rollout", args=[rollout.pk])).content.decode()
    assert "No approval is required" in page


def test_a_refused_proposal_has_no_link_to_a_rollout_that_does_not_exist(admin: User, client: Any) -> None:
    environment, workload = builders.environment("staging"), builders.workload("support")
    served = builders.served(environment, workload)
    with pytest.raises(Conflict):
        propose_rollout(environment, workload, served.baseline, plan="standard", reason="x", actor=ANNA)
    assert said(outcome="refused") == [
        "anna tried to propose a rollout of support in staging, and was refused"
    ]
    client.force_login(admin)
    found = client.get(reverse("console:audit"), {"outcome": "refused"}).context["listed"]
    assert [address for *_, address in found] == [""]
    response = client.get(reverse("console:entry", args=[found[0][0].seq]))
    assert response.context["address"] == ""
    assert "on which the action was based" not in response.content.decode()
    assert "Why it was refused" in response.content.decode()


def test_each_verb_has_a_base_form() -> None:
    bases = {sentences._base(f"{verb} it").split()[0].rstrip(",:") for verb in sentences.VERBS.values()}
    assert bases == {
        "abort", "accept", "activate", "add", "advance", "amend", "approve", "begin", "cancel", "change", "complete",
        "confirm", "connect", "create", "deactivate", "disconnect", "draft", "edit", "end", "generate", "give",
        "invite", "issue", "join", "list", "notice", "pause", "pin", "propose", "register", "rehash", "reject",
        "remove", "request", "restore", "resume", "retire", "revert", "review", "revoke", "roll", "rotate", "save",
        "schedule", "send", "set", "sign", "start", "stop", "switch", "take", "test", "unpin", "withdraw", "write",
    }  # fmt: skip


ACTIONS = {
    "assignment": "break_glass pin serve_first stop_serving unpin",
    "break_glass": "review",
    "change": "approve reject request withdraw",
    "environment": "break_glass edit four_eyes_off new_epoch register",
    "guardrail": "remove set",
    "invitation": "accept create revoke",
    "key": "issue revoke rotate",
    "membership": "break_glass grant withdraw",
    "model": "add edit",
    "password": "change rehash",
    "plan": "add edit remove",
    "provider": "connect disconnect",
    "receiver": "add edit rotate_secret send_again test",
    "rollout": "abort advance amend approve approve_stage break_glass cancel complete confirm_abort "
    "confirm_rollback draft mirrors pause propose reject resume revert roll_back schedule start withdraw_approval",
    "second_factor": "add new_recovery_codes remove",
    "session": "begin end",
    "signing_key": "noticed retire rotate",
    "team": "create join set_members",
    "user": "activate create deactivate end_sessions first_admin take_stock withdraw_superuser",
    "version": "add",
    "workload": "edit register",
}


def test_each_action_has_a_verb_and_can_be_chosen_in_the_filter() -> None:
    known = {f"{kind}.{name}" for kind, names in ACTIONS.items() for name in names.split()}
    assert set(sentences.VERBS) == known
    choices = dict(pages.FilterForm().fields["action"].widget.choices)
    assert {action for kind, group in choices.items() if kind for action, _ in group} == known | {
        f"{kind}." for kind in ACTIONS
    }
    assert choices["Second factor"][:2] == [
        ("second_factor.", "Second factor: anything"),
        ("second_factor.add", "set up a second factor of"),
    ]


def entry(action: str, kind: str, target: str = "x", **fields: Any) -> Entry:
    defaults = {"actor_kind": "user", "actor_label": "ann", "outcome": "done", "workload": "w"}
    return Entry(seq=1, action=action, target_kind=kind, target_id=target, **(defaults | fields))


SENTENCES = [
    (entry("rollout.start", "rollout"), "ann started a rollout of w"),
    (entry("rollout.start", "rollout", environment="staging"), "ann started a rollout of w in staging"),
    (entry("rollout.approve", "rollout", actor_kind="system"), "No approval is required for a rollout of w"),
    (entry("assignment.pin", "assignment", "staging/w"), "ann pinned w"),
    (entry("guardrail.set", "guardrail", "w/cost"), "ann changed the guardrail on w/cost"),
    (entry("version.add", "version", "w/3"), "ann wrote v3 of w"),
    (
        entry("break_glass.review", "break_glass"),
        "ann reviewed the use of break-glass: a use of it",
    ),
    (entry("invitation.create", "invitation"), "ann invited somebody"),
    (entry("invitation.revoke", "invitation"), "ann revoked the invitation for somebody"),
    (entry("change.request", "change_request"), "ann requested a change"),
    (entry("signing_key.rotate", "signing_key"), "ann rotated signing key x"),
    (entry("environment.edit", "environment", "x", environment="x"), "ann edited environment x"),
    (entry("session.begin", "user", environment="x"), "ann signed in"),
    (entry("request.post", "path", "/a", outcome="refused"), "ann was refused at /a"),
    (entry("team.create", "team", outcome="refused"), "ann tried to create team x, and was refused"),
    (entry("thing.break", "thing", outcome="refused"), "ann was refused (break) thing x"),
    (entry("refusals.folded", "actor", outcome="refused"), "ann was refused more often than the log lists"),
    (
        entry("audit.resume", "audit", actor_kind="system", actor_label="Pointsman"),
        "Pointsman found changed rows in the log, and continued it after them",
    ),
    (
        entry("audit.bad_checkpoint", "checkpoint", actor_kind="system", actor_label="Pointsman"),
        "Pointsman found a checkpoint that does not match the log",
    ),
]


@pytest.mark.parametrize(("written", "words"), SENTENCES, ids=[words for _, words in SENTENCES])
def test_each_kind_of_target_has_its_words(written: Entry, words: str) -> None:
    assert sentences.sentence(written, {}) == words


def test_names_take_the_place_of_ids() -> None:
    for kind, words in {
        "rollout": "ann edited N of w",
        "guardrail": "ann edited N",
        "break_glass": "ann edited N",
        "invitation": "ann edited the invitation for N",
        "change_request": "ann edited N",
        "user": "ann edited user N",
    }.items():
        assert sentences.sentence(entry("workload.edit", kind), {"x": "N"}) == words


@pytest.mark.parametrize(
    ("actor", "person"),
    [({"user_id": "7"}, "7"), ({"user_id": None}, ""), ({"user_id": 7}, ""), ({}, ""), ("x", ""), (None, "")],
)
def test_the_person_behind_an_entry(actor: Any, person: str) -> None:
    assert sentences.user_id({"actor": actor}) == person


def test_a_person_is_named_even_if_the_account_is_gone(admin: User) -> None:
    assert sentences.person_of(str(admin.pk)) == "admin"
    assert sentences.person_of("999999") == "user 999999"
    assert sentences.person_of("") == ""


def test_shares_are_in_percent_in_readable_differences() -> None:
    with transaction.atomic():
        entry = log.record(
            actor=SYSTEM,
            action="plan.edit",
            target=("plan", "slow"),
            before={"stages": [{"share_pcm": 1_000}], "mirror_pcm": 0},
            after={"stages": [{"share_pcm": 30_000}], "mirror_pcm": 500},
        )
    shown = pages.differences(body_of(entry))
    text = str(shown)
    assert "_pcm" not in text
    assert {"path": "mirror", "kind": "changed", "before": f"0{THIN}%", "after": f"0.5{THIN}%"} in shown
    assert f"30{THIN}%" in text.replace("\\u202f", THIN)
