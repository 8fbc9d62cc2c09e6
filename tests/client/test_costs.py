"""The cost of a task: given, in dollars, or from its tokens and the snapshot's prices. Unknown is never 0."""

import base64
import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from zlib import crc32

import pytest

from pointsman import Attempt, Pace, Router, TokenInvalid, Usage
from pointsman.bucketing import bucket, cell
from pointsman.costs import CostInvalid, cost_of
from pointsman.testing import FakeControlPlane
from pointsman.token import DecisionToken
from tests.client.policies import always, two_stage

PRICES: dict[str, dict[str, int | None]] = {
    "vendor/small": {
        "input": 150_000_000, "output": 600_000_000, "cache_read": 75_000_000, "cache_write": None,
        "batch_input": 75_000_000, "batch_output": 300_000_000,
    },
    "vendor/large": {"input": 3_000_000_000, "output": 15_000_000_000, "cache_read": None, "cache_write": None},
}  # fmt: skip
NumpyFlag = type("bool_", (), {"__float__": lambda _: 1.0})  # the name of numpy's boolean
FREE: dict[str, dict[str, int | None]] = {"vendor/small": {"input": 0, "output": 0}}


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.prices = PRICES
        plane.serve("summaries", two_stage(), unit="conversation")
        yield plane


def steady(plane: FakeControlPlane, **options: Any) -> Router:
    """A router whose records all belong to one minute and go into one batch, at the end."""
    pace = Pace(first_poll_within=0, flush_every=60, stop_within=20)
    return plane.router(**{"pace": pace, "clock": lambda: 1_700_000_030.0, **options})


def costs(plane: FakeControlPlane) -> tuple[int, int]:
    """Return (n, sum) over everything recorded."""
    found = [bucket["cost_nusd"] for bucket in plane.buckets("summaries")]
    return sum(cost["n"] for cost in found), sum(cost["sum"] for cost in found)


def test_a_cost_of_zero_is_known(plane: FakeControlPlane) -> None:
    """A3: the tasks of a free model are not unpriced."""
    with steady(plane) as router:
        decision = router.decide("summaries")
        decision.next(Attempt(cost_nusd=0))
        router.record(decision, True)
    assert costs(plane) == (1, 0)


def test_a_task_with_one_attempt_of_unknown_cost_has_no_cost(plane: FakeControlPlane) -> None:
    """A4: half a cost would count as the whole."""
    with steady(plane) as router:
        decision = router.decide("summaries")
        decision.next(Attempt(ok=False, error="timeout", cost_nusd=1_000))
        decision.next(Attempt(cost_nusd=None))
        router.record(decision, True)
    assert costs(plane) == (0, 0)


UNREACHABLE: dict[str, Any] = {"ok": False, "error": "timeout"}
UNCERTAIN: dict[str, Any] = {"confidence": 0.2}
LAST_CALL = Usage(input=1_000, output=100)  # 4,500,000 nano-dollars on the strong model


@pytest.mark.parametrize(
    ("attempt", "recorded", "expected"),
    [
        ({**UNREACHABLE, "cost_nusd": 1_000}, {}, (0, 0)),
        ({**UNCERTAIN, "cost_nusd": 1_000}, {}, (0, 0)),
        (UNREACHABLE, {"usage": LAST_CALL}, (0, 0)),
        ({**UNREACHABLE, "cost_nusd": 1_000}, {"usage": LAST_CALL}, (1, 4_501_000)),
        ({**UNREACHABLE, "cost_nusd": 1_000}, {"usage": Usage(input=-1)}, (0, 0)),
        (UNREACHABLE, {"cost_nusd": 7_000}, (1, 7_000)),  # of the whole task
        (UNREACHABLE, {"cost_usd": 0.000007}, (1, 7_000)),
    ],
)
def test_a_call_that_next_asked_for_and_was_not_told_of_is_an_attempt_of_unknown_cost(
    plane: FakeControlPlane, attempt: dict[str, Any], recorded: dict[str, Any], expected: tuple[int, int]
) -> None:
    with steady(plane) as router:
        decision = router.decide("summaries")
        step = decision.next(Attempt(**attempt))
        assert step.model == "vendor/large"
        router.record(decision, True, **recorded)
        token = DecisionToken.decode(decision.decision_id)
    assert costs(plane) == expected
    assert token.cost_nusd == (expected[1] if expected[0] else None)
    (bucket,) = plane.buckets("summaries")
    assert (bucket["attempts"], bucket["model"]) == (2, "large")
    assert bucket["models"] == {"large": 1, "small": 1}


def test_nothing_else_is_known_of_a_call_that_next_was_not_told_of(plane: FakeControlPlane) -> None:
    """The first answer's confidence and time are not those of the answer that was used."""
    with steady(plane) as router:
        decision = router.decide("summaries")
        decision.next(Attempt(confidence=0.2, cost_nusd=1_000, latency_ms=900))
        router.record(decision, True)
    (bucket,) = plane.buckets("summaries")
    assert (bucket["confidence"]["n"], sum(bucket["latency_ms"]["counts"].values())) == (0, 0)


def test_a_retry_that_next_was_not_told_of_counts_as_well() -> None:
    retrying = two_stage(retry={"attempts": 1, "on": ["timeout"], "backoff_ms": 0})
    with FakeControlPlane() as plane:
        plane.serve("summaries", retrying)
        with steady(plane) as router:
            decision = router.decide("summaries")
            assert decision.next(Attempt(**UNREACHABLE, cost_nusd=1_000)).action == "retry"
            router.record(decision, True)
        assert costs(plane) == (0, 0)
        (bucket,) = plane.buckets("summaries")
        assert (bucket["attempts"], bucket["models"]) == (2, {"small": 1})


def test_an_attempt_that_cannot_be_read_has_no_known_cost(plane: FakeControlPlane) -> None:
    """It was made nevertheless, so the cost of the first one is not that of the task."""

    class Broken(Attempt):
        @property
        def error(self) -> str:
            raise OSError("gone")

        @error.setter
        def error(self, value: str | None) -> None:
            pass

    with steady(plane) as router:
        decision = router.decide("summaries")
        decision.next(Attempt(**UNCERTAIN, cost_nusd=1_000))
        assert decision.next(Broken()).done
        router.record(decision, True)
    assert costs(plane) == (0, 0)
    assert sum(bucket["attempts"] for bucket in plane.buckets("summaries")) == 2


def test_attempts_that_cost_too_much_together_are_left_out(plane: FakeControlPlane) -> None:
    """The control plane refuses a report with a task of more than a thousand dollars."""
    with steady(plane) as router:
        decision = router.decide("summaries")
        decision.next(Attempt(**UNCERTAIN, cost_usd=600))
        decision.next(Attempt(cost_usd=600))
        router.record(decision, True)
        assert router.status()["figures_invalid"] == 1
    assert costs(plane) == (0, 0)


def test_dollars_given_as_nano_dollars_are_omitted_counted_and_reported_once(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """F7: a sum of 0 that looks known would hide all costs."""
    with steady(plane) as router:
        for _ in range(100):
            router.record(router.decide("summaries"), success=True, cost_nusd=0.00041)
        assert router.status()["figures_invalid"] == 100
    assert costs(plane) == (0, 0)
    assert plane.tasks("summaries") == 100, "the tasks are counted nevertheless"
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "cost_nusd=0.00041 looks like dollars" in said
    assert "Use cost_usd for dollars" in said


def test_dollars_and_tokens_are_turned_into_nano_dollars(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        router.record(router.decide("summaries"), True, cost_usd=0.00041)
        router.record(router.decide("summaries"), True, usage=Usage(input=900, output=120, cache_read=400))
    # 900 × 150,000 + 120 × 600,000 + 400 × 75,000 nano-dollars per thousand tokens
    assert costs(plane) == (2, 410_000 + 135_000 + 72_000 + 30_000)


def test_each_attempt_is_priced_by_its_own_model(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        decision = router.decide("summaries")
        step = decision.next(Attempt(confidence=0.1, usage=Usage(input=1_000, output=100)))
        assert step.model == "vendor/large"
        decision.next(Attempt(confidence=0.9, usage=Usage(input=1_000, output=100)))
        router.record(decision, True)
    assert costs(plane) == (1, (150_000 + 60_000) + (3_000_000 + 1_500_000))


@pytest.mark.parametrize(
    ("usage", "model", "prices", "cost"),
    [
        (Usage(input=1_000_000, output=0, batch=True), "vendor/small", PRICES, 75_000_000),
        (Usage(input=1), "vendor/small", PRICES, 150),
        (Usage(input=10, cache_write=10), "vendor/small", PRICES, None),  # the catalogue has no such price
        (Usage(input=10, batch=True), "vendor/large", PRICES, None),
        (Usage(input=10), "vendor/unknown", PRICES, None),
        (Usage(), "vendor/unknown", PRICES, None),
        (Usage(), "vendor/small", PRICES, 0),
        (Usage(input=10, output=10), "vendor/small", FREE, 0),
        (
            Usage(input=1),
            "vendor/small",
            {"vendor/small": {"input": 500_000}},
            1,
        ),  # half a nano-dollar, rounded
    ],
)
def test_tokens_cost_the_price_of_the_catalogue(
    usage: Usage, model: str, prices: dict[str, dict[str, int | None]], cost: int | None
) -> None:
    assert cost_of(None, None, usage, model, prices) == cost


@pytest.mark.parametrize(
    "given",
    [
        {"usage": Usage(input=-1)}, {"usage": Usage(input=True)}, {"usage": {"input": 1}},
        {"usage": Usage(input=1.5)},  # type: ignore[arg-type]
        {"cost_nusd": True}, {"cost_usd": False}, {"cost_nusd": NumpyFlag()},
        {"cost_nusd": 0.5}, {"cost_nusd": "410000"}, {"cost_usd": -0.1}, {"cost_usd": 1_001}, {"cost_usd": "1"},
    ],
)  # fmt: skip
def test_an_invalid_cost_is_refused_with_an_explanation(given: dict[str, Any]) -> None:
    named = {"cost_nusd": None, "cost_usd": None, "usage": None, **given}
    with pytest.raises(CostInvalid) as refused:
        cost_of(named["cost_nusd"], named["cost_usd"], named["usage"], "vendor/small", PRICES)
    assert len(str(refused.value)) > 20


def test_decimals_are_numbers() -> None:
    assert cost_of(None, Decimal("0.00041"), None, "") == 410_000
    assert cost_of(Decimal(410_000), None, None, "") == 410_000


# Units


def test_an_empty_unit_is_missing_and_not_one_big_unit() -> None:
    """F6: otherwise all requests without a unit would be those of one user, who may be on the candidate."""
    salt = next(f"salt-{n}" for n in range(10_000) if bucket(f"salt-{n}", "") < 1_000)
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="user")
        plane.roll_out("summaries", always("large"), share_pcm=1_000, rollout=salt)
        with plane.router() as router:
            decisions = [router.decide("summaries", {}, {"user": unit}) for unit in ("", " ") * 500]
            arms = [decision.arm for decision in decisions]
            assert all(decision.unit_missing for decision in decisions)
            assert router.status()["unit_missing"] == 1_000
    assert arms.count("candidate") < 50, "about 1 % by the requests' own ids"


def test_cells_count_tasks_and_failures_by_unit(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        for unit, success in (("c-1", True), ("c-1", False), ("c-2", True), ("c-2", None)):
            router.record(router.decide("summaries", {}, {"conversation": unit}), success)
    (entry,) = plane.cells("summaries")
    first, second = (str(cell("summaries", unit)) for unit in ("c-1", "c-2"))
    assert entry["tasks"] == {first: 2, second: 2}
    assert entry["failures"] == {first: 1}
    assert entry["minute"] == "2023-11-14T22:13:00Z"


def test_single_requests_have_no_cells() -> None:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage())
        with steady(plane) as router:
            router.record(router.decide("summaries"), True)
        assert plane.tasks("summaries") == 1
        assert plane.cells("summaries") == []


# Decision ids of earlier clients


def first_version(fields: list[Any]) -> str:
    body = json.dumps(fields).encode()
    return "1." + base64.urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body).rstrip(b"=").decode()


FIELDS = [
    "production",
    "summaries",
    "r-1",
    2,
    "candidate",
    13,
    "/t",
    "default",
    "small",
    1_700_000_030,
    "abc1",
]


def test_it_reads_an_id_of_the_first_version() -> None:
    token = DecisionToken.decode(first_version(FIELDS))
    assert (token.workload, token.rollout, token.stage, token.version) == ("summaries", "r-1", 2, 13)
    assert (token.nonce, token.at) == ("abc1", 1_700_000_030)
    assert (token.differing, token.cell, token.recorded, token.cost_nusd) == (None, None, False, None)


@pytest.mark.parametrize(
    "fields",
    [FIELDS[:-1], [*FIELDS, None], [*FIELDS[:9], "then", "abc1"], [*FIELDS[:2], None, *FIELDS[3:]], {"a": 1}],
)
def test_it_refuses_an_id_of_the_first_version_with_other_fields(fields: Any) -> None:
    with pytest.raises(TokenInvalid):
        DecisionToken.decode(first_version(fields))
