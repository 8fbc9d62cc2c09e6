"""Commands refuse invalid input in a sentence, and name commands that exist in this installation."""

import getpass
import socket
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError
from django.test import override_settings

from controlplane import __main__ as program
from controlplane.core import strictjson
from controlplane.core.problems import flatten
from controlplane.core.program import command
from controlplane.management.commands import up
from policies_app.fleet.acks import read_ack
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("port", [99_999, -1])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(CommandError, match="from 0 to 65535"):
        call_command("serve", port=port)


@pytest.mark.parametrize("grace", [-1.0, float("nan"), 1e9])
def test_a_grace_that_nobody_can_wait_is_refused(grace: float) -> None:
    """The server slept for it when it was told to end: an error there kept it running."""
    with pytest.raises(CommandError, match="--grace is from 0 to 3600 seconds"):
        call_command("serve", grace=grace)


def test_a_command_that_asks_for_a_password_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(prompt: str = "") -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", ended)
    for name, words in (("createsuperuser", ["bob"]), ("createsuperuser", ["bob", "--reason", "r"])):
        with pytest.raises(CommandError, match="needs a terminal"):
            call_command(name, *words)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"since": "2026-01-01"}, "--since only limits --rebuild"),
        ({"since": "yesterday"}, "--since only limits --rebuild"),
        ({"since": "2999-01-01", "rebuild": True}, "in the future"),
    ],
)
def test_a_day_that_would_be_ignored_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("rollups", **options)


def test_waiting_for_a_server_ends_with_the_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        with pytest.raises(
            CommandError, match=f"http://127.0.0.1:{port} is not ready after 0 seconds: .*refused"
        ):
            call_command("wait", host="0.0.0.0", port=port, seconds=0)  # noqa: S104


def test_setup_names_a_command_that_exists() -> None:
    for from_wheel, name in ((True, "pointsman-server"), (False, "manage.py")):
        out = StringIO()
        with override_settings(FROM_WHEEL=from_wheel):
            call_command("setup_instance", stdout=out)
            assert command("migrate") == f"{name} migrate"
        assert f"`{name} keys create router" in out.getvalue()


def test_setup_shows_the_password_before_anything_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stored nowhere and never made again, so a failure after the person was created would lose it."""

    def away(*args: Any, **options: Any) -> None:
        raise OperationalError("the connection was closed")

    out = StringIO()
    monkeypatch.setattr("policies_app.actions.register_environment", away)
    with pytest.raises(OperationalError):
        call_command("setup_instance", stdout=out)
    password = out.getvalue().partition("password: ")[2].partition(" ")[0]
    assert User.objects.get().check_password(password)


def test_up_refuses_settings_that_cannot_work_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It left the system checks to `serve`, which skips them when another command calls it."""
    called: list[str] = []
    monkeypatch.setattr(up, "call_command", lambda name, **options: called.append(name))
    with override_settings(POLL_INTERVAL_MS=1), pytest.raises(SystemCheckError, match=r"pointsman\.E007"):
        call_command("up", skip_checks=False)
    assert called == []
    call_command("up", skip_checks=False)
    assert called == ["migrate", "setup_instance", "serve"]


def test_the_version_is_the_servers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pointsman-server", "--version"])
    program.main()
    assert capsys.readouterr().out.startswith("pointsman-server")


def test_a_wrong_type_is_named_in_plain_words() -> None:
    with pytest.raises(Exception, match="Expected a whole number") as told:
        read_ack(b'{"router": "r", "state": "applied", "revision": "x"}')
    assert "`int`" not in str(told.value)
    assert strictjson.in_words(ValueError("Expected `datetime`, got `int`")) == (
        "Expected a time such as 2026-11-01T12:00:00Z, got a whole number"
    )
    assert (
        flatten({"a": ["A valid biginteger is required."]})[0]["message"]
        == "A valid whole number is required."
    )


def test_an_invalid_number_is_described_in_plain_words() -> None:
    answer = Caller()("POST", "models", {"name": "a/b", "context_window": "x", "reason": "r"})
    assert "integer" not in answer.content.decode()
