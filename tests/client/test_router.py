"""The router's public interface: decisions, outcomes, status."""

import asyncio
import gc
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pointsman import Attempt, ConfigurationError, Pace, Router
from pointsman.reporting.metrics import Counter
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.policies import always, two_stage
from tests.client.watching import eventually


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="conversation")
        yield plane


def offline(**options: Any) -> Router:
    return Router("http://127.0.0.1:9", "pmr_test", **{"start": False, **options})


def steady(plane: FakeControlPlane) -> Router:
    """A router whose records all belong to one minute and go into one batch, at the end."""
    pace = Pace(first_poll_within=0, flush_every=60, stop_within=20)
    return plane.router(pace=pace, clock=lambda: 1_700_000_030.0)


def only(plane: FakeControlPlane) -> dict[str, Any]:
    (bucket,) = plane.buckets("summaries")
    return bucket


# Deciding


def test_it_decides_escalates_and_reports_the_task(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        decision = router.decide(
            "summaries", {"prompt_tokens": 900, "endpoint": "/t"}, {"conversation": "c-1"}
        )
        assert (decision.model, decision.rule) == ("vendor/small", "default")
        step = decision.next(Attempt(confidence=0.3, cost_nusd=1_000, latency_ms=200))
        assert (step.action, step.model) == ("escalate", "vendor/large")
        assert decision.next(Attempt(confidence=0.9, cost_nusd=9_000, latency_ms=700)).action == "accept"
        router.record(decision, success=True, quality=0.9)
    bucket = only(plane)
    assert (bucket["model"], bucket["escalations"], bucket["attempts"]) == ("large", 1, 2)
    assert bucket["models"] == {"large": 1, "small": 1}
    assert (bucket["cost_nusd"]["sum"], bucket["cost_nusd"]["sum_on_success"]) == (10_000, 10_000)
    assert bucket["latency_ms"]["counts"] == {"157": 1}
    assert (bucket["confidence"]["sum"], bucket["quality"]["sum"]) == (0.9, 0.9)
    assert bucket["endpoint"] == "/t"
    assert "groups" not in bucket  # for units, cells are reported


def test_it_reports_the_error_that_ended_a_task(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        decision = router.decide("summaries")
        while not decision.next(Attempt(ok=False, error="rate_limited")).done:
            pass
        router.record(decision)
    bucket = only(plane)
    assert (bucket["failures"], bucket["errors"], bucket["errors_by_kind"]) == (1, 1, {"rate_limited": 1})
    assert bucket["fallbacks"] == 1


def test_it_reports_the_arm_the_stage_and_capped_costs(plane: FakeControlPlane) -> None:
    plane.roll_out("summaries", always("large"), share_pcm=50_000, stage=3, cost_cap_nusd=500)
    with plane.router() as router:
        arms = []
        for number in range(40):
            decision = router.decide("summaries", {}, {"conversation": f"c-{number}"})
            arms.append(decision.arm)
            router.record(decision, success=number % 2 == 0, cost_nusd=900)
    assert {"baseline", "candidate"} == set(arms)
    assert plane.tasks("summaries", arm="candidate", version=2, stage=3) == arms.count("candidate")
    assert plane.tasks("summaries", arm="baseline", version=1, stage=3) == arms.count("baseline")
    for bucket in plane.buckets("summaries"):
        assert bucket["cost_nusd"]["sum"] == 900 * bucket["tasks"]
        assert bucket["cost_nusd"]["capped"]["sum"] == 500 * bucket["tasks"]


def test_it_reports_the_candidates_choice_in_shadow(plane: FakeControlPlane) -> None:
    candidate = two_stage(rules=[{"id": "any", "when": "request.turns > 3", "use": "large"}])
    plane.roll_out("summaries", candidate, mode="shadow", mirror_pcm=100_000)
    with steady(plane) as router:
        for turns in (1, 9):
            decision = router.decide("summaries", {"turns": turns})
            assert (decision.arm, decision.model, decision.mirror) == ("baseline", "vendor/small", True)
            router.record(
                decision, success=True, cost_nusd=100, shadow_cost_nusd=700 if turns == 9 else None,
                mirror_success=turns == 1, mirror_cost_nusd=50,
            )  # fmt: skip
    bucket = only(plane)
    assert bucket["shadow"] == {
        "decisions": 2, "agreed": 1, "candidate_cost_nusd": 800, "baseline_cost_nusd": 200,
        "candidate_priced": 2, "baseline_priced": 2, "candidate_whole": 2,
        "routes": {"small>large": 1, "small>small": 1},
    }  # fmt: skip
    assert bucket["mirror"] == {
        "n": 2, "both": 1, "only_candidate": 0, "only_baseline": 1, "neither": 0,
        "candidate_cost_nusd": 100, "baseline_cost_nusd": 200,
    }  # fmt: skip


def test_it_projects_a_shadow_cost_from_the_models_cost_here(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        heavy = router.decide("summaries", {"prompt_tokens": 9_000})
        router.record(heavy, success=True, cost_nusd=5_000)
        plane.roll_out("summaries", always("large"), mode="shadow")
        assert eventually(lambda: router.revision == 2)
        router.record(router.decide("summaries"), success=True, cost_nusd=100)
    shadow = [b["shadow"] for b in plane.buckets("summaries") if b["shadow"]["decisions"]]
    assert [(s["candidate_cost_nusd"], s["baseline_cost_nusd"]) for s in shadow] == [(5_000, 100)]


def test_it_counts_a_missing_unit(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        router.decide("summaries", {}, {"conversation": "c-1"})
        router.decide("summaries", {}, {"user": "u-1"})
        assert router.status()["unit_missing"] == 1


def test_an_unknown_workload_gets_the_default_or_an_empty_model() -> None:
    defaults: dict[str, Any] = {"summaries": two_stage(), "chat": "vendor/fallback"}
    router = offline(defaults=defaults)
    assert router.decide("summaries", {"prompt_tokens": 9_000}).model == "vendor/large"
    assert router.decide("chat").model == "vendor/fallback"
    unknown = router.decide("nobody")
    assert (unknown.model, unknown.version) == ("", 0)
    assert "no policy" in unknown.reason
    assert unknown.next(Attempt(ok=False, error="timeout")).action == "stop"
    router.record(unknown, success=True)
    status = router.status()
    assert (status["decisions_without_policy"], status["outcomes_without_policy"]) == (3, 1)
    assert (status["outcomes_recorded"], status["revision"], status["staleness_s"]) == (0, None, None)


def test_it_does_not_start_with_an_invalid_default_policy() -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        offline(defaults={"summaries": two_stage(default="nobody")})


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {},
        {"prompt_tokens": "many"},
        {"prompt_tokens": math.nan},
        {"endpoint": 7},
        {"endpoint": "\ud800\x00"},
        {"x": {}},
    ],
)
def test_it_never_raises_into_the_callers_request(plane: FakeControlPlane, request_: Any) -> None:
    with plane.router() as router:
        decision = router.decide("summaries", request_, {"conversation": "\ud800"})
        assert decision.model == "vendor/small"
        router.record(decision, success=True)
    assert plane.tasks("summaries") == 1


@pytest.mark.parametrize(
    "figures",
    [
        {"cost_nusd": -1}, {"cost_nusd": math.nan}, {"cost_nusd": 10**12 + 1}, {"latency_ms": math.inf},
        {"latency_ms": -5}, {"quality": 1.01}, {"quality": math.nan}, {"confidence": -0.1},
        {"quality": "0.9"}, {"confidence": {}}, {"latency_ms": object()}, {"cost_nusd": 10**400},
    ],
)  # fmt: skip
def test_it_omits_and_counts_an_invalid_figure(plane: FakeControlPlane, figures: dict[str, Any]) -> None:
    with steady(plane) as router:
        router.record(router.decide("summaries"), success=True, **figures)
        assert router.status()["figures_invalid"] == 1
    bucket = only(plane)
    assert bucket["tasks"] == 1
    assert bucket["cost_nusd"]["n"] == bucket["quality"]["n"] == bucket["confidence"]["n"] == 0


def test_a_task_that_is_recorded_twice_counts_once(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with steady(plane) as router:
        decision = router.decide("summaries")
        router.record(decision, success=True, cost_nusd=1_000)
        told = decision.decision_id
        for _ in range(3):
            router.record(decision, success=False, cost_nusd=9_000, error="timeout")
        assert router.status()["outcomes_repeated"] == 3
        assert decision.decision_id == told, "later feedback still belongs to the first outcome"
    bucket = only(plane)
    assert (bucket["tasks"], bucket["cost_nusd"]["sum"]) == (1, 1_000)
    assert sum("recorded twice" in one.message for one in caplog.records) == 1


def test_it_counts_an_unreadable_outcome() -> None:
    router = offline()
    router.record("not a decision", success=True)  # type: ignore[arg-type]
    router.record(None, success=True)  # type: ignore[arg-type]
    assert router.status()["outcomes_invalid"] == 2


def test_it_reports_only_known_kinds_of_error(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        router.record(router.decide("summaries"), error="Traceback: 0x7f…")
        router.record(router.decide("summaries"), error="refusal")
    assert only(plane)["errors_by_kind"] == {"error": 1, "refusal": 1}


def test_decisions_use_the_given_clock(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        router.record(router.decide("summaries"), success=True)
    assert only(plane)["minute"] == "2023-11-14T22:13:00Z"


# Threads and coroutines


def test_it_loses_no_outcome_with_many_threads(plane: FakeControlPlane) -> None:
    with plane.router() as router:

        def work() -> None:
            for _ in range(300):
                router.record(router.decide("summaries"), success=True)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for version in range(2, 8):
            plane.serve("summaries", two_stage(), version=version)
        for thread in threads:
            thread.join()
        assert router.status()["decisions"] == 2_400
    assert plane.tasks("summaries") == 2_400


def test_it_works_inside_an_event_loop_without_blocking_it(plane: FakeControlPlane) -> None:
    beaten, beats = threading.Event(), list[bool]()

    def until_a_heartbeat(request: Request, reply: Reply) -> Reply:
        beaten.clear()
        beats.append(beaten.wait(10))
        return reply

    async def heartbeat() -> None:
        while True:
            await asyncio.sleep(0.01)
            beaten.set()

    async def main() -> None:
        pace = Pace(first_poll_within=0, flush_every=60, stop_within=30)
        router = await asyncio.to_thread(plane.router, pace=pace)
        router.record(router.decide("summaries"), success=True)
        beating = asyncio.create_task(heartbeat())
        plane.tamper = until_a_heartbeat
        await router.aclose()
        beating.cancel()

    asyncio.run(main())
    assert beats
    assert all(beats)
    assert plane.tasks("summaries") == 1


def test_a_router_that_was_forgotten_sends_its_outcomes_and_leaves(plane: FakeControlPlane) -> None:
    """As in a notebook, whose cell makes another router at each run."""

    def cell() -> str:
        router = plane.router(pace=Pace(first_poll_within=0, flush_every=60, stop_within=20))
        router.record(router.decide("summaries"), success=True)
        return router.instance

    names = {cell() for _ in range(3)}
    gc.collect()
    assert plane.wait_for(lambda: {one["router"] for one in plane.acks if one["state"] == "leaving"} == names)
    assert plane.tasks("summaries") == 3


def test_it_counts_exactly_with_many_threads() -> None:
    counter = Counter()
    threads = [threading.Thread(target=lambda: [counter.hit() for _ in range(5_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
        assert counter.value <= 20_000
    for thread in threads:
        thread.join()
    assert (counter.value, counter.value) == (20_000, 20_000)


# Set-up, status, feedback


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("pointsman.example", {}),
        ("ftp://pointsman.example", {}),
        ("https://user:secret@pointsman.example", {}),
        ("https://pointsman.example/?key=1", {}),
        ("https://pointsman.example", {"instance": "é"}),
        ("https://pointsman.example", {"instance": "x" * 129}),
        ("https://pointsman.example", {"instance": 5}),
        ("https://pointsman.example", {"workloads": "support"}),
        ("https://pointsman.example", {"workloads": b"support"}),
        ("https://pointsman.example", {"workloads": [None]}),
        ("https://pointsman.example", {"workloads": ["support", " "]}),
        ("https://pointsman.example", {"workloads": None}),
        (5, {}),
        ("https://pointsman.example", {"public_keys": {}}),
    ],
)
def test_it_explains_how_to_fix_an_invalid_setup(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Router(url, "key", start=False, **options)


@pytest.mark.parametrize(
    ("kind", "success", "score", "problem"),
    [
        ("hearsay", True, None, "kind must be one of"),
        ("satisfaction", None, None, "requires success, score, or both"),
        ("downstream", None, 1.5, "score must be between 0 and 1"),
    ],
)
def test_it_refuses_invalid_feedback(
    kind: str, success: bool | None, score: float | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        offline().feedback("1.x", kind, success=success, score=score)


def test_it_exports_its_status_to_prometheus(plane: FakeControlPlane) -> None:
    registry = CollectorRegistry()
    with plane.router() as router:
        router.export_metrics(registry)
        router.decide("summaries")
        text = generate_latest(registry).decode()
    assert "pointsman_revision 1.0" in text
    assert "pointsman_decisions_total 1.0" in text
    assert "pointsman_staleness_seconds" in text


def test_it_reports_feedback_under_the_decisions_id(plane: FakeControlPlane) -> None:
    with steady(plane) as router:
        decision = router.decide("summaries")
        router.record(decision)
        router.feedback(decision.decision_id, "downstream", success=True)
    assert plane.feedback == [{"decision_id": decision.decision_id, "kind": "downstream", "success": True}]
    assert only(plane)["ungraded"] == 1


def test_it_flushes_when_the_process_exits_without_close(plane: FakeControlPlane) -> None:
    script = (
        "import sys; from pointsman import Pace, Router\n"
        "router = Router(sys.argv[1], 'pmr_test', pace=Pace(first_poll_within=0, flush_every=60, stop_within=20))\n"
        "assert router.wait_ready(60)\n"
        "router.record(router.decide('summaries'), success=True)\n"
    )
    url = plane.url.replace("127.0.0.1", "localhost")
    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, timeout=90, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert plane.tasks("summaries") == 1


def test_it_imports_neither_httpx_nor_a_framework_before_it_needs_them() -> None:
    script = (
        "import sys, pointsman; print(sorted({m.split('.')[0] for m in sys.modules} & set(sys.argv[1:])))"
    )
    heavy = ["httpx", "django", "yaml", "cryptography", "asyncio", "rfc8785"]
    done = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_reads_a_gzipped_and_a_plain_body_alike(plane: FakeControlPlane) -> None:
    def plain(request: Request, reply: Reply) -> Reply:
        return replace(reply, raw=True)

    with plane.router() as router:
        assert router.ready
    plane.tamper = plain
    with plane.router() as router:
        assert router.ready
