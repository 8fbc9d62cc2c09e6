"""The security headers of every response, and that the pages work with them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, RequestFactory
from unfold.sites import UnfoldAdminSite

from tests.support.people import logged_in

TEMPLATES = sorted(Path(settings.BASE_DIR).glob("templates/**/*.html"))


def _policy(response: Any) -> dict[str, list[str]]:
    directives = (part.split() for part in response["Content-Security-Policy"].split(";"))
    return {name: values for name, *values in directives}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/console/login/", "/console/", "/console/nowhere/", "/nowhere"])
def test_every_page_has_the_policy(path: str) -> None:
    policy = _policy(logged_in("vera", "viewer").get(path))
    assert policy["default-src"] == ["'none'"]
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == ["'none'"]
    assert policy["form-action"] == ["'self'"]
    assert not [value for values in policy.values() for value in values if value == "'unsafe-inline'"]
    assert [name for name, values in policy.items() if "'unsafe-eval'" in values] == ["script-src"]


@pytest.mark.django_db
def test_responses_for_machines_may_load_nothing() -> None:
    for response in (Client().get("/api/v1/keys"), Client().get("/api/v1/nowhere")):
        assert _policy(response) == {
            "default-src": ["'none'"],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'none'"],
        }
        assert response["Cache-Control"] == "no-store"


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/console/login/", "/api/v1/keys", "/nowhere"])
def test_the_other_headers_are_set(path: str) -> None:
    response = Client().get(path)
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in response["Permissions-Policy"]


@pytest.mark.django_db
def test_no_page_has_inline_styles_or_scripts() -> None:
    maria = logged_in("maria", "admin")
    for path in ("/console/", "/console/audit/", "/console/workloads/", "/console/login/"):
        text = (Client() if "login" in path else maria).get(path).content.decode()
        assert "<style" not in text
        assert [tag for tag in re.findall(r"<script[^>]*>", text) if " src=" not in tag] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(settings.BASE_DIR)))
def test_no_template_has_inline_code(path: Path) -> None:
    text = path.read_text()
    scripts = re.findall(r"<script[^>]*>", text)
    assert [tag for tag in scripts if " src=" not in tag and "nonce=" not in tag] == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=\"|javascript:", text) == []


def test_the_style_sheet_has_all_variables_of_the_theme() -> None:
    """Otherwise a variable added by an upgrade of the theme would show as a missing colour."""
    sheet = (Path(settings.BASE_DIR) / "controlplane/static/console/theme.css").read_text()
    colors = UnfoldAdminSite()._get_colors("COLORS", RequestFactory().get("/"))
    wanted = {f"--color-{name}-{weight}" for name, weights in colors.items() for weight in weights}
    assert wanted | {"--border-radius"} == set(re.findall(r"^\s*(--[\w-]+):", sheet, re.MULTILINE))


def test_djangos_deployment_check_finds_nothing_with_https(tmp_path: Path) -> None:
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    production = {
        "HTTPS": "on",
        "ALLOWED_HOSTS": "pointsman.example.org",
        "POINTSMAN_VAR": str(tmp_path / "var"),
    }
    done = subprocess.run(
        command, cwd=settings.BASE_DIR, env=_environment(production), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "no issues" in done.stdout


def _environment(extra: dict[str, str]) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    return {**keep, **extra}
