"""The brake of mirrors: a candidate's model that fails, hangs or is slow is not called for every task."""

import logging
from typing import Any

import pytest

from pointsman import ConfigurationError, MirrorBrake, Router
from pointsman.decision import Decision
from pointsman.testing import FakeControlPlane
from tests.client.policies import always


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def brake(clock: Clock) -> MirrorBrake:
    return MirrorBrake(over=4, under_way=6, slowest_ms=100, rest_s=60, clock=clock)


@pytest.fixture
def plane(plane: FakeControlPlane) -> FakeControlPlane:
    plane.roll_out("summaries", always("large"), mode="shadow", mirror_pcm=100_000)
    return plane


def task(router: Router, **ended: Any) -> Decision:
    """A task whose mirror, if it may have one, ends like this."""
    decision = router.decide("summaries")
    router.record(decision, success=True, cost_nusd=1, **(ended if decision.mirror else {}))
    return decision


FAILED = {"mirror_error": "timeout", "mirror_latency_ms": 5}
SLOW = {"mirror_success": True, "mirror_latency_ms": 101}
WELL = {"mirror_success": True, "mirror_latency_ms": 100}


@pytest.mark.parametrize("ended", [FAILED, SLOW], ids=["failed", "slow"])
def test_it_stops_failing_or_slow_mirrors_and_reports_it_once(
    plane: FakeControlPlane, brake: MirrorBrake, ended: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with plane.router(mirror_brake=brake) as router:
        done = [task(router, **ended) for _ in range(10)]
        status = router.status()
    assert [decision.mirror for decision in done] == [True] * 4 + [False] * 6
    assert (status["mirrors_braked"], status["mirrors_stopped"]) == (6, ["summaries"])
    assert status["mirrors_failed"] == (4 if "mirror_error" in ended else 0)
    said = [record.getMessage() for record in caplog.records if "mirroring stops" in record.getMessage()]
    assert said == ["summaries: mirroring stops for 60 s: 4 of the last 4 failed or took longer than 100 ms"]


def test_it_releases_after_a_while_and_counts_only_new_results(
    plane: FakeControlPlane, brake: MirrorBrake, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pointsman")
    with plane.router(mirror_brake=brake) as router:
        for _ in range(4):
            task(router, **FAILED)
        clock.now = 59.9
        assert not task(router, **WELL).mirror
        clock.now = 60.0
        assert [task(router, **WELL).mirror for _ in range(8)] == [True] * 8
        assert router.status()["mirrors_stopped"] == []
        assert sum("mirroring resumes" in record.getMessage() for record in caplog.records) == 1
        assert [task(router, **FAILED).mirror for _ in range(4)] == [True, True, False, False], (
            "half of the last four"
        )


def test_hanging_mirrors_do_not_accumulate(plane: FakeControlPlane, brake: MirrorBrake) -> None:
    with plane.router(mirror_brake=brake) as router:
        waiting = [router.decide("summaries") for _ in range(9)]
        assert [decision.mirror for decision in waiting] == [True] * 6 + [False] * 3


def test_recorded_tasks_free_their_places(plane: FakeControlPlane, brake: MirrorBrake) -> None:
    with plane.router(mirror_brake=brake) as router:
        assert all(task(router).mirror for _ in range(50)), "an unknown end is not a failure"


def test_a_few_failures_stop_nothing(plane: FakeControlPlane, brake: MirrorBrake) -> None:
    with plane.router(mirror_brake=brake) as router:
        assert all(task(router, **(FAILED if at % 4 == 0 else WELL)).mirror for at in range(40))


def test_a_decision_gives_the_same_answer_every_time(plane: FakeControlPlane, brake: MirrorBrake) -> None:
    with plane.router(mirror_brake=brake) as router:
        first = router.decide("summaries")
        assert [first.mirror for _ in range(20)] == [True] * 20


def test_the_control_plane_is_informed_and_a_missing_answer_is_not_a_success(
    plane: FakeControlPlane, brake: MirrorBrake
) -> None:
    with plane.router(mirror_brake=brake) as router:
        for _ in range(7):
            task(router, **FAILED)
    (bucket,) = plane.buckets("summaries")
    assert bucket["mirror"] == {
        "n": 4, "both": 0, "only_candidate": 0, "only_baseline": 4, "neither": 0, "failed": 4, "braked": 3,
        "candidate_cost_nusd": 0, "baseline_cost_nusd": 0,
    }  # fmt: skip
    assert (bucket["tasks"], bucket["successes"]) == (7, 7), "the tasks themselves succeed"


def test_without_stopped_mirrors_no_new_member_is_sent(plane: FakeControlPlane, brake: MirrorBrake) -> None:
    """An older control plane refuses unknown members."""
    with plane.router(mirror_brake=brake) as router:
        task(router, **WELL)
    (bucket,) = plane.buckets("summaries")
    assert not {"failed", "braked"} & bucket["mirror"].keys()


def test_each_rollout_has_its_own_brake(brake: MirrorBrake) -> None:
    for at in range(4):
        assert brake.lets("r-1", "a", str(at))
        brake.ended("r-1", "a", str(at), failed=True, latency_ms=None)
    assert not brake.lets("r-1", "a", "x")
    assert brake.lets("r-2", "b", "x")
    assert brake.braked == ["a"]


def test_a_rollout_that_ended_while_braked_is_forgotten(brake: MirrorBrake, clock: Clock) -> None:
    for at in range(4):
        brake.lets("r-1", "a", str(at))
        brake.ended("r-1", "a", str(at), failed=True, latency_ms=None)
    clock.now = 61
    assert brake.braked == []


@pytest.mark.parametrize(
    "wrong",
    [{"over": 0}, {"bad_share": 0}, {"bad_share": 2}, {"slowest_ms": 0}, {"under_way": 0}, {"rest_s": 0}],
    ids=str,
)
def test_invalid_limits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a mirror brake requires"):
        MirrorBrake(**wrong)


@pytest.mark.parametrize(
    "odd", [{"mirror_latency_ms": "soon"}, {"mirror_latency_ms": -1}, {"mirror_error": ""}], ids=str
)
def test_invalid_results_raise_no_error(
    plane: FakeControlPlane, brake: MirrorBrake, odd: dict[str, Any]
) -> None:
    with plane.router(mirror_brake=brake) as router:
        task(router, **odd)
        assert router.status()["outcomes_recorded"] == 1
