"""The control plane's ingest and `FakeControlPlane` both agree with `tests/vectors/buckets.json`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from controlplane.core.errors import InvalidInput
from pointsman.reporting import consistency
from pointsman.testing import FakeControlPlane
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
def test_the_control_plane_agrees_with_the_vectors(case: dict[str, Any]) -> None:
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
def test_the_fake_control_plane_agrees_with_the_vectors(case: dict[str, Any]) -> None:
    found = list(problems(_report(case)))
    if "shape" in case:
        assert [(p["list"], p["index"]) for p in found] == [(case["list"], 0)]
        return
    assert sorted({p["field"] for p in found}) == case["fields"], found


@pytest.mark.parametrize(
    "twice", [b'"batch_id": "2"', b'"batch\\u005fid": "2"', b'"decided": [{"tasks": 1, "tasks": 2}]']
)
def test_the_fake_control_plane_refuses_a_key_that_occurs_twice(twice: bytes) -> None:
    """The control plane does the same: `tests/dataplane/test_every_endpoint.py`."""
    with FakeControlPlane() as plane:
        body = b'{"batch_id": "1", "buckets": [], ' + twice + b"}"
        headers = {"Authorization": f"Bearer {plane.key}"}
        answer = httpx.post(f"{plane.url}/router/v1/outcomes", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "duplicate_key")
        assert plane.batches == {}
