"""`tests/vectors/buckets.json`, by the control plane's ingest and by `FakeControlPlane`: both say the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from controlplane.core.errors import InvalidInput
from pointsman.reporting import consistency
from pointsman.testing.reports import problems
from rollout_app.outcomes.schemas import ReportedBatch, read_batch

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "buckets.json").read_text())
CASES = VECTORS["cases"]
RULES: dict[str, Callable[[Any, None], consistency.Found]] = {
    "buckets": consistency.contradictions,
    "decided": consistency.decided_contradictions,
    "cells": consistency.cells_contradictions,
}


def _report(case: dict[str, Any]) -> dict[str, Any]:
    entry = {**VECTORS["base"][case["list"]], **case["change"]}
    for name in case.get("remove", ()):
        del entry[name]
    return {"batch_id": str(uuid4()), "buckets": [], case["list"]: [entry]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_control_plane_finds_what_the_vector_says(case: dict[str, Any]) -> None:
    body = json.dumps(_report(case)).encode()
    if "shape" in case:
        with pytest.raises(InvalidInput) as refused:
            read_batch(body)
        assert [(p["list"], p["index"]) for p in refused.value.extra["problems"]] == [(case["list"], 0)]
        return
    batch: ReportedBatch = read_batch(body)
    (entry,) = getattr(batch, case["list"])
    found = RULES[case["list"]](entry, None)
    assert sorted({field for field, _ in found}) == case["fields"], found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_fake_control_plane_finds_what_the_vector_says(case: dict[str, Any]) -> None:
    found = list(problems(_report(case)))
    if "shape" in case:
        assert [(p["list"], p["index"]) for p in found] == [(case["list"], 0)]
        return
    assert sorted({p["field"] for p in found}) == case["fields"], found
