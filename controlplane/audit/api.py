"""/api/v1 of the audit log: the entries, as they were hashed."""

from typing import Any

import msgspec
from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import permissions
from controlplane.audit.models import Entry
from controlplane.core.actors import Actor
from controlplane.core.errors import NotFound
from controlplane.web.api import ApiView, Pages


class EntrySerializer(serializers.BaseSerializer[Entry]):
    """The entry as it was hashed, with its hashes."""

    def to_representation(self, entry: Entry) -> dict[str, Any]:
        body = msgspec.json.decode(bytes(entry.body))
        return {**body, "hash": entry.hash, "prev_hash": entry.prev_hash}


_FILTERS = (
    "actor_id",
    "actor_label",
    "action",
    "target_kind",
    "target_id",
    "environment",
    "workload",
    "outcome",
)


_ENTRY = {"type": "object", "description": "what was hashed (RFC 8785), with `hash` and `prev_hash`"}
_ENTRIES = Pages().get_paginated_response_schema({"type": "array", "items": _ENTRY})


class AuditView(ApiView):
    @extend_schema(
        operation_id="audit_list",
        parameters=[OpenApiParameter(name, str) for name in _FILTERS],
        responses={200: _ENTRIES},
    )
    def get(self, request: Request) -> Response:
        # Equality on names of ours only: a caller's key is never expanded into a query.
        wanted = {name: request.query_params[name] for name in _FILTERS if name in request.query_params}
        if any("\0" in value for value in wanted.values()):
            raise NotFound("No entry has a NUL in it.")
        return self.page(entries_visible_to(self.actor).filter(**wanted), EntrySerializer, ordering="-seq")


class EntryView(ApiView):
    @extend_schema(responses={200: _ENTRY})
    def get(self, request: Request, seq: int) -> Response:
        entry = entries_visible_to(self.actor).filter(seq=seq).first()
        if entry is None:
            raise NotFound(f"There is no entry {seq}, or it is not yours to see.")
        return Response(EntrySerializer(entry).data)


def entries_visible_to(actor: Actor) -> QuerySet[Entry]:
    """The entries of the environments that one may see, and those of none."""
    names = permissions.visible_environments(actor)
    return Entry.objects.all() if names is None else Entry.objects.filter(environment__in=["", *names])


urlpatterns = [
    path("audit", AuditView.as_view(), name="audit"),
    path("audit/<int:seq>", EntryView.as_view(), name="audit-entry"),
]
