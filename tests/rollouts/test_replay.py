"""`rollout_app.rehearsal.replay` reports exactly what was recorded, minute by minute."""

from itertools import cycle
from typing import Any

import pytest

from pointsman import Pace, Router
from pointsman.testing import FakeControlPlane
from rollout_app import recorded
from rollout_app.backtest.tasks import Answer, Task
from rollout_app.demo.stories import EASY_SUBJECTS, STORIES, Story
from rollout_app.recorded import GEMINI, HAIKU, STRONG, WEAK
from rollout_app.rehearsal.replay import Replay, Stamps


def good(answer: Answer) -> int:
    """Return 1 or 0; these sets have no ungraded tasks."""
    assert answer.success is not None
    return int(answer.success)


def cost(answer: Answer) -> int:
    """Return nano-USD; these sets have no unpriced tasks."""
    assert answer.cost_nusd is not None
    return answer.cost_nusd


TEN_O_CLOCK = 1_760_000_400.0  # a whole minute

STORY = {story.letter: story for story in STORIES}


def replayed(
    plane: FakeControlPlane, story: Story, tasks: list[Task], minutes: int = 1
) -> list[dict[str, Any]]:
    """Return the buckets that arrive when `tasks` are replayed once per minute."""
    stamps = Stamps(TEN_O_CLOCK)
    with Router(
        plane.url, plane.key, clock=stamps, pace=Pace(first_poll_within=0, flush_every=0.02, stop_within=20)
    ) as router:
        assert router.wait_ready(30)
        again = cycle(tasks)
        replay = Replay(
            [router], story.workload, lambda: next(again), stamps, per_minute=len(tasks), pace_s=0.05
        )
        for _ in range(minutes):
            replay.minute()
        return plane.buckets(story.workload)


@pytest.mark.parametrize(
    ("tasks", "rates"),
    [
        (recorded.mmlu(), {WEAK: 0.68091, STRONG: 0.80587}),
        (recorded.gsm8k(), {WEAK: 0.63734, STRONG: 0.85769}),
    ],
)
def test_it_reads_the_success_rates_that_were_published(tasks: list[Task], rates: dict[str, float]) -> None:
    for model, rate in rates.items():
        assert sum(good(task.answers[model]) for task in tasks) / len(tasks) == pytest.approx(rate, abs=6e-6)


def test_it_reads_the_costs_that_were_recorded() -> None:
    tasks = recorded.routerarena()
    spent = {m: sum(cost(task.answers[m]) for task in tasks) / 1e9 for m in (HAIKU, GEMINI)}
    assert spent == {HAIKU: pytest.approx(0.1424, abs=5e-5), GEMINI: pytest.approx(0.0384, abs=5e-5)}


def test_the_easy_subjects_match_their_documented_figures() -> None:
    easy, tasks = EASY_SUBJECTS.split(), recorded.mmlu()
    moved = [task for task in tasks if task.request["attributes"]["subject"] in easy]
    lost = sum(good(task.answers[STRONG]) - good(task.answers[WEAK]) for task in moved)
    assert len(moved) / len(tasks) == pytest.approx(0.182, abs=5e-4)
    assert lost / len(tasks) == pytest.approx(0.0004, abs=1e-4)


def test_it_reports_the_recording_of_the_model_that_served() -> None:
    tasks = recorded.mmlu()[:200]
    with FakeControlPlane() as plane:
        plane.serve("mmlu", STORY["a"].baseline)
        buckets = replayed(plane, STORY["a"], tasks)
    answers = [task.answers[STRONG] for task in tasks]
    assert sum(b["tasks"] for b in buckets) == 200
    assert sum(b["successes"] for b in buckets) == sum(good(answer) for answer in answers)
    assert sum(b["cost_nusd"]["sum"] for b in buckets) == sum(cost(answer) for answer in answers)


def test_it_invents_no_latency() -> None:
    with FakeControlPlane() as plane:
        plane.serve("gsm8k", STORY["c"].candidate)
        buckets = replayed(plane, STORY["c"], recorded.gsm8k()[:50])
    assert sum(b["tasks"] for b in buckets) == 50
    assert all(not b["latency_ms"]["counts"] and not b["latency_ms"]["zero"] for b in buckets)


def test_it_follows_the_second_stage_and_pays_for_both_answers() -> None:
    tasks = recorded.gsm8k()[:300]
    unsure = [task for task in tasks if (task.answers[WEAK].confidence or 0) < 0.65]
    sure = [task for task in tasks if task not in unsure]
    with FakeControlPlane() as plane:
        plane.serve("gsm8k", STORY["c"].candidate)
        buckets = replayed(plane, STORY["c"], tasks)
    assert sum(b["escalations"] for b in buckets) == len(unsure)
    assert sum(b["successes"] for b in buckets) == (
        sum(good(task.answers[WEAK]) for task in sure) + sum(good(task.answers[STRONG]) for task in unsure)
    )
    assert sum(b["cost_nusd"]["sum"] for b in buckets) == (
        sum(cost(task.answers[WEAK]) for task in tasks) + sum(cost(task.answers[STRONG]) for task in unsure)
    )


def test_it_projects_the_candidates_whole_cost_in_shadow_and_mirrors_it() -> None:
    tasks = recorded.gsm8k()[:100]
    with FakeControlPlane() as plane:
        plane.serve("gsm8k", STORY["c"].candidate)
        alone = replayed(plane, STORY["c"], tasks)
    with FakeControlPlane() as plane:
        plane.serve("gsm8k", STORY["c"].baseline)
        plane.roll_out("gsm8k", STORY["c"].candidate, mode="shadow", mirror_pcm=100_000)
        shadowed = replayed(plane, STORY["c"], tasks)
    cost = sum(b["cost_nusd"]["sum"] for b in alone)
    mirrors = [b["mirror"] for b in shadowed]
    assert sum(b["shadow"]["candidate_cost_nusd"] for b in shadowed) == cost
    assert sum(mirror["candidate_cost_nusd"] for mirror in mirrors) == cost
    assert sum(mirror["both"] + mirror["only_candidate"] for mirror in mirrors) == sum(
        b["successes"] for b in alone
    )


def test_it_ticks_only_after_the_whole_minute_has_arrived() -> None:
    tasks = recorded.routerarena()[:30]
    with FakeControlPlane() as plane:
        plane.serve("routerarena", STORY["d"].baseline)
        buckets = replayed(plane, STORY["d"], tasks, minutes=3)
    by_minute: dict[object, int] = {}
    for b in buckets:
        by_minute[b["minute"]] = by_minute.get(b["minute"], 0) + b["tasks"]
    assert list(by_minute.values()) == [30, 30, 30]


def test_it_never_stamps_a_future_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = Stamps(TEN_O_CLOCK)
    monkeypatch.setattr("rollout_app.rehearsal.replay.time.time", lambda: TEN_O_CLOCK + 90)
    stamps.tick()
    stamps.tick()
    assert stamps() == TEN_O_CLOCK + 90
