"""Security headers added to Django's own (SecurityMiddleware) and to the Content-Security-Policy of pages
(django-csp, `CONTENT_SECURITY_POLICY` in the settings)."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

# Browser features that no page uses. Passkeys are the only one in use.
_UNUSED = (
    "accelerometer", "autoplay", "browsing-topics", "camera", "display-capture", "encrypted-media", "fullscreen",
    "geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment", "picture-in-picture", "serial",
    "usb", "xr-spatial-tracking",
)  # fmt: skip
PERMISSIONS = ", ".join(f"{feature}=()" for feature in _UNUSED)
# An API response must not load anything, wherever it is opened.
API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware that adds security headers. Place it inside django-csp's, which keeps a policy that is already set."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if request.path.startswith("/api/"):
            response.headers.setdefault("Content-Security-Policy", API_POLICY)
            # API responses are private to the key: neither proxies nor the browser may cache them.
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware
