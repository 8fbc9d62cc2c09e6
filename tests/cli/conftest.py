"""The command line against the real admin API, in one process: requests go to Django's WSGI application."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pointsman.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def admin_key(db: Any) -> str:
    """An admin key of a person who may do everything everywhere."""
    from django.contrib.auth.models import User

    from controlplane.access.actions import issue_key
    from controlplane.access.models import Membership, Role
    from controlplane.core.actors import SYSTEM

    user = User.objects.create_user("platform-engineer")
    for role in Role:
        Membership.objects.create(user=user, role=role)
    _, text = issue_key("admin", "", "cli", actor=SYSTEM, user=user, scopes=[role.value for role in Role])
    return text


@pytest.fixture
def as_it_was_built(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let verification ignore rows that tests create without an entry: people, teams."""
    from dataclasses import replace

    from controlplane.audit import verification

    verify = verification.verify

    def verified(*given: Any, **options: Any) -> Any:
        found = verify(*given, **options)
        return replace(found, findings=[one for one in found.findings if one.kind == "altered"])

    monkeypatch.setattr(verification, "verify", verified)


@pytest.fixture
def folder(db: Any, tmp_path: Path) -> Path:
    """A folder to apply."""
    from tests.support import desired_folder

    return desired_folder.write(tmp_path / "desired")


@pytest.fixture
def run(admin_key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`run("plan", folder)` → (exit code, standard output, standard error)."""
    from django.core.signals import request_finished, request_started
    from django.core.wsgi import get_wsgi_application
    from django.db import close_old_connections

    # As Django's own test client does: a request's end must not close the connection of the test's transaction.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    transport = httpx.WSGITransport(app=get_wsgi_application())
    monkeypatch.setattr("pointsman.cli.server.httpx.Client", partial(httpx.Client, transport=transport))
    monkeypatch.setenv("POINTSMAN_URL", "http://localhost")
    monkeypatch.setenv("POINTSMAN_KEY", admin_key)
    monkeypatch.setenv("COLUMNS", "200")
    # The server's log goes to this process's standard error, too; in production it is another process.
    monkeypatch.setattr(logging.getLogger("django.request"), "disabled", True)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)
