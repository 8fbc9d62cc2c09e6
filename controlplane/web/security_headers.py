"""Headers that tell a browser what no page of ours needs, beside Django's own (SecurityMiddleware) and the
Content-Security-Policy of pages (django-csp, `CONTENT_SECURITY_POLICY` in the settings)."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

# Passkeys are the one browser feature that a page uses.
_UNUSED = (
    "accelerometer", "autoplay", "browsing-topics", "camera", "display-capture", "encrypted-media", "fullscreen",
    "geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment", "picture-in-picture", "serial",
    "usb", "xr-spatial-tracking",
)  # fmt: skip
PERMISSIONS = ", ".join(f"{feature}=()" for feature in _UNUSED)
# An answer for machines loads nothing, wherever it is opened.
API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Goes inside django-csp's middleware, which leaves a policy that is there alone."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if request.path.startswith("/api/"):
            response.headers.setdefault("Content-Security-Policy", API_POLICY)
            # What a script may see by its key is nobody's else, proxies and the browser's cache included.
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware
