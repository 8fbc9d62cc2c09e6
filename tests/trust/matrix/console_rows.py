"""Pages, for people with a session. Keys open none."""

# One row per line.

from collections.abc import Callable
from typing import Any

from django.core import signing
from django.core.files.uploadedfile import SimpleUploadedFile

from controlplane.access.change_requests import binding as change_binding
from policies_app.catalogue import imports, price_files
from policies_app.documents.yaml_text import as_yaml
from rollout_app.actions import binding
from rollout_app.console.rollout_actions import ROLLOUT_ACTIONS
from rollout_app.models import Plan
from tests.trust.matrix.needs import (
    ANY,
    EVERY,
    HERE,
    SIGNED_IN,
    WHY,
    Asked,
    Needs,
    Request,
    Row,
    every,
    here,
    owner,
    page,
)
from tests.trust.matrix.policy_rows import TRIED
from tests.trust.matrix.world import World

BREAK_GLASS = WHY | {"break_glass": "on"}


def _rollout(path: str = "") -> Asked:
    return lambda w: (f"rollouts/{w.rollouts['running'].pk}/{path}", None)


def _act(name: str, state: str, bound: Callable[[World], str] | None = None) -> Row:
    role, about = ROLLOUT_ACTIONS[name].role.value, f"w-{state}"

    def asked(world: World) -> Request:
        rollout = world.rollouts[state]
        form: dict[str, Any] = WHY | {"seen": rollout.version}
        return f"rollouts/{rollout.pk}/{name}/", form | ({"expected_binding": bound(world)} if bound else {})

    needs = owner(about) if role == "editor" else here(role, about)
    return page("POST", "rollouts/<uuid:pk>/<slug:name>/", needs, asked)


def _propose(world: World) -> Request:
    rollout = world.rollouts["completed"]
    form = {"environment": world.production.name, "candidate": rollout.baseline.number}
    return "rollouts/propose/?workload=w-completed", WHY | form | {"plan": Plan.objects.get(name="ours").pk}


def _change(which: str, move: str = "") -> Asked:
    def asked(world: World) -> Request:
        request = world.changes[which]
        form = WHY | ({"expected_binding": change_binding(request)} if move == "approve" else {})
        return f"changes/{request.pk}/" + (f"{move}/" if move else ""), form

    return asked


def _text(world: World) -> dict[str, str]:
    return {"text": as_yaml(world.versions["plain"].document | {"rules": []}), "note": "because"}


# Every action on a rollout's page, with a rollout in a state that allows it.
ACTS = {
    "submit": "draft",
    "approve": "awaiting",
    "reject": "awaiting",
    "cancel": "awaiting",
    "start": "scheduled",
    "break-glass": "awaiting",
    "approve-stage": "asking",
    "advance": "running",
    "complete": "last",
    "pause": "running",
    "resume": "paused",
    "roll-back": "running",
    "revert": "completed",
    "abort": "running",
    "amend": "awaiting",
}
BOUND: dict[str, Callable[[World], str]] = {
    "approve": lambda w: binding(w.rollouts["awaiting"]),
    "approve-stage": lambda w: binding(w.rollouts["asking"], 1),
}
PRICES = b"name,input_usd_per_mtok,output_usd_per_mtok,context_window\na/b,1,2,1000\n"


def _imported(world: World) -> Request:
    """Return the preview of an import of one model, and a reason."""
    listed = price_files.read_bytes("p.csv", PRICES)
    rows = [imports.as_row(change) for change in imports.plan(listed, add=["*"])]
    shown = signing.dumps([listed.source, rows], salt="pointsman.catalogue.import", compress=True)
    return "models/import/write/", WHY | {"shown": shown}


def _person(who: str, path: str = "", **form: Any) -> Asked:
    return lambda w: (f"people/{w.people[who].pk}/{path}", WHY | form)


def _revoked(world: World) -> Request:
    return f"people/invitations/{world.invitation.pk}/revoke/", WHY


def _withdrawn(world: World) -> Request:
    return f"people/roles/{world.membership.pk}/withdraw/", WHY


INVITED = {"invited": "Olga", "roles_production": ["viewer"], "days": 3}
# Every change on a person's page, for a person whom it changes.
TO_PEOPLE = {
    "deactivate": "plain",
    "activate": "closed",
    "log-out": "plain",
    "remove-second-factor": "second_factor",
    "withdraw-superuser": "root",
}
ADMIN = Needs("admin")
ONE, PLAIN = "workloads/<slug:name>/", "workloads/w-plain/"
SERVE = "workloads/w-unserved/production/serve/"
ROWS = [
    page("GET", "", SIGNED_IN, ""),
    page("GET", "workloads/", ANY, "workloads/"),
    page("GET", ONE, ANY, PLAIN),
    page("GET", f"{ONE}versions/new/", owner("w-plain", "any"), f"{PLAIN}versions/new/"),
    page(
        "POST", f"{ONE}versions/new/", owner("w-plain", "any"), lambda w: (f"{PLAIN}versions/new/", _text(w))
    ),
    page(
        "POST",
        f"{ONE}versions/check/",
        owner("w-plain", "any"),
        lambda w: (f"{PLAIN}versions/check/", _text(w)),
        200,
        writes=False,
    ),
    page("GET", f"{ONE}versions/<int:number>/", ANY, f"{PLAIN}versions/1/"),
    page("GET", f"{ONE}diff/", ANY, "workloads/w-draft/diff/?before=1&after=2"),
    page("GET", f"{ONE}<slug:environment>/serve/", here("operator"), SERVE),
    page(
        "POST",
        f"{ONE}<slug:environment>/serve/",
        here("operator"),
        lambda w: (SERVE, BREAK_GLASS | {"version": w.versions["unserved"].pk}),
    ),
    page("GET", f"{ONE}<slug:environment>/pin/", here("operator"), f"{PLAIN}production/pin/"),
    page(
        "POST",
        f"{ONE}<slug:environment>/pin/",
        here("operator"),
        lambda w: (f"{PLAIN}production/pin/", WHY | {"model_alias": "large"}),
    ),
    page("GET", f"{ONE}<slug:environment>/unpin/", here("operator"), "workloads/w-pinned/production/unpin/"),
    page(
        "POST",
        f"{ONE}<slug:environment>/unpin/",
        here("operator"),
        lambda w: ("workloads/w-pinned/production/unpin/", WHY),
    ),
    page("GET", "fleet/", ANY, "fleet/"),
    page("GET", "fleet/<slug:name>/", HERE, "fleet/production/"),
    page("GET", "models/", ANY, "models/"),
    page("GET", "models/import/", every("admin"), "models/import/"),
    page(
        "POST",
        "models/import/",
        every("admin"),
        lambda w: ("models/import/", {"file": SimpleUploadedFile("p.csv", PRICES), "add": "*"}),
        200,
        writes=False,
    ),
    page("POST", "models/import/write/", every("admin"), _imported),
    page("GET", "changes/", ANY, "changes/"),
    page("GET", "changes/<uuid:pk>/", HERE, _change("serving")),
    page("POST", "changes/<uuid:pk>/approve/", here("approver"), _change("serving", "approve")),
    page("POST", "changes/<uuid:pk>/reject/", here("approver"), _change("serving", "reject")),
    page("POST", "changes/<uuid:pk>/withdraw/", here("viewer", nobody=True), _change("serving", "withdraw")),
    page(
        "GET",
        "environments/<slug:name>/four-eyes-off/",
        here("admin"),
        "environments/production/four-eyes-off/",
    ),
    page(
        "POST",
        "environments/<slug:name>/four-eyes-off/",
        here("admin"),
        lambda w: ("environments/production/four-eyes-off/", BREAK_GLASS),
    ),
    page("GET", "workloads/<slug:name>/backtest/", ANY, "workloads/w-plain/backtest/"),
    page(
        "POST",
        "workloads/<slug:name>/backtest/",
        ANY,
        lambda w: (
            "workloads/w-plain/backtest/",
            {"versions": ["1"], "file": SimpleUploadedFile("t.csv", TRIED["file"]["text"].encode())},
        ),
        200,
        writes=False,
    ),
    page("GET", "workloads/<slug:name>/playground/", ANY, "workloads/w-plain/playground/"),
    page(
        "POST",
        "workloads/<slug:name>/playground/",
        ANY,
        lambda w: ("workloads/w-plain/playground/", {"versions": ["1"], "request": "{}"}),
        200,
        writes=False,
    ),
    page("GET", "review/", ANY, "review/"),
    page("GET", "review/<slug:name>/", HERE, "review/production/"),
    page("GET", "review/<slug:name>/<slug:workload>/", HERE, "review/production/w-plain/"),
    page("GET", "rollouts/<uuid:pk>/review/", HERE, _rollout("review/")),
    page("GET", "rollouts/", ANY, "rollouts/"),
    page("GET", "rollouts/propose/", ANY, "rollouts/propose/"),
    page("GET", "rollouts/propose/", owner("w-completed", "any"), "rollouts/propose/?workload=w-completed"),
    page("POST", "rollouts/propose/", owner("w-completed"), _propose),
    page("GET", "rollouts/<uuid:pk>/", HERE, _rollout()),
    page("GET", "rollouts/<uuid:pk>/blast-radius/", HERE, _rollout("blast-radius/")),
    page("GET", "rollouts/<uuid:pk>/<slug:name>/", here("operator"), _rollout("pause/")),
    *(_act(name, state, BOUND.get(name)) for name, state in ACTS.items()),
    page("GET", "account/", SIGNED_IN, "account/"),
    page("GET", "people/", ADMIN, "people/"),
    page("GET", "people/<int:pk>/", ADMIN, _person("plain")),
    page(
        "POST", "people/<int:pk>/", here("admin"), _person("plain", role="viewer", environment="production")
    ),
    page("GET", "people/<int:pk>/<slug:change>/", every("admin"), _person("plain", "deactivate/")),
    *(
        page("POST", "people/<int:pk>/<slug:change>/", every("admin"), _person(who, f"{change}/"))
        for change, who in TO_PEOPLE.items()
    ),
    page("GET", "people/roles/<int:pk>/withdraw/", here("admin"), _withdrawn),
    page("POST", "people/roles/<int:pk>/withdraw/", here("admin"), _withdrawn),
    page("GET", "people/invite/", ADMIN, "people/invite/"),
    page("POST", "people/invite/", here("admin"), lambda w: ("people/invite/", WHY | INVITED), 200),
    page("GET", "people/invitations/<uuid:pk>/revoke/", here("admin"), _revoked),
    page("POST", "people/invitations/<uuid:pk>/revoke/", here("admin"), _revoked),
    page("GET", "teams/", ANY, "teams/"),
    page("POST", "teams/", every("admin"), lambda w: ("teams/", WHY | {"name": "new"})),
    page("GET", "teams/<slug:name>/", ANY, "teams/support/"),
    page(
        "POST",
        "teams/<slug:name>/",
        every("admin"),
        lambda w: ("teams/support/", WHY | {"members": [w.membership.user_id]}),
    ),
    page("GET", "audit/", ANY, "audit/"),
    page("GET", "audit/export.<slug:form>", ANY, "audit/export.jsonl"),
    page("GET", "audit/verify/", EVERY, "audit/verify/"),
    page("POST", "audit/verify/", EVERY, lambda w: ("audit/verify/", {}), 200, writes=False),
    page("GET", "audit/<seq:seq>/", ANY, lambda w: (f"audit/{w.entry.seq}/", None)),
    page("GET", "audit/<seq:seq>/", EVERY, lambda w: (f"audit/{w.private_entry.seq}/", None)),
]
