"""Liveness, readiness, metrics, system checks, error pages, log lines."""

import json
import logging
import os
import re
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.http.request import validate_host
from django.test import Client

from controlplane.access.models import Key
from controlplane.audit.models import Head
from controlplane.core import clock, figures, heartbeats, problems, schedule, signing
from controlplane.core.context import request_context
from controlplane.core.logs import JsonLines, TextLines
from controlplane.core.models import Heartbeat
from controlplane.server import checks, health
from controlplane.server.health import FiguresThread, Health
from tests.support import builders, deployment
from tests.support.services import free_port


def _looked() -> Health:
    heartbeats._written.clear()
    heartbeats.beat(schedule.ENGINE)
    found = Health({})
    found.round()
    FiguresThread().round()
    return found


def _checks(found: Health) -> dict[str, str]:
    return dict(json.loads(found.readiness().body)["checks"])


def test_it_is_alive_without_a_database() -> None:
    assert Health({}).alive().body == b"ok\n"


@pytest.mark.django_db
def test_it_is_ready_when_everything_works() -> None:
    reply = _looked().readiness()
    assert (reply.status, json.loads(reply.body)["ready"]) == (200, True), reply.body


def test_it_is_not_ready_before_its_first_checks() -> None:
    reply = Health({}).readiness()
    assert (reply.status, (b"retry-after", b"2") in reply.headers) == (503, True)
    assert json.loads(reply.body)["checks"]["database"] == "no answer yet"


def test_it_names_the_setting_that_lacks_a_host_name(client: Client, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["pointsman.example"]
    response = client.get("/api/v1/workloads/", headers={"host": "10.0.0.5:8000"})
    assert (response.status_code, response.json()["detail"]) == (
        400,
        "This host name is not served here: it is not in ALLOWED_HOSTS.",
    )


@pytest.mark.django_db
def test_it_is_not_ready_when_its_database_has_not_answered_for_30_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now))
    found = _looked()

    def away() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(clock, "now", away)
    now += health.CHECK_S + 0.1
    found._checks["database"].refresh()
    assert _checks(found)["database"] == "ok"  # a brief failure takes no gateway out of service
    now += 29.8
    assert _checks(found)["database"] == "ok"
    now += 0.2
    assert _checks(found)["database"] == "no answer for 30 s (OperationalError: connection refused)"
    assert found.readiness().status == 503


@pytest.mark.django_db
def test_a_check_that_does_not_end_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now))
    found = _looked()
    now += health.CHECK_S + health.UNSEEN_S + 1
    assert _checks(found)["database"] == "no answer for 31 s (the last check has not ended)"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("age", "outcome"),
    [(None, "no sweep has ended yet"), (19.0, "ok"), (25.0, "the last sweep ended 25 s ago")],
)
def test_a_dead_engine_is_not_ready(age: float | None, outcome: str) -> None:
    """Regardless of what runs it: the embedded runner, or workers elsewhere."""
    found = _looked()
    if age is None:
        Heartbeat.objects.all().delete()
    else:
        Heartbeat.objects.update(at=clock.now() - timedelta(seconds=age))
    found._checks["engine"].seen_at = None
    found.round()
    assert _checks(found)["engine"].startswith(outcome)
    assert found.readiness().status == (200 if outcome == "ok" else 503)
    assert found.readiness({"engine"}).status == 200  # the query of a load balancer


@pytest.mark.django_db
def test_the_age_of_every_job_is_a_metric() -> None:
    reply = _looked().metrics()
    assert b'pointsman_job_age_seconds{job="rollout_app.tasks.sweep"}' in reply.body


@pytest.mark.parametrize(
    ("age", "outcome"),
    [(None, "not started yet"), (0.0, "ok"), (30.0, "ok"), (31.0, "has not worked for 31 s")],
)
def test_the_age_of_each_thread_is_part_of_readiness(age: float | None, outcome: str) -> None:
    assert _checks(Health({"watcher": lambda: age}))["watcher"] == outcome


@pytest.mark.django_db
def test_it_is_ready_without_redis_and_says_so(settings: Any) -> None:
    """Without Redis, changes are found by polling. One unreachable Redis must not take every gateway out of service."""
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    away = {**settings.CACHES["default"], "LOCATION": settings.REDIS_URL}
    away["BACKEND"] = "django.core.cache.backends.redis.RedisCache"
    settings.CACHES = dict.fromkeys(("default", "limits"), away)
    found = _looked()
    assert found.readiness().status == 200
    assert _checks(found)["redis"].startswith("ConnectionError")


@pytest.mark.django_db
def test_it_is_not_ready_without_an_append_only_trigger() -> None:
    with connection.cursor() as cursor:
        on = " ON audit_entry" if connection.vendor == "postgresql" else ""
        name = "append_only_audit_entry_" + ("row" if on else "update")
        cursor.execute(f"DROP TRIGGER {name}{on}")
    found = _looked()
    assert found.readiness().status == 503
    assert name in _checks(found)["append_only"]
    messages = checks.check_database(None, databases=["default"])
    assert [message.id for message in messages] == ["pointsman.W001"]


@pytest.mark.django_db
def test_metrics_are_prometheus_text() -> None:
    reply = _looked().metrics()
    assert dict(reply.headers)[b"content-type"].startswith(b"text/plain")
    assert b"pointsman_audit_entries 0.0\n" in reply.body


@pytest.mark.django_db
def test_a_scrape_does_not_wait_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also reports no old values: what was read before the database went away is dropped."""
    entries = health.AuditFigures()
    entries.refresh()
    assert list(entries.collect()) != []
    monkeypatch.setattr(Head, "objects", None)
    with pytest.raises(AttributeError):
        entries.refresh()
    assert list(entries.collect()) == []


def test_figures_stay_while_they_are_read_again() -> None:
    """With 20,000 routers a read takes seconds. Scrapes in that time lacked the series, so an alert `for` five minutes
    never came."""
    seen = []

    class Slow(figures.DatabaseFigures):
        def read(self) -> list[Any]:
            seen.append(list(self.collect()))
            return [len(seen)]

    slow = Slow()
    slow.refresh()
    slow.refresh()
    assert seen == [[], [1]]
    assert list(slow.collect()) == [2]


@pytest.mark.django_db
def test_readiness_does_not_wait_for_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read in a thread of their own."""

    def hang() -> None:
        raise AssertionError("the checks read figures")

    monkeypatch.setattr(figures, "refresh", hang)
    heartbeats.beat(schedule.ENGINE)
    found = Health({})
    found.round()
    assert "no answer yet" not in _checks(found).values()


@pytest.mark.django_db
def test_the_time_comes_from_the_database() -> None:
    first, second = clock.now(), clock.now()
    assert first <= second
    assert first.utcoffset() is not None
    assert first.microsecond or second.microsecond or clock.now().microsecond


# --- system checks -----------------------------------------------------------------------------------


def ids(found: list[Any]) -> list[str]:
    return [message.id for message in found]


def test_a_good_installation_passes() -> None:
    assert checks.check_signing_key(None) == checks.check_directory(None) == []
    assert checks.check_sqlite(None) == checks.check_poll_interval(None) == []
    assert checks.check_secret_key(None) == checks.check_hosts(None) == []
    assert checks.check_urls(None) == checks.check_sender(None) == []


@pytest.mark.parametrize("text", ["no base64!", "c2hvcnQ="])
def test_a_signing_key_that_cannot_be_read_is_found(settings: Any, text: str) -> None:
    settings.SIGNING_KEY = text
    assert ids(checks.check_signing_key(None)) == ["pointsman.E001"]


def test_a_directory_that_cannot_be_written_is_found(settings: Any) -> None:
    settings.VAR_DIR = "/proc/nowhere"
    assert ids(checks.check_directory(None)) == ["pointsman.E002"]


@pytest.mark.parametrize(("interval", "good"), [(199, False), (200, True), (300_000, True), (300_001, False)])
def test_a_poll_interval_out_of_range_is_found(settings: Any, interval: int, good: bool) -> None:
    settings.POLL_INTERVAL_MS = interval
    assert ids(checks.check_poll_interval(None)) == ([] if good else ["pointsman.E007"])


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (" \n", ["pointsman.E011"]),
        ("change-me", ["pointsman.E011"]),
        ("Change-Me\n", ["pointsman.E011"]),
        ("x" * 31, ["pointsman.W003"]),  # an instance that has it must still start
        ("x" * 32, []),
    ],
)
def test_a_secret_that_others_know_is_found(settings: Any, key: str, found: list[str]) -> None:
    settings.SECRET_KEY = key
    assert ids(checks.check_secret_key(None)) == found


@pytest.mark.parametrize("path", deployment.ENV_FILES, ids=lambda path: path.parent.name)
def test_the_secrets_of_the_examples_are_found(settings: Any, path: Path) -> None:
    values = dict(line.split("=", 1) for line in path.read_text().splitlines() if re.match("[A-Z]", line))
    settings.SECRET_KEY, settings.SIGNING_KEY = values["SECRET_KEY"], values["POINTSMAN_SIGNING_KEY"]
    assert ids(checks.check_secret_key(None)) == ["pointsman.E011"]
    assert ids(checks.check_signing_key(None)) == ["pointsman.E001"]


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("pointsman.example.org", True),
        (".example.org", True),
        ("*", True),
        ("[::1]", True),
        ("10.0.0.5", True),
    ]
    + [("Pointsman", True), ("https://pointsman.example", False), ("pointsman.example:8000", False)]
    + [("pointsman.example/console", False), ("*.example.org", False), ("::1", False), ("a b", False)],
)
def test_a_host_that_no_request_can_name_is_found(settings: Any, host: str, good: bool) -> None:
    settings.ALLOWED_HOSTS = ["localhost", host]
    assert validate_host(host.lower().removeprefix(".").replace("*", "a"), [host.lower()]) or not good
    found = checks.check_hosts(None)
    assert ids(found) == ([] if good else ["pointsman.E012"])
    assert good or found[0].msg == f"ALLOWED_HOSTS: {host!r} is not the name of a host."


@pytest.mark.parametrize(
    ("url", "good"),
    [("https://pointsman.example.org", True), ("http://10.0.0.5:9000/store", True), ("", True)]
    + [
        ("pointsman.example.org", False),
        ("https://", False),
        ("https://host:port", False),
        ("ftp://x", False),
    ],
)
def test_what_is_no_url_is_found(settings: Any, url: str, good: bool) -> None:
    for name in ("PUBLIC_URL", "AWS_S3_ENDPOINT_URL"):
        setattr(settings, name, url)
    settings.OIDC_FORMER_ISSUERS = [url]
    found = [message.msg.partition(":")[0] for message in checks.check_urls(None)]
    assert found == ([] if good else ["PUBLIC_URL", "AWS_S3_ENDPOINT_URL", "OIDC_FORMER_ISSUERS"])


@pytest.mark.parametrize(
    ("sender", "good"),
    [("pointsman@localhost", True), ("Pointsman <pointsman@example.org>", True), ("nonsense", False)]
    + [("@example.org", False), ("pointsman@", False)],
)
def test_a_sender_without_an_address_is_found(settings: Any, sender: str, good: bool) -> None:
    settings.DEFAULT_FROM_EMAIL = sender
    assert ids(checks.check_sender(None)) == ([] if good else ["pointsman.E014"])


def test_a_sqlite_file_that_cannot_be_written_is_found_with_its_path(settings: Any, tmp_path: Path) -> None:
    """`serve` said that it runs, and repeated errors without the path."""
    engine = "django.db.backends.sqlite3"
    for name, good in {
        tmp_path / "x": True,
        ":memory:": True,
        tmp_path: False,
        tmp_path / "no" / "x": False,
    }.items():
        settings.DATABASES = {"default": {"ENGINE": engine, "NAME": str(name)}}
        found = checks.check_sqlite(None)
        assert ids(found) == ([] if good else ["pointsman.E003"])
        assert good or found[0].msg == f"DATABASE_URL: the SQLite file {name} cannot be written."


def test_plain_http_is_found_before_a_deployment(settings: Any) -> None:
    settings.HTTPS = False
    assert ids(checks.check_https(None)) == ["pointsman.W002"]
    settings.HTTPS = True
    assert checks.check_https(None) == []


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_person_gets_a_page_and_a_machine_a_problem(client: Client) -> None:
    page = client.get("/nowhere")
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b"not_found" not in page.content, "a code is for machines"
    assert b"There is nothing here, or you may not see it." in page.content
    assert client.get("/api/nowhere").json()["code"] == "not_found"


def test_an_internal_error_shows_only_the_request_id(rf: Any) -> None:
    with request_context("r-77"):
        response = problems.server_error(rf.get("/api/v1/x"))
    assert response.status_code == 500
    assert json.loads(response.content)["request_id"] == "r-77"


def test_an_unreachable_database_is_a_503_with_retry_after() -> None:
    problem, headers = problems.as_problem(OperationalError("gone"))
    assert problem is not None
    assert (problem["status"], problem["code"], headers["Retry-After"]) == (503, "unavailable", "5")


def test_an_unknown_error_is_not_blamed_on_the_caller() -> None:
    assert problems.as_problem(ZeroDivisionError()) == (None, {})


def test_a_log_line_is_one_json_object_with_its_request() -> None:
    record = logging.LogRecord("pointsman", logging.ERROR, "f", 1, "lost %s\nfor good", ("it",), None)
    record.rollout = "r1"
    with request_context("r-1", "api"):
        line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert {
        "level": "error",
        "message": "lost it\nfor good",
        "request_id": "r-1",
        "rollout": "r1",
    }.items() <= (found.items())


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_a_log_line_does_not_show_an_invitations_link(lines: logging.Formatter, rf: Any) -> None:
    """Whoever has the link can make the account. A failed request is logged with its address."""
    request = rf.get("/console/invitation/s3cr3t-t0ken_x/?next=/console/")
    record = logging.LogRecord("django.request", logging.ERROR, "f", 1, "%s: %s", ("No", request.path), None)
    record.request = request
    line = lines.format(record)
    assert "s3cr3t" not in line
    assert "/console/invitation/.../" in line


def test_every_line_of_a_json_log_is_json(tmp_path: Path) -> None:
    """This includes lines from other libraries, warnings and uncaught exceptions."""
    program = """
import logging, threading, warnings
import django
django.setup()
logging.getLogger("httpx").info("HTTP Request: GET %s", "http://x")
logging.getLogger("celery.worker").warning("lost it")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("two\\nlines")
"""
    environment = {
        "POINTSMAN_VAR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "controlplane.settings", "LOG_FORMAT": "json",
        "PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    loggers = [line["logger"] for line in lines]
    assert loggers == [
        "httpx",
        "celery.worker",
        "py.warnings",
        "controlplane.core.logs",
        "controlplane.core.logs",
    ]
    assert "ZeroDivisionError" in lines[3]["error"]
    assert "two\nlines" in lines[4]["error"]
    assert done.returncode == 1


# --- commands ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_setting_up_twice_creates_everything_once() -> None:
    first, second = StringIO(), StringIO()
    call_command("setup_instance", stdout=first)
    call_command("setup_instance", stdout=second)
    assert "password:" in first.getvalue()
    assert "production, staging" in first.getvalue()
    assert "password" not in second.getvalue()
    assert second.getvalue().startswith("Next:")


@pytest.mark.django_db
def test_the_keys_command_shows_the_control_characters_of_a_label() -> None:
    builders.environment("staging")
    call_command("keys", "create", "router", "edge", "--environment", "staging", stdout=StringIO())
    Key.objects.update(label="a\x1b[2J\n0123456789abcdef  admin")
    out = StringIO()
    call_command("keys", "list", stdout=out)
    assert out.getvalue().endswith(r"a\x1b[2J\n0123456789abcdef  admin" + "\n")
    assert out.getvalue().count("\n") == 1


@pytest.mark.django_db
def test_the_keys_command_creates_lists_and_revokes_a_key() -> None:
    builders.environment("staging")
    out = StringIO()
    call_command("keys", "create", "router", "edge", "--environment", "staging", stdout=out)
    key_id = out.getvalue().split("_")[2]
    call_command("keys", "list", stdout=out)
    call_command("keys", "revoke", key_id, "--reason", "done", stdout=out)
    call_command("keys", "list", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[1].split()[:5] == [key_id, "router", "staging", "-", "live"]
    assert "revoked" in lines[3]


@pytest.mark.parametrize("days", ["0", "-1", "36501", "99999999999", "1.5", "\u0663"])
def test_the_keys_command_refuses_days_that_no_key_lives(days: str) -> None:
    with pytest.raises(CommandError, match="give a whole number from 1 to 36,500"):
        call_command("keys", "create", "router", "edge", "--environment", "staging", "--days", days)


def test_the_public_key_is_printed_in_the_format_that_routers_accept() -> None:
    out = StringIO()
    call_command("keys", "public", stdout=out)
    assert out.getvalue().strip() == f"{signing.key_id()}:" + out.getvalue().strip().partition(":")[2]
    assert len(signing.public_bytes()) == 32
