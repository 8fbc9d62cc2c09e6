"""Samples of inputs: off by default, figures and names only, sent once, and never in the way of outcomes."""

from collections.abc import Iterator

import pytest

from pointsman import ConfigurationError, InputSamples, Router
from pointsman.reporting.samples import inputs as input_samples
from pointsman.testing import FakeControlPlane
from tests.client.policies import two_stage
from tests.client.watching import eventually

TEXT = "Dear Sir or Madam, please find attached"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_samples, "_EVERY_S", 0.1)


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), version=1)
        yield plane


def used(router: Router, tasks: int) -> None:
    for at in range(tasks):
        request = {
            "prompt_tokens": at, "endpoint": "/mail", "task_type": TEXT, "prompt": TEXT,
            "attributes": {"tier": "gold", "letter": TEXT, "spend": 1.5},
        }  # fmt: skip
        router.record(router.decide("summaries", request), success=True)


def test_without_the_option_nothing_is_sent(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        used(router, 20)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 20)
        assert router.status()["inputs_sampled"] == 0
    assert not [one for one in plane.requests if one.path.endswith("/samples")]


def test_figures_and_names_are_sent_and_texts_are_not(plane: FakeControlPlane) -> None:
    with plane.router(sample_inputs=InputSamples(20, attributes=["tier", "letter"])) as router:
        used(router, 10)
        assert eventually(lambda: len(plane.samples) == 10)
        assert eventually(lambda: router.status()["inputs_sampled"] == 10)
    assert {one["workload"] for one in plane.samples} == {"summaries"}
    requests = [one["request"] for one in plane.samples]
    assert requests[0] == {
        "endpoint": "/mail",
        "prompt_tokens": 0,
        "attributes": {"tier": "gold", "spend": 1.5},
    }
    assert len({one["sample_id"] for one in plane.samples}) == 10
    assert TEXT not in str([one.body for one in plane.requests])


def test_only_a_few_of_many_are_sent_each_equally_likely(plane: FakeControlPlane) -> None:
    samples = InputSamples(4)
    with plane.router() as router:
        chosen = []
        for _ in range(200):
            samples.restart()
            for at in range(20):
                decision = router.decide("summaries", {"prompt_tokens": at})
                samples.offer(decision)
            kept = samples._kept["summaries"]
            assert len(kept) == 4
            chosen += [one["request"]["prompt_tokens"] for one in kept]
    late = sum(at >= 10 for at in chosen) / len(chosen)
    assert 0.4 < late < 0.6


@pytest.mark.parametrize("status", [404, 422, 429, 500])
def test_a_refusal_drops_them_and_outcomes_still_get_through(plane: FakeControlPlane, status: int) -> None:
    plane.fail(status, path="samples")
    with plane.router(sample_inputs=5) as router:
        used(router, 5)
        assert eventually(lambda: router.status()["inputs_dropped"] == 5)
        used(router, 5)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 10)
        assert router.status()["sending_error"] is None


def test_a_control_plane_that_does_not_know_them_is_left_alone(plane: FakeControlPlane) -> None:
    plane.fail(404, path="samples")
    with plane.router(sample_inputs=1) as router:
        used(router, 3)
        assert eventually(lambda: router.status()["inputs_dropped"] == 1)
        used(router, 3)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 6)
    assert len([one for one in plane.requests if one.path.endswith("/samples")]) == 1


@pytest.mark.parametrize("number", [-1, 21])
def test_an_odd_number_is_refused_at_once(number: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 20"):
        Router("http://localhost", "k", sample_inputs=number, start=False)


def test_a_text_is_no_list_of_attributes() -> None:
    with pytest.raises(ConfigurationError, match="attributes must be a list of names"):
        InputSamples(1, attributes="region")
