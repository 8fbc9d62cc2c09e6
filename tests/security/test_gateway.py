"""What the gateway checks before it answers: the host, the client's address, access to metrics."""

from typing import Any

import pytest

from controlplane.core.errors import Forbidden, Unauthenticated, WrongHost
from controlplane.server import bridge, checks, guards, proxies
from controlplane.web.replies import Request


def request(peer: str | None = "198.51.100.1", **headers: str) -> Request:
    scope = {
        "method": "GET",
        "path": "/metrics",
        "query_string": b"",
        "client": None if peer is None else (peer, 5555),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    return Request(scope, None)  # type: ignore[arg-type]


# --- proxies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.1", "1.2.3.4", "198.51.100.1"),  # not one of our proxies, so its header is ignored
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # what the client wrote in front is ignored
        ("10.0.0.1", "1.2.3.4, 10.0.0.2", "1.2.3.4"),  # two proxies, one behind the other
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
    ],
)
def test_it_finds_the_address_of_the_client(settings: Any, peer: str, forwarded: str, address: str) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
    assert proxies.client_address(request(peer, x_forwarded_for=forwarded)) == address


def test_a_connection_without_an_address_has_none(settings: Any) -> None:
    assert proxies.client_address(request(None, x_forwarded_for="1.2.3.4")) == ""


@pytest.mark.parametrize(("peer", "believed"), [("10.0.0.1", True), ("198.51.100.1", False)])
def test_django_trusts_only_our_proxies(settings: Any, peer: str, believed: bool) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
    said = {"x_forwarded_proto": "https", "x_forwarded_host": "evil.example", "forwarded": "for=1.2.3.4"}
    environ = bridge.environ(request(peer, x_forwarded_for="1.2.3.4", x_real_ip="1.2.3.4", **said), b"")
    assert environ["REMOTE_ADDR"] == ("1.2.3.4" if believed else peer)
    assert (environ.get("HTTP_X_FORWARDED_PROTO") == "https") is believed
    names = {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_REAL_IP"}
    assert (names <= set(environ)) is believed


def test_an_invalid_proxy_address_is_found_at_the_start(settings: Any) -> None:
    settings.TRUSTED_PROXIES = ["the proxy"]
    assert [message.id for message in checks.check_addresses(None)] == ["pointsman.E009"]


# --- hosts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["pointsman.example.org", "pointsman.example.org:443", "POINTSMAN.example.org"]
)
def test_routers_are_answered_at_allowed_hosts(settings: Any, host: str) -> None:
    settings.ALLOWED_HOSTS = ["pointsman.example.org"]
    guards.require_host(host.encode())


@pytest.mark.parametrize(
    "host", ["", "evil.example", "pointsman.example.org.evil.example", "a b", "[::1", "127.0.0.1"]
)
def test_other_hosts_are_refused(settings: Any, host: str) -> None:
    settings.ALLOWED_HOSTS = ["pointsman.example.org"]
    with pytest.raises(WrongHost) as refused:
        guards.require_host(host.encode())
    # Not `malformed_body`: a router drops a report with a malformed body, and keeps this one.
    assert (refused.value.status, refused.value.code) == (400, "wrong_host")


# --- metrics -----------------------------------------------------------------------------------------


def test_metrics_are_open_until_a_key_or_an_address_is_set() -> None:
    guards.require_scraper(request())


def test_metrics_with_a_key(settings: Any) -> None:
    settings.METRICS_KEY = "a long word"
    guards.require_scraper(request(authorization="Bearer a long word"))
    for header in ("Bearer a long wor", "Bearer", "Basic a long word", "a long word", "Bearer \u00e4"):
        with pytest.raises(Unauthenticated):
            guards.require_scraper(request(authorization=header))
    with pytest.raises(Unauthenticated):
        guards.require_scraper(request())


def test_metrics_from_an_address(settings: Any) -> None:
    settings.METRICS_ADDRESSES = ["10.1.0.0/16"]
    guards.require_scraper(request("10.1.2.3"))
    with pytest.raises(Forbidden):
        guards.require_scraper(request("10.2.0.1"))
    with pytest.raises(Forbidden):  # a forwarded header does not help
        guards.require_scraper(request("198.51.100.1", x_forwarded_for="10.1.2.3"))


def test_either_is_enough(settings: Any) -> None:
    settings.METRICS_ADDRESSES, settings.METRICS_KEY = ["10.1.0.0/16"], "a long word"
    guards.require_scraper(request("10.1.2.3"))
    guards.require_scraper(request(authorization="Bearer a long word"))
    with pytest.raises(Unauthenticated):
        guards.require_scraper(request())
