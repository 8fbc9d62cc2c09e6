"""`make check` reports known vulnerabilities, and does not report success if they could not be looked up."""

import importlib.util
import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from django.conf import settings

SPEC = importlib.util.spec_from_file_location("audit", Path(settings.BASE_DIR) / "requirements" / "audit.py")
assert SPEC is not None and SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

GOOD = {"name": "django", "version": "5.2.1", "vulns": []}
BAD = {"name": "django", "version": "5.2.1", "vulns": [{"id": "CVE-1", "fix_versions": ["5.2.2"]}]}
SKIPPED = {"name": "django", "skip_reason": "not found"}


def says(monkeypatch: Any, capsys: Any, stdout: str, stderr: str = "") -> tuple[int, str]:
    answer = CompletedProcess([], 0, stdout, stderr)
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: answer)
    code = audit.main()
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.mark.parametrize(
    ("found", "code", "text"),
    [
        ([GOOD], 0, "1 packages, no known vulnerability"),
        ([GOOD, BAD], 1, "django 5.2.1: CVE-1; fixed in 5.2.2"),
        ([GOOD, SKIPPED], 0, "NOT CHECKED: there are no data about 1 of 2"),
        ([SKIPPED, BAD], 1, "CVE-1"),
    ],
)
def test_it_reports_what_it_knows(monkeypatch: Any, capsys: Any, found: Any, code: int, text: str) -> None:
    answered, said = says(monkeypatch, capsys, json.dumps({"dependencies": found}))
    assert answered == code
    assert text in said


def test_without_a_network_it_says_so_and_fails_only_if_required(monkeypatch: Any, capsys: Any) -> None:
    assert says(monkeypatch, capsys, "", "Traceback\nConnectionError: no route")[0] == 0
    monkeypatch.setenv("AUDIT_STRICT", "1")
    code, said = says(monkeypatch, capsys, "", "Traceback\nConnectionError: no route")
    assert code == 1
    assert "NOT CHECKED: the advisories cannot be reached (ConnectionError: no route)" in said
