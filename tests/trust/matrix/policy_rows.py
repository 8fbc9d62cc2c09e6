"""Environments, workloads, versions, the catalogue, and what is served."""

# One row per line.

from typing import Any

from policies_app.models import Workload
from tests.support import builders
from tests.trust.matrix.needs import ANY, HERE, WHY, Asked, Request, every, for_agents, here, owner, row
from tests.trust.matrix.world import World

MODEL = {"name": "a/b", "input_nusd_per_mtok": 1, "output_nusd_per_mtok": 1, "context_window": 9} | WHY
WORKLOAD = {"name": "w-new", "task_type": "t", "quality_bar": "0.9", "owner": "support"} | WHY
PROD = "environments/production"


def _served(name: str, move: str, **body: Any) -> Asked:
    return lambda w: (f"{PROD}/assignments/{name}/{move}", WHY | body)


def _document(world: World) -> dict[str, Any]:
    return {"policy": world.versions["plain"].document | {"rules": []}, "note": "because"}


def _new_to_serve(world: World) -> Request:
    """Return a workload for which no serving was requested."""
    workload = Workload.objects.filter(name="w-new").first() or builders.workload("w-new", owner=world.team)
    number = (workload.versions.first() or builders.version(workload)).number
    return f"{PROD}/assignments/w-new/serve", WHY | {"version": number}


def _served_at_once(world: World) -> Request:
    path, body = _new_to_serve(world)
    return path, body | {"break_glass": True}


AT = "environments/<slug:environment>"
SERVED = f"{AT}/assignments/<slug:workload>"
ONE = "workloads/<slug:workload>"
_SMALL, _LARGE = "openai/gpt-4o-mini:success", "anthropic/claude-sonnet-4-5:success"
TRIED: dict[str, Any] = {"versions": [1], "file": {"name": "t.csv", "text": f"{_SMALL},{_LARGE}\n1,1\n0,1\n"}}
ROWS = [
    row("GET", "environments", ANY, "environments"),
    row("POST", "environments", every("admin"), lambda w: ("environments", WHY | {"name": "new"}), 201),
    row("GET", AT, HERE, PROD),
    row("PATCH", AT, here("admin"), lambda w: (PROD, WHY | {"description": "d"})),
    row("GET", f"{AT}/assignments", HERE, f"{PROD}/assignments"),
    row("GET", SERVED, HERE, f"{PROD}/assignments/w-plain"),
    row("GET", f"{SERVED}/blast-radius", HERE, f"{PROD}/assignments/w-plain/blast-radius?candidate=1"),
    row("POST", f"{SERVED}/serve", here("operator", "w-new"), _new_to_serve, 202),
    row("POST", f"{SERVED}/serve", here("operator", "w-new"), _served_at_once, 201),
    row("POST", f"{SERVED}/pin", here("operator", "w-plain"), _served("w-plain", "pin", model="large")),
    row("POST", f"{SERVED}/unpin", here("operator", "w-pinned"), _served("w-pinned", "unpin")),
    row("POST", f"{SERVED}/stop", here("operator", "w-plain"), _served("w-plain", "stop"), 204),
    row(
        "POST",
        f"{AT}/four-eyes-off",
        here("admin"),
        lambda w: (f"{PROD}/four-eyes-off", WHY | {"break_glass": True}),
    ),
    row("GET", "workloads", ANY, "workloads"),
    row("POST", "workloads", owner("w-new", "any"), lambda w: ("workloads", WORKLOAD), 201),
    row("GET", ONE, ANY, "workloads/w-plain"),
    row("PATCH", ONE, owner("w-plain"), lambda w: ("workloads/w-plain", WHY | {"outcome_lag_s": 7})),
    row("GET", f"{ONE}/versions", ANY, "workloads/w-plain/versions"),
    row(
        "POST",
        f"{ONE}/versions",
        for_agents(owner("w-plain", "any")),
        lambda w: ("workloads/w-plain/versions", _document(w)),
        201,
    ),
    row(
        "POST",
        f"{ONE}/versions/validate",
        ANY,
        lambda w: ("workloads/w-plain/versions/validate", _document(w)),
        writes=False,
    ),
    row("POST", f"{ONE}/backtest", ANY, lambda w: ("workloads/w-plain/backtest", TRIED), writes=False),
    row(
        "POST",
        f"{ONE}/decide",
        ANY,
        lambda w: ("workloads/w-plain/decide", {"versions": [1], "request": {}}),
        writes=False,
    ),
    row("GET", f"{ONE}/versions/<int:number>", ANY, "workloads/w-plain/versions/1"),
    row("GET", f"{ONE}/versions/<int:number>/diff/<int:other>", ANY, "workloads/w-draft/versions/1/diff/2"),
    row("GET", "models", ANY, "models"),
    row("POST", "models", every("admin"), lambda w: ("models", MODEL), 201),
    row("GET", "models/<path:model>", ANY, "models/openai/gpt-4o-mini"),
    row(
        "PATCH",
        "models/<path:model>",
        every("admin"),
        lambda w: ("models/openai/gpt-4o-mini", WHY | {"context_window": 9}),
    ),
]
