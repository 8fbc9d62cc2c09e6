"""Keys, roles, teams, the audit log, and changes that wait for a second person."""

# One row per line.

from controlplane.access.change_requests import binding
from tests.trust.matrix.credentials import PLACE
from tests.trust.matrix.needs import ANY, EVERY, HERE, OPEN, WHY, Asked, Needs, Request, every, here, row
from tests.trust.matrix.world import World

KEY = {"kind": "admin", "label": "mine", "scopes": ["viewer"], "environment": PLACE} | WHY
ROUTER = {"kind": "router", "label": "r", "environment": PLACE} | WHY
ROLE = {"user": "newcomer", "role": "viewer", "environment": PLACE} | WHY


def _key(move: str) -> Asked:
    return lambda w: (f"keys/{w.router_key.key_id}/{move}", WHY)


def _person(who: str, move: str = "") -> Asked:
    return lambda w: (f"people/{w.people[who].pk}" + (f"/{move}" if move else ""), WHY if move else None)


INVITATION = {"invited": "Olga", "roles": [{"environment": PLACE, "role": "viewer"}]} | WHY
ADMIN = Needs("admin")


def _change(which: str, move: str = "") -> Asked:
    def asked(world: World) -> Request:
        request = world.changes[which]
        body = WHY | ({"binding": binding(request)} if move == "approve" else {})
        return f"change-requests/{request.pk}" + (f"/{move}" if move else ""), body if move else None

    return asked


CHANGE = "change-requests/<uuid:pk>"
ROWS = [
    row("GET", "keys", ANY, "keys"),
    row("POST", "keys", Needs("viewer", PLACE, no_limit=True), lambda w: ("keys", KEY), 201),
    row("POST", "keys", here("admin"), lambda w: ("keys", ROUTER), 201),
    row("POST", "keys/<slug:key_id>/revoke", here("admin"), _key("revoke")),
    row("POST", "keys/<slug:key_id>/rotate", here("admin"), _key("rotate"), 201),
    row("GET", "memberships", Needs("admin"), "memberships"),
    row("POST", "memberships", here("admin"), lambda w: ("memberships", ROLE), 201),
    row(
        "POST",
        "membership-requests",
        here("admin"),
        lambda w: ("membership-requests", ROLE | {"role": "approver"}),
        201,
    ),
    row(
        "POST",
        "memberships",
        here("admin"),
        lambda w: ("memberships", ROLE | {"role": "approver", "break_glass": True}),
        201,
    ),
    row(
        "DELETE",
        "memberships/<int:pk>",
        here("admin"),
        lambda w: (f"memberships/{w.membership.pk}?reason=x", None),
    ),
    row("GET", "teams", ANY, "teams"),
    row("POST", "teams", every("admin"), lambda w: ("teams", WHY | {"name": "new", "members": []}), 201),
    row(
        "PUT",
        "teams/<slug:name>",
        every("admin"),
        lambda w: ("teams/support", WHY | {"members": ["newcomer"]}),
    ),
    row("GET", "people", ADMIN, "people"),
    row("GET", "people/<int:pk>", ADMIN, _person("plain")),
    row("POST", "people/<int:pk>/deactivate", every("admin"), _person("plain", "deactivate")),
    row("POST", "people/<int:pk>/activate", every("admin"), _person("closed", "activate")),
    row("POST", "people/<int:pk>/end-sessions", every("admin"), _person("plain", "end-sessions")),
    row(
        "POST",
        "people/<int:pk>/remove-second-factor",
        every("admin"),
        _person("second_factor", "remove-second-factor"),
    ),
    row("POST", "people/<int:pk>/withdraw-superuser", every("admin"), _person("root", "withdraw-superuser")),
    row("GET", "invitations", ADMIN, "invitations"),
    row("POST", "invitations", here("admin"), lambda w: ("invitations", INVITATION), 201),
    row(
        "POST",
        "invitations/<uuid:pk>/revoke",
        here("admin"),
        lambda w: (f"invitations/{w.invitation.pk}/revoke", WHY),
    ),
    row("GET", "audit", ANY, "audit"),
    row("GET", "audit/export", ANY, "audit/export?format=csv"),
    row("POST", "audit/verification", EVERY, lambda w: ("audit/verification", None), writes=False),
    row("GET", "audit/<int:seq>", ANY, lambda w: (f"audit/{w.entry.seq}", None)),
    row("GET", "audit/<int:seq>", EVERY, lambda w: (f"audit/{w.private_entry.seq}", None)),
    row("GET", "schema", OPEN, "schema"),
    row("GET", "change-requests", ANY, "change-requests"),
    row("GET", CHANGE, HERE, _change("serving")),
    row(
        "POST",
        f"{CHANGE}/approve",
        here("approver", "w-unserved", person=True),
        _change("serving", "approve"),
    ),
    row("POST", f"{CHANGE}/approve", here("approver", person=True), _change("off", "approve")),
    row("POST", f"{CHANGE}/reject", here("approver", "w-unserved"), _change("serving", "reject")),
    row("POST", f"{CHANGE}/withdraw", here("viewer", nobody=True), _change("serving", "withdraw")),
]
