"""Tampering with the database: every kind is detected and named, none crashes, and writes still work.

One sample of each kind here; `benchmarks/tampering.py` runs thousands, using the variables read below.
"""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.audit import verification
from tests.support import append_only, tampering
from tests.support.tampering.instance import instance

pytestmark = pytest.mark.django_db
COUNT = int(os.environ.get("TAMPERINGS", len(tampering.KINDS)))
SEED = os.environ.get("TAMPERINGS_SEED", "one of each")


@pytest.fixture
def played_with(settings: Any, tmp_path: Path) -> Iterator[None]:
    settings.VAR_DIR = tmp_path
    instance()
    assert verification.verify().findings == []
    with append_only.lifted():
        yield


@pytest.mark.usefixtures("played_with")
def test_every_kind_of_tampering_is_detected_and_named() -> None:
    rng, kinds = random.Random(SEED), list(tampering.KINDS)
    outcomes = [tampering.tried(kinds[number % len(kinds)], rng) for number in range(COUNT)]
    _write_result(outcomes)
    assert len(kinds) >= 196
    assert [
        outcome for outcome in outcomes if not (outcome.found and outcome.named and outcome.went_on)
    ] == []
    assert verification.verify().findings == []


def _write_result(outcomes: list[tampering.Outcome]) -> None:
    if path := os.environ.get("TAMPERINGS_RESULT"):
        rows: dict[str, list[int]] = {}
        for outcome in outcomes:
            row = rows.setdefault(outcome.kind, [0, 0, 0, 0])
            for at, yes in enumerate((True, outcome.found, outcome.named, outcome.went_on)):
                row[at] += yes
        Path(path).write_text(json.dumps(rows))
