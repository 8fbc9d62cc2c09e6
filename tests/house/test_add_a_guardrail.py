"""The edits of `docs/how-to/add-a-guardrail.md`, applied to a copy of the code, add guardrails that work."""

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.plane import process_environment
from tests.support.sources import ROOT

HOW_TO = ROOT / "docs" / "how-to" / "add-a-guardrail.md"
EDIT = re.compile(r"<!-- edit (\S+) (before|replace): (.+?) -->\n *```python\n(.*?)\n *```", re.DOTALL)
COPIED = ("controlplane", "policies_app", "rollout_app", "router_client", "templates", "tests", "manage.py")

# What a newcomer would try: an equal candidate, a worse one, and reports without the figure.
TRIED = """
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.metrics import Metric
from tests.support.evidence_builders import REFERENCE, STAGES, arm, stratum
from dataclasses import replace

def judged(metric, candidate, baseline):
    own = [g for g in guardrails_for([{"metric": metric, "weight": 0.1}]) if g.name == metric]
    seen = Accumulator.open(own, STAGES, REFERENCE)
    for minute in range(20):
        seen.add(stratum(4, minute, candidate, baseline))
    return seen.judge(4).verdicts[0].result.value

usual = arm(1_000)
for metric, worse in (("unpriced", {"cost_n": 700}), ("timeout", {"timeouts": 90})):
    print(Metric(metric).spec.label, judged(metric, replace(usual, **worse), usual), judged(metric, usual, usual))
"""

STORED = """
import django
django.setup()
from rollout_app.models import ArmTotals, OutcomeBucket
from rollout_app.outcomes import aggregate, contributions, stored_sums
from rollout_app.outcomes.schemas import ReportedBucket
from datetime import datetime, timezone
from django.core.management import call_command
call_command("makemigrations", "rollout_app", verbosity=0)
call_command("makemigrations", "--check", "--dry-run", verbosity=0)
call_command("migrate", verbosity=0)
bucket = ReportedBucket(datetime(2026, 3, 1, tzinfo=timezone.utc), "w", "candidate", 2, 10, 7, 3, 0, errors=3,
                        errors_by_kind={"timeout": 2, "refused": 1})
numbers = contributions.of_bucket(None, bucket, by_record=True, tracked=True).numbers
row = dict(zip(aggregate.NUMBERS, numbers, strict=True))
print(row["timeouts"], ArmTotals._meta.get_field("timeouts").default, "timeouts" in stored_sums.FIGURES)
"""


class Edit(NamedTuple):
    file: str
    how: str
    anchor: str
    code: str


def edits() -> Iterator[Edit]:
    for file, how, anchor, code in EDIT.findall(HOW_TO.read_text()):
        yield Edit(file, how, anchor, code)


def _made(edit: Edit, text: str) -> str:
    """Return the file's text with the edit, indented to match its place."""
    lines = [line for line in text.splitlines() if line.startswith(edit.anchor)]
    assert lines, f"{HOW_TO.name} names a line that {edit.file} does not have: {edit.anchor!r}"
    code = textwrap.dedent(edit.code)
    if edit.how == "replace":
        margin = edit.anchor[: len(edit.anchor) - len(edit.anchor.lstrip())]
        return text.replace(lines[0], textwrap.indent(code, margin), 1)
    # A member of a class goes before the next one, or after the last one.
    return text.replace(lines[0], textwrap.indent(code, "    ") + "\n" + lines[0], 1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code with the edits of the page."""
    ignore = shutil.ignore_patterns("__pycache__", "dist", "var")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(source, tmp_path / name)
    for edit in edits():
        path = tmp_path / edit.file
        path.write_text(_made(edit, path.read_text()))
    return tmp_path


def _printed(code: str, home: Path) -> list[str]:
    environment = {
        **process_environment(),
        "PYTHONPATH": f"{home}:{home / 'router_client'}",
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "DATABASE_URL": f"sqlite:///{home / 'copy.sqlite3'}",
        "POINTSMAN_VAR": str(home / "var"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_added_guardrails_are_evaluated_and_stored(copy: Path) -> None:
    assert len({edit.file for edit in edits()}) == 5
    assert _printed(TRIED, copy) == ["Unpriced tasks fail pass", "Timeouts fail pass"]
    assert _printed(STORED, copy) == ["2 0 True"]
