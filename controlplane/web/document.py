"""GET /api/v1/schema: the API's document, as `controlplane.web.openapi` describes it."""

from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.request import Request


@cache
def document() -> bytes:
    """The whole document as JSON. It is the same for everybody, and takes a second to make."""
    found = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return bytes(OpenApiJsonRenderer().render(found))


class DocumentView(SpectacularJSONAPIView):
    """Open to all, so it must cost nothing: made once in a process."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        return HttpResponse(document(), content_type=OpenApiJsonRenderer.media_type)
