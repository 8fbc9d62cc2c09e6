"""The control plane's ingest and `FakeControlPlane` both agree with `tests/vectors/buckets.json`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from controlplane.core.errors import InvalidInput, PointsmanError
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


def _both(report: dict[str, Any]) -> tuple[tuple[int, str], tuple[int, str]]:
    """Return (status, code) of the control plane's reader and of the fake."""
    body = json.dumps(report).encode()
    real = (202, "")
    try:
        read_batch(body)
    except PointsmanError as error:
        real = (error.status, error.code)
    with FakeControlPlane() as plane:
        headers = {"Authorization": f"Bearer {plane.key}"}
        answer = httpx.post(f"{plane.url}/router/v1/outcomes", content=body, headers=headers)
    return real, (answer.status_code, answer.json().get("code", ""))


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({}, (202, "")),
        ({"decided": None}, (202, "")),
        ({"batch_id": "B8A0D5E0-0000-4000-8000-000000000001"}, (202, "")),
        ({"batch_id": "b8a0d5e0000040008000000000000001"}, (422, "invalid_input")),
        ({"batch_id": "1"}, (422, "invalid_input")),
        ({"buckets": [{}] * 1_001}, (413, "body_too_large")),
        ({"decided": [{}] * 1_001}, (413, "body_too_large")),
    ],
)
def test_the_fake_control_plane_answers_a_batch_alike(
    change: dict[str, Any], answer: tuple[int, str]
) -> None:
    assert _both({"batch_id": str(uuid4()), "buckets": []} | change) == (answer, answer)


def test_the_fake_control_plane_counts_an_id_once_in_any_case() -> None:
    with FakeControlPlane() as plane:
        for batch_id in ("B8A0D5E0-0000-4000-8000-000000000001", "b8a0d5e0-0000-4000-8000-000000000001"):
            report = _report({"list": "buckets", "change": {}}) | {"batch_id": batch_id}
            headers = {"Authorization": f"Bearer {plane.key}"}
            assert (
                httpx.post(f"{plane.url}/router/v1/outcomes", json=report, headers=headers).status_code == 202
            )
        assert (len(plane.batches), list(plane.deliveries.values())) == (1, [2])
