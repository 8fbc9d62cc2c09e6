"""Requests are limited by address, and the address cannot be forged."""

from typing import Any

import pytest
import time_machine
from django.core.cache import caches
from django.test import Client

from controlplane.access.models import Session
from controlplane.web import limits
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def few(settings: Any) -> None:
    settings.API_LIMIT, settings.SIGN_IN_LIMIT = 5, 3
    caches["limits"].clear()


def sign_in(address: str = "203.0.113.7") -> Any:
    form = {"username": "maria", "password": "wrong"}
    return Client(REMOTE_ADDR=address).post("/console/login/", form)


def test_the_api_answers_429_with_retry_after() -> None:
    caller = Caller("admin")
    assert [caller("GET", "teams").status_code for _ in range(6)] == [200] * 5 + [429]
    refused = caller("GET", "teams")
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert refused.json()["code"] == "too_many_requests"
    assert refused["Content-Type"] == "application/problem+json"


def test_requests_without_a_key_are_limited() -> None:
    statuses = [Client(REMOTE_ADDR="203.0.113.9").get("/api/v1/teams").status_code for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2


def test_sign_in_is_limited_by_address_for_any_name() -> None:
    assert [sign_in().status_code for _ in range(4)] == [200] * 3 + [429]
    assert sign_in("203.0.113.8").status_code == 200
    assert (
        Client(REMOTE_ADDR="203.0.113.7").get("/console/login/").status_code == 200
    )  # reading the page costs nothing


def test_starts_at_the_companys_provider_are_limited_and_returns_from_it_are_not() -> None:
    """A start makes a session and asks the provider; a return without a start does neither."""
    client = Client(REMOTE_ADDR="203.0.113.7")
    start = "/console/login/with/company/"
    assert [client.get(start).status_code == 429 for _ in range(4)] == [False] * 3 + [True]
    assert client.get(f"{start}callback/").status_code != 429


def test_challenges_for_a_passkey_are_limited() -> None:
    """Each makes a session."""
    found = [
        Client(REMOTE_ADDR="203.0.113.7").get(
            "/console/login/passkey/", headers={"Accept": "application/json"}
        )
        for _ in range(4)
    ]
    assert [answer.status_code for answer in found] == [200] * 3 + [429]
    assert Session.objects.count() == 3


def test_after_a_minute_it_is_allowed_again() -> None:
    with time_machine.travel("2026-01-01T00:00:30Z", tick=False) as now:
        assert [sign_in().status_code for _ in range(4)][-1] == 429
        now.move_to("2026-01-01T00:01:01Z")
        assert sign_in().status_code == 429  # the last minute is still within 60 seconds
        now.move_to("2026-01-01T00:03:00Z")
        assert sign_in().status_code == 200


def test_the_ipv6_addresses_of_one_household_count_together() -> None:
    found = [sign_in(f"2001:db8:1:1::{number}").status_code for number in range(4)]
    assert found[-1] == 429
    assert sign_in("2001:db8:1:2::1").status_code == 200
    assert [sign_in("::ffff:198.51.100.1").status_code for _ in range(4)][-1] == 429
    assert sign_in("198.51.100.1").status_code == 429


def test_a_limit_of_zero_disables_it(settings: Any) -> None:
    settings.API_LIMIT = 0
    assert {Client().get("/api/v1/teams").status_code for _ in range(20)} == {401}


def test_an_unavailable_cache_refuses_nobody(monkeypatch: Any, caplog: Any) -> None:
    def away(*_: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(limits, "_count", away)
    monkeypatch.setattr(limits, "_warned_at", float("-inf"))
    assert {Client().get("/api/v1/teams").status_code for _ in range(20)} == {401}
    assert caplog.text.count("there is no rate limit") == 1  # logged once a minute, not at each request


def test_processes_share_a_count_through_redis(settings: Any) -> None:
    if not settings.REDIS_URL:
        assert "LocMemCache" in settings.CACHES["limits"]["BACKEND"]  # each process counts separately
        return
    from django.core.cache.backends.redis import RedisCache

    ours, theirs = (RedisCache(settings.REDIS_URL, {}) for _ in range(2))
    ours.set("limit:test", 1)
    assert theirs.incr("limit:test") == 2
