"""The parts of `manage.py replay` that need no server."""

import random
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.core.management import CommandError, call_command

from controlplane.core import clock
from pointsman import Router
from pointsman.decision import Decision
from rollout_app import actions
from rollout_app.backtest.sources import Source
from rollout_app.backtest.tasks import Answer, Task
from rollout_app.engine.plans import SAVED, check
from rollout_app.engine.states import State
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import Rollout
from rollout_app.rehearsal import scenario
from rollout_app.rehearsal.scenario import (
    Harmed,
    afterwards,
    hurried,
    parse_harm,
    playable,
    progress,
    summary,
    tasks_of,
)
from tests.support import places
from tests.support.places import BEN
from tests.support.traffic import Traffic

CSV = "prompt_tokens,endpoint,a/small:success,a/small:cost_usd,a/small:confidence\n900,/x,1,0.0004,0.8\n"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tasks.csv"
    path.write_text(text)
    return str(path)


def from_file(path: str, **how: Any) -> list[Task]:
    return list(tasks_of(Source(path=path, **how)))


def test_it_reads_the_files_that_a_backtest_reads(tmp_path: Path) -> None:
    (task,) = from_file(written(tmp_path, CSV))
    assert task.request == {"prompt_tokens": 900, "endpoint": "/x"}
    answer = task.answers["a/small"]
    assert (answer.success, answer.cost_nusd, answer.confidence) == (True, 400_000, 0.8)
    mapping = tmp_path / "m.yaml"
    mapping.write_text("models: {a/small: {success: ok, cost: paid, latency_ms: ms}}")
    (task,) = from_file(written(tmp_path, "ok,paid,ms\n1,0.1,70\n"), mapping=str(mapping))
    assert task.answers["a/small"].latency_ms == 70
    with pytest.raises(ValueError, match="has no tasks"):
        from_file(written(tmp_path, CSV.splitlines()[0] + "\n"))


def test_incomplete_tasks_are_left_out_and_counted() -> None:
    def answers(**of: Answer) -> Task:
        return Task({}, dict(of))

    whole, free = Answer(True, 5), Answer(False, 0)
    tasks = [
        answers(small=whole, large=free),
        answers(small=whole),
        answers(small=Answer(None, 5), large=whole),
        answers(small=whole, large=Answer(True, None)),
    ]
    documents = [{"models": {"s": {"model": "small"}}}, {"models": {"l": {"model": "large"}}}]
    found = playable(tasks, documents)
    assert (found.tasks, found.left_out) == (tasks[:1], {"large": 2, "small": 1})
    assert found.sentence() == (
        "1 task is played. Left out, because success or cost is not known: 2 of large, 1 of small."
    )
    assert playable(tasks[:1], documents).sentence() == ""
    with pytest.raises(ValueError, match="No task can be played: success or cost is not known for large"):
        playable(tasks[1:2], documents)


def test_of_a_large_file_it_plays_a_random_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "MOST_PLAYED", 100)
    tasks = (Task({"turns": at}, {"small": Answer(True, 5)}) for at in range(1_000))
    found = playable(tasks, [{"models": {"s": {"model": "small"}}}])
    assert (len(found.tasks), found.of) == (100, 1_000)
    assert found.sentence() == "100 of 1,000 tasks are drawn at random."
    assert 400 < sum(task.request["turns"] for task in found.tasks) / 100 < 600


def test_it_knows_the_included_sets_by_name() -> None:
    assert len(from_file("gsm8k")) == 1_307


def test_it_shortens_the_plans_times_with_the_speed_of_the_traffic() -> None:
    for name, (_, stages) in SAVED.items():
        plan = check(stages)
        fast = check(hurried(plan, 60))
        assert [stage["min_minutes"] * 60 for stage in fast] == [stage["min_minutes"] for stage in plan], name
        assert [stage["share_pcm"] for stage in fast] == [stage["share_pcm"] for stage in plan], name


@pytest.mark.django_db
def test_it_reports_the_stage_the_hold_and_the_figures_of_both_arms() -> None:
    rollout = places.started(
        plan=[{"mode": "percentage", "share_pcm": 20_000, "min_tasks": 500}, {"mode": "full"}]
    )
    places.router(rollout)
    Traffic(rollout, start=clock.now() - timedelta(hours=1)).minutes(5)
    reconcile(rollout.pk)
    rollout.refresh_from_db()
    assert progress(rollout) == f"running, 20 %: {rollout.hold_sentence}"
    whole = summary(rollout)
    assert "3. start → running, 20 %: now" in whole
    assert f"Held by: {rollout.hold_sentence}" in whole and f"What would move it: {rollout.outlook}" in whole
    assert re.search(r"baseline: 800 tasks, 9\d\.\d% successful, \$0\.0010\d+ a success", whole)
    assert re.search(r"candidate: 200 tasks, \d\d\.\d% successful, \$0\.0007\d+ a success", whole)


@pytest.mark.parametrize(
    "text", ["success", "success:much", "vibes:-5", "success:-500", "success:nan", "success:+5", "success:0"]
)
def test_it_refuses_invalid_harm(text: str) -> None:
    with pytest.raises(ValueError, match="success:-5"):
        parse_harm(text)


class Recorder:
    """A router that only records its calls."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool, Any]] = []

    def record(self, decision: Decision, success: bool, **figures: Any) -> None:
        self.told.append((decision.arm, success, figures.get("cost_nusd")))


def record(harm: str, after: int, times: int = 4_000) -> list[tuple[str, bool, Any]]:
    recorder = Recorder()
    router = Harmed(cast("Router", recorder), parse_harm(harm), after, random.Random(1))
    for at in range(times):
        decision = SimpleNamespace(
            arm=("baseline", "candidate")[at % 2], steps=SimpleNamespace(cost_nusd=1_000)
        )
        router.record(cast("Decision", decision), True)
    return recorder.told


def test_it_harms_only_the_candidate_and_only_from_the_given_time() -> None:
    told = record("success:-5", after=2_000)
    assert all(success for arm, success, _ in told[:2_000])
    assert all(success for arm, success, _ in told if arm == "baseline")
    later = [success for arm, success, _ in told[2_000:] if arm == "candidate"]
    assert 1 - sum(later) / len(later) == pytest.approx(0.05, abs=0.02)


def test_it_makes_the_candidate_dearer() -> None:
    told = record("cost:+25", after=0, times=4)
    assert [cost for _, _, cost in told] == [None, 1_250, None, 1_250]


@pytest.mark.parametrize("success", [0.9, 0.5, 0.2])
def test_harm_in_points_does_not_depend_on_the_success_rate(success: float) -> None:
    """Harm of five points is five points at any success rate, not a share of it."""
    recorder, chance = Recorder(), random.Random(2)
    router = Harmed(cast("Router", recorder), parse_harm("success:-5"), 0, random.Random(3))
    tasks = [chance.random() < success for _ in range(20_000)]
    for good in tasks:
        router.record(cast("Decision", SimpleNamespace(arm="candidate")), good)
    lost = sum(tasks) - sum(good for _, good, _ in recorder.told)
    assert lost / len(tasks) == pytest.approx(0.05, abs=0.006)


def arranged(**changes: Any) -> Rollout:
    """Return a rollout whose workload is served and has a version to rehearse."""
    return places.proposed(four_eyes=False, **changes)


def rehearse(rollout: Rollout, tasks: str, *more: str) -> None:
    call_command(
        "replay", tasks, "--environment", rollout.environment.name, "--workload", rollout.workload.name,
        "--candidate", str(rollout.candidate.number), *more,
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--times", "0"], "--times must be from 0.01"),
        (["--per-minute", "0"], "--per-minute must be from 1"),
        (["--hours", "-1"], "--hours must be from"),
        (["--at", "1"], "--at must be a share"),
        (["--routers", "0"], "--routers must be from 1 to 50"),
        (["--plan", "nope"], "no plan called 'nope'"),
        (["--candidate", "99"], "has no version 99"),
        (["--workload", "nope"], "no workload called 'nope'"),
        (["--environment", "nope"], "no environment called 'nope'"),
    ],
)
def test_it_reports_errors_before_anything_moves(more: list[str], says: str) -> None:
    rollout = arranged()
    with pytest.raises(CommandError, match=says):
        rehearse(rollout, "gsm8k", *more)
    assert Rollout.objects.count() == 1


@pytest.mark.django_db
def test_it_names_the_models_without_recordings(tmp_path: Path) -> None:
    rollout = arranged()
    with pytest.raises(
        CommandError, match="The policies may choose anthropic/claude-sonnet-4-5, openai/gpt-4o-mini"
    ):
        rehearse(rollout, written(tmp_path, CSV))
    assert Rollout.objects.count() == 1


@pytest.mark.django_db
def test_it_cancels_a_rollout_that_it_cannot_start(tmp_path: Path) -> None:
    rollout = arranged()
    actions.start_rollout(rollout, actor=BEN, reason="somebody else's")
    with pytest.raises(CommandError, match="is under way"):
        rehearse(rollout, complete_tasks(tmp_path))
    assert Rollout.objects.exclude(pk=rollout.pk).get().state == State.CANCELLED


def complete_tasks(tmp_path: Path) -> str:
    models = ("anthropic/claude-sonnet-4-5", "openai/gpt-4o-mini")
    head = ",".join(f"{model}:{figure}" for model in models for figure in ("success", "cost_usd"))
    return written(tmp_path, f"{head}\n1,0.1,1,0.1\n")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("what", "raised"),
    [(False, CommandError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["none", "interrupt"],
)
def test_it_leaves_no_rollout_running_whose_routers_get_no_snapshot(
    what: Any, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_ready(router: Router, timeout: float = 10.0) -> bool:
        if isinstance(what, BaseException):
            raise what
        return False

    monkeypatch.setattr(Router, "wait_ready", wait_ready)
    rollout = arranged()
    actions.cancel_rollout(rollout.pk, actor=BEN, reason="make room")
    with pytest.raises(raised):
        rehearse(rollout, complete_tasks(tmp_path), "--url", "http://127.0.0.1:9")
    rehearsed = Rollout.objects.exclude(pk=rollout.pk).get()
    assert (rehearsed.state, rehearsed.started_at is None) == (State.ROLLING_BACK, False)


@pytest.mark.django_db
def test_it_reports_harm_that_never_began_and_what_is_served_now() -> None:
    rollout = places.completed()
    early, served = afterwards(rollout, ("success", -0.05), 192, 140)
    assert early.startswith("It ended after 140 minutes of traffic, before the harm of minute 192")
    assert served == (
        f"{rollout.environment.name} serves version 2 from here on; a revert brings version 1 back."
    )
    assert afterwards(rollout, ("success", -0.05), 100, 140) == [served] == afterwards(rollout, None, 0, 140)
