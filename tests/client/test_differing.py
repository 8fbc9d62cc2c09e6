"""Tasks on which the two policies of a rollout differ: detected equally in both arms, counted by route pair."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.attempt import Attempt
from pointsman.choose import decide
from pointsman.comparison import AGREE, SAME
from pointsman.decision import Decision
from pointsman.evaluate import compile_policy
from pointsman.history import Memory
from pointsman.reporting.buckets import Bucket, BucketKey, Outcome
from pointsman.reporting.counts import CountKey, DecidedCounts, DecisionTallies
from pointsman.testing import FakeControlPlane
from tests.client.deciding import assigned, entry, side
from tests.client.policies import always, two_stage

KEY = BucketKey(29_393_265, "summaries", "r-1", 2, "candidate", 13, "/tickets", "default", "small")
LATCHED = {"escalate": {"to": "large", "on": ["refusal"], "latch": "conversation"}}


def rolling(baseline: dict[str, Any], candidate: dict[str, Any], **changes: Any) -> Any:
    """An assignment whose rollout serves half of the units with each policy."""
    rollout = {"id": "0192", "stage": 2, "mode": "percentage", "share_pcm": 50_000, "salt": "s"}
    return assigned(
        entry(baseline=side(baseline, 12), candidate=side(candidate, 13), rollout={**rollout, **changes})
    )


def unit_of(assignment: Any, arm: str, start: int = 0) -> dict[str, str]:
    """A conversation in this arm."""
    for number in range(start, start + 1_000):
        ids = {"conversation": f"c-{number}"}
        if decide(assignment, {}, ids).arm == arm:
            return ids
    raise AssertionError(f"no unit of {arm}")


def both(assignment: Any, request: dict[str, Any], memory: Memory | None = None) -> list[Decision]:
    """The same request, decided in each arm."""
    arms = ("baseline", "candidate")
    return [decide(assignment, request, unit_of(assignment, arm), memory) for arm in arms]


HEAVY = two_stage(rules=[{"id": "heavy", "when": "request.prompt_tokens > 99", "use": "large"}])
COOL = {"small": {"model": "vendor/small", "params": {"temperature": 0}}, "large": {"model": "vendor/large"}}
RENAMED: dict[str, Any] = {
    "models": {"mini": {"model": "vendor/small"}, "large": {"model": "vendor/large"}},
    "default": "mini",
    "fallback": ["large", "mini"],
}
CASES = {
    "another model": (two_stage(), always("large"), {}, "vendor/small>vendor/large"),
    "a rule sends both to it": (two_stage(), always("large"), {"prompt_tokens": 9_000}, AGREE),
    "identical": (two_stage(), two_stage(), {}, AGREE),
    "other parameters": (two_stage(), two_stage(models=COOL), {}, SAME),
    "another limit": (two_stage(), two_stage(timeouts={"attempt_ms": 500}), {}, SAME),
    "deferred to a batch": (two_stage(), two_stage(batch=True), {}, SAME),
    "the policy's own names differ": (
        two_stage(),
        two_stage(**RENAMED),
        {},
        AGREE,
    ),
    "a threshold, below both": (two_stage(), HEAVY, {"prompt_tokens": 9}, AGREE),
    "a threshold, between": (two_stage(), HEAVY, {"prompt_tokens": 100}, "vendor/small>vendor/large"),
    "a threshold, above both": (two_stage(), HEAVY, {"prompt_tokens": 9_000}, AGREE),
}


@pytest.mark.parametrize(("baseline", "candidate", "request_", "pair"), CASES.values(), ids=CASES)
def test_it_names_the_same_route_pair_in_both_arms(
    baseline: dict[str, Any], candidate: dict[str, Any], request_: dict[str, Any], pair: str
) -> None:
    decisions = both(rolling(baseline, candidate), request_)
    assert [decision.arm for decision in decisions] == ["baseline", "candidate"]
    assert [decision.differing for decision in decisions] == [pair, pair]


_CONDITIONS = [
    "request.prompt_tokens > 100", "request.prompt_tokens > 200", "request.tool_calls > 0",
    'request.priority == "high"', "has(request.confidence) && request.confidence < 0.5",
    "!(request.turns > 3)",
]  # fmt: skip
_rules = st.lists(
    st.tuples(st.sampled_from(_CONDITIONS), st.sampled_from(["small", "large"])),
    max_size=5,
    unique_by=lambda r: r[0],
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": st.sampled_from([50, 150, 250]),
        "tool_calls": st.sampled_from([0, 1]),
        "priority": st.sampled_from(["high", "low"]),
        "confidence": st.sampled_from([0.1, 0.9]),
        "turns": st.sampled_from([1, 9]),
    },
)


@given(_rules, _rules, st.sampled_from(["small", "large"]), _requests)
def test_it_agrees_with_evaluating_both_policies(
    rules: list[tuple[str, str]], others: list[tuple[str, str]], default: str, request_: dict[str, Any]
) -> None:
    """For any overlap of the two: shared rules are evaluated once, the others separately."""

    def policy(given: list[tuple[str, str]], otherwise: str) -> dict[str, Any]:
        fallback = ["large", "small"]
        listed = [{"id": f"r{n}", "when": when, "use": use} for n, (when, use) in enumerate(given)]
        data = two_stage(rules=listed, default=otherwise, fallback=fallback)
        if otherwise == "large":
            del data["escalate"]
        return data

    baseline, candidate = policy(rules, default), policy(others, "small")
    models = [compile_policy(data).route(request_).model for data in (baseline, candidate)]
    expected = AGREE if models[0] == models[1] else ">".join(models)
    decisions = both(rolling(baseline, candidate), request_)
    assert [decision.differing for decision in decisions] == [expected, expected]
    assert [decision.model for decision in decisions] == models


def test_it_reports_nothing_outside_a_rollout_or_at_full() -> None:
    assert decide(assigned(), {}).differing is None
    assert decide(rolling(two_stage(), always("large"), mode="full"), {}).differing is None


def test_no_task_differs_under_a_pin() -> None:
    rollout = {"id": "0192", "stage": 2, "mode": "percentage", "share_pcm": 50_000, "salt": "s"}
    pinned = entry(candidate=side(always("large"), 13), rollout=rollout, pin={"model": "small", "reason": ""})
    decision = decide(assigned(pinned), {})
    assert decision.differing == AGREE
    # It belongs to no arm of the rollout: all pinned tasks would be the baseline's, as if the candidate's were lost.
    assert (decision.arm, decision.rollout, decision.stage) == ("baseline", None, None)
    tallies = DecisionTallies()
    assert tallies.turn(decision.assignment, decision.side, 60.0).key[:4] == (1, "summaries", None, None)


def test_a_decision_that_is_under_way_while_the_counts_are_read_is_reported_once_it_counts() -> None:
    """More differing tasks than decisions would contradict themselves, and the control plane refuses the entry."""
    assignment = rolling(two_stage(), always("large"))
    tallies = DecisionTallies()
    tally = tallies.turn(assignment, decide(assignment, {}).side, 60.0)

    def folded() -> list[tuple[int, int | None]]:
        counts: dict[CountKey, DecidedCounts] = {}
        tallies.fold(counts)
        return [(one.tasks, one.differing) for one in counts.values()]

    tally.differs()
    assert folded() == []
    tally.differs()
    tally.hit()
    assert folded() == [(1, 1)]
    tally.hit()
    assert folded() == [(1, 1)]
    tally.unknown()
    assert folded() == []
    tally.hit()
    assert folded() == [(1, None)]


def test_it_also_compares_in_shadow() -> None:
    decision = decide(rolling(two_stage(), always("large"), mode="shadow"), {})
    assert (decision.arm, decision.differing) == ("baseline", "vendor/small>vendor/large")


def test_a_model_that_cannot_be_called_is_replaced_in_both() -> None:
    assignment = rolling(two_stage(), always("large"))
    unit = unit_of(assignment, "baseline")
    assert decide(assignment, {}, unit, available={"vendor/large"}).differing == AGREE


def ended(assignment: Any, arm: str, attempt: Attempt, memory: Memory | None = None) -> Decision:
    decision = decide(assignment, {}, unit_of(assignment, arm), memory)
    decision.next(attempt)
    return decision


@pytest.mark.parametrize("arm", ["baseline", "candidate"])
def test_a_task_differs_once_the_policies_continue_differently(arm: str) -> None:
    once = two_stage()
    del once["escalate"]
    assignment = rolling(once, two_stage())
    assert ended(assignment, arm, Attempt(confidence=0.9)).differing == AGREE
    assert ended(assignment, arm, Attempt(confidence=0.5)).differing == SAME


@pytest.mark.parametrize("arm", ["baseline", "candidate"])
@pytest.mark.parametrize(
    ("section", "error"),
    [
        ({"retry": {"attempts": 1, "on": ["timeout"]}}, "timeout"),
        ({"fallback": ["small", "large"]}, None),
        ({"retry": {"attempts": 1, "on": ["timeout"], "backoff_ms": 9}}, "timeout"),
    ],
)
def test_different_retries_and_timeouts_make_it_differ(
    arm: str, section: dict[str, Any], error: str | None
) -> None:
    baseline = (
        two_stage(retry={"attempts": 1, "on": ["timeout"]}) if "backoff_ms" in str(section) else two_stage()
    )
    assignment = rolling(baseline, two_stage(**section))
    attempt = Attempt(ok=False, error=error) if error else Attempt(confidence=0.9)
    assert ended(assignment, arm, attempt).differing == (SAME if error else AGREE)


def test_it_differs_from_the_second_attempt_on() -> None:
    """Both retry once; then one of them retries again."""
    retries = [two_stage(retry={"attempts": n, "on": ["timeout"]}) for n in (1, 2)]
    decision = decide(assignment := rolling(*retries), {}, unit_of(assignment, "baseline"))
    assert decision.next(Attempt(ok=False, error="timeout")).action == "retry"
    assert decision.differing == AGREE
    decision.next(Attempt(ok=False, error="timeout"))
    assert decision.differing == SAME


@pytest.mark.parametrize("arm", ["baseline", "candidate"])
def test_after_a_differing_task_all_tasks_of_its_unit_differ(arm: str) -> None:
    """With policies that latch: its conversation may have been escalated in one arm only."""
    assignment, memory = rolling(two_stage(**LATCHED), HEAVY | LATCHED), Memory()
    unit = unit_of(assignment, arm)
    asked = [
        decide(assignment, {"prompt_tokens": n}, unit, memory).differing for n in (9, 100, 9, 9_000, 100)
    ]
    assert asked == [AGREE, "vendor/small>vendor/large", SAME, SAME, "vendor/small>vendor/large"]
    other = unit_of(assignment, arm, int(unit["conversation"][2:]) + 1)
    assert decide(assignment, {}, other, memory).differing == AGREE


def test_the_next_rollout_forgets_units() -> None:
    policies, memory = (two_stage(**LATCHED), HEAVY | LATCHED), Memory()
    first, second = rolling(*policies), rolling(*policies, id="0193")
    unit = unit_of(first, "baseline")
    decide(first, {"prompt_tokens": 100}, unit, memory)
    assert decide(first, {}, unit, memory).differing == SAME
    assert decide(second, {}, unit, memory).differing == AGREE


def test_without_a_memory_of_units_each_task_is_separate() -> None:
    assignment, memory = rolling(two_stage(), HEAVY), Memory()
    unit = unit_of(assignment, "baseline")
    decide(assignment, {"prompt_tokens": 100}, unit, memory)
    assert decide(assignment, {}, unit, memory).differing == AGREE


@pytest.mark.parametrize("arm", ["baseline", "candidate"])
def test_a_conversation_latched_by_both_arms_does_not_differ(arm: str) -> None:
    """Only the small model's rule differs; after an escalation both stay with the large one."""
    assignment, memory = rolling(two_stage(**LATCHED), HEAVY | LATCHED), Memory()
    unit = unit_of(assignment, arm)
    first = decide(assignment, {"prompt_tokens": 9}, unit, memory)
    assert first.next(Attempt(error="refusal")).action == "escalate"
    assert first.differing == AGREE
    second = decide(assignment, {"prompt_tokens": 100}, unit, memory)
    assert (second.rule, second.differing) == (("latch", AGREE) if arm == "baseline" else ("heavy", AGREE))


def test_it_counts_decisions_and_differing_tasks_by_route_pair() -> None:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="conversation")
        plane.roll_out("summaries", always("large"), share_pcm=50_000)
        with plane.router() as router:
            for number in range(40):
                request = {"prompt_tokens": 9_000 if number % 4 else 9}
                decision = router.decide("summaries", request, {"conversation": f"c-{number}"})
                if number != 39:  # decided, but never reported
                    router.record(decision, success=number % 8 > 0, cost_nusd=1_000)
        sums = {"tasks": 0, "failures": 0, "cost": 0}
        for bucket in plane.buckets("summaries"):
            assert bucket["differing"].keys() <= {"vendor/small>vendor/large"}
            for part in bucket["differing"].values():
                sums["tasks"] += part["tasks"]
                sums["failures"] += part["failures"]
                sums["cost"] += part["cost_nusd"]["sum"]
        assert sums == {"tasks": 10, "failures": 5, "cost": 10_000}
        decided = plane.decided("summaries")
        assert sum(entry["tasks"] for entry in decided) == 40
        assert sum(entry["differing"] for entry in decided) == 10
        assert {(e["rollout"], e["stage"], e["arm"], e["version"]) for e in decided} == {
            ("rollout-1", 0, "baseline", 1), ("rollout-1", 0, "candidate", 2),
        }  # fmt: skip
        assert plane.tasks("summaries") == 39


def test_it_combines_route_pairs_beyond_the_limit() -> None:
    bucket = Bucket()
    for number in range(70):
        bucket.add(Outcome(success=True, cost_nusd=1, differing=f"v/a{number}>v/b"), None)
    pairs = bucket.as_dict(KEY)["differing"]
    assert len(pairs) == 65
    assert pairs["other"]["tasks"] == 6


def test_a_bucket_with_unknown_tasks_omits_them() -> None:
    bucket = Bucket()
    bucket.add(Outcome(success=True, differing=AGREE), None)
    assert bucket.as_dict(KEY)["differing"] == {}
    bucket.add(Outcome(success=True, differing=None), None)
    assert "differing" not in bucket.as_dict(KEY)
