"""Anyone can recompute a verdict with the formulas of the manual and the answers of the API, without the engine.

`docs/recompute_verdicts.py` does so and shares no code with the engine. A stratum's log likelihood ratio is computed
here from the outcomes' minutes, with exact binomials.
"""

import json
import math
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from controlplane.access.models import Role
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import ArmTotals, Rollout, VerdictRecord
from tests.support import places
from tests.support.places import BEN
from tests.support.recompute import SCRIPT, recompute
from tests.support.traffic import Traffic

pytestmark = pytest.mark.django_db
PLAN: list[dict[str, Any]] = [
    {"mode": "percentage", "share_pcm": 20_000},
    {"mode": "percentage", "share_pcm": 40_000},
    {"mode": "percentage", "share_pcm": 60_000},
    {"mode": "full"},
]
BOUNDS = {"failure": 0.15, "cost_per_success": 1_300_000, "quality": 0.8, "error": 0.02}


def lively(rollout: Rollout, seed: int) -> None:
    """Fill in everything that a guardrail reads: rare events, scores, expensive tasks, units that resemble each
    other.
    """
    chance = random.Random(seed)
    for row in ArmTotals.objects.filter(workload=rollout.workload):
        tasks, worse = row.tasks, 1.5 if row.arm == "candidate" else 1.0
        row.errors, row.retries = (
            sum(chance.random() < p * worse for _ in range(tasks)) for p in (0.01, 0.03)
        )
        row.escalations, row.fallbacks = (
            sum(chance.random() < p for _ in range(tasks)) for p in (0.1, 0.005)
        )
        scores = [chance.betavariate(9, 1) for _ in range(tasks)]
        row.quality_n, row.quality_sum = tasks, sum(scores)
        row.quality_sum_sq = sum(score * score for score in scores)
        row.cost_sum_sq, row.capped_sum_sq = 3.0 * row.cost_sum_sq, 2.0 * row.capped_sum_sq
        row.capped_sum, row.capped_on_success = row.capped_sum * 9 // 10, row.capped_on_success * 9 // 10
        row.groups = groups(chance, tasks, row.failures)
        row.save()


def groups(chance: random.Random, tasks: int, failures: int) -> dict[str, list[int]]:
    """Return [tasks, failures] by hash group; the units of every fourth group fail more than the others'."""
    found = {str(group): [tasks // 32 + (group < tasks % 32), 0] for group in range(32)}
    while failures:
        group = str(chance.choices(range(32), [3, 1, 1, 1] * 8)[0])
        if found[group][1] < found[group][0]:
            found[group][1] += 1
            failures -= 1
    return found


def under_way(**traffic: Any) -> Rollout:
    """Return a rollout in its third stage, judged in each, with sticky units and custom guardrails."""

    def prepare(workload: Workload) -> None:
        Workload.objects.filter(pk=workload.pk).update(unit=Workload.Unit.USER)
        for metric, bound in BOUNDS.items():
            actions.set_guardrail(workload, metric, actor=SYSTEM, bound=bound)
        actions.set_guardrail(workload, "quality", actor=SYSTEM)

    rollout = places.approved(plan=PLAN, prepare=prepare)
    rollout = Rollout.objects.get(pk=rollout.pk)
    minutes = Traffic(rollout, start=clock.now() - timedelta(hours=9)).before()
    lively(rollout, 1)
    rollout = actions.start_rollout(rollout, actor=BEN, reason="now")
    places.router(rollout)
    minutes.minutes(3)
    rollout = actions.advance_rollout(rollout, actor=BEN, reason="on")
    minutes.minutes(3)
    rollout = actions.advance_rollout(rollout, actor=BEN, reason="on")
    minutes.minutes(12, **traffic)
    lively(rollout, 2)
    return rollout


def answered(rollout: Rollout, path: str) -> Any:
    """Return the API's answer as sent over the wire."""
    from tests.support.api_client import person, send

    client: Client = person(f"reader-{path.strip('/?=0')}", Role.VIEWER)
    answer = send(client, "get", f"rollouts/{rollout.pk}{path}")
    assert answer.status_code == 200, answer.content
    return json.loads(answer.content)


@pytest.mark.parametrize("candidate", [0.92, 0.7, 0.0])
def test_it_recomputes_every_guardrail(candidate: float) -> None:
    rollout = under_way(candidate=candidate)
    word = reconcile(rollout.pk)
    script, told = recompute(), answered(rollout, "")
    rows = answered(rollout, "/verdicts")["items"]
    assert {row["guardrail"] for row in rows} >= {
        "failure",
        "latency_tail",
        "failure_bound",
        "quality_bound",
        "quality",
    }
    assert max(row["data"]["deff"] for row in rows) > 1.2
    for row in rows:
        assert script.differences(told, row) == {}, row["guardrail"]
    evidence = script.ln_sum(
        (row["data"]["weight"], row["data"]["log_e_counted"])
        for row in rows
        if row["data"]["log_e_counted"] is not None
    )
    assert (word == "roll_back") is (evidence is not None and evidence >= math.log(20))


@pytest.mark.parametrize(("candidate", "word"), [(0.92, "hold"), (0.5, "roll_back")])
def test_an_absolute_bound_rolls_back_in_the_full_stage_and_can_be_recomputed(
    candidate: float, word: str
) -> None:
    """Regression: "at most 15 % failures" was never judged in the full stage, and the rollout completed."""

    def prepare(workload: Workload) -> None:
        actions.set_guardrail(workload, "failure", actor=SYSTEM, bound=0.15)

    plan = [{"mode": "percentage", "share_pcm": 50_000}, {"mode": "full", "min_minutes": 600}]
    rollout = places.approved(plan=plan, prepare=prepare)
    minutes = Traffic(rollout, start=clock.now() - timedelta(hours=9)).before()
    rollout = actions.start_rollout(rollout, actor=BEN, reason="now")
    places.router(rollout)
    minutes.minutes(10)
    rollout = actions.advance_rollout(rollout, actor=BEN, reason="on")
    places.router(rollout)
    minutes.minutes(10, candidate=candidate)
    assert reconcile(rollout.pk) == word
    script, told = recompute(), answered(rollout, "")
    rows = [row for row in answered(rollout, "/verdicts")["items"] if row["guardrail"] == "failure_bound"]
    assert rows and rows[-1]["data"]["n_candidate"] > 2_000
    for row in rows:
        assert script.differences(told, row) == {}


def test_it_detects_a_changed_row() -> None:
    rollout = under_way(candidate=0.7)
    reconcile(rollout.pk)
    rows = answered(rollout, "/verdicts")["items"]
    [row] = [row for row in rows if row["guardrail"] == "failure"]
    row["data"]["sums"][0][1]["candidate"]["x"] += 40
    row["data"]["sums"][0][1]["mh"][0] += 40
    assert "estimate" in recompute().differences(answered(rollout, ""), row)


def test_the_audit_entry_of_a_rollback_is_enough_to_recompute_it() -> None:
    """Uses only the audit entry: verdicts, their reference, and the plan from the start's entry."""
    rollout = under_way(candidate=0.5)
    assert reconcile(rollout.pk) == "roll_back"
    evidence = json.loads(bytes(Entry.objects.get(action="rollout.roll_back", outcome="done").body))[
        "evidence"
    ]
    proposal = json.loads(bytes(Entry.objects.get(action="rollout.propose", outcome="done").body))["evidence"]
    kept = {"reference": evidence["reference"], "stages": proposal["stages"]}
    script = recompute()
    for data in evidence["judgement"]["verdicts"]:
        row = {"stage": 2, "verdict": data["result"], "data": data}
        assert script.differences(kept, row) == {}, data["name"]


@pytest.mark.parametrize("guardrail", ["failure", "escalation"])
def test_its_sums_match_the_minutes(guardrail: str) -> None:
    """Uses strata of at least 50 tasks and exact hypergeometric likelihoods."""
    rollout = under_way(candidate=0.9)
    reconcile(rollout.pk)
    row = VerdictRecord.objects.filter(rollout=rollout, guardrail=guardrail).latest("evaluation")
    column = {"failure": "failures", "escalation": "escalations"}[guardrail]
    for part, sums in row.data["sums"]:
        if not (part == "all" or part.startswith("since ")):
            continue
        first = 0 if part == "all" else int(part.removeprefix("since "))
        likelihood = dict.fromkeys((psi for psi, _ in sums["llr"]), 0.0)
        for stage in range(first, 3):
            for counts in judged_minutes(rollout, stage, row, column):
                for psi in likelihood:
                    likelihood[psi] += log_likelihood_ratio(*counts, psi)
        for psi, llr in sums["llr"]:
            assert llr == pytest.approx(likelihood[psi], abs=1e-6), (part, psi)


def judged_minutes(
    rollout: Rollout, stage: int, row: VerdictRecord, column: str
) -> list[tuple[int, int, int, int]]:
    """Return (tasks, bad) of candidate and baseline; each minute has more than 50 tasks and is a window."""
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk), stage=stage)
    minutes = sorted(set(rows.values_list("minute", flat=True)))
    if stage == 2:
        minutes.pop()  # the newest minute is still open
    [judged] = [part for part in row.data["strata"] if part[0] == stage]
    assert judged[2:] == [int(minutes[0].timestamp() // 60), int(minutes[-1].timestamp() // 60)]
    assert judged[1] == len(minutes)
    found = []
    for minute in minutes:
        arms = (
            rows.filter(minute=minute, arm=arm).values_list("tasks", column).get()
            for arm in ("candidate", "baseline")
        )
        (nt, xt), (nc, xc) = arms
        found.append((nt, xt, nc, xc))
    return found


def log_likelihood_ratio(nt: int, xt: int, nc: int, xc: int, psi: float) -> float:
    bad = xt + xc
    ways = {j: math.comb(nt, j) * math.comb(nc, bad - j) for j in range(max(0, bad - nc), min(nt, bad) + 1)}
    total = sum(ways.values())
    return xt * math.log(psi) - math.log(math.fsum(way / total * psi**j for j, way in ways.items()))


def test_the_script_runs_alone(tmp_path: Path) -> None:
    rollout = under_way(candidate=0.7)
    reconcile(rollout.pk)
    one, two = tmp_path / "rollout.json", tmp_path / "verdicts.json"
    one.write_text(json.dumps(answered(rollout, "")))
    two.write_text(json.dumps(answered(rollout, "/verdicts")))
    command = [sys.executable, "-I", str(SCRIPT), str(one), str(two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failure: fail comes out again" in done.stdout
