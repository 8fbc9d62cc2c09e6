"""Answers those that watch, before anything asks how they came: by which host name, and whether by TLS.

A load balancer, a kubelet and Prometheus go to a process by its address and over plain HTTP. With the rest of the
middleware in front they would be refused (ALLOWED_HOSTS) or sent elsewhere (HTTPS), and a healthy process taken for
a dead one.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from controlplane.server import health

PROBES: dict[str, Callable[[HttpRequest], HttpResponseBase]] = {
    "/healthz": health.healthz,
    "/readyz": health.readyz,
    "/metrics": health.metrics,
}


def probes(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        return PROBES.get(request.path, get_response)(request)

    return middleware
