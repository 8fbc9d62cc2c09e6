import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.errors import PolicyInvalid
from pointsman.evaluate import compile_policy
from pointsman.history import FailureHistory, LatchMemory, Window
from pointsman.recent import Recent
from tests.client.policies import two_stage

VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dictionaries(st.text(), st.integers())
)
FLAKY = {"id": "flaky", "when": "history.failure_rate > 0.5 && history.tasks >= 4", "use": "large"}


class Broken(dict[str, Any]):
    """A request that fails when it is read, as a lazily loaded one might."""

    def get(self, *_: Any) -> Any:
        raise RuntimeError("the database is away")


def test_it_gives_its_reason() -> None:
    policy = compile_policy(two_stage())
    assert (
        policy.route({"prompt_tokens": 9_000}).reason
        == "rule heavy matches, so it uses large: request.prompt_tokens > 8000"
    )
    assert (
        policy.route({}).reason
        == "no rule matches, so it uses the default, small (missing: request.prompt_tokens)"
    )


def test_it_prefers_the_note_as_the_reason() -> None:
    rule = {
        "id": "heavy",
        "when": "request.turns > 8",
        "use": "large",
        "note": "long talks confuse the small one",
    }
    policy = compile_policy(two_stage(rules=[rule]))
    assert (
        policy.route({"turns": 9}).reason
        == "rule heavy matches, so it uses large: long talks confuse the small one"
    )


@pytest.mark.parametrize("request_", [Broken(), None, 5, "prompt"])
def test_it_answers_with_the_guard_if_evaluation_fails(request_: Any) -> None:
    route = compile_policy(two_stage(guard={"on_evaluation_error": "small"})).route(request_)
    assert (route.rule, route.alias, route.error) == ("guard", "small", True)
    assert "could not be evaluated" in route.reason


def test_the_guard_is_the_strongest_model_by_default() -> None:
    assert compile_policy(two_stage()).route(Broken()).alias == "large"


@given(st.dictionaries(st.sampled_from(["prompt_tokens", "attributes", "priority"]), VALUES), VALUES)
def test_it_never_raises(request_: dict[str, Any], history: Any) -> None:
    rule = {"id": "vip", "when": "request.attributes.vip || request.prompt_tokens > 3", "use": "large"}
    policy = compile_policy(two_stage(inputs={"vip": {"type": "bool"}}, rules=[rule, FLAKY]))
    assert policy.route(request_, history).alias in ("small", "large")


def test_it_refuses_to_compile_an_invalid_policy() -> None:
    with pytest.raises(PolicyInvalid):
        compile_policy(two_stage(default="smal"))


def test_rank_orders_the_models_by_strength() -> None:
    shuffled = two_stage(
        models={"large": {"model": "v/l"}, "small": {"model": "v/s"}}, rank=["small", "large"]
    )
    policy = compile_policy(shuffled)
    assert (policy.weakest, policy.strongest) == ("small", "large")
    assert policy.stronger("large", "small")
    assert not policy.stronger("small", "small")


def test_conditions_read_the_recent_tasks_as_history() -> None:
    policy = compile_policy(two_stage(rules=[FLAKY]))
    window = Window()
    assert policy.route({}, window).missing == ()  # no tasks is a known value: certainly not 4
    for failed in (True, True, True, False):
        window.record(failed)
    assert policy.route({}, window).rule == "flaky"


def test_it_forgets_all_but_the_last_200_tasks() -> None:
    window = Window()
    for _ in range(200):
        window.record(True)
    assert window.reading() == (1.0, 200)
    for _ in range(150):
        window.record(False)
    assert window.reading() == (0.25, 200)


def test_it_counts_every_task_of_many_threads() -> None:
    history = FailureHistory()

    def work() -> None:
        for _ in range(25):
            history.record("w", "/e", failed=True)

    threads = [threading.Thread(target=work) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    window = history.window("w", "/e")
    assert window is not None
    assert window.reading() == (1.0, 175)


def test_its_memory_is_bounded() -> None:
    recent: Recent[int, int] = Recent(10)
    for key in range(1_000):
        recent.put(key, key)
        assert recent.get(0) == (0 if key < 1_000 else None)
    assert len(recent) <= 20
    assert recent.get(999) == 999
    assert recent.get(500) is None


def test_it_remembers_which_conversations_were_escalated() -> None:
    latch = LatchMemory(2)
    latch.hold("w", "c1")
    assert latch.holds("w", "c1")
    assert not latch.holds("w", "c2")
    assert not latch.holds("v", "c1")
    for n in range(9):
        latch.hold("w", f"d{n}")
    assert not latch.holds("w", "c1")
