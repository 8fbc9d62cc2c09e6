"""Server time and queries of the console's pages, on an instance that has run for months.

The instance has 1,000 workloads with twice 90 days of outcomes, 500 routers, 3,000 rollouts that ended, 60 under way
(one of them for 90 days, by minute), and 100,000 audit entries.

`python -m benchmarks.console [workloads] [days]` runs on SQLite; with DATABASE_URL, on the empty database that it
names, or on one that it has filled before. Each request passes through all middleware. Times are the best of several
requests: the processor time of this process (it includes SQLite, but not PostgreSQL) and the elapsed time. Polls are
sent without and with an ETag.
"""

import os
import sys
import tempfile
import time
from datetime import timedelta

WORKLOADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
DAYS = int(sys.argv[2]) if len(sys.argv) > 2 else 90
os.environ["POINTSMAN_VAR"] = tempfile.mkdtemp(prefix="pointsman-console-")
os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
os.environ["REDIS_URL"] = ""
os.environ.setdefault("DATABASE_URL", f"sqlite:///{os.environ['POINTSMAN_VAR']}/console.sqlite3")

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from benchmarks.filled.days import insert_days  # noqa: E402
from benchmarks.filled.log import insert_entries  # noqa: E402
from benchmarks.filled.rollouts import insert_ended, make_long  # noqa: E402
from controlplane.access.actions import issue_key  # noqa: E402
from controlplane.access.models import Key  # noqa: E402
from controlplane.core.actors import SYSTEM  # noqa: E402
from policies_app.models import Environment, Router, Workload  # noqa: E402
from rollout_app.console import kept_sums, presenters  # noqa: E402
from rollout_app.models import Rollout  # noqa: E402
from rollout_app.review import rollups  # noqa: E402
from tests.support import builders  # noqa: E402
from tests.support.people import actor_of, logged_in, proposed, running  # noqa: E402

RUNS, ROUTERS, ENTRIES, ENDED = 5, 500, 100_000, 3_000
# Workloads with a second version; running rollouts; waiting rollouts.
SECONDS, UNDER_WAY, WAITING = 200, 60, 40
POLL = {"HX-Request": "true"}


def fill() -> None:
    now = timezone.now()
    environment = builders.environment("production")
    teams = [builders.team(f"team-{n}") for n in range(20)]
    workloads = [builders.workload(f"workload-{n}", owner=teams[n % 20]) for n in range(WORKLOADS)]
    for workload in workloads:
        builders.served(environment, workload)
    add_routers(environment)
    for workload in workloads[:SECONDS]:
        builders.version(workload, actor=actor_of("maria"))
    ada = actor_of("ada")
    insert_ended(environment, ENDED, DAYS, now, str(ada.id))
    first, *others = workloads[: UNDER_WAY + WAITING]
    rollout = running(first, environment)
    for workload in others[: UNDER_WAY - 1]:
        running(workload, environment)
    for workload in others[UNDER_WAY - 1 :]:
        proposed(workload, environment, by="ada")
    make_long(rollout, DAYS, now)
    insert_days(environment, 2 * DAYS, now)
    while rollups.roll_up(now):  # adds up the hours of the long rollout
        pass
    rollups.run_on(now)
    listed = list(Rollout.objects.select_related("workload").only("pk", "workload__name"))
    insert_entries(ENTRIES, environment.name, listed, now)


def add_routers(environment: Environment) -> None:
    now = timezone.now()
    Router.objects.bulk_create(
        Router(environment=environment, instance=f"gateway-{n}", epoch=environment.epoch, revision=WORKLOADS,
               polled_at=now, first_polled_at=now)
        for n in range(ROUTERS)
    )  # fmt: skip


def first(client: object, address: str) -> None:
    """Measure the first request of a process, when nothing is cached yet."""
    best = Timed()
    for _ in range(RUNS):
        kept_sums._KEPT.clear()
        presenters._KEPT.clear()
        best.ask(client, address, {})
    print(f"{'a rollout that this process has not shown yet':56} {best}")


class Timed:
    """The fastest of several requests: milliseconds of processor time and of elapsed time."""

    def __init__(self) -> None:
        self.cpu = self.clock = float("inf")

    def ask(self, client: object, address: str, headers: dict[str, str]) -> int:
        began = time.process_time(), time.perf_counter()
        response = client.get(address, headers=headers)  # type: ignore[attr-defined]
        self.cpu = min(self.cpu, (time.process_time() - began[0]) * 1_000)
        self.clock = min(self.clock, (time.perf_counter() - began[1]) * 1_000)
        return int(response.status_code)

    def __str__(self) -> str:
        return f"{self.cpu:8.1f} {self.clock:8.1f}"


def measured(client: object, name: str, address: str, **headers: str) -> None:
    best = Timed()
    status = [best.ask(client, address, headers) for _ in range(RUNS)][-1]
    with CaptureQueriesContext(connection) as asked:
        client.get(address, headers=headers)  # type: ignore[attr-defined]
    print(f"{name:56} {best} {len(asked):8} {'' if status == 200 else status}", flush=True)


def pages(rollout: Rollout) -> list[str]:
    """Yield every kind of page."""
    ended = Rollout.objects.filter(state="completed").first()
    waiting = Rollout.objects.filter(state="scheduled").first()
    key = Key.objects.first() or issue_key("router", "production", "the gateway", actor=SYSTEM)[0]
    team = Workload.objects.get(name="workload-0").owner.name
    of_workload = [
        "", "edit/", "versions/1/", "versions/new/", "diff/?before=1&after=2", "playground/", "backtest/",
        "guardrails/", "guardrails/failure/", "production/pin/", "production/serve/", "production/stop/",
    ]  # fmt: skip
    others = [
        "", "spend/", "workloads/", "workloads/?page=7", "workloads/?q=workload-77", "new-workload/",
        *(f"workloads/workload-0/{page}" for page in of_workload),
        "rollouts/", "rollouts/?show=ended&page=40", "rollouts/propose/", "rollouts/propose/?workload=workload-150",
        *(f"rollouts/{rollout.pk}/{page}" for page in ("", "figures/", "blast-radius/", "review/", "roll-back/")),
        *(f"rollouts/{ended.pk if ended else ''}/{page}" for page in ("", "review/", "blast-radius/")),
        "review/", "review/?days=90", "review/?days=90&owner=team-3", "review/production/workload-0/?days=90",
        f"rollouts/{waiting.pk if waiting else ''}/",
        f"rollouts/{waiting.pk if waiting else ''}/start/",
        "fleet/", "fleet/production/?page=3", "audit/", "audit/?page=900", "audit/?workload=workload-5&outcome=refused",
        "audit/?actor=person-7&since=2026-01-01", "audit/90000/", "audit/verify/", "environments/",
        "environments/production/edit/", "environments/production/freeze/", "models/", "models/import/",
        "models/openai/gpt-4o-mini/edit/", "plans/", "plans/standard/edit/", "plans/standard/edit/?at=1", "new-plan/",
        "keys/", "break-glass/",
        f"keys/{key.key_id}/rotate/", "people/", "teams/", f"teams/{team}/", "changes/",
        "notifications/", "account/",
    ]  # fmt: skip
    return [f"/console/{page}" for page in others]


def main() -> None:
    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    if not Environment.objects.exists():
        fill()
    Router.objects.update(polled_at=timezone.now())
    long_one = Rollout.objects.get(workload__name="workload-0", state="running")
    client = logged_in("ada", "admin")
    User.objects.filter(username="ada").update(last_login=timezone.now() - timedelta(minutes=1))
    print(f"{WORKLOADS:,} workloads, 2 × {DAYS} days, {ROUTERS} routers ({connection.vendor})")
    print(f"{'page':56} {'cpu ms':>8} {'ms':>8} {'queries':>8}")
    for address in pages(long_one):
        measured(client, address.replace(str(long_one.pk), "LONG")[:56], address)
    page = f"/console/rollouts/{long_one.pk}/"
    first(client, page)
    tag = client.get(page, headers=POLL).headers["ETag"]
    measured(client, "its poll, something new", page, **POLL)
    measured(client, "its poll, nothing new", page, **POLL, **{"If-None-Match": tag})


if __name__ == "__main__":
    main()
