"""POST /router/v1/feedback: one item per decision and kind."""

import json
import time
from base64 import urlsafe_b64encode
from binascii import crc32
from typing import Any

import pytest

from pointsman.token import DecisionToken
from rollout_app.models import Feedback
from tests.support.plane import Plane, Served

DOOR = "/router/v1/feedback"


def _token(served: Served, **changes: Any) -> str:
    token = DecisionToken(
        environment=served.environment.name, workload=served.assignment.workload.name,
        rollout=None, stage=None, arm="baseline", version=1,
        endpoint="/tickets", rule="heavy", model="large", at=int(time.time()), nonce="n1",
    )  # fmt: skip
    return token._replace(**changes).encode()


def _crafted(served: Served, **changes: Any) -> str:
    """Return a token as somebody could make it by hand: with any character."""
    made = DecisionToken.decode(_token(served))._replace(**changes)
    body = json.dumps(made).encode()
    packed = urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body)
    return "2." + packed.rstrip(b"=").decode()


def _say(plane: Plane, served: Served, *words: dict[str, Any]) -> Any:
    return plane.post(DOOR, served.key, {"feedback": list(words)})


def test_it_stores_feedback_for_its_decision(plane: Plane, served: Served) -> None:
    word = {"decision_id": _token(served), "kind": "human_review", "success": True, "score": 0.8}
    answer = _say(plane, served, word)
    row = Feedback.objects.get()
    assert (answer.status, answer.json()) == (202, {"accepted": 1})
    assert (row.workload, row.arm, row.version) == (served.assignment.workload, "baseline", 1)
    assert (row.endpoint, row.rule, row.model, row.rollout) == ("/tickets", "heavy", "large", "")
    assert (row.kind, row.success, row.score) == ("human_review", True, 0.8)


def test_it_ignores_a_second_item_and_answers_the_same(plane: Plane, served: Served) -> None:
    word = {"decision_id": _token(served), "kind": "satisfaction", "success": True}
    answers = [_say(plane, served, word), _say(plane, served, {**word, "success": False})]
    assert [answer.json() for answer in answers] == [{"accepted": 1}] * 2
    assert Feedback.objects.get().success is True


def test_it_stores_one_item_of_each_kind(plane: Plane, served: Served) -> None:
    token = _token(served)
    kinds = ("human_review", "satisfaction", "downstream")
    _say(plane, served, *({"decision_id": token, "kind": kind, "success": False} for kind in kinds))
    assert Feedback.objects.count() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"environment": "elsewhere"},
        {"workload": "nobody"},
        {"version": 99},
        {"version": -(2**40)},
        {"rollout": "0192", "stage": 0},
        {"arm": "other"},
        {"endpoint": "x" * 300},
        {"rule": "nul\0"},
        {"workload": "\ud800"},
        {"endpoint": "\ud800"},
        {"differing": "\0>large"},
        {"differing": "\udfff>large"},
        {"differing": "neither"},
        {"differing": "a>" + "b" * 250},
        {"cell": 1024},
        {"at": 2**40 - 1},
        {"cost_nusd": 10**400},
        {"cost_nusd": 10**12 + 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_it_refuses_a_decision_that_was_not_made_here(
    plane: Plane, served: Served, change: dict[str, Any]
) -> None:
    good = {"decision_id": _token(served), "kind": "downstream", "success": True}
    answer = _say(plane, served, good, {**good, "decision_id": _crafted(served, **change)})
    assert (answer.status, answer.code) == (422, "invalid_input")
    assert {problem["index"] for problem in answer.json()["problems"]} == {1}
    assert not Feedback.objects.exists()


@pytest.mark.parametrize(
    "change", [{"decision_id": "1.xyz"}, {"kind": "rumour"}, {"score": 2}, {"success": 1}]
)
def test_it_refuses_invalid_feedback(plane: Plane, served: Served, change: dict[str, Any]) -> None:
    word = {"decision_id": _token(served), "kind": "downstream", "success": True} | change
    answer = _say(plane, served, word)
    assert (answer.status, answer.json()["problems"][0]["index"]) == (422, 0)


def test_it_names_each_bad_item_by_its_index(plane: Plane, served: Served) -> None:
    """An unreadable item does not shift the indexes of the others."""
    decisions = ["no token", _token(served), _token(served, version=99), _token(served, arm="other")]
    answer = _say(plane, served, *({"decision_id": token, "kind": "downstream"} for token in decisions))
    found = [(problem["index"], problem["field"]) for problem in answer.json()["problems"]]
    assert (answer.status, found) == (422, [(0, "decision_id"), (2, "version"), (3, "decision_id")])
