"""Every URL and every action: who may use it, and what accepted and refused writes leave.

The rows are in `tests/trust/matrix/`. A new URL without a row fails here; the message shows the row to add.
"""

import dataclasses
import inspect
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from controlplane.access import actions as access
from controlplane.access import change_requests
from controlplane.audit.models import Entry
from controlplane.console import ConsoleSite
from controlplane.notifications import actions as notifications
from controlplane.web import pages
from policies_app import actions as policies
from policies_app.four_eyes import actions as four_eyes
from rollout_app import actions as rollouts
from tests.trust.matrix import credentials, world
from tests.trust.matrix.asking import CREDENTIALS, ROWS, asked, complaints, is_page, pairs, send

pytestmark = pytest.mark.django_db
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

# URLs that frameworks add and that are open to people without a role: the anonymous answer, and why it is right.
FRAME: dict[str, tuple[int, str]] = {
    "": (302, "leads to the console"),
    "console/login/": (200, "where one signs in"),
    "console/logout/": (302, "signs nobody out"),
    "console/account/inactive/": (200, "what somebody who was deactivated is told"),
    "console/login/with/<slug:provider_id>/": (404, "to the company's identity provider; the test has none"),
    "console/login/with/<slug:provider_id>/callback/": (404, "back from there"),
    "console/login/cancelled/": (302, "leads to where one signs in"),
    "console/login/error/": (302, "leads to where one signs in"),
    "console/login/signup/": (302, "leads to where one signs in"),
    "console/account/connect/": (302, "of one's own account"),
    "console/account/disconnect/": (302, "of one's own account"),
    "console/account/connections/": (302, "leads to one's own account"),
    "console/login/second-factor/": (302, "after the password only"),
    "console/account/password/": (302, "of one's own account"),
    "console/account/confirm/": (302, "of one's own account"),
    "console/account/confirm-code/": (302, "of one's own account"),
    "console/login/passkey/": (302, "leads to where one signs in; a script gets a challenge"),
    "console/account/confirm-passkey/": (302, "of one's own account"),
    "console/account/passkeys/": (302, "leads to one's own account"),
    "console/account/password/set/": (302, "leads to one's own account"),
    "console/account/passkeys/add/": (302, "of one's own account"),
    "console/account/passkeys/<int:pk>/remove/": (302, "of one's own account"),
    "console/account/totp/on/": (302, "of one's own account"),
    "console/account/totp/off/": (302, "of one's own account"),
    "console/account/recovery-codes/": (302, "of one's own account"),
    "console/account/recovery-codes/new/": (302, "of one's own account"),
    "console/account/second-factor/": (302, "leads to one's own account"),
    "console/invitation/": (410, "for whoever opened an invitation's link"),
    "console/invitation/<str:token>/": (302, "an invitation's link"),
    "console/password_change/": (302, "of one's own password"),
    "console/password_change/done/": (302, "of one's own password"),
    "console/autocomplete/": (302, "no model is registered"),
    "console/jsi18n/": (302, "translations for the theme"),
    "console/search/": (302, "the theme's search, over no models"),
    "console/r/<path:content_type_id>/<path:object_id>/": (302, "no model has a page"),
    "console/(?P<url>.*)$": (302, "nothing"),
}


# --- completeness ------------------------------------------------------------------------------------


def patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        at = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, at)
        else:
            yield at, pattern


def methods_of(pattern: URLPattern) -> list[str]:
    view = getattr(pattern.callback, "cls", None) or getattr(pattern.callback, "view_class", None)
    if view is not None:
        return [m for m in METHODS if m.lower() in view.http_method_names and hasattr(view, m.lower())]
    return list(getattr(pattern.callback, "methods", METHODS))


def row_to_add(method: str, at: str, pattern: URLPattern) -> str:
    """Return the missing line and where to add it; its `ANY` and its request must be filled in."""
    kind, _, template = ("page", "", at.removeprefix("console/"))
    file, shown = "console_rows.py", f'lambda w: ("{template}", WHY)' if method != "GET" else f'"{template}"'
    if at.startswith("api/v1/"):
        kind, template = "row", at.removeprefix("api/v1/")
        shown = shown.replace(at, template)
        package = pattern.callback.__module__.partition(".")[0]
        file = {"policies_app": "policy_rows.py", "rollout_app": "rollout_rows.py"}.get(
            package, "access_rows.py"
        )
    return f'tests/trust/matrix/{file}:    {kind}("{method}", "{template}", ANY, {shown}),'


def test_every_url_has_a_row_for_each_of_its_methods() -> None:
    answering: dict[str, URLPattern] = {}
    for at, pattern in patterns(get_resolver()):
        answering.setdefault(at, pattern)  # if two share a URL, the first one answers
    known = {(row.method, row.template) for row in ROWS}
    there = {(m, at) for at, pattern in answering.items() if at not in FRAME for m in methods_of(pattern)}
    missing = [row_to_add(method, at, answering[at]) for method, at in sorted(there - known)]
    assert not missing, (
        "Add only these rows. Replace ANY by what the caller needs (needs.py), and the URL by one that exists in "
        "world.py, with a body that is accepted. Give the status if it is not 200, 204 (DELETE) or 302 (a form). "
        "A URL that is open by design goes into FRAME in this file.\n" + "\n".join(missing)
    )
    assert sorted(known - there) == [], "rows of URLs that no longer exist: remove them"
    assert set(FRAME) - set(answering) == set(), "URLs of frameworks that no longer exist: remove them"


@pytest.mark.parametrize("at", FRAME)
def test_framework_pages_reveal_nothing(at: str) -> None:
    path = "/" + at.replace("(?P<url>.*)$", "x").replace("<path:content_type_id>/<path:object_id>", "1/1")
    path = path.replace("<str:token>", "x").replace("<slug:provider_id>", "company").replace("<int:pk>", "1")
    assert Client(raise_request_exception=False).get(path).status_code == FRAME[at][0]


# --- permissions --------------------------------------------------------------------------------------

GROUPS: dict[str, list[credentials.Credential]] = defaultdict(list)
for one in CREDENTIALS:
    GROUPS[credentials.group_of(one)].append(one)


@pytest.fixture
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Render pages only for the superuser. Other tests cover how they look to other people."""
    if request.node.callspec.params["group"] != "superuser":
        monkeypatch.setattr(pages, "render", lambda *args, status=200, **kwargs: HttpResponse(status=status))
        monkeypatch.setattr(ConsoleSite, "each_context", lambda *args: {})


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("group", GROUPS)
def test_everybody_may_do_exactly_what_the_rows_allow(group: str) -> None:
    made, wrong = world.make(), []
    for credential in GROUPS[group]:
        with transaction.atomic():
            caller = credentials.make(credential, made.team)
            rows = [row for row, one in pairs() if one is credential]
            # Permissions do not depend on the database, so only a sample runs on PostgreSQL.
            if connection.vendor != "sqlite" and credential.name != "superuser":
                rows = random.Random(credential.name).sample(rows, len(rows) // 8)
            wrong += [complaint for row in rows for complaint in complaints(row, caller, made)]
            transaction.set_rollback(True)
    assert not wrong, "\n".join(wrong)


def test_the_matrix_has_its_documented_size() -> None:
    drawn = sum(is_page(row) for row in ROWS)
    print(
        f"{len(ROWS) - drawn} API rows and {drawn} pages, {len(CREDENTIALS)} credentials: {len(pairs()):,} pairs"
    )
    assert len(pairs()) >= 5_000


# --- every action ------------------------------------------------------------------------------------

# The modules that contain writing actions, and the names of their audit entries.
WRITES: dict[Any, dict[str, str]] = {
    access: {
        "issue_key": "key.issue", "revoke_key": "key.revoke", "rotate_key": "key.rotate",
        "grant_role": "membership.grant", "withdraw_role": "membership.withdraw",
        "create_team": "team.create", "set_team_members": "team.set_members",
        "deactivate_person": "user.deactivate", "activate_person": "user.activate",
        "end_sessions": "user.end_sessions", "remove_second_factor": "second_factor.remove",
        "withdraw_superuser": "user.withdraw_superuser",
        "request_role": "change.request", "invite": "invitation.create", "revoke_invitation": "invitation.revoke",
    },
    notifications: {
        "add_receiver": "receiver.add", "edit_receiver": "receiver.edit", "rotate_secret": "receiver.rotate_secret",
        "send_test": "receiver.test", "send_again": "receiver.send_again", "review": "break_glass.review",
    },
    change_requests: {"ask": "change.request", "reject": "change.reject"},
    four_eyes: {
        "request_serving": "change.request", "request_four_eyes_off": "change.request",
        "approve_change": "assignment.serve_first",
    },
    policies: {
        "register_environment": "environment.register", "edit_environment": "environment.edit",
        "register_workload": "workload.register", "edit_workload": "workload.edit",
        "add_version": "version.add", "add_version_from_text": "version.add",
        "add_model": "model.add", "edit_model": "model.edit",
        "serve_first": "assignment.serve_first", "stop_serving": "assignment.stop_serving",
        "pin": "assignment.pin", "unpin": "assignment.unpin",
    },
    rollouts: {
        "propose_rollout": "rollout.propose", "submit_rollout": "rollout.propose", "amend_rollout": "rollout.amend",
        "approve_rollout": "rollout.approve", "approve_stage": "rollout.approve_stage",
        "reject_rollout": "rollout.reject", "cancel_rollout": "rollout.cancel", "start_rollout": "rollout.start",
        "break_glass_start": "rollout.break_glass", "advance_rollout": "rollout.advance",
        "complete_rollout": "rollout.complete", "pause_rollout": "rollout.pause", "resume_rollout": "rollout.resume",
        "roll_back_rollout": "rollout.roll_back", "abort_rollout": "rollout.abort", "revert_rollout": "rollout.revert",
        "add_plan": "plan.add", "edit_plan": "plan.edit", "remove_plan": "plan.remove",
        "set_guardrail": "guardrail.set", "remove_guardrail": "guardrail.remove",
    },
}  # fmt: skip
# Entries of the same actions when one person does what normally needs two.
BREAK_GLASS = {"membership.break_glass", "assignment.break_glass", "environment.break_glass"}
# Actions without a URL: by the system, by a command on the machine, or by a requester outside the matrix.
ELSEWHERE = {
    "accept_as", "accept_with_password", "account_change", "change_password", "confirm_rolled_back", "create_person",
    "start_new_epoch", "take_stock", "withdraw", "withdraw_approval",
}  # fmt: skip
# Further functions of these modules; they write nothing themselves.
NO_WRITES = {
    "APPROVE_STAGE", "Refusal", "Surroundings", "binding", "freeze_sentence", "guardrails_tag",
    "invitation_fields", "own_guardrails", "pin_tag",
    "is_somebody_else", "next_stage",
    "key_fields", "people", "person_fields", "refusal", "refusals", "refuse_bad_username",
    "refuse_ended", "served_assignment",
    "set_assignment", "standing_approval", "team_fields", "token_hash",
}  # fmt: skip


def test_every_action_is_known_and_names_its_actor() -> None:
    for module, names in WRITES.items():
        given = set(getattr(module, "__all__", names))
        unknown = sorted(given - set(names) - NO_WRITES - ELSEWHERE)
        assert not unknown, (
            f"add {unknown} of {module.__name__} to WRITES, with the action that its entry names"
        )
        for name in names:
            actor = inspect.signature(getattr(module, name)).parameters["actor"]
            assert actor.kind is inspect.Parameter.KEYWORD_ONLY, name
            assert actor.default is inspect.Parameter.empty, name


def test_every_action_is_reached_by_a_row() -> None:
    made, led_to = world.make(), set()
    (superuser,) = (one for one in CREDENTIALS if one.name == "superuser")
    caller = credentials.make(superuser, made.team)
    for row in ROWS:
        if row.writes:
            led_to |= {entry.action for entry in asked(row, caller, made)[2] if entry.outcome == "done"}
    assert led_to == {action for names in WRITES.values() for action in names.values()} | BREAK_GLASS


# --- each refused write is one entry --------------------------------------------------------------------


def _sent(row: Any, caller: Any, made: world.World, how: str) -> tuple[int, list[str], list[str]]:
    """Send a write stale, twice or empty. Return its status, its refusals and its changes; everything is rolled
    back."""
    with transaction.atomic():
        path, body = row.request(made)
        if how == "stale":
            caller = dataclasses.replace(caller, headers={**caller.headers, "If-Match": '"1000000"'})
        elif how == "twice":
            send(row, caller, path, body)
        before = Entry.objects.count()
        status = send(row, caller, path, {"reason": ""} if how == "empty" else body).status_code
        left = list(Entry.objects.order_by("seq")[before:])
        transaction.set_rollback(True)
    refused, done = (
        [entry.action for entry in left if entry.outcome == what] for what in ("refused", "done")
    )
    return status, refused, done


@pytest.mark.parametrize("how", ["stale", "twice", "empty"])
def test_a_refusal_by_a_rule_leaves_one_entry_and_invalid_input_none(how: str) -> None:
    """412: the object changed since it was read. 409 (422 on a page): the same request again, which was valid the
    first time, so a rule refuses it. 422 for an empty form or body: nothing was requested yet."""
    made, wrong, seen = world.make(), [], Counter[int]()
    (superuser,) = (one for one in CREDENTIALS if one.name == "superuser")
    caller = credentials.make(superuser, made.team)
    for row in ROWS:
        if not row.writes or (how == "stale" and is_page(row)):
            continue
        status, refused, done = _sent(row, caller, made, how)
        seen[status] += 1
        is_refused = status in (403, 409, 412) or (status == 422 and is_page(row) and how == "twice")
        # Repeating something already done may change nothing, and then leaves no entry.
        if len(refused) != int(is_refused) or len(refused) + len(done) > 1:
            wrong.append(f"{row.method} {row.template}: {status} left {refused} refused, {done} done")
    assert not wrong, "\n".join(wrong)
    least = {"stale": (412, 15), "twice": (409, 20), "empty": (422, 80)}
    status, times = least[how]
    assert seen[status] >= times, seen
