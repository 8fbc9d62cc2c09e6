"""The OpenAPI document: adds what drf-spectacular cannot infer, in one place for all operations.

Every operation lists its possible errors, `If-Match` where it is required, and `Idempotency-Key`.
"""

import inspect
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.hooks import postprocess_schema_enums
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    OpenApiParameter.HEADER,
    description="repeating the same key and body within a day returns the first answer, and nothing is done twice",
)
_PROBLEMS = {
    400: "The address or the body cannot be read, or has a name that is unknown here.",
    401: "No valid credential: it is missing, unknown, expired or revoked.",
    403: "The caller may not do this; `code` and `detail` say which role or rule is missing.",
    404: "It does not exist, or the caller may not see it.",
    405: "The method is not allowed here.",
    409: "The current state does not allow this; `detail` says why and what to do.",
    412: "It has changed since it was read; read it again.",
    413: "The body is larger than 256 kB.",
    415: "The body is not `application/json`.",
    422: "A value is not valid; `problems` lists each one.",
    428: "An If-Match header is needed.",
    429: "Too many requests; `Retry-After` says when to come back.",
    503: "Temporarily unavailable, or the database cannot be reached; `Retry-After` says when to come back.",
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
        "only entries with exactly this value",
    ),
    "cursor": "where to continue: from `next` or `previous` of a response",
    "limit": "page size, 1 to 200; default 50",
    "days": "length of the period",
    "candidate": "the number of the version to examine",
    "evaluation": "only this evaluation, by its number",
    "absolute": "true: the absolute guardrail; otherwise the one that compares the arms",
}


_FILES = {".csv": "text/csv", ".md": "text/markdown"}  # media types of text responses, by the path's ending


def if_match(*, required: bool = True) -> OpenApiParameter:
    told = "the ETag that was read, or `*` for any version" + ("" if required else "; optional")
    return OpenApiParameter("If-Match", str, OpenApiParameter.HEADER, required=required, description=told)


class BadField(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="path of the value: `stages/0/share_pcm`")
    message = serializers.CharField(help_text="what is wrong with it")


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem details. Clients branch on `code`, people read `detail`."""

    type = serializers.CharField(help_text="`urn:pointsman:problem:` and the code")
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="stable: `role_missing`, `stale_version`, …")
    detail = serializers.CharField(help_text="one sentence: what was wrong, where, what to do")
    problems = BadField(many=True, required=False, help_text="for a 422: each value that is wrong")


class Schema(AutoSchema):
    """One operation of the document."""

    def get_override_parameters(self) -> list[Any]:
        found: list[Any] = list(super().get_override_parameters())
        asked = self._asks_for_version()
        if asked is not None and not any(getattr(one, "name", "") == "If-Match" for one in found):
            found.append(if_match(required=asked))
        once = self.method == "POST" and not getattr(self.view, "computes", False)
        return [*found, IDEMPOTENCY_KEY] if once else found

    def _asks_for_version(self) -> bool | None:
        """Return True if the view requires `If-Match`, False if it is optional, None if the view does not read it."""
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
            field.allow_null = True  # null when an `Idempotency-Key` is repeated
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
    """Mark read-only fields that may be null or empty; DRF does not infer it."""
    if not isinstance(field, serializers.Field) or not field.read_only:
        return
    if field.default is None:  # a path such as `user.username` without a user
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


def finished(result: dict[str, Any], generator: Any, **options: Any) -> dict[str, Any]:
    """Name the enumerations, and set `additionalProperties: false` in each schema that only request bodies use.
    Responses may get new members."""
    result = postprocess_schema_enums(result, generator, **options)  # type: ignore[no-untyped-call]
    schemas = result["components"]["schemas"]
    operations = [one for methods in result["paths"].values() for one in methods.values()]
    asked = _reached([one.get("requestBody") for one in operations], schemas)
    answered = _reached([one["responses"] for one in operations], schemas)
    for name in asked - answered:
        if schemas[name].get("type") == "object":
            schemas[name]["additionalProperties"] = False
    return result


def _reached(start: Any, schemas: dict[str, Any]) -> set[str]:
    """Return the names of the schemas that are referred to, directly or by one of these."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                waiting.append(schemas.get(name))
    return found


class AdminKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "controlplane.access.authentication.KeyAuthentication"
    name = "adminKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "an admin key: `pma_…`"}
