"""The API's document: what drf-spectacular cannot see by itself is said here, once for all operations.

Every operation names the errors that it may answer with, `If-Match` where it is asked for, and `Idempotency-Key`.
"""

import inspect
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    OpenApiParameter.HEADER,
    description="the same key and body again within a day get the first answer again, and nothing is done twice",
)
_PROBLEMS = {
    400: "The address or the body cannot be read.",
    401: "No credential that counts: none, unknown, expired, revoked.",
    403: "The caller may not do this; `code` and `detail` say which role or rule is missing.",
    404: "There is no such thing, or it is not the caller's to see.",
    405: "The method is not allowed here.",
    409: "The present state does not allow it; `detail` says why and what to do.",
    412: "It changed since it was read: read it again.",
    413: "The body has more than 256 kB.",
    415: "The body is not `application/json`.",
    422: "A value cannot be kept; `problems` names each.",
    428: "An If-Match header is needed.",
    429: "Too many requests; `Retry-After` says when to come back.",
    503: "Not available for the moment, or the database is away; `Retry-After` says when to come back.",
}
_PATHS = {
    "environment": "the environment's name",
    "workload": "the workload's name",
    "model": "the model's name in the catalogue, such as `openai/gpt-4o-mini`; it may have slashes",
    "plan": "the saved plan's name",
    "rollout": "the rollout's id",
    "stage": "the stage's number, counted from 0",
    "number": "the version's number",
    "other": "the number of the version to compare with",
    "seq": "the entry's number in the log",
    "key_id": "the public part of the key: its third part, between the underscores",
    "name": "its name",
    "id": "its id",
}
_QUERIES = {
    **dict.fromkeys(
        (
            "actor_id",
            "actor_label",
            "action",
            "target_kind",
            "target_id",
            "environment",
            "workload",
            "outcome",
        ),
        "only entries with exactly this",
    ),
    "cursor": "where to go on: from `next` or `previous` of an answer",
    "limit": "how many at most, 1 to 200; 50 without",
    "days": "length of the period",
    "candidate": "the number of the version to look at",
    "evaluation": "only this evaluation, by its number",
    "absolute": "true: the absolute guardrail; else the one that compares the arms",
}


_FILES = {".csv": "text/csv", ".md": "text/markdown"}  # what an address gives as text, by its ending


def if_match(*, required: bool = True) -> OpenApiParameter:
    told = "the ETag that was read, or `*` for whatever it is now" + ("" if required else "; may be left out")
    return OpenApiParameter("If-Match", str, OpenApiParameter.HEADER, required=required, description=told)


class BadField(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="where: `stages/0/share_pcm`")
    message = serializers.CharField(help_text="what is wrong with it")


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem details. Clients branch on `code`, people read `detail`."""

    type = serializers.CharField(help_text="`urn:pointsman:problem:` and the code")
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="stable: `role_missing`, `stale_version`, …")
    detail = serializers.CharField(help_text="one sentence: what was wrong, where, what to do")
    problems = BadField(many=True, required=False, help_text="of a 422: each value that is wrong")


class Schema(AutoSchema):
    """One operation of the document."""

    def get_override_parameters(self) -> list[Any]:
        found: list[Any] = list(super().get_override_parameters())
        asked = self._asks_for_version()
        if asked is not None and not any(getattr(one, "name", "") == "If-Match" for one in found):
            found.append(if_match(required=asked))
        return [*found, IDEMPOTENCY_KEY] if self.method == "POST" else found

    def _asks_for_version(self) -> bool | None:
        """Whether the view reads `If-Match`: True if it must be there, False if it may, None if it is not read."""
        handler: Any = inspect.unwrap(getattr(self.view, self.method.lower()))
        if "expected_version" not in handler.__code__.co_names:
            return None
        return not getattr(self.view, "urgent", False)

    def _get_parameters(self) -> Any:
        parameters = super()._get_parameters()
        for one in parameters:
            words = _PATHS if one["in"] == "path" else _QUERIES
            if one["name"] in words and (one["in"] == "path" or not one.get("description")):
                one["description"] = words[one["name"]]
        return parameters

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        _say_what_may_be_missing(field)
        if getattr(field, "field_name", None) in getattr(self.view, "shown_once", ()):
            field.allow_null = True  # in the answer that an `Idempotency-Key` gets again
        return super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        for ending, media_type in _FILES.items():
            if self.path.endswith(ending):
                bodies["200"]["content"] = {media_type: {"schema": {"type": "string"}}}
        schema = self.resolve_serializer(Problem, "response").ref
        content = {"application/problem+json": {"schema": schema}}
        problems = {
            str(status): {"description": _PROBLEMS[status], "content": content} for status in self._statuses()
        }
        return {**bodies, **problems}

    def _statuses(self) -> list[int]:
        parameters = self._get_parameters()
        statuses = {400, 401, 403, 422, 429, 503}
        if any(one["in"] == "path" or one["name"] == "cursor" for one in parameters):
            statuses |= {404, 409}
        if self.method != "GET":
            statuses |= {404, 409, 413, 415}
        if any(one["name"] == "If-Match" for one in parameters):
            statuses |= {412, 428}
        return sorted(statuses)


def _say_what_may_be_missing(field: Any) -> None:
    """The framework says of a field that is only read neither that it may be null nor that it may be empty."""
    if not isinstance(field, serializers.Field) or not field.read_only:
        return
    if field.default is None:  # of a path such as `user.username` where there is no user
        field.allow_null = True
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    try:
        column = model._meta.get_field(field.source) if model else None
    except FieldDoesNotExist:
        return
    if getattr(column, "null", False):
        field.allow_null = True
    if getattr(column, "blank", False) and hasattr(field, "allow_blank"):
        field.allow_blank = True


class AdminKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "controlplane.access.authentication.KeyAuthentication"
    name = "adminKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "an admin key: `pma_…`"}
