"""Texts that people and routers write cannot change how a page or a terminal shows the rest."""

import json
from typing import Any

import pytest
from django import forms
from rest_framework import serializers

from controlplane.core.names import harmless, validate_text
from controlplane.urls import urlpatterns
from policies_app.fleet.acks import read_ack
from policies_app.four_eyes.api import GivenApprovalSerializer
from policies_app.models import Environment, PolicyVersion
from policies_app.serializers import PinSerializer
from rollout_app.shapes import JudgedGuardrail
from tests.support import builders
from tests.support.callers import Caller
from tests.support.people import logged_in

HARMFUL = ["\x1b]0;owned\x07", "\x9b2J", "\x00", "\x7f", "\b", "\u202egnp.exe", "\u2066x\u2069", "\u200f"]
FINE = "One line,\r\nanother\nand a\ttab; Grüße, 東京 👩\u200d💻 می\u200cخواهم"
PROSE = {"reason", "note", "freeze_reason"}
ANSWERS = {GivenApprovalSerializer, JudgedGuardrail, PinSerializer}  # never read from a request


def subclasses(of: Any) -> set[Any]:
    return {one for each in of.__subclasses__() for one in ({each} | subclasses(each))}


def test_every_field_for_a_reason_or_a_note_refuses_them() -> None:
    assert urlpatterns  # every form and serializer is imported
    fields = {
        f"{one.__module__}.{one.__name__}.{name}": field
        for one in subclasses(forms.BaseForm)
        for name, field in getattr(one, "base_fields", {}).items()
        if name in PROSE and not one.__module__.startswith("tests")
    }
    fields |= {
        f"{one.__module__}.{one.__name__}.{name}": field
        for one in subclasses(serializers.Serializer) - ANSWERS
        for name, field in one._declared_fields.items()
        if name in PROSE and not field.read_only
    }
    assert len(fields) > 30
    assert {name for name, field in fields.items() if validate_text not in field.validators} == set()


@pytest.mark.django_db
@pytest.mark.parametrize("text", HARMFUL, ids=ascii)
def test_the_api_refuses_them(text: str) -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    place, call = assignment.environment, Caller("admin")
    workload = assignment.workload
    workload.owner.members.clear()
    requests: list[tuple[str, str, str, dict[str, Any]]] = [
        ("POST", f"environments/{place.name}/assignments/{workload.name}/pin", "reason", {"model": "small"}),
        ("PATCH", f"environments/{place.name}", "freeze_reason", {"frozen_until": "2099-01-01T00:00:00Z"}),
        ("POST", f"workloads/{workload.name}/versions", "note", {"policy": builders.document(workload)}),
    ]
    for method, path, field, body in requests:
        answer = call(method, path, body | {"reason": "why"} | {field: f"calm {text}"}, **{"If-Match": "*"})
        assert answer.status_code in (400, 422), (path, answer.content)
    place.refresh_from_db()
    assert (place.freeze_reason, place.frozen_until, PolicyVersion.objects.count()) == ("", None, 1)


@pytest.mark.django_db
def test_the_console_refuses_them_and_keeps_other_texts() -> None:
    place, client = builders.environment("production"), logged_in("ada", "admin")
    form = {"poll_interval_ms": "9000", "description": "", "expected": "1", "reason": "calm \x1b[2J"}
    refused = client.post("/console/environments/production/edit/", form)
    assert refused.status_code == 422
    assert "control character (U+001B)" in refused.content.decode()
    assert client.post("/console/environments/production/edit/", form | {"reason": FINE}).status_code == 302
    assert Environment.objects.get(pk=place.pk).poll_interval_ms == 9_000


@pytest.mark.parametrize("text", [text for text in HARMFUL if text != "\x00"], ids=ascii)
def test_what_a_router_sends_is_kept_without_them(text: str) -> None:
    """A rejection must reach the people, so it is not refused."""
    body = b'{"state": "rejected", "workload": "w", "digest": "d", "error": %s}'
    ack = read_ack(body % ascii_json(f"bad rule {text}\nline 2"))
    assert ack.error is not None
    assert ack.error.startswith("bad rule ") and ack.error.endswith("\nline 2")
    assert ack.error == harmless(ack.error) and "\ufffd" in ack.error
    validate_text(ack.error)


def ascii_json(text: str) -> bytes:
    return json.dumps(text).encode()
