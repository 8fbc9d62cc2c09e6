"""What all views of /api/v1 share: authentication, body parsing, `If-Match`, `Idempotency-Key`, pagination.

A view is a guard, a serializer, an action and a response:

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
from controlplane.web import refused_writes, strict

# For writes without a body.
REASON = OpenApiParameter("reason", str, description="why; kept in the audit log. Up to 2,000 characters")
PAGE = ("limit", "cursor")  # the query parameters that `ApiView.page` reads
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"', re.ASCII)
_KEPT_HEADERS = ("ETag", "Location")


class StrictJSONParser(BaseParser):
    """Parses `application/json` with `strictjson`. `Content-Length` is checked before the body is read."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        # Reading one byte more than allowed detects a body that is too large without reading all of it.
        most: int = getattr((parser_context or {}).get("view"), "most_bytes", strictjson.MAX_BYTES)
        document = strictjson.loads(stream.read(most + 1), most)
        if not isinstance(document, dict):
            raise MalformedBody("The body must be a JSON object.")
        return document


class Pages(CursorPagination):
    """Paginates with `?limit=` (at most 200) and the opaque `?cursor=` from `next`. Inserted rows cause no skips."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200
    field: "models.Field[Any, Any]"  # the field that `ordering` names; set by `of`

    @classmethod
    def of(cls, rows: models.QuerySet[Any], ordering: str) -> "Pages":
        pages = cls()
        pages.ordering = (ordering,)
        name, meta = ordering.lstrip("-"), rows.model._meta
        pages.field = meta.pk if name == "pk" else meta.get_field(name)
        return pages

    def get_page_size(self, request: Request) -> int:
        """Return `limit`. Raise `InvalidInput` unless it is a whole number from 1 to 200."""
        text = request.query_params.get("limit", str(self.page_size))
        if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= self.max_page_size):
            raise InvalidInput(
                f"limit must be a whole number from 1 to {self.max_page_size}, not {text[:40]!r}."
            )
        return int(text)

    def decode_cursor(self, request: Request) -> Any:
        """Return the cursor. Raise `NotFound` for one we did not issue: its position is used as a field value in a
        query."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not self._is_position(str(cursor.position)):
            raise NotFound("This cursor did not come from `next` or `previous`; start without one.")
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
    pagination_class = Pages  # for the schema: lists are paginated
    most_bytes: ClassVar[int] = strictjson.MAX_BYTES  # the largest body
    # Members of a response that are shown only once. The copy stored for an `Idempotency-Key` has null instead.
    shown_once: ClassVar[tuple[str, ...]] = ()
    # Whether POST only computes. `Idempotency-Key` is then ignored: a stored answer would be outdated, and a
    # transaction around a long computation would keep others from writing (SQLite).
    computes: ClassVar[bool] = False
    # Whether a key with the scope `agent` may write here. New views must opt in.
    open_to_agents: ClassVar[bool] = False
    # The query parameters of GET, and of DELETE. Any other is refused, as is every one of another method.
    queries: ClassVar[tuple[str, ...]] = ()
    delete_queries: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "post" in cls.__dict__:
            cls.post = _idempotent(cls.__dict__["post"])  # type: ignore[attr-defined]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.is_agent and request.method not in refused_writes.SAFE and not self.open_to_agents:
            raise NotForAgents(
                "An agent's key may read, check, propose, pause and roll back. For this, use a session or another key."
            )
        permissions.require_role(self.actor, Role.VIEWER, permissions.ANYWHERE)
        strict.refuse_unknown_parameters(request.query_params, self._known_queries())
        if int(request.META.get("CONTENT_LENGTH") or 0) > self.most_bytes:
            raise BodyTooLarge(f"The body is too large; the limit is {self.most_bytes:,} bytes.")

    def _known_queries(self) -> tuple[str, ...]:
        """Return the names of the query parameters that this request may have."""
        by_method = {"GET": self.queries, "HEAD": self.queries, "DELETE": self.delete_queries}
        return by_method.get(str(self.request.method), ())

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
        """Raise `RoleMissing` unless the caller holds the role in the environment (`permissions.ANYWHERE`: in any).

        Pass `workload` if the request is about one: a key limited to some workloads may not reach others.
        """
        permissions.require_role(self.actor, role, environment, workload=workload)

    def validated(self, serializer: type[BaseSerializer[Any]], **options: Any) -> dict[str, Any]:
        """Validate the body with a serializer. Unknown members are listed in a 400, invalid ones in a
        422."""
        checked = serializer(data=self.request.data, **options)
        strict.refuse_unknown_members(checked, self.request.data)
        checked.is_valid(raise_exception=True)
        return cast("dict[str, Any]", checked.validated_data)

    def query_reason(self) -> str:
        """Return the `reason` query parameter of a DELETE. The view's `delete_queries` include it."""
        reason = self.request.query_params.get("reason", "")
        if len(reason) > 2_000 or "\0" in reason:
            raise InvalidInput("A reason may have up to 2,000 characters and no NUL.")
        return reason

    def expected_version(self) -> int | None:
        """Return the version in `If-Match`, or None for `*`. A missing header is a 428; one that is not our ETag, a
        412."""
        header = self.request.headers.get("If-Match", "").strip()
        if not header:
            raise PreconditionRequired(
                "Send the ETag that you read as If-Match, so that you do not overwrite somebody else's change."
            )
        if header == "*":
            return None
        match = _ETAG.fullmatch(header)
        if match is None:
            raise StaleVersion(f"If-Match {header[:80]} is not an ETag of this object; read it again.")
        return int(match[1])

    def versioned(self, serializer: BaseSerializer[Any], status: int = 200) -> Response:
        """Return an object with a `version`, with the ETag that `If-Match` expects."""
        return Response(
            serializer.data, status=status, headers={"ETag": f'"{cast(Any, serializer.instance).version}"'}
        )

    def page(
        self, rows: models.QuerySet[Any], serializer: type[BaseSerializer[Any]], ordering: str = "-pk"
    ) -> Response:
        """Return one page of rows. `ordering` must be a unique, indexed field. The view's `queries` include `PAGE`."""
        pages = Pages.of(rows, ordering)
        found = pages.paginate_queryset(rows, self.request, view=self)
        return pages.get_paginated_response(serializer(found, many=True).data)


def _idempotent(post: Callable[..., Response]) -> Callable[..., Response]:
    """Run `post` once per `Idempotency-Key` of a caller; unchanged without the header, or if it only computes."""

    @wraps(post)
    def once(self: ApiView, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key")
        if key is None or self.computes:
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
    """Return the SHA-256 of the request: method, path with query, and the document, regardless of whitespace."""
    asked = [request.method, request.get_full_path(), request.data]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _with_nulls(body: Any, names: tuple[str, ...]) -> Any:
    return {**body, **dict.fromkeys(names)} if names else body
