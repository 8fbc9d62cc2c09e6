"""/api/v1/audit: the entries of the audit log, as they were hashed."""

from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access.models import Role
from controlplane.access.selectors import entries_visible_to
from controlplane.audit import entries, exports, verification
from controlplane.audit.models import Entry
from controlplane.core.errors import InvalidInput, NotFound
from controlplane.web.api import PAGE, ApiView, Pages


class EntrySerializer(serializers.BaseSerializer[Entry]):
    """An entry as it was hashed, with its hashes."""

    def to_representation(self, entry: Entry) -> dict[str, Any]:
        return {**entries.body_of(entry), "hash": entry.hash, "prev_hash": entry.prev_hash}


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


def _object(description: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "description": description, "required": [*properties], "properties": properties}


_TEXT, _TEXT_OR_NULL, _ANYTHING = (
    {"type": "string"},
    {"type": ["string", "null"]},
    {"description": "as it was recorded"},
)
_ENTRY = _object(
    "what was hashed (RFC 8785), with `hash` and `prev_hash`",
    v={"type": "integer", "description": "the format's version"},
    chain={**_TEXT, "description": "the log's id"},
    seq={"type": "integer", "description": "its number in the log"},
    ts={**_TEXT, "format": "date-time"},
    actor=_object("who did it, as recorded", kind=_TEXT, id=_TEXT, label=_TEXT, user_id=_ANYTHING),
    action={**_TEXT, "description": "such as `rollout.roll_back`"},
    target=_object("the object of the action", kind=_TEXT, id=_TEXT),
    environment=_TEXT,
    workload=_TEXT,
    reason=_TEXT,
    outcome={**_TEXT, "enum": ["done", "refused"]},
    diff={
        "type": "array",
        "items": {
            "type": "object",
            "required": ["path"],
            "properties": {
                "path": {**_TEXT, "description": "JSON pointer"},
                "before": _ANYTHING,
                "after": _ANYTHING,
            },
        },
    },
    before_sha256=_TEXT_OR_NULL,
    after_sha256=_TEXT_OR_NULL,
    evidence=_ANYTHING,
    approvals=_ANYTHING,
    request_id=_TEXT_OR_NULL,
    source=_TEXT_OR_NULL,
    hash={**_TEXT, "description": "SHA-256, as 64 hexadecimal digits"},
    prev_hash={**_TEXT, "description": "the hash of the previous entry"},
)
_ENTRIES = Pages().get_paginated_response_schema({"type": "array", "items": _ENTRY})


class AuditView(ApiView):
    queries = (*_FILTERS, *PAGE)

    @extend_schema(
        operation_id="audit_list",
        parameters=[
            *(OpenApiParameter(name, str) for name in _FILTERS),
            OpenApiParameter("cursor", str),
            OpenApiParameter("limit", int),
        ],
        responses={200: _ENTRIES},
    )
    def get(self, request: Request) -> Response:
        """List the entries of the audit log that you may see, newest first. Each filter is an exact match."""
        return self.page(_filtered(self), EntrySerializer, ordering="-seq")


class ExportView(ApiView):
    """Export all entries that the caller may see, oldest first, as JSON lines or CSV. `docs/verify_audit.py`
    verifies the JSON lines of a caller who sees every environment."""

    queries = ("format", *_FILTERS)

    @extend_schema(
        operation_id="audit_export",
        parameters=[
            OpenApiParameter("format", str, enum=list(exports.FORMATS), description="default: `jsonl`"),
            *(
                OpenApiParameter(name, str, description="only entries with exactly this value")
                for name in _FILTERS
            ),
        ],
        responses={(200, kind): OpenApiTypes.STR for kind in ("application/jsonl", "text/csv")},
    )
    def get(self, request: Request) -> HttpResponseBase:
        form = request.query_params.get("format", "jsonl")
        if form not in exports.FORMATS:
            raise InvalidInput(f"format must be one of {', '.join(exports.FORMATS)}.")
        return exports.response(_filtered(self), form)


class FindingSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    seq = serializers.IntegerField(help_text="the entry's number; 0: no entry")
    where = serializers.CharField(help_text="what the finding is about, if it is not an entry")
    sentence = serializers.CharField()


class VerificationSerializer(serializers.Serializer[Any]):
    verified = serializers.BooleanField(
        help_text="false for a log without entries, too: nothing was verified"
    )
    entries = serializers.IntegerField()
    hash = serializers.CharField(help_text="the hash of the last entry")
    checkpoint = serializers.IntegerField(
        allow_null=True, help_text="the entry of the last signed checkpoint"
    )
    checkpoint_at = serializers.DateTimeField(allow_null=True)
    findings = FindingSerializer(many=True)


class VerificationView(ApiView):
    """Read the whole log and compare it with its head, its checkpoints and the rows it describes.

    The checkpoint file is compared on the machine that keeps it."""

    open_to_agents = computes = True

    @extend_schema(operation_id="audit_verify", request=None, responses=VerificationSerializer)
    def post(self, request: Request) -> Response:
        self.require(Role.VIEWER, "")
        found = verification.verify(with_file=verification.keeps_file())
        document = {
            "verified": found.count > 0 and not found.findings,
            "entries": found.count,
            "hash": found.hash,
            "checkpoint": found.checkpoint and found.checkpoint.seq,
            "checkpoint_at": found.checkpoint and found.checkpoint.at,
            "findings": found.findings[:1000],
        }
        return Response(VerificationSerializer(document).data)


class EntryView(ApiView):
    @extend_schema(responses={200: _ENTRY})
    def get(self, request: Request, seq: int) -> Response:
        """Return one entry of the audit log, as it was hashed."""
        entry = entries_visible_to(self.actor).filter(seq=seq).first()
        if entry is None:
            raise NotFound(f"There is no entry {seq}, or you may not see it.")
        return Response(EntrySerializer(entry).data)


def _filtered(view: ApiView) -> QuerySet[Entry]:
    # Only equality on our own field names: a parameter's name is never expanded into a query.
    given = view.request.query_params
    wanted = {name: given[name] for name in _FILTERS if name in given}
    if any("\0" in value for value in wanted.values()):
        raise NotFound("No entry contains a NUL.")
    return entries_visible_to(view.actor).filter(**wanted)


urlpatterns = [
    path("audit", AuditView.as_view(), name="audit"),
    path("audit/export", ExportView.as_view(), name="audit-export"),
    path("audit/verification", VerificationView.as_view(), name="audit-verification"),
    path("audit/<int:seq>", EntryView.as_view(), name="audit-entry"),
]
