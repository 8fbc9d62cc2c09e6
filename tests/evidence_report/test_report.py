"""The evidence report, and the effect of a completed rollout."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.actions import edit_environment
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.engine.diagnosis import Change
from rollout_app.engine.states import State
from rollout_app.evidence_report import gather
from rollout_app.evidence_report.gather import evidence_report, realised_answer
from rollout_app.evidence_report.markdown import as_markdown
from rollout_app.evidence_report.realised import realised
from rollout_app.evidence_report.words import realised_sentences, saved, saved_since
from rollout_app.models import ArmTotals, Rollout
from rollout_app.review import rollups
from tests.support import builders
from tests.support.callers import Caller
from tests.support.outcomes import outcome
from tests.support.pages import text
from tests.support.people import actor_of, approve, logged_in, proposed

Place = tuple[Environment, Workload]
DAY = timedelta(days=1)
THIN = "\u202f"


@pytest.fixture
def place(db: None) -> Place:
    environment, workload = builders.environment("production"), builders.workload("support")
    builders.served(environment, workload)
    builders.version(workload)
    return environment, workload


def completed(place: Place, *, days: float = 20) -> Rollout:
    """A rollout that completed this many days ago, an hour after it started."""
    rollout = proposed(place[1], place[0])
    rollout = actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    rollout = actions.advance_rollout(rollout, actor=SYSTEM, reason="on")
    rollout = actions.complete_rollout(rollout, actor=SYSTEM, reason="done")
    ended = clock.now() - days * DAY
    times = {"started_at": ended - timedelta(hours=1), "ended_at": ended}
    Rollout.objects.filter(pk=rollout.pk).update(**times)
    rollout.refresh_from_db()
    return rollout


def weeks(place: Place, rollout: Rollout, *after: dict[str, Any]) -> None:
    """Traffic of the week before, and of this many weeks after completion."""
    assert rollout.started_at and rollout.ended_at
    for day in range(1, 8):
        outcome(*place, minute(rollout.started_at - day * DAY), cost=1_000_000, tasks=500)
    for number, fields in enumerate(after):
        for day in range(6):
            at = minute(rollout.ended_at + (7 * number + day) * DAY + timedelta(hours=1))
            given: dict[str, Any] = {"tasks": 500, "cost": 600_000} | fields
            outcome(*place, at, version=2, **given)
    rollups.refresh()


def minute(at: Any) -> Any:
    return at.replace(second=0, microsecond=0)


def sentences(rollout: Rollout) -> str:
    found = realised(rollout, clock.now())
    assert found is not None
    return " ".join(realised_answer(rollout, found)["sentences"]).replace(THIN, " ")


def test_it_shows_the_saving_and_the_effect_on_success(place: Place) -> None:
    rollout = completed(place)
    weeks(place, rollout, {}, {})
    said = sentences(rollout)
    assert "Cost per success after completion: −40.0 %" in said
    assert "the rollout itself showed no figure" in said
    assert "Success: 92.0 % → 92.0 % (within the bar of 90.0 %)." in said
    assert "A revert" not in said


def test_the_saving_is_of_the_endpoints_that_had_traffic_before(place: Place) -> None:
    """Regression: the rate of the endpoints that are compared was applied to new ones, too."""
    rollout = completed(place)
    weeks(place, rollout, {})
    assert rollout.ended_at
    new: dict[str, Any] = {"endpoint": "/new", "tasks": 9_000, "cost": 50_000_000, "version": 2}
    outcome(*place, minute(rollout.ended_at + timedelta(hours=2)), **new)
    rollups.refresh()
    found = realised(rollout, clock.now())
    assert found is not None and found.saved is not None
    assert found.saved.estimate == pytest.approx(3_000 * 400_000)  # as if there were no new endpoint
    assert f"That is of 25.0{THIN}% of its tasks" in saved_since(found)


def test_harm_after_completion_is_reported(place: Place) -> None:
    rollout = completed(place)
    weeks(place, rollout, {"success": 0.8}, {"success": 0.8})
    said = sentences(rollout)
    assert "below the bar" in said and "More tasks fail" in said and "A revert is one click" in said


def test_harm_in_one_week_is_not_hidden_in_a_month(place: Place) -> None:
    rollout = completed(place, days=29)
    weeks(place, rollout, {"success": 0.93}, {"success": 0.93}, {"success": 0.88}, {"success": 0.95})
    assert "more tasks failed: +4.0 points" in sentences(rollout)


def test_with_few_tasks_it_reports_nothing(place: Place) -> None:
    rollout = completed(place)
    assert "has had 0 tasks, too few to know its saving" in sentences(rollout)


def test_ungraded_tasks_leave_success_unknown(place: Place) -> None:
    rollout = completed(place)
    weeks(place, rollout, {"graded": 0})
    said = sentences(rollout)
    assert "its effect on success is unknown" in said and "Its saving is unknown" in said


def test_tasks_of_a_later_version_do_not_count(place: Place) -> None:
    rollout = completed(place)
    weeks(place, rollout, {})
    outcome(*place, clock.now() - DAY, version=3, tasks=50)
    assert "Not counted: 50 tasks that other versions have served since then" in sentences(rollout)


@pytest.mark.parametrize("state", [State.RUNNING, State.ROLLED_BACK, State.DRAFT])
def test_without_completion_nothing_is_realised(place: Place, state: State) -> None:
    rollout = completed(place)
    rollout.state = state
    assert realised(rollout, clock.now()) is None


# --- the report ---------------------------------------------------------------------------------------------


def test_it_contains_what_who_why_and_the_result(place: Place) -> None:
    rollout = completed(place)
    weeks(place, rollout, {})
    report = evidence_report(rollout)
    assert report["what"]["candidate"]["number"] == 2 and report["what"]["changes"]
    assert [each["event"] for each in report["who"]["history"]][-1] == "complete"
    assert report["why"] == "cheaper" and report["realised"]["after"]["tasks"] == 3_000
    assert report["audit"]["entries"] >= 3 and len(report["audit"]["last_hash"]) == 64
    assert [stage["mode"] for stage in report["stages"]] == ["percentage", "full"]
    assert report["stages"][1]["left_at"] == rollout.ended_at
    assert any("one person could start it alone" in sentence for sentence in report["caveats"])
    assert any("The candidate has not served any task" in sentence for sentence in report["caveats"])


def test_a_stage_ends_when_a_later_one_begins_although_others_are_skipped(place: Place) -> None:
    """Regression: a stage before skipped ones seemed to serve until the whole rollout ended."""
    newest = place[1].versions.first()
    assert newest is not None
    plan = [{"mode": "percentage", "share_pcm": pcm, "skippable": True} for pcm in (2_000, 4_000, 8_000)]
    rollout = actions.propose_rollout(
        *place, newest, plan=[*plan, {"mode": "full"}], reason="cheaper", actor=SYSTEM
    )
    rollout = actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    rollout = actions.advance_rollout(rollout, actor=SYSTEM, reason="on", to=2)
    first, second, third, _ = evidence_report(rollout)["stages"]
    assert first["left_at"] == third["entered_at"] is not None
    assert second["entered_at"] is second["left_at"] is third["left_at"] is None
    rollout = actions.roll_back_rollout(rollout, actor=SYSTEM, reason="failures")
    rollout = actions.confirm_rolled_back(rollout, actor=SYSTEM, reason="all", readback={})
    assert evidence_report(rollout)["stages"][2]["left_at"] == rollout.rolling_back_at


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_it_can_be_written_in_any_state(place: Place, moves: int) -> None:
    rollout = proposed(place[1], place[0], draft=not moves)
    if moves > 1:
        rollout = actions.start_rollout(rollout, actor=SYSTEM, reason="now")
    markdown = as_markdown(evidence_report(rollout))
    for heading in ("What changes", "Who", "Blast radius", "Shadow", "Stages", "Verdicts", "Caveats"):
        assert f"\n## {heading}" in markdown
    assert "None" not in markdown.replace("None.", "")


def test_a_changed_value_is_json_and_says_where_it_is_cut(place: Place) -> None:
    report = evidence_report(proposed(place[1], place[0]))
    rule = {"id": "easy", "when": "x" * 400}
    report["what"]["changes"] = [{"path": "rules", "kind": "added", "before": None, "after": [rule]}]
    (line,) = (each for each in as_markdown(report).splitlines() if each.startswith("| `rules`"))
    assert '"id": "easy"' in line and line.endswith("x… |")


def test_verdicts_are_in_the_words_and_units_of_the_console(place: Place) -> None:
    """Evidence of less harm than the margin does not count towards a rollback, and says so."""
    report = evidence_report(proposed(place[1], place[0]))
    common = {
        "n_candidate": 200,
        "n_baseline": 300,
        "log_e_safe": None,
        "log_e_harm": 18.06,
        "log_e_counted": None,
    }
    cost = {"name": "cost_per_success", "metric": "cost_per_success", "result": "pass", "estimate": 0.02,
            "low": 0.01, "high": 0.03, "margin": 0.1, "stage_margin": 0.5, "gates": True, "counted": False,
            **common}  # fmt: skip
    tail = cost | {"name": "latency_tail", "metric": "latency_tail", "counted": True, "log_e_counted": 1.5,
                   "estimate": None}  # fmt: skip
    report["judgement"] = {"verdicts": [cost, tail], "log_e": None}
    markdown = as_markdown(report).replace(THIN, " ")
    assert "| Cost per success | pass | +2.0 % | +1.0 % to +3.0 % | 10.0 % (50.0 % to advance) |" in markdown
    assert "18.06 (not counted)" in markdown
    assert "| 1.50 | none |" in markdown
    assert "latency tail" not in markdown
    assert "Overall evidence of harm: none that counts; the rollout rolls back at 3.00." in markdown
    assert "| proposed |" in markdown


def test_markup_in_texts_is_escaped(place: Place) -> None:
    newest = place[1].versions.first()
    assert newest is not None
    reason = "# Approved\n\n| x | [click](http://evil) <script>"
    rollout = actions.propose_rollout(
        *place, newest, plan=[{"mode": "full"}], reason=reason, actor=SYSTEM, draft=True
    )
    markdown = as_markdown(evidence_report(rollout))
    assert "\n# Approved" not in markdown and "<script>" not in markdown.replace("\\<script\\>", "")
    assert "](http" not in markdown


def test_a_failing_part_is_named_and_the_rest_is_present(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(rollout: Rollout) -> Any:
        raise OverflowError

    monkeypatch.setattr(gather, "radius_of", broken)
    report = evidence_report(completed(place))
    assert report["before"] is None and "Before could not be computed." in report["caveats"]
    assert "## Stages" in as_markdown(report)


@pytest.mark.parametrize(
    ("name", "part", "heading"),
    [
        ("radius_of", "before", "Blast radius, before anything moved"),
        ("_shadow", "shadow", "Shadow"),
        ("_stages", "stages", "Stages"),
        ("evaluations.judged", "judgement", "Verdicts"),
        ("review_rollout", "review", "Both arms in the same minutes"),
        ("realised", "realised", "After completion"),
        ("_audit", "audit", "Proof"),
    ],
)
def test_a_failing_part_is_not_taken_for_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, part: str, heading: str
) -> None:
    """Regression: "It has not started, so no arm has served anything.", where the review had failed."""

    def broken(*given: Any) -> Any:
        raise OverflowError

    rollout = completed(place)
    rollout.evidence = {"format": 1}
    monkeypatch.setattr(f"rollout_app.evidence_report.gather.{name}", broken)
    report = evidence_report(rollout)
    assert part in report["failed"] and f"{part.capitalize()} could not be computed." in report["caveats"]
    page = as_markdown(report)
    assert f"## {heading}\n\nCould not be computed.\n" in page
    told = " ".join(report["caveats"]) + page
    assert "has not started" not in told and (part != "judgement" or "Nothing has been judged" not in told)


def test_it_says_which_approvals_no_longer_count(db: None) -> None:
    """A change board must not take a withdrawn approval, or one of an earlier plan, for one of this rollout."""
    environment, workload = builders.environment(four_eyes=True), builders.workload()
    builders.served(environment, workload)
    builders.version(workload)
    rollout = approve(proposed(workload, environment))
    actions.amend_rollout(rollout.pk, actor=actor_of("maria"), reason="slower", plan=[{"mode": "full"}])
    rollout = approve(rollout.pk, by="carl")
    rollout = actions.withdraw_approval(rollout, actor=actor_of("carl"), reason="not sure")
    rollout = approve(rollout.pk, by="dora")
    report = evidence_report(rollout)
    assert [(each["by"], each["counts"], each["withdrawn_at"] is None) for each in report["who"]["approvals"]] == [
        ("eva", False, True), ("carl", False, False), ("dora", True, True),
    ]  # fmt: skip
    page = as_markdown(report)
    assert "| eva (before a change: it does not count) | the start |" in page
    assert "| carl (withdrawn) | the start |" in page and "| dora | the start |" in page


@pytest.mark.parametrize("starts_alone", [True, False])
def test_it_says_whether_one_person_could_start_it_alone(db: None, starts_alone: bool) -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    builders.version(workload)
    rollout = proposed(workload, environment)
    if not starts_alone:
        edit_environment(environment, four_eyes=True, actor=actor_of("maria"))
    report = evidence_report(Rollout.objects.get(pk=rollout.pk))
    assert any("one person could start it alone" in each for each in report["caveats"]) is starts_alone
    assert (report["who"]["approvals_needed"] == 0) is starts_alone


def test_it_contains_approvals_and_their_bindings(db: None) -> None:
    environment, workload = builders.environment("production", four_eyes=True), builders.workload("support")
    builders.served(environment, workload)
    builders.version(workload)
    rollout = approve(proposed(workload, environment))
    report = evidence_report(rollout)
    assert [each["by"] for each in report["who"]["approvals"]] == ["eva"]
    assert report["who"]["approvals_needed"] >= 1 and "| eva | the start |" in as_markdown(report)


def test_the_api_returns_both_formats(place: Place) -> None:
    rollout = completed(place)
    call = Caller("viewer")
    assert call("GET", f"rollouts/{rollout.pk}/report").json()["format"] == 1
    answer = call("GET", f"rollouts/{rollout.pk}/report.md")
    assert answer.headers["Content-Type"].startswith("text/markdown")
    assert answer.content.decode().startswith("# support in production: version 1 → 2")
    other = Caller("viewer", environment="staging")
    assert other("GET", f"rollouts/{rollout.pk}/report").status_code == 404


def test_the_command_writes_both_formats(place: Place, capsys: Any, tmp_path: Any) -> None:
    rollout = completed(place)
    call_command("report", str(rollout.pk))
    assert capsys.readouterr().out.startswith("# support in production")
    file = tmp_path / "report.json"
    call_command("report", str(rollout.pk), "--json", "--to", str(file))
    assert json.loads(file.read_text())["what"]["rollout"] == str(rollout.pk)
    for wrong in ("x", "01930000-0000-7000-8000-000000000000"):
        with pytest.raises(CommandError):
            call_command("report", wrong)
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("report", str(rollout.pk), "--to", str(tmp_path / "no" / "file"))


def test_the_command_shows_control_characters_on_a_terminal(place: Place, capsys: Any) -> None:
    rollout = completed(place)
    Rollout.objects.filter(pk=rollout.pk).update(proposer_label="anna\x1b[2J\x9b\u202e")
    call_command("report", str(rollout.pk))
    markdown = capsys.readouterr().out
    call_command("report", str(rollout.pk), "--json")
    document = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e"} & set(markdown + document)
    assert "anna" in markdown
    assert json.loads(document)["who"]["proposer"] == "anna\x1b[2J\x9b\u202e"


def test_the_pages_of_a_completed_rollout_show_its_effect(place: Place) -> None:
    rollout = completed(place)
    weeks(place, rollout, {})
    client = logged_in("tom", "viewer")
    for address in (f"/console/rollouts/{rollout.pk}/", f"/console/rollouts/{rollout.pk}/review/"):
        page = text(client.get(address)).replace(THIN, " ")
        assert "After completion" in page and "Cost per success after completion: −40.0 %" in page
    assert f"/api/v1/rollouts/{rollout.pk}/report.md" in page


def test_a_first_hour_has_a_saving_but_none_per_day(place: Place) -> None:
    """Regression: the report said "$285.38 saved a day, over 0.0 days"."""
    rollout = completed(place, days=1 / 24)
    weeks(place, rollout)
    assert rollout.ended_at
    outcome(*place, minute(rollout.ended_at + timedelta(minutes=5)), cost=600_000, tasks=500, version=2)
    rollups.refresh()
    found = realised(rollout, clock.now())
    assert found is not None and found.saved is not None and found.saved_a_day is None
    assert "saved" in saved_since(found) and "0.0 days" not in " ".join(realised_sentences(found, 0.9))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change(3e9, 2e9, 4e9), "$3.00 saved (between $2.00 and $4.00)"),
        (Change(-3e9, -4e9, -2e9), "$3.00 more (between $2.00 and $4.00)"),
        (Change(1e9, -1e9, 3e9), "$1.00 saved (between −$1.00 and $3.00)"),
    ],
)
def test_more_cost_has_no_minus_sign(change: Change, told: str) -> None:
    assert saved(change) == told


def test_grades_before_their_tasks_are_reported_are_not_a_negative_number(place: Place) -> None:
    rollout = completed(place)
    at = {"environment": place[0], "workload": place[1], "rollout": str(rollout.pk), "stage": 0}
    counted = {"tasks": 9, "successes": 10, "ungraded": -1}
    ArmTotals.objects.create(**at, arm="candidate", version=2, minute=clock.now(), **counted)
    arm = evidence_report(rollout)["stages"][0]["arms"]["candidate"]
    assert (arm["tasks"], arm["successes"], arm["ungraded"]) == (9, 10, 0)
