"""/api/v1/notifications and /api/v1/break-glass: permissions, secrets shown once, entries in the audit log."""

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User

from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.notifications import delivery
from controlplane.notifications.models import BreakGlass, Delivery, Receiver
from rollout_app import actions as rollouts
from tests.support import builders
from tests.support.callers import Caller
from tests.support.people import actor_of, logged_in, proposed
from tests.support.receivers import Listener, status

pytestmark = pytest.mark.django_db
RECEIVERS = "notifications/receivers"


@pytest.fixture
def admin() -> Caller:
    return Caller("admin")


def hook(listener: Listener, **fields: Any) -> dict[str, Any]:
    return {"name": "ops", "kind": "webhook", "address": listener.url, "reason": "to be told"} | fields


def test_the_secret_is_shown_once_and_stored_encrypted(admin: Caller, listener: Listener) -> None:
    made = admin("POST", RECEIVERS, hook(listener))
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    address = f"{RECEIVERS}/{made.json()['id']}"
    assert secret not in admin("GET", address).content.decode() + admin("GET", RECEIVERS).content.decode()
    assert secret.removeprefix("whsec_") not in str(Receiver.objects.values().get())
    assert all(
        secret.removeprefix("whsec_").encode() not in bytes(entry.body) for entry in Entry.objects.all()
    )


def test_an_idempotent_retry_does_not_return_the_secret(admin: Caller, listener: Listener) -> None:
    once = {"Idempotency-Key": "k-1"}
    assert admin("POST", RECEIVERS, hook(listener), **once).json()["secret"]
    assert admin("POST", RECEIVERS, hook(listener), **once).json()["secret"] is None


def test_a_slack_address_is_never_shown(admin: Caller, listener: Listener) -> None:
    url = f"{listener.url}/T000/B000/XyZsecret"
    made = admin("POST", RECEIVERS, hook(listener, kind="slack", address=url)).json()
    assert made["address"].endswith("…cret")
    assert "XyZsecret" not in str(Receiver.objects.values().get())
    assert all(b"XyZsecret" not in bytes(entry.body) for entry in Entry.objects.all())


def test_each_write_is_one_entry(admin: Caller, listener: Listener) -> None:
    listener.answers = [status(410)]
    before = Entry.objects.count()
    made = admin("POST", RECEIVERS, hook(listener)).json()
    one = f"{RECEIVERS}/{made['id']}"
    admin("POST", f"{one}/test", {})
    delivery.run_due()
    dead = Delivery.objects.get()
    assert admin("POST", f"notifications/deliveries/{dead.pk}/send-again", {}).status_code == 202
    assert admin("POST", f"{one}/rotate", {}, **{"If-Match": '"1"'}).status_code == 201
    edit = {"enabled": False, "reason": "it moved"}
    assert admin("PATCH", one, edit, **{"If-Match": '"2"'}).json()["version"] == 3
    actions = list(Entry.objects.order_by("seq").values_list("action", flat=True))[before:]
    names = ["add", "test", "send_again", "rotate_secret", "edit"]
    assert actions == [f"receiver.{name}" for name in names]
    assert verification.verify().findings == []


def test_a_test_message_returns_the_answer(admin: Caller, listener: Listener) -> None:
    listener.answers = [status(418, b"short and stout")]
    made = admin("POST", RECEIVERS, hook(listener)).json()
    sent = admin("POST", f"{RECEIVERS}/{made['id']}/test", {"reason": "does it work"})
    assert (sent.status_code, sent.json()["state"]) == (202, "waiting")
    delivery.run_due()
    found = admin("GET", f"notifications/deliveries/{sent.json()['id']}").json()
    assert (found["status"], found["answer"], found["attempts"]) == (418, "short and stout", 1)
    listed = admin("GET", f"{RECEIVERS}/{made['id']}/deliveries?state=waiting").json()["items"]
    assert [row["type"] for row in listed] == ["test"]
    for bad in ("%00", "nowhere", "%ff"):
        assert admin("GET", f"{RECEIVERS}/{made['id']}/deliveries?state={bad}").status_code in (400, 422)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"address": "https://169.254.169.254/"}, "destination_refused"),
        ({"kind": "slack", "address": "http://example.org/"}, "destination_refused"),
        ({"kind": "email", "address": "ops@example.org"}, "invalid_input"),  # no EMAIL_URL
        ({"events": ["rollout.unknown"]}, "invalid_input"),
        ({"kind": "pigeon"}, "invalid_input"),
        ({"name": "a\u200bb"}, "invalid_input"),
        ({"environments": ["no such/name"]}, "invalid_input"),
    ],
    ids=str,
)
def test_bad_input_is_refused(admin: Caller, listener: Listener, fields: dict[str, Any], code: str) -> None:
    answer = admin("POST", RECEIVERS, hook(listener, **fields))
    assert (answer.status_code, answer.json()["code"], Receiver.objects.count()) == (422, code, 0)


def test_a_name_can_be_used_once(admin: Caller, listener: Listener) -> None:
    admin("POST", RECEIVERS, hook(listener))
    assert admin("POST", RECEIVERS, hook(listener)).status_code == 409


def test_an_edit_requires_the_current_version(admin: Caller, listener: Listener) -> None:
    one = f"{RECEIVERS}/{admin('POST', RECEIVERS, hook(listener)).json()['id']}"
    assert admin("PATCH", one, {"name": "b"}).status_code == 428
    assert admin("PATCH", one, {"name": "b"}, **{"If-Match": '"7"'}).status_code == 412
    assert admin("PATCH", one, {"enabled": False}, **{"If-Match": '"1"'}).status_code == 422  # no reason
    assert admin("PATCH", one, {"address": "https://10.0.0.1/"}, **{"If-Match": '"1"'}).status_code == 422
    assert admin("PATCH", one, {"name": "b"}, **{"If-Match": '"1"'}).headers["ETag"] == '"2"'


def test_it_requires_an_admin_of_every_environment(admin: Caller, listener: Listener) -> None:
    made = admin("POST", RECEIVERS, hook(listener)).json()
    for other in (Caller("operator"), Caller("admin", environment="production"), Caller("viewer")):
        for method, path, body in (
            ("GET", RECEIVERS, None),
            ("POST", RECEIVERS, hook(listener, name="mine")),
            ("PATCH", f"{RECEIVERS}/{made['id']}", {"name": "mine"}),
            ("POST", f"{RECEIVERS}/{made['id']}/test", {}),
            ("POST", f"{RECEIVERS}/{made['id']}/rotate", {}),
            ("GET", f"{RECEIVERS}/{made['id']}/deliveries", None),
            ("GET", f"notifications/deliveries/{uuid4()}", None),
        ):
            assert other(method, path, body, **{"If-Match": "*"}).status_code == 403
    assert Receiver.objects.get().name == "ops"


def test_break_glass_is_listed_and_reviewed_by_a_second_person(admin: Caller) -> None:
    environment = builders.environment("production", four_eyes=True)
    workload = builders.workload("summaries")
    builders.served(environment, workload)
    builders.version(workload, actor=actor_of("maria"))
    rollouts.break_glass_start(
        proposed(workload, environment), actor=actor_of("tom"), reason="the site is down"
    )
    listed = admin("GET", "break-glass?open=true").json()["items"]
    opened = next(row for row in listed if row["action"] == "rollout.break_glass")
    path = f"break-glass/{opened['id']}/review"
    logged_in("tom", "approver", environment="production")
    logged_in("eva", "approver", environment="production")
    by_tom = Caller("approver", user=User.objects.get(username="tom"))
    by_eva = Caller("approver", user=User.objects.get(username="eva"))
    refused = by_tom("POST", path, {"reason": "fine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "self_approval")
    assert Caller("viewer")("POST", path, {"reason": "fine"}).status_code == 403
    assert by_eva("POST", path, {}).status_code == 422
    assert by_eva("POST", path, {"reason": "it was right"}).json()["reviewed_by"] == "key script of eva"
    assert by_eva("POST", path, {"reason": "again"}).status_code == 409
    assert Caller("viewer", environment="staging")("GET", "break-glass").json()["items"] == []
    assert BreakGlass.objects.exclude(reviewed_at=None).count() == 1


def test_a_banner_removed_in_the_database_is_detected(admin: Caller) -> None:
    environment = builders.environment("production", four_eyes=True)
    workload = builders.workload("summaries")
    builders.served(environment, workload)
    builders.version(workload, actor=actor_of("maria"))
    rollouts.break_glass_start(
        proposed(workload, environment), actor=actor_of("tom"), reason="the site is down"
    )
    before = set(verification.verify().findings)  # a team that the test made past the actions
    BreakGlass.objects.update(reviewed_at="2026-01-01T00:00:00Z", reviewed_by="eva")
    new = set(verification.verify().findings) - before
    kinds = {(finding.kind, finding.where.split()[0]) for finding in new}
    assert kinds == {("unrecorded", "review")}
