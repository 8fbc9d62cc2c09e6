"""The blast radius of a candidate, from stored data."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.web.display import THIN
from policies_app import actions as policies
from policies_app.models import Environment, Model, Workload
from rollout_app import actions
from rollout_app.blast_radius.answers import radius_answer
from rollout_app.blast_radius.projection import PolicyShape
from rollout_app.blast_radius.radius import BlastRadius, radius_of, radius_of_candidate
from rollout_app.blast_radius.rehearsed import DifferingShare, differing_tasks, shadow_routes
from rollout_app.blast_radius.week import seen_escalations
from rollout_app.blast_radius.words import headline
from rollout_app.console.ahead import ahead_of_candidate
from rollout_app.models import Rollout
from rollout_app.review import rollups
from tests.support import builders
from tests.support.callers import Caller
from tests.support.outcomes import outcome

SMALL, LARGE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"
DAY = timedelta(days=1)
PLAIN: dict[str, Any] = {"rules": [], "escalate": None}
COST = 1_000_000  # nano-USD per task


@pytest.fixture
def place(db: None) -> tuple[Environment, Workload]:
    """Everything goes to the large model; a week of traffic, with /a three times as frequent as /b."""
    environment, workload = builders.environment("production"), builders.workload("support")
    served(environment, workload, default="large", rules=[])
    return environment, workload


def document(workload: Workload, **changes: Any) -> dict[str, Any]:
    found = builders.document(workload, **changes)
    return {name: value for name, value in found.items() if value is not None}


def served(environment: Environment, workload: Workload, **changes: Any) -> None:
    policies.serve_first(environment, version(workload, **changes), actor=SYSTEM, reason="first")


def version(workload: Workload, **changes: Any) -> Any:
    builders.catalogue()
    return policies.add_version(workload, document(workload, **({"escalate": None} | changes)), actor=SYSTEM)


def traffic(place: tuple[Environment, Workload], *, days: int = 7, **fields: Any) -> None:
    now = clock.now().replace(second=0, microsecond=0)
    for day in range(days):
        for endpoint, tasks in (("/a", 300), ("/b", 100)):
            given: dict[str, Any] = {
                "tasks": tasks,
                "cost": COST,
                "endpoint": endpoint,
                "model": "large",
            } | fields
            outcome(*place, now - DAY * day - timedelta(hours=23), **given)
    rollups.refresh()


def of(place: tuple[Environment, Workload], **changes: Any) -> BlastRadius:
    return radius_of_candidate(*place, version(place[1], **changes))


def per_day(radius: BlastRadius, task: float) -> float:
    """Convert a cost per task to a cost per day."""
    return task * radius.week.tasks


def test_all_strong_to_all_weak_moves_everything_at_the_catalogues_prices(place: Any) -> None:
    traffic(place)
    radius = of(place, default="small", rules=[])
    assert radius.basis == "documents"
    assert radius.whole.moved == pytest.approx((400, 400), rel=0.03)
    assert list(radius.whole.moves) == [(LARGE, SMALL)]
    # $0.15 of $3 for input, $0.60 of $15 for output: 4 to 5 % of what it cost.
    change = radius.whole.change
    assert change.low == pytest.approx(per_day(radius, COST * (0.04 - 1)))
    assert change.high == pytest.approx(per_day(radius, COST * (0.05 - 1)))
    assert change.expected == pytest.approx((change.low + change.high) / 2)
    assert radius.whole.covered == pytest.approx(radius.week.tasks)


def test_tasks_under_a_pin_count_as_traffic_and_show_no_choice(place: Any) -> None:
    """The baseline sends everything to the large model. Under a pin, a third of the tasks had to use the small one."""
    traffic(place)
    traffic(place, rule="pin", model="small", tasks=100)
    radius = of(place, default="small", rules=[])
    assert radius.week.tasks == pytest.approx(600, rel=0.03)
    assert radius.whole.moved == pytest.approx((radius.week.tasks, radius.week.tasks))
    assert list(radius.whole.moves) == [(LARGE, SMALL)]
    said = " ".join(radius_answer(radius)["unknown"])
    assert f"33.3{THIN}% of the week's tasks ran under a pin, so no policy decided them." in said
    assert "served by other versions" not in said


def test_with_only_pinned_tasks_nothing_is_known(place: Any) -> None:
    traffic(place, rule="pin", model="small")
    radius = of(place, default="small", rules=[])
    answer = radius_answer(radius)
    assert answer["sentence"] == "It is unknown what would move of the traffic of the last 7 days."
    assert answer["moved"] is None and radius.week.tasks == pytest.approx(400, rel=0.03)
    assert ahead_of_candidate(place[0], place[1], radius.candidate).headline == answer["sentence"]  # type: ignore[union-attr]


def test_a_pinned_task_does_not_lower_the_share_of_escalations(db: None) -> None:
    place = builders.environment("production"), builders.workload("support")
    escalate = {"max": 1, "to": "large", "when": "response.confidence < 0.7"}
    served(*place, default="small", rules=[], escalate=escalate)
    traffic(place, days=2, model="large", escalations=100, tasks=100, cost=2 * COST)
    traffic(place, days=2, model="small", tasks=300, cost=COST // 20)
    traffic(place, days=2, model="small", rule="pin", tasks=900)
    radius = of(place, default="small", rules=[], escalate=escalate | {"when": "response.confidence < 0.8"})
    assert seen_escalations(radius.week, PolicyShape.of(radius.baseline.document))[None, SMALL] == (
        1_600,
        400,
    )


def test_a_second_stage_may_call_the_strong_model_for_every_task(place: Any) -> None:
    traffic(place)
    escalate = {"max": 1, "to": "large", "when": "response.confidence < 0.7"}
    radius = of(place, default="small", rules=[], escalate=escalate)
    change = radius.whole.change
    assert change.low == pytest.approx(per_day(radius, COST * (0.04 - 1)))  # none is escalated
    assert change.high == pytest.approx(per_day(radius, COST * 0.05))  # all are
    assert change.expected is None
    asked = radius.whole.asked[LARGE]
    assert (asked.low, asked.expected) == (0, None) and asked.high == pytest.approx(radius.whole.tasks)
    said = " ".join(radius_answer(radius)["unknown"])
    assert "It is unknown how many tasks will be escalated" in said


def test_it_expects_the_present_rate_of_escalations(db: None) -> None:
    place = builders.environment("production"), builders.workload("support")
    escalate = {"max": 1, "to": "large", "when": "response.confidence < 0.7"}
    rule = {"id": "heavy", "when": "request.prompt_tokens > 8000", "use": "large"}
    served(*place, default="small", rules=[rule], escalate=escalate)
    traffic(place, days=2, model="large", escalations=100, tasks=100, cost=2 * COST)
    traffic(place, days=2, model="small", tasks=300, cost=COST // 20)
    traffic(place, days=2, model="large", rule="heavy", tasks=100)
    radius = of(place, default="small", rules=[], escalate=escalate)
    seen = {name: bounds.expected for name, bounds in radius.whole.asked.items()}
    assert seen[LARGE] == pytest.approx(radius.whole.tasks * 100 / 400)
    assert radius.whole.change.expected is not None


def test_only_what_follows_from_the_rules_is_certain(place: Any) -> None:
    traffic(place, rule="default")
    rule = {"id": "short", "when": "request.prompt_tokens < 500", "use": "small"}
    radius = of(place, default="large", rules=[rule])
    least, most = radius.whole.moved
    assert least == 0 and most == pytest.approx(radius.whole.tasks)
    assert radius.whole.change.high == 0 and radius.whole.change.low < 0
    answer = radius_answer(radius)
    assert answer["moved"] == {"low": 0, "high": pytest.approx(1)}
    assert any("their inputs are not stored" in sentence for sentence in answer["unknown"])


def test_an_endpoint_that_a_rule_names_is_certain(place: Any) -> None:
    traffic(place)
    rule = {"id": "a", "when": 'request.endpoint == "/a"', "use": "small"}
    radius = of(place, default="large", rules=[rule])
    moved = {each.endpoint: each.projection.moved for each in radius.endpoints}
    assert moved["/a"][0] == moved["/a"][1] > 0 and moved["/b"] == (0, 0)
    first, second = radius_answer(radius)["endpoints"]
    assert first["sentence"].startswith(f"/a (team {place[1].owner.name}): of 30")
    assert f"100\u202f% from {LARGE} to {SMALL}" in first["sentence"] and "a day now" in first["sentence"]
    assert "nothing to another first model. No change in cost" in second["sentence"]


def test_without_traffic_it_says_so(place: Any) -> None:
    answer = radius_answer(of(place, default="small", rules=[]))
    assert answer["sentence"] == "There was no traffic in the last 7 days, so it is unknown what would move."
    assert (answer["moved"], answer["change_a_day_nusd"], answer["cost_a_day_nusd"]) == (None, None, None)


def test_without_a_price_the_cost_is_unknown(place: tuple[Environment, Workload]) -> None:
    traffic(place)
    candidate = version(place[1], default="small", rules=[])
    policies.edit_model(Model.objects.get(name=SMALL), actor=SYSTEM, input_nusd_per_mtok=None)
    answer = radius_answer(radius_of_candidate(*place, candidate))
    assert answer["moved"] == {"low": 1, "high": 1}
    assert answer["change_a_day_nusd"] is None and "The cost is unknown" in answer["sentence"]
    assert any(f"No price: {SMALL}" in sentence for sentence in answer["unknown"])
    assert any("has no input price" in sentence for sentence in answer["notices"])


def test_tasks_of_unknown_cost_are_left_out_and_counted(place: Any) -> None:
    traffic(place, priced=50)
    answer = radius_answer(of(place, default="small", rules=[]))
    assert answer["cost_known_of"] == pytest.approx(100 / 400)
    assert any("Costs cover the 25.0" in sentence for sentence in answer["unknown"])


def test_a_short_history_is_mentioned(place: Any) -> None:
    traffic(place, days=2)
    radius = of(place, default="small", rules=[])
    assert 1.5 < radius.week.span.days < 2.1
    assert any("There was traffic in only" in sentence for sentence in radius_answer(radius)["unknown"])


def test_changed_parameters_and_a_pin_are_mentioned(place: tuple[Environment, Workload]) -> None:
    traffic(place)
    models = {"small": {"model": SMALL}, "large": {"model": LARGE, "params": {"temperature": 1}}}
    candidate = version(place[1], default="large", rules=[], models=models)
    policies.pin(place[0].assignments.get(), "small", actor=SYSTEM, reason="incident")
    answer = radius_answer(radius_of_candidate(*place, candidate))
    assert answer["moved"] == {"low": 0, "high": 0} and answer["other_parameters"] == pytest.approx(1)
    assert "get other parameters" in " ".join(answer["unknown"]) and answer["pinned"] == "small"


def shadowed(place: tuple[Environment, Workload]) -> Rollout:
    stages = [{"mode": "shadow"}, {"mode": "percentage", "share_pcm": 5_000}, {"mode": "full"}]
    rule = {"id": "short", "when": "request.prompt_tokens < 500", "use": "small"}
    candidate = version(place[1], default="large", rules=[rule])
    rollout = actions.propose_rollout(*place, candidate, plan=stages, reason="r", actor=SYSTEM)
    rollout = actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    for endpoint, moved in (("/a", 25), ("/b", 0)):
        outcome(
            *place,
            clock.now().replace(second=0, microsecond=0),
            endpoint=endpoint,
            model="large",
            rollout=str(rollout.pk),
            stage=0,
            shadow={
                "decisions": 100,
                "agreed": 100 - moved,
                "routes": {"large>large": 100 - moved, "large>small": moved},
            },
            differing_known=100,
            differing={f"{LARGE}>{SMALL}": [moved, moved, 0, 0, 0, 0, 0, 0, 0]} if moved else {},
        )
    return rollout


def test_after_a_shadow_stage_it_uses_the_reports_of_routers(place: Any) -> None:
    traffic(place)
    radius = radius_of(shadowed(place))
    assert radius.basis == "shadow"
    moved = {each.endpoint: each.projection.moved for each in radius.endpoints}
    share = {each.endpoint: each.projection.moved[0] / each.projection.tasks for each in radius.endpoints}
    assert moved["/a"][0] == moved["/a"][1] and share == {"/a": pytest.approx(0.25), "/b": 0}
    answer = radius_answer(radius)
    assert answer["differing"] == {"known_of": 200, "share": 0.125}
    assert not any("inputs are not stored" in sentence for sentence in answer["unknown"])


def test_a_long_rollout_reports_the_differing_tasks_of_its_newest_week(place: Any) -> None:
    """It reads no other minutes: three months of a busy workload are a million rows."""
    rollout = shadowed(place)
    for days, differing in ((30, 90), (8, 90), (6, 25)):
        outcome(
            place[0],
            place[1],
            clock.now().replace(second=0, microsecond=0) - timedelta(days=days),
            endpoint="/c",
            rollout=str(rollout.pk),
            stage=1,
            differing_known=100,
            differing={f"{LARGE}>{SMALL}": [differing, 0, 0, 0, 0, 0, 0, 0, 0]},
        )
    Rollout.objects.filter(pk=rollout.pk).update(started_at=clock.now() - timedelta(days=40))
    rollout.refresh_from_db()
    assert differing_tasks(rollout, clock.now())["/c"] == DifferingShare(100, 25)
    Rollout.objects.filter(pk=rollout.pk).update(ended_at=clock.now() - timedelta(days=7))
    rollout.refresh_from_db()
    assert differing_tasks(rollout, clock.now())["/c"] == DifferingShare(200, 115)


def test_without_a_shadow_stage_no_shadow_rows_are_read(place: Any, django_assert_num_queries: Any) -> None:
    rollout = shadowed(place)
    rollout.stages = rollout.stages[1:]
    with django_assert_num_queries(0):
        assert shadow_routes(rollout) == {}


def test_the_api_returns_it_for_a_rollout_and_for_a_version(
    place: Any, django_assert_max_num_queries: Any
) -> None:
    traffic(place)
    rollout = shadowed(place)
    call = Caller("viewer")
    with django_assert_max_num_queries(30):
        answer = call("GET", f"rollouts/{rollout.pk}/blast-radius").json()
    assert answer["basis"] == "shadow" and len(answer["endpoints"]) == 2
    where = "environments/production/assignments/support/blast-radius"
    assert call("GET", f"{where}?candidate=2").json()["candidate"] == 2
    assert call("GET", where).status_code == 422
    assert call("GET", f"{where}?candidate=99").status_code == 404
    assert Caller("viewer", environment="staging")("GET", f"{where}?candidate=2").status_code == 404


def test_less_than_a_day_of_traffic_gives_no_figure_per_day(place: tuple[Environment, Workload]) -> None:
    """Regression: the tasks of the first minutes were divided by a fraction of an hour."""
    now = clock.now().replace(second=0, microsecond=0)
    outcome(*place, now - timedelta(hours=2), tasks=200, cost=COST, endpoint="/a", model="large")
    rollups.refresh()
    radius = of(place, default="small")
    told, said = radius_answer(radius), headline(radius).replace("\u202f", " ")
    assert radius.week.tasks == 200
    assert told["tasks_a_day"] is told["cost_a_day_nusd"] is told["change_a_day_nusd"] is None
    assert "a day" not in said and "at $0.200 in 2 h" in said
    assert any("too short for figures per day" in sentence for sentence in told["unknown"])
