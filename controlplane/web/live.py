"""Pages that refresh themselves. A page consists of parts, each with a tag of its content; only changed parts are
swapped.

The script (`static/console/live.js`) requests the page again with its tag. The answer is 304 if nothing changed,
otherwise the parts, of which the script swaps those with a new tag. Relative times are updated by the script and do not
count as changes. Without scripts the page is complete, and its links work.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from controlplane.web.pages import page, person

STOP_POLLING = 286  # htmx's own status: swap this response and stop polling
_TIMES = re.compile(r"(<time [^>]*>)[^<]*(</time>)")
_TOKENS = re.compile(r'name="csrfmiddlewaretoken" value="\w+"')


def is_poll(request: HttpRequest) -> bool:
    return "HX-Request" in request.headers


def rendered(
    request: HttpRequest, templates: Mapping[str, str], context: Mapping[str, Any]
) -> dict[str, SafeString]:
    """Render each part: the template's output, wrapped in an element with its name and tag."""
    return {
        name: _part(name, render_to_string(template, dict(context), request))
        for name, template in templates.items()
    }


def _part(name: str, text: str) -> SafeString:
    lasting = _TOKENS.sub("", _TIMES.sub(r"\1\2", text))
    tag = hashlib.sha256(lasting.encode()).hexdigest()[:16]
    safe = mark_safe(text)  # noqa: S308 — a template's text, escaped there  # nosec B308 B703
    return format_html('<div class="pm-part" data-part="{}" data-tag="{}">{}</div>', name, tag, safe)


def tag_of(parts: Mapping[str, SafeString]) -> str:
    tags = "".join(re.findall(r'data-tag="(\w+)"', "".join(part[:200] for part in parts.values())))
    return f'"{hashlib.sha256(tags.encode()).hexdigest()[:24]}"'


def fresh(
    request: HttpRequest, parts: Mapping[str, SafeString], *, ended: bool = False, key: Any = None
) -> HttpResponse:
    """Return the answer to a poll. `ended`: nothing will change any more. `key`: see `unchanged`."""
    tag = tag_of(parts)
    if key is not None:
        _remember(request, key, tag)
    if request.headers.get("If-None-Match") == tag and not ended:
        response: HttpResponse = HttpResponseNotModified()
    else:
        text = format_html_join("\n", "{}", ((part,) for part in parts.values()))
        response = HttpResponse(text, status=STOP_POLLING if ended else 200)
    response.headers["ETag"] = tag
    return response


def live_page(
    request: HttpRequest,
    template: str,
    parts: Mapping[str, SafeString],
    context: Mapping[str, Any],
    **frame: Any,
) -> HttpResponse:
    """Render the whole page, with `parts` and the tag for its first poll."""
    return page(request, template, {**context, "parts": parts, "tag": tag_of(parts)}, **frame)


# --- answering without rendering ----------------------------------------------------------------------------

# How late a page may show changes that its key does not include (a freeze begins, a role is taken away).
DRAWN_FOR_S = 10.0
_DRAWN: dict[tuple[Any, str], tuple[Any, str, float]] = {}  # (person, path): key, tag, time
_DRAWN_AT_MOST = 2_000


def unchanged(request: HttpRequest, key: Any) -> HttpResponse | None:
    """Return 304 if this person was recently sent the parts rendered from an equal `key`; None: render the parts.

    `key` is the data that the parts are rendered from, compared with `==`. Computing it must be cheaper than rendering.
    """
    known, tag, at = _DRAWN.get(_viewer(request), (None, "", 0.0))
    stale = time.monotonic() - at > DRAWN_FOR_S
    if stale or known != key or request.headers.get("If-None-Match") != tag:
        return None
    return HttpResponseNotModified(headers={"ETag": tag})


def _remember(request: HttpRequest, key: Any, tag: str) -> None:
    if len(_DRAWN) >= _DRAWN_AT_MOST:
        _DRAWN.clear()
    _DRAWN[_viewer(request)] = (key, tag, time.monotonic())


def _viewer(request: HttpRequest) -> tuple[Any, str]:
    return person(request).pk, request.path
