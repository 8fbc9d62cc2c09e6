"""Every page asks the database as often with many rows as with few."""

from datetime import timedelta
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.access.actions import issue_key
from controlplane.access.models import Key
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from controlplane.notifications.actions import add_receiver
from controlplane.notifications.models import Receiver
from policies_app.models import Environment, Router, Workload
from rollout_app import actions
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.outcomes import outcome
from tests.support.people import ONE_STEP, People, actor_of, approve, logged_in, proposed, running

FEW, MANY = 3, 5  # home's spend asks about each of the first four environments
MOST = 42  # queries of one page
OF_A_WORKLOAD = (
    "", "edit/", "versions/1/", "versions/new/", "diff/?before=1&after=2", "playground/", "backtest/", "guardrails/",
    "guardrails/failure/", "production/pin/", "production/serve/", "production/stop/",
)  # fmt: skip
OF_A_ROLLOUT = ("", "figures/", "blast-radius/", "review/", "roll-back/", "start/")
OTHERS = (
    "", "spend/", "workloads/", "new-workload/", "rollouts/", "rollouts/?show=ended", "rollouts/propose/", "fleet/",
    "fleet/production/", "review/", "review/production/running-0/", "audit/", "audit/verify/", "environments/",
    "environments/production/edit/", "environments/production/freeze/", "models/", "models/import/",
    "models/openai/gpt-4o-mini/edit/", "plans/", "new-plan/", "plans/plan-0/edit/", "keys/", "people/", "teams/",
    "teams/group-0/", "changes/", "notifications/", "notifications/add/", "break-glass/", "account/",
)  # fmt: skip


def grow(production: Environment, first: int, last: int) -> None:
    """Add what the pages list: number `first` up to but not including `last` of each kind."""
    for number in range(first, last):
        place = builders.environment(f"place-{number}")
        for environment in (production, place):
            Router.objects.create(
                environment=environment,
                instance=f"r-{number}",
                epoch=environment.epoch,
                polled_at=timezone.now(),
            )
        logged_in(f"person-{number}", "viewer", team=builders.team(f"group-{number}"))
        issue_key("router", "production", f"key {number}", actor=SYSTEM)
        add_receiver(f"hook {number}", "webhook", f"https://8.8.8.{number}/", actor=SYSTEM)
        actions.add_plan(f"plan-{number}", ONE_STEP, actor=SYSTEM)
        for kind in ("waiting", "scheduled", "running", "completed"):
            workload = builders.workload(f"{kind}-{number}")
            for environment in (production, place):
                builders.served(environment, workload)
            builders.version(workload, actor=actor_of("maria"))
            rollout_of(kind, workload, production)


def rollout_of(kind: str, workload: Workload, production: Environment) -> None:
    if kind in ("waiting", "scheduled"):
        rollout = proposed(workload, production)
        if kind == "scheduled":
            approve(rollout)
        return
    rollout = running(workload, production)
    now = timezone.now().replace(second=0, microsecond=0)
    for minutes in range(0, 120, 30):
        for arm, version in (("baseline", 1), ("candidate", 2)):
            fields: dict[str, Any] = {"arm": arm, "version": version, "rollout": str(rollout.pk), "stage": 0}
            outcome(production, workload, now - timedelta(minutes=minutes), **fields)
    if kind == "completed":
        rollout = actions.advance_rollout(rollout, actor=SYSTEM, reason="on")
        actions.complete_rollout(rollout, actor=SYSTEM, reason="done")


def pages() -> list[str]:
    rollouts = {rollout.workload.name: rollout.pk for rollout in Rollout.objects.select_related("workload")}
    return [
        *OTHERS,
        *(f"workloads/running-0/{page}" for page in OF_A_WORKLOAD),
        *(
            f"rollouts/{rollouts[f'{kind}-0']}/{page}"
            for kind in ("running", "completed")
            for page in OF_A_ROLLOUT[:4]
        ),
        *(f"rollouts/{rollouts['waiting-0']}/{page}" for page in ("", "start/")),
        f"rollouts/{rollouts['running-0']}/roll-back/",
        "rollouts/propose/?workload=running-0",
        f"audit/{Entry.objects.order_by('seq')[0].seq}/",
        f"keys/{Key.objects.order_by('pk')[0].key_id}/rotate/",
        f"notifications/{Receiver.objects.order_by('pk')[0].pk}/",
    ]


def asked(client: Client, page: str, *statuses: int) -> int:
    with CaptureQueriesContext(connection) as queries:
        status = client.get(f"/console/{page}").status_code
    assert status in statuses, (page, status)
    return len(queries)


def test_no_page_needs_more_queries_for_more_rows(people: People) -> None:
    """For an administrator, and for somebody with roles in one environment only."""
    production = builders.environment("production", four_eyes=True)
    grow(production, 0, FEW)
    shown = (200, 286)  # 286 ends a poll
    statuses = {
        people("ada", "admin", "editor", "operator"): shown,
        people("tom", "editor", "operator", "approver", environment="production"): (*shown, 403, 404),
    }
    for page in pages():  # fills what a process keeps
        asked(next(iter(statuses)), page, *shown)
    few = {(page, client): asked(client, page, *statuses[client]) for page in pages() for client in statuses}
    grow(production, FEW, MANY)
    many = {(page, client): asked(client, page, *statuses[client]) for page, client in few}
    assert {each[0]: (few[each], many[each]) for each in few if many[each] > few[each]} == {}
    assert {page: count for (page, _), count in many.items() if count > MOST} == {}
