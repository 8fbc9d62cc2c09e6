"""What every view of /api/v1 shares: who asks, how a body is read, `If-Match`, `Idempotency-Key`, pages.

A view is a guard, a serializer, an action, a response:

    class WorkloadView(ApiView):
        def patch(self, request: Request, name: str) -> Response:
            workload = workload_for(self.actor, name)
            expected = self.expected_version()
            data = self.validated(WorkloadEditSerializer, partial=True)
            return self.versioned(WorkloadSerializer(actions.edit_workload(workload, expected=expected,
                                                                           actor=self.actor, **data)))
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, cast

from django.core.exceptions import ValidationError
from django.db import models
from drf_spectacular.utils import OpenApiParameter
from rest_framework.authentication import SessionAuthentication
from rest_framework.pagination import CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from controlplane.access import idempotency, permissions
from controlplane.access.authentication import KeyAuthentication, actor_of
from controlplane.access.models import Key, Role
from controlplane.audit import log
from controlplane.core import strictjson
from controlplane.core.actors import Actor
from controlplane.core.errors import (
    BodyTooLarge,
    InvalidInput,
    MalformedBody,
    NotForAgents,
    NotFound,
    PreconditionRequired,
    StaleVersion,
)
from controlplane.core.problems import exception_handler
from controlplane.web import refused_writes

REASON = OpenApiParameter(
    "reason", str, description="why; kept in the audit log. Up to 2,000 characters"
)  # of writes without a body
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"', re.ASCII)
_KEPT_HEADERS = ("ETag", "Location")


class StrictJSONParser(BaseParser):
    """`application/json` by `strictjson`; the size is refused by `Content-Length` before the body is read."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        # One byte more than allowed tells "too large" without reading it all.
        most: int = getattr((parser_context or {}).get("view"), "most_bytes", strictjson.MAX_BYTES)
        document = strictjson.loads(stream.read(most + 1), most)
        if not isinstance(document, dict):
            raise MalformedBody("The body must be a JSON object.")
        return document


class Pages(CursorPagination):
    """`?limit=` (at most 200) and the opaque `?cursor=` of `next`: rows that come in between skip nothing."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200
    field: "models.Field[Any, Any]"  # that `ordering` names; set by `of`

    @classmethod
    def of(cls, rows: models.QuerySet[Any], ordering: str) -> "Pages":
        pages = cls()
        pages.ordering = (ordering,)
        name, meta = ordering.lstrip("-"), rows.model._meta
        pages.field = meta.pk if name == "pk" else meta.get_field(name)
        return pages

    def decode_cursor(self, request: Request) -> Any:
        """The cursor, or 404 for one that no page gave: its position goes into a query as the field's value."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not self._is_position(str(cursor.position)):
            raise NotFound("This cursor is not one that `next` or `previous` gave; begin without one.")
        return cursor

    def _is_position(self, text: str) -> bool:
        try:
            value = self.field.to_python(text)
        except ValidationError:
            return False
        return "\0" not in text and (not isinstance(value, int) or abs(value) < 2**63)

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"items": data, "next": self.get_next_link(), "previous": self.get_previous_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["items", "next", "previous"],
            "properties": {"items": schema, "next": link, "previous": link},
        }


class ApiView(APIView):
    """Base of every view. A caller without any role sees nothing; each method checks what else it needs."""

    authentication_classes = (KeyAuthentication, SessionAuthentication)
    permission_classes = ()
    parser_classes = (StrictJSONParser,)
    renderer_classes = (JSONRenderer,)
    pagination_class = Pages  # for the schema: what is listed comes in pages
    most_bytes: ClassVar[int] = strictjson.MAX_BYTES  # of a body
    # Members of an answer that are shown once: the copy kept for an `Idempotency-Key` has null instead.
    shown_once: ClassVar[tuple[str, ...]] = ()
    # Whether its writes are open to a key with the scope `agent`. A new address is not, until somebody says so.
    open_to_agents: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "post" in cls.__dict__:
            cls.post = _idempotent(cls.__dict__["post"])  # type: ignore[attr-defined]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.is_agent and request.method not in refused_writes.SAFE and not self.open_to_agents:
            raise NotForAgents(
                "An agent's key reads, checks, proposes, pauses and rolls back; a person does this."
            )
        permissions.require_role(self.actor, Role.VIEWER, permissions.ANYWHERE)
        if int(request.META.get("CONTENT_LENGTH") or 0) > self.most_bytes:
            raise BodyTooLarge(f"The body is too large; at most {self.most_bytes:,} bytes are read.")

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return exception_handler

    def handle_exception(self, exc: Exception) -> Response:
        refused_writes.keep(
            exc,
            method=str(self.request.method),
            path=self.request.path,
            named=self.kwargs,
            actor=lambda: self.actor,
        )
        return super().handle_exception(exc)

    @property
    def actor(self) -> Actor:
        return actor_of(self.request)

    @property
    def is_agent(self) -> bool:
        """Whether the caller is a key with the scope `agent`."""
        return isinstance(self.request.auth, Key) and self.request.auth.is_agent

    def require(self, role: Role, environment: str | None, workload: str | None = None) -> None:
        """Raise `RoleMissing` unless the caller holds the role; `permissions.ANYWHERE`: in any of them.

        Name the `workload` where the request is about one: a key that is limited to some reaches no other.
        """
        permissions.require_role(self.actor, role, environment, workload=workload)

    def validated(self, serializer: type[BaseSerializer[Any]], **options: Any) -> dict[str, Any]:
        """The body, through a serializer; unknown members are ignored, wrong ones are listed in a 422."""
        checked = serializer(data=self.request.data, **options)
        checked.is_valid(raise_exception=True)
        return cast("dict[str, Any]", checked.validated_data)

    def query_reason(self) -> str:
        """The `reason` of a write that has no body."""
        reason = self.request.query_params.get("reason", "")
        if len(reason) > 2_000 or "\0" in reason:
            raise InvalidInput("A reason has up to 2,000 characters, and no NUL.")
        return reason

    def expected_version(self) -> int | None:
        """The version in `If-Match` (None for `*`). 428 without it; no version in it is a stale one."""
        header = self.request.headers.get("If-Match", "").strip()
        if not header:
            raise PreconditionRequired(
                "Send the ETag that you read as If-Match, so that nobody's change is overwritten unseen."
            )
        if header == "*":
            return None
        match = _ETAG.fullmatch(header)
        if match is None:
            raise StaleVersion(f"If-Match {header[:80]} is not an ETag of this; read it again.")
        return int(match[1])

    def versioned(self, serializer: BaseSerializer[Any], status: int = 200) -> Response:
        """An answer about a thing with a `version`: its ETag is what `If-Match` wants."""
        return Response(
            serializer.data, status=status, headers={"ETag": f'"{cast(Any, serializer.instance).version}"'}
        )

    def page(
        self, rows: models.QuerySet[Any], serializer: type[BaseSerializer[Any]], ordering: str = "-pk"
    ) -> Response:
        """One page of rows. `ordering` is a unique, indexed field."""
        pages = Pages.of(rows, ordering)
        found = pages.paginate_queryset(rows, self.request, view=self)
        return pages.get_paginated_response(serializer(found, many=True).data)


def _idempotent(post: Callable[..., Response]) -> Callable[..., Response]:
    """`post`, done once for each `Idempotency-Key` of one caller; as it was without the header."""

    @wraps(post)
    def once(self: ApiView, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return post(self, request, *args, **kwargs)
        secrets: dict[str, Any] = {}

        def work() -> idempotency.StoredReply:
            response = post(self, request, *args, **kwargs)
            body = json.loads(JSONRenderer().render(response.data) or b"null")
            secrets.update({name: body[name] for name in self.shown_once})
            headers = {name: response[name] for name in _KEPT_HEADERS if response.has_header(name)}
            return idempotency.StoredReply(response.status_code, _with_nulls(body, self.shown_once), headers)

        try:
            reply = idempotency.answer_once(self.actor, key, _fingerprint(request), work)
        except Exception as error:
            log.keep_refusal(error)
            raise
        headers = {**reply.headers, **({"Idempotency-Replayed": "true"} if reply.repeated else {})}
        body = {**reply.body, **secrets} if secrets else reply.body
        return Response(body, status=reply.status, headers=headers)

    return once


def _fingerprint(request: Request) -> str:
    """SHA-256 of what was asked: method, path with query, and the document (however it was spaced)."""
    asked = [request.method, request.get_full_path(), request.data]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _with_nulls(body: Any, names: tuple[str, ...]) -> Any:
    return {**body, **dict.fromkeys(names)} if names else body
