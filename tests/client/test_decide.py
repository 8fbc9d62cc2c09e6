import os
from typing import Any

import pytest

from pointsman.attempt import Attempt
from pointsman.choose import decide
from pointsman.errors import PolicyInvalid, SnapshotRefused, TokenInvalid
from pointsman.history import FailureHistory, Memory
from pointsman.reporting.recording import learn
from pointsman.token import DecisionToken
from tests.client.deciding import assigned, entry, moving
from tests.client.policies import always, two_stage

LATCHED = two_stage(escalate={"to": "large", "on": ["refusal"], "latch": "conversation"})


def test_it_serves_the_baseline_without_a_rollout() -> None:
    decision = decide(assigned(), {"prompt_tokens": 9, "endpoint": "/x"})
    assert (decision.arm, decision.version, decision.rollout, decision.stage) == ("baseline", 12, None, None)
    assert (decision.rule, decision.alias, decision.model) == ("default", "small", "vendor/small")
    assert decision.reason == "baseline, version 12: no rule matches, so it uses the default, small"
    assert decision.weakest
    assert not decision.error


def test_it_splits_by_the_unit() -> None:
    # Of the vectors: bucket("s", …) decides, so the same conversation always gets the same arm.
    assignment = assigned(moving("percentage", 50_000))
    arms = [decide(assignment, {}, {"conversation": str(n)}).arm for n in range(1_000)]
    assert arms.count("candidate") == pytest.approx(500, abs=60)
    assert arms == [decide(assignment, {}, {"conversation": str(n)}).arm for n in range(1_000)]


def test_it_serves_the_candidate_to_all_when_full() -> None:
    decision = decide(assigned(moving("full")), {})
    assert (decision.arm, decision.version, decision.alias) == ("candidate", 13, "large")
    assert (decision.rollout, decision.stage) == ("0192", 2)


def test_in_shadow_it_serves_the_baseline_and_reports_the_candidates_choice() -> None:
    decision = decide(assigned(moving("shadow", mirror_pcm=100_000)), {"prompt_tokens": 9})
    assert (decision.arm, decision.version, decision.alias) == ("baseline", 12, "small")
    assert decision.shadow is not None
    assert (decision.shadow.alias, decision.agreed, decision.mirror) == ("large", False, True)
    assert decide(assigned(moving("shadow")), {"prompt_tokens": 9_000}).agreed is True
    assert decide(assigned(moving("shadow")), {}).mirror is False
    assert decide(assigned(moving("full")), {}).agreed is None


@pytest.mark.parametrize("pin", ["large", "vendor/other"])
def test_it_lets_a_pin_override_everything(pin: str) -> None:
    given = {**moving("percentage", 100_000), "pin": {"model": pin, "reason": "the small one is down"}}
    decision = decide(assigned(given), {}, {"conversation": "c"}, memory=Memory(), available={"vendor/small"})
    assert (decision.rule, decision.alias, decision.arm) == ("pin", pin, "baseline")
    assert decision.model == {"large": "vendor/large"}.get(pin, pin)
    assert "the small one is down" in decision.reason
    assert decision.next(Attempt(ok=False, error="connection")).action == "stop"


def test_it_counts_a_missing_unit() -> None:
    assignment = assigned(moving("percentage", 50_000))
    given = decide(assignment, {}, {"conversation": "c", "request": "r"})
    assert (given.unit, given.unit_missing) == ("c", False)
    fallen = decide(assignment, {}, {"request": "r"})
    assert (fallen.unit, fallen.unit_missing) == ("r", True)
    bare = decide(assignment, {})
    assert bare.unit == bare.nonce
    assert bare.unit_missing
    by_request = decide(assigned(entry(unit="request")), {})
    assert not by_request.unit_missing


def test_it_keeps_an_escalated_conversation_on_the_stronger_model() -> None:
    assignment, memory, ids = assigned(entry(LATCHED)), Memory(), {"conversation": "c"}
    first = decide(assignment, {}, ids, memory=memory)
    assert first.next(Attempt(error="refusal")).action == "escalate"
    second = decide(assignment, {}, ids, memory=memory)
    assert (second.rule, second.alias) == ("latch", "large")
    assert decide(assignment, {}, {"conversation": "d"}, memory=memory).alias == "small"
    assert decide(assignment, {}, memory=memory).alias == "small"


def test_it_latches_only_the_task_by_default() -> None:
    policy = two_stage(escalate={"to": "large", "on": ["refusal"]})
    assignment, memory, ids = assigned(entry(policy)), Memory(), {"conversation": "c"}
    assert decide(assignment, {}, ids, memory=memory).next(Attempt(error="refusal")).action == "escalate"
    assert decide(assignment, {}, ids, memory=memory).alias == "small"


def test_it_guards_against_a_model_that_cannot_be_called() -> None:
    policy = two_stage(guard={"on_unknown_model": "large"})
    decision = decide(assigned(entry(policy)), {"prompt_tokens": 1}, available={"vendor/large"})
    assert (decision.rule, decision.alias, decision.error) == ("guard", "large", False)
    assert "vendor/small is not known here" in decision.reason


def test_it_skips_models_that_cannot_be_called() -> None:
    decision = decide(assigned(), {})
    step = decision.next(Attempt(ok=False, error="connection"), available={"vendor/small"})
    assert step.action == "stop"


def test_nothing_follows_a_stream_that_has_reached_its_reader() -> None:
    """`available=()`: neither a retry nor another model can replace words that were read already."""
    policy = two_stage(retry={"attempts": 1, "on": ["connection"], "backoff_ms": 1})
    for attempt, action in (
        (Attempt(ok=False, error="connection"), "stop"),
        (Attempt(confidence=0.1), "accept"),
    ):
        decision = decide(assigned(entry(policy)), {})
        step = decision.next(attempt, available=())
        assert (step.action, step.alias) == (action, "small")
        steps = decision.steps
        assert (steps.retries, steps.fallbacks, steps.escalations, steps.models) == (0, 0, 0, {"small": 1})


def test_it_learns_from_completed_tasks() -> None:
    rule = {"id": "flaky", "when": "history.failure_rate > 0.5 && history.tasks >= 2", "use": "large"}
    assignment, memory = assigned(entry(two_stage(rules=[rule]))), Memory()
    history = memory.history
    request = {"endpoint": "/x"}
    for success in (None, False, False):
        learn(history, decide(assignment, request, memory=memory), success)
    assert decide(assignment, request, memory=memory).rule == "flaky"
    assert decide(assignment, {"endpoint": "/y"}, memory=memory).rule == "default"
    # If a rule chose the strong model, its failures do not count for the weak one.
    learn(history, decide(assignment, request, memory=memory), True)
    window = history.window("summaries", "/x")
    assert window is not None
    assert window.reading() == (1.0, 2)


def test_it_counts_an_escalated_task_as_failed() -> None:
    assignment, history = assigned(), FailureHistory()
    decision = decide(assignment, {})
    decision.next(Attempt(confidence=0.1))
    learn(history, decision, True)
    window = history.window("summaries", "")
    assert window is not None
    assert window.reading() == (1.0, 1)


@pytest.mark.parametrize(
    "broken", [{"unit_ids": 5}, {"request": 5}, {"memory": 5}, {"memory": 5, "unit_ids": {"conversation": 1}}]
)
def test_it_decides_despite_invalid_arguments(broken: dict[str, Any]) -> None:
    rule = {"id": "flaky", "when": "history.tasks >= 2", "use": "large"}
    policy = {**LATCHED, "rules": [rule]}
    given = {**moving("percentage", 50_000), "baseline": entry(policy)["baseline"]}
    arguments: dict[str, Any] = {"request": {}, "unit_ids": {}, **broken}
    decision = decide(assigned(given), **arguments)
    assert decision.alias in ("small", "large")
    assert decision.reason
    step = decision.next("nonsense")  # type: ignore[arg-type]
    assert step.action == "stop"
    assert decision.decision_id
    assert decision.cell is None or decision.cell >= 0


def test_next_repeats_its_answer_after_the_task_ended() -> None:
    decision = decide(assigned(), {})
    end = decision.next(Attempt(confidence=0.9))
    assert end.action == "accept"
    assert decision.next(Attempt(confidence=0.1)) is end
    assert decision.steps.attempts == 1


def test_it_sums_up_a_task() -> None:
    decision = decide(assigned(entry(two_stage(retry={"attempts": 1, "on": ["timeout"]}))), {})
    decision.next(Attempt(ok=False, error="timeout", cost_nusd=1, latency_ms=10))
    decision.next(Attempt(confidence=0.1, cost_nusd=2, latency_ms=20))
    assert decision.next(Attempt(cost_nusd=4, latency_ms=40)).alias == "large"
    steps = decision.steps
    assert (steps.attempts, steps.retries, steps.fallbacks, steps.escalations) == (3, 1, 0, 1)
    assert (steps.cost_nusd, steps.latency_ms) == (7, 70)
    assert (steps.models, steps.errors) == ({"small": 2, "large": 1}, {"timeout": 1})
    assert (decision.final_alias, decision.escalations) == ("large", 1)


def test_it_limits_the_next_attempt_by_the_remaining_budget() -> None:
    decision = decide(assigned(entry(two_stage(timeouts={"attempt_ms": 800, "total_ms": 1_000}))), {})
    step = decision.next(Attempt(confidence=0.1, latency_ms=700))
    assert (step.action, step.timeout_ms) == ("escalate", 300)


def test_it_measures_time_itself_by_default() -> None:
    decision = decide(assigned(), {})
    decision.next(Attempt(confidence=0.9))
    assert 0 <= decision.steps.latency_ms < 10_000


def test_every_decision_id_can_be_read_back() -> None:
    assignment = assigned(moving("full"))
    decisions = [decide(assignment, {"endpoint": "/é"}) for _ in range(100)]
    assert len({decision.decision_id for decision in decisions}) == 100
    token = DecisionToken.decode(decisions[0].decision_id)
    assert token == decisions[0].token
    assert token[:9] == ("production", "summaries", "0192", 2, "candidate", 13, "/é", "default", "large")
    assert decisions[0].decision_id.replace("-", "").replace("_", "").replace(".", "").isalnum()


CUT = {
    "one character less": lambda token: token[:-1],
    "four characters less": lambda token: token[:-4],
    "another version's fields": lambda token: "1" + token[1:],
    "a future version": lambda token: "3" + token[1:],
    "one character more": lambda token: token + "A",
    "an empty id": lambda token: "",
}


@pytest.mark.parametrize("change", CUT.values(), ids=CUT)
def test_it_refuses_a_modified_id(change: Any) -> None:
    with pytest.raises(TokenInvalid):
        DecisionToken.decode(change(decide(assigned(), {}).decision_id))


def test_it_makes_other_ids_in_a_forked_child() -> None:
    assignment = assigned()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, decide(assignment, {}).nonce.encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert theirs[:16] != decide(assignment, {}).nonce[:16]


def test_it_refuses_a_policy_with_another_digest() -> None:
    given = entry()
    given["baseline"]["policy"] = always("large")
    with pytest.raises(SnapshotRefused) as caught:
        assigned(given)
    assert caught.value.code == "digest_mismatch"


def test_it_refuses_a_policy_with_errors() -> None:
    with pytest.raises(PolicyInvalid):
        assigned(entry(two_stage(default="smal")))


@pytest.mark.parametrize(
    "broken", [{"baseline": None}, {"revision": "x"}, {"pin": {"reason": 1}}, {"rollout": {"mode": "half"}}]
)
def test_it_refuses_an_invalid_entry(broken: dict[str, Any]) -> None:
    with pytest.raises(SnapshotRefused) as caught:
        assigned({**entry(), **broken})
    assert caught.value.code == "malformed"
