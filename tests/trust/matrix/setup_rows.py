"""Setup pages: environments, workloads, models, keys, plans, guardrails."""

# One row per line.

from typing import Any

from tests.trust.matrix.credentials import PLACE
from tests.trust.matrix.needs import ANY, HERE, WHY, Asked, Needs, every, here, owner, page
from tests.trust.matrix.world import World

ONE, PLAIN, MARGIN = "workloads/<slug:name>/", "workloads/w-plain/", "workloads/w-plain/guardrails/failure/"
WORKLOAD = {
    "task_type": "summary",
    "difficulty": "mixed",
    "quality_bar": "0.9",
    "success_signal": "accuracy_check",
    "outcome_lag_s": "7",
    "unit": "request",
    "retryable": "on",
    "escalatable": "on",
} | WHY
PLAN = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 0, "form-0-mode": "full"} | WHY
MODEL = {"input_nusd_per_mtok": "1", "output_nusd_per_mtok": "2", "context_window": 9, "enabled": "on"} | WHY
FREEZE = {"frozen_until": "2099-01-01T00:00", "freeze_reason": "because"}
THRESHOLD = {"enabled": "on", "margin": "0.5", "weight": "0.3"} | WHY


def _workload(path: str, **more: Any) -> Asked:
    return lambda w: (path, WORKLOAD | {"owner": w.team.pk} | more)


def _key(move: str, **form: Any) -> Asked:
    return lambda w: (f"keys/{w.router_key.key_id}/{move}/", WHY | form)


def _figures(w: World) -> tuple[str, None]:
    return f"rollouts/{w.rollouts['running'].pk}/figures/", None


ROWS = [
    page("GET", "spend/", ANY, "spend/"),
    page("GET", "new-workload/", Needs("editor"), "new-workload/"),
    page("POST", "new-workload/", owner("w-new", "any"), _workload("new-workload/", name="w-new")),
    page("GET", f"{ONE}edit/", owner("w-plain", "any"), f"{PLAIN}edit/"),
    page("POST", f"{ONE}edit/", owner("w-plain"), _workload(f"{PLAIN}edit/", expected=1)),
    page("GET", f"{ONE}<slug:environment>/stop/", here("operator"), f"{PLAIN}production/stop/"),
    page(
        "POST",
        f"{ONE}<slug:environment>/stop/",
        here("operator"),
        lambda w: (f"{PLAIN}production/stop/", WHY),
    ),
    page("GET", "environments/", ANY, "environments/"),
    page("GET", "new-environment/", every("admin"), "new-environment/"),
    page(
        "POST",
        "new-environment/",
        every("admin"),
        lambda w: ("new-environment/", WHY | {"name": "new", "poll_interval_ms": 1000}),
    ),
    page("GET", "environments/<slug:name>/edit/", here("admin"), "environments/production/edit/"),
    page(
        "POST",
        "environments/<slug:name>/edit/",
        here("admin"),
        lambda w: ("environments/production/edit/", WHY | {"poll_interval_ms": 1000, "expected": 1}),
    ),
    page("GET", "environments/<slug:name>/freeze/", here("admin"), "environments/production/freeze/"),
    page(
        "POST",
        "environments/<slug:name>/freeze/",
        here("admin"),
        lambda w: ("environments/production/freeze/", FREEZE),
    ),
    page("GET", "environments/<slug:name>/thaw/", here("admin"), "environments/production/thaw/"),
    page(
        "POST",
        "environments/<slug:name>/thaw/",
        here("admin"),
        lambda w: ("environments/production/thaw/", WHY),
        writes=False,  # it is not frozen, so nothing changes
    ),
    page("GET", "new-model/", every("admin"), "new-model/"),
    page("POST", "new-model/", every("admin"), lambda w: ("new-model/", MODEL | {"name": "a/b"})),
    page("GET", "models/<path:name>/edit/", every("admin"), "models/openai/gpt-4o-mini/edit/"),
    page(
        "POST",
        "models/<path:name>/edit/",
        every("admin"),
        lambda w: ("models/openai/gpt-4o-mini/edit/", MODEL | {"expected": 1}),
    ),
    page("GET", "keys/", ANY, "keys/"),
    page("GET", "keys/new/", ANY, "keys/new/"),
    page(
        "POST",
        "keys/new/",
        here("viewer"),
        lambda w: (
            "keys/new/",
            WHY | {"kind": "admin", "environment": PLACE, "label": "mine", "scopes": "viewer"},
        ),
        201,
    ),
    page(
        "POST",
        "keys/new/",
        here("admin"),
        lambda w: ("keys/new/", WHY | {"kind": "router", "environment": PLACE, "label": "r"}),
        201,
    ),
    page("GET", "keys/<slug:key_id>/rotate/", here("admin"), _key("rotate")),
    page("POST", "keys/<slug:key_id>/rotate/", here("admin"), _key("rotate", overlap_hours=24), 201),
    page("GET", "keys/<slug:key_id>/revoke/", here("admin"), _key("revoke")),
    page("POST", "keys/<slug:key_id>/revoke/", here("admin"), _key("revoke")),
    page("GET", "plans/", ANY, "plans/"),
    page("GET", "new-plan/", Needs("editor"), "new-plan/"),
    page("POST", "new-plan/", Needs("editor"), lambda w: ("new-plan/", PLAN | {"name": "new"})),
    page("POST", "draw-plan/", ANY, lambda w: ("draw-plan/", PLAN), 200, writes=False),
    page("GET", "plans/<slug:name>/edit/", every("editor"), "plans/ours/edit/"),
    page(
        "POST",
        "plans/<slug:name>/edit/",
        every("editor"),
        lambda w: ("plans/ours/edit/", PLAN | {"expected": 1, "description": "other"}),
    ),
    page("GET", "plans/<slug:name>/remove/", every("editor"), "plans/ours/remove/"),
    page("POST", "plans/<slug:name>/remove/", every("editor"), lambda w: ("plans/ours/remove/", WHY)),
    page("GET", f"{ONE}guardrails/", ANY, f"{PLAIN}guardrails/"),
    page("GET", f"{ONE}guardrails/<slug:metric>/", owner("w-plain", "any"), MARGIN),
    page("POST", f"{ONE}guardrails/<slug:metric>/", owner("w-plain"), lambda w: (MARGIN, THRESHOLD)),
    page(
        "POST",
        f"{ONE}guardrails/<slug:metric>/rehearse/",
        ANY,
        lambda w: (f"{MARGIN}rehearse/", THRESHOLD),
        200,
        writes=False,
    ),
    page("GET", f"{ONE}guardrails/<slug:metric>/reset/", owner("w-plain", "any"), f"{MARGIN}reset/"),
    page(
        "POST", f"{ONE}guardrails/<slug:metric>/reset/", owner("w-plain"), lambda w: (f"{MARGIN}reset/", WHY)
    ),
    page("GET", "rollouts/<uuid:pk>/figures/", HERE, _figures),
]
