"""Plans, rollouts, guardrails and the review."""

# One row per line.

from typing import Any

from rollout_app.actions import binding
from tests.trust.matrix.credentials import PLACE
from tests.trust.matrix.needs import (
    ANY,
    HERE,
    WHY,
    Asked,
    Needs,
    Request,
    Row,
    every,
    for_agents,
    here,
    owner,
    row,
)
from tests.trust.matrix.world import FULL, World

ROLLOUT = "rollouts/<uuid:rollout>"


def _of(name: str) -> Asked:
    return lambda w: (f"rollouts/{w.rollouts['running'].pk}/{name}".rstrip("/"), None)


def move(name: str, state: str, role: str = "operator", *, agents: bool = False) -> Row:
    needs = owner(f"w-{state}") if role == "editor" else here(role, f"w-{state}", agents=agents)
    return row("POST", f"{ROLLOUT}/{name}", needs, lambda w: (f"rollouts/{w.rollouts[state].pk}/{name}", WHY))


def _approved(world: World) -> Request:
    rollout = world.rollouts["awaiting"]
    return f"rollouts/{rollout.pk}/approve", WHY | {"binding": binding(rollout)}


def _stage_approved(world: World) -> Request:
    rollout = world.rollouts["asking"]
    return f"rollouts/{rollout.pk}/stages/1/approve", WHY | {"binding": binding(rollout, 1)}


def _proposed(world: World) -> Request:
    number = world.rollouts["completed"].baseline.number
    body: dict[str, Any] = {
        "environment": PLACE,
        "workload": "w-completed",
        "candidate": number,
        "stages": [FULL],
    }
    return "rollouts", WHY | body


REVIEW = "environments/<slug:environment>/review"
GUARDRAILS = "workloads/<slug:workload>/guardrails"
ROWS = [
    row("GET", "plans", ANY, "plans"),
    row("POST", "plans", Needs("editor"), lambda w: ("plans", WHY | {"name": "new", "stages": [FULL]}), 201),
    row("GET", "plans/<slug:plan>", ANY, "plans/ours"),
    row("PATCH", "plans/<slug:plan>", every("editor"), lambda w: ("plans/ours", WHY | {"description": "d"})),
    row("DELETE", "plans/<slug:plan>", every("editor"), lambda w: ("plans/ours?reason=because", None)),
    row("GET", "rollouts", ANY, "rollouts"),
    row("POST", "rollouts", for_agents(owner("w-completed")), _proposed, 201),
    row("GET", ROLLOUT, HERE, _of("")),
    row("PATCH", ROLLOUT, owner("w-awaiting"), lambda w: (f"rollouts/{w.rollouts['awaiting'].pk}", WHY)),
    row("POST", f"{ROLLOUT}/approve", here("approver", "w-awaiting", person=True), _approved),
    row(
        "POST",
        f"{ROLLOUT}/stages/<int:stage>/approve",
        here("approver", "w-asking", person=True),
        _stage_approved,
    ),
    move("submit", "draft", "editor"),
    move("cancel", "awaiting", "editor"),
    move("reject", "awaiting", "approver"),
    row(
        "POST",
        f"{ROLLOUT}/withdraw-approval",
        here("approver", "w-scheduled", nobody=True),
        lambda w: (f"rollouts/{w.rollouts['scheduled'].pk}/withdraw-approval", WHY),
    ),
    move("start", "scheduled"),
    move("break-glass", "awaiting"),
    move("advance", "running"),
    move("complete", "last"),
    move("pause", "running", agents=True),
    move("resume", "paused"),
    move("roll-back", "running", agents=True),
    move("abort", "running"),
    move("revert", "completed"),
    row("GET", f"{ROLLOUT}/transitions", HERE, _of("transitions")),
    row("GET", f"{ROLLOUT}/approvals", HERE, _of("approvals")),
    row("GET", f"{ROLLOUT}/judgement", HERE, _of("judgement")),
    row("GET", f"{ROLLOUT}/verdicts", HERE, _of("verdicts")),
    row("GET", f"{ROLLOUT}/shadow", HERE, _of("shadow")),
    row("GET", f"{ROLLOUT}/blast-radius", HERE, _of("blast-radius")),
    row("GET", f"{ROLLOUT}/report", HERE, _of("report")),
    row("GET", f"{ROLLOUT}/report.md", HERE, _of("report.md")),
    row("POST", f"{ROLLOUT}/dry-run", HERE, lambda w: (_of("dry-run")(w)[0], {}), writes=False),  # type: ignore[operator]
    row("GET", GUARDRAILS, ANY, "workloads/w-plain/guardrails"),
    row("GET", f"{GUARDRAILS}/<slug:metric>", ANY, "workloads/w-plain/guardrails/failure"),
    row(
        "PUT",
        f"{GUARDRAILS}/<slug:metric>",
        owner("w-plain"),
        lambda w: ("workloads/w-plain/guardrails/error", WHY | {"enabled": False}),
    ),
    row(
        "DELETE",
        f"{GUARDRAILS}/<slug:metric>",
        owner("w-plain"),
        lambda w: ("workloads/w-plain/guardrails/failure?reason=because", None),
    ),
    row("GET", REVIEW, HERE, "environments/production/review"),
    row("GET", f"{REVIEW}.csv", HERE, "environments/production/review.csv"),
    row("GET", "environments/<slug:environment>/spend", HERE, "environments/production/spend"),
    row("GET", "environments/<slug:environment>/spend.csv", HERE, "environments/production/spend.csv"),
    row("GET", f"{REVIEW}/<slug:workload>", HERE, "environments/production/review/w-plain"),
    row("GET", f"{REVIEW}/<slug:workload>.csv", HERE, "environments/production/review/w-plain.csv"),
    row("GET", f"{ROLLOUT}/blast-radius", HERE, _of("blast-radius")),
    row(
        "GET",
        "environments/<slug:environment>/assignments/<slug:workload>/blast-radius",
        HERE,
        "environments/production/assignments/w-running/blast-radius?candidate=2",
    ),
    row("GET", f"{ROLLOUT}/review", HERE, _of("review")),
    row("GET", f"{ROLLOUT}/review.csv", HERE, _of("review.csv")),
]
