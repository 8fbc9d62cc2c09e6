"""For any arguments, `decide`, `next` and `record` never raise into the caller's request."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman import Attempt, Decision, Router
from pointsman.assignment import WorkloadAssignment
from pointsman.policy import digest
from tests.client.policies import two_stage

POLICY = two_stage(
    rules=[
        {"id": "long", "when": "request.prompt_tokens > 10 || request.confidence < 0.2", "use": "large"},
        {"id": "gold", "when": 'request.customer_tier in ["gold"] && request.turns != 3', "use": "large"},
        {
            "id": "own",
            "when": 'request.attributes.x.startsWith("a") || size(request.language) > 2',
            "use": "large",
        },
        {"id": "past", "when": "history.failure_rate > 0.5 && has(request.tool_calls)", "use": "large"},
    ],
    inputs={"x": {"type": "string"}},
)
SIDE = {"version": 1, "digest": digest(POLICY), "policy": POLICY}
ROLLOUT = {"id": "r", "stage": 1, "share_pcm": 50_000, "salt": "s", "mirror_pcm": 50_000}


class Refusal(Exception):
    def __str__(self) -> str:
        raise ValueError("no words either")


class Hostile:
    """Fails at every access."""

    def _refuse(self, *_: object) -> Any:
        raise Refusal

    __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __lt__ = __gt__ = __len__ = _refuse
    __float__ = __int__ = __index__ = __iter__ = __getattr__ = __contains__ = _refuse


class Vanished:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise ReferenceError("weakly-referenced object no longer exists")


class HostileMapping(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise Refusal

    def __iter__(self) -> Iterator[str]:
        raise Refusal

    def __len__(self) -> int:
        raise Refusal

    def get(self, key: str, default: Any = None) -> Any:
        raise Refusal


CYCLE: dict[str, Any] = {}
CYCLE["attributes"] = CYCLE

leaf = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.sampled_from(["\ud800", "x" * 100_000, 10**4_000, -(10**400), math.nan, math.inf, 1j])
    | st.builds(Hostile)
    | st.builds(Vanished)
    | st.builds(HostileMapping)
    | st.just(CYCLE)
)
weird = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
names = [
    "prompt_tokens",
    "confidence",
    "customer_tier",
    "turns",
    "language",
    "tool_calls",
    "endpoint",
    "attributes",
]
requests = weird | st.dictionaries(st.sampled_from([*names, 7, None, ("a",)]), weird, max_size=8)
ids = weird | st.dictionaries(st.sampled_from(["conversation", "request", 7]), weird, max_size=3)


def router(mode: str) -> Router:
    made = Router("http://127.0.0.1:9", "pmr_test", start=False)
    pin = {"model": "small"} if mode == "pinned" else None
    mode = "full" if pin else mode
    entry = {"revision": 1, "unit": "conversation", "baseline": SIDE, "candidate": SIDE, "pin": pin}
    assignment = WorkloadAssignment.build("summaries", {**entry, "rollout": {**ROLLOUT, "mode": mode}})
    made._defaults._given["summaries"] = assignment
    return made


ROUTERS = {mode: router(mode) for mode in ("shadow", "percentage", "full", "pinned")}


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(sorted(ROUTERS)),
    workload=st.just("summaries") | weird,
    request=requests,
    unit_ids=ids,
    available=st.none() | weird,
    attempt=st.builds(
        Attempt, ok=weird, error=weird, confidence=weird, valid=weird, cost_nusd=weird, latency_ms=weird,
        output_tokens=weird,
    ) | weird,
    figures=st.dictionaries(
        st.sampled_from(["quality", "confidence", "cost_nusd", "latency_ms", "error", "mirror_success"]), weird
    ),
    success=weird,
)  # fmt: skip
def test_it_never_raises(
    mode: str,
    workload: Any,
    request: Any,
    unit_ids: Any,
    available: Any,
    attempt: Any,
    figures: dict[str, Any],
    success: Any,
) -> None:
    asked = ROUTERS[mode]
    decision = asked.decide(workload, request, unit_ids, available=available)
    assert isinstance(decision, Decision)
    assert isinstance(decision.model, str)
    step = decision.next(attempt, available=available)
    assert step.action in ("accept", "retry", "fallback", "escalate", "stop")
    asked.record(decision, success, **figures)
    asked.record(attempt, success)


@pytest.mark.parametrize("make", [list, dict, Hostile, Vanished])
def test_it_answers_for_an_invalid_workload_name(make: type) -> None:
    decision = ROUTERS["full"].decide(make())
    assert (decision.model, decision.version) == ("", 0)


@pytest.mark.parametrize("make", [Vanished, Hostile, list])
def test_it_ignores_unreadable_inputs(make: type) -> None:
    decision = ROUTERS["percentage"].decide("summaries", make(), make())
    assert (decision.rule, decision.model) == ("default", "vendor/small")


def test_it_decides_for_a_pinned_workload_whose_ids_cannot_be_read() -> None:
    assert ROUTERS["pinned"].decide("summaries", {}, HostileMapping()).rule == "pin"


def test_it_uses_its_own_time_if_the_callers_clock_fails() -> None:
    def clock() -> float:
        raise OSError("no time")

    made = Router("http://127.0.0.1:9", "pmr_test", start=False, clock=clock)
    assert made.decide("summaries").at > 0
