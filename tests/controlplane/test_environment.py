"""Settings from the environment: what is wrong is refused with its name, and nothing is silently off."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.core.environment import Environment

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(filter(None, sys.path))


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(Environment.ENVIRON, "files_cache", {})
    for name in ("A", "A_FILE", "B", "ecret"):
        monkeypatch.delenv(name, raising=False)
    return Environment()


@pytest.mark.parametrize(
    ("text", "on"),
    [("on", True), ("TRUE", True), ("yes", True), ("1", True), (" On\n", True)]
    + [("off", False), ("False", False), ("no", False), ("0", False)],
)
def test_a_switch_is_on_or_off(
    env: Environment, monkeypatch: pytest.MonkeyPatch, text: str, on: bool
) -> None:
    monkeypatch.setenv("A", text)
    assert env.bool("A", default=not on) is on


@pytest.mark.parametrize("text", ["enabled", "ture", "on off", "-", "none"])
def test_it_refuses_another_word_for_a_switch(
    env: Environment, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """`REQUIRE_SECOND_FACTOR=enabled` was off, and nobody was told."""
    monkeypatch.setenv("A", text)
    with pytest.raises(ImproperlyConfigured, match=rf"^A is '{text}': use on or off"):
        env.bool("A", default=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("two", "A is 'two': it must be a whole number"),
        ("1.5", "it must be a whole number"),
        ("0", "A is 0; it must be from 1 to 100"),
        ("-5", "from 1 to 100"),
        ("101", "from 1 to 100"),
        ("9" * 5_000, "whole number"),
    ],
)
def test_it_refuses_a_wrong_number(
    env: Environment, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.setenv("A", text)
    with pytest.raises(ImproperlyConfigured, match=says):
        env.int("A", default=3, least=1, most=100)


@pytest.mark.parametrize("read", [Environment.str, Environment.int, Environment.bool, Environment.db])
def test_an_empty_value_is_the_default(env: Environment, monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
    """`NAME=${NAME:-}` in a compose file: an empty number and an empty database address were tracebacks."""
    default = {Environment.str: "x", Environment.int: 3, Environment.bool: True}.get(
        read, "sqlite:////x.sqlite3"
    )
    monkeypatch.setenv("A", "")
    found = read(env, "A", default=default)
    assert found == default if read is not Environment.db else found["NAME"] == "/x.sqlite3"


def test_an_empty_list_is_a_list(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """`TRUSTED_PROXIES=` trusts nobody."""
    assert env.list("A", default=["x"]) == ["x"]
    for text, found in {"": [], " , ": [], "a, b,": ["a", "b"]}.items():
        monkeypatch.setenv("A", text)
        assert env.list("A", default=["x"]) == found


@pytest.mark.parametrize(
    "url",
    ["hello", "postgres", "http://host/db", "postgres://me:hush@host:port/db", "postgres://me:hu/sh@host/db"]
    + ["sqlite://hello.sqlite3"],  # what follows two slashes is a host, and was ignored
)
def test_it_refuses_what_is_no_database_and_does_not_show_it(
    env: Environment, monkeypatch: pytest.MonkeyPatch, url: str, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("A", url)
    with pytest.raises(ImproperlyConfigured, match="A is not the address of a database") as refused:
        env.db("A", default="sqlite:///x")
    assert not re.search(r"hello|host:|hu", str(refused.value))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://me:hush@host/db", "A begins with mysql://, and only SQLite and PostgreSQL are supported"),
        ("postgres://", "A does not name a database"),
        ("postgres://me:hush@host", "A does not name a database"),
    ],
)
def test_it_says_why_a_database_cannot_be_used(
    env: Environment, monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    """Django said it in a traceback, without the setting's name."""
    monkeypatch.setenv("A", url)
    with pytest.raises(ImproperlyConfigured, match=f"^{says}") as refused:
        env.db("A", default="sqlite:///x")
    assert "hush" not in str(refused.value)
    monkeypatch.setenv("A", "postgres://?service=pointsman")
    assert env.db("A")["OPTIONS"] == {"service": "pointsman"}


@pytest.mark.parametrize(
    ("url", "good"),
    [("redis://x", True), ("rediss://:hush@host:6379/1", True), ("unix:///run/redis.sock?db=2", True)]
    + [("", True), ("http://x", False), ("host:6379", False), ("redis://", False), ("redis:///0", False)]
    + [("redis://host:port/0", False), ("redis://host/abc", False), ("redis://me:hu/sh@host/0", False)],
)
def test_a_wrong_redis_address_is_refused(
    env: Environment, monkeypatch: pytest.MonkeyPatch, url: str, good: bool
) -> None:
    """Workers ended with a traceback, again and again."""
    monkeypatch.setenv("A", url)
    if good:
        assert env.redis("A") == url
        return
    with pytest.raises(ImproperlyConfigured, match="^A is not a Redis URL") as refused:
        env.redis("A")
    assert "hu" not in str(refused.value).replace("unix", "")


def test_a_secret_that_begins_with_a_dollar_is_not_dropped(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`METRICS_KEY=$ecret` was no key, so everybody could read the metrics."""
    monkeypatch.setenv("A", "$ecret")
    with pytest.raises(ImproperlyConfigured, match=r"A begins with \$") as refused:
        env.str("A", default="")
    assert "ecret" not in str(refused.value)
    monkeypatch.setenv("ecret", "found")
    assert env.str("A", default="") == "found"
    for circle in ("$A", "$", "$$"):
        monkeypatch.setenv("A", circle)
        with pytest.raises(ImproperlyConfigured, match=r"A begins with \$"):
            env.str("A", default="")


def test_a_file_may_end_with_a_line_break(
    env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("hush\n")
    monkeypatch.setenv("A_FILE", str(path))
    assert env.str("A", default="") == "hush"
    monkeypatch.setenv("SECRET_KEY_FILE", str(path))
    assert env.str("SECRET_KEY", default="") == "hush\n", "what was encrypted with it must stay readable"


def test_it_names_a_file_that_is_missing(
    env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_FILE", str(tmp_path / "missing"))
    with pytest.raises(ImproperlyConfigured, match="The file that A_FILE names cannot be read"):
        env.str("A", default="")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("REQUIRE_SECOND_FACTOR", "enabled", "REQUIRE_SECOND_FACTOR is 'enabled': use on or off."),
        # Zero days would delete every outcome at the next pruning.
        ("POINTSMAN_OUTCOME_RETENTION_DAYS", "0", "POINTSMAN_OUTCOME_RETENTION_DAYS is 0; it must be from 9"),
        ("DATABASE_CONN_MAX_AGE", "-1", "DATABASE_CONN_MAX_AGE is -1; it must be from 0"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT is 'xml': use text or json."),
        (
            "LOG_LEVEL",
            "verbose",
            "LOG_LEVEL is 'verbose': use DEBUG or INFO or WARNING or ERROR or CRITICAL or WARN.",
        ),
    ],
)
def test_the_server_does_not_start_with_it(name: str, value: str, says: str, tmp_path: Path) -> None:
    done = with_settings("", POINTSMAN_VAR=str(tmp_path), **{name: value})
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        ("manage.py", "check"),
        ("-m", "controlplane", "check"),
        ("-c", "import controlplane.asgi"),  # as the workers of `serve` do
        ("-m", "celery", "-A", "controlplane.celery", "worker"),
        ("-m", "celery", "-A", "controlplane.celery", "beat"),
    ],
    ids=["manage.py", "wheel", "serve", "worker", "beat"],
)
def test_a_refused_setting_is_one_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    """It was a traceback of dozens of lines."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "POINTSMAN_VAR": str(tmp_path), "WORKERS": "10000000", "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "WORKERS is 10000000; it must be from 1 to 1,000.\n"


def with_settings(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process with these variables, after `from controlplane import settings`."""
    return subprocess.run(
        [sys.executable, "-c", f"from controlplane import settings\n{code}"],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_earlier_secret_key_may_have_been_read_from_a_file(tmp_path: Path) -> None:
    """A file ends with a line break, which is part of the key and cannot be written in a list."""
    done = with_settings(
        "print(settings.SECRET_KEY_FALLBACKS)", POINTSMAN_VAR=str(tmp_path), SECRET_KEY_FALLBACKS="abc, def"
    )
    assert done.stdout.strip() == repr(["abc", "abc\n", "def", "def\n"]), done.stderr


def test_options_in_the_database_address_keep_the_time_limits(tmp_path: Path) -> None:
    """`?options=-c%20search_path%3Dx` replaced all of them."""
    done = with_settings(
        "print(settings.DATABASES['default']['OPTIONS']['options'])",
        POINTSMAN_VAR=str(tmp_path),
        DATABASE_URL="postgres://me:hush@host/name?options=-c%20search_path%3Dx&connect_timeout=9",
    )
    limits = "-c statement_timeout=30s -c lock_timeout=20s -c idle_in_transaction_session_timeout=15s"
    assert done.stdout.strip() == f"{limits} -c search_path=x", done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "smtp+tls://pointsman:hunter2/x@mail:587",  # the part before the / is read as a port
        "smtp+tls://pointsman:587/hunter2@mail:587",
        "smtp+tls://pointsman:hunter2@mail:https",
        "smtp+tls://:587",
        "mail.example.org:587",
        "hunter2://mail",
    ],
)
def test_it_refuses_what_is_no_mail_server_and_does_not_show_it(url: str, tmp_path: Path) -> None:
    done = with_settings("", POINTSMAN_VAR=str(tmp_path), EMAIL_URL=url)
    assert done.returncode == 1
    assert "EMAIL_URL is not the address of a mail server" in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr and "pointsman:" not in done.stderr


def test_a_mail_server_is_read(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "smtp+tls://me:hunter%2F2@mail.example.org:587")
    found = env.email("A", default="")
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"], found["EMAIL_USE_TLS"]) == (
        "mail.example.org",
        587,
        True,
    )
    assert found["EMAIL_HOST_PASSWORD"] == "hunter/2"
    monkeypatch.setenv("A", "consolemail://")
    assert env.email("A", default="")["EMAIL_BACKEND"] == "django.core.mail.backends.console.EmailBackend"
    monkeypatch.setenv("A", "")
    assert env.email("A", default="") == {}


def test_a_word_may_be_in_upper_or_lower_case(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "Warning")
    assert env.word("A", ("INFO", "WARNING"), default="INFO") == "WARNING"


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("", None),
    ],
)
def test_celery_reaches_redis_through_a_socket_too(url: str, broker: str | None, tmp_path: Path) -> None:
    """Celery has another word for it, and died with `No such transport: unix`."""
    done = with_settings("print(settings.CELERY_BROKER_URL)", POINTSMAN_VAR=str(tmp_path), REDIS_URL=url)
    assert done.stdout.strip() == str(broker), done.stderr
