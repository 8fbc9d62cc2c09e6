"""The setting of the three tests in tests/paths: people, one workload in `production`, a server process, a router.

The server is `manage.py serve` with its embedded runner, as started by `make run`; the routers are the `Router` that a
gateway would use. Only time is simulated: a minute of tasks passes as soon as its outcomes are committed.
"""

import random
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from django.conf import settings
from django.contrib.auth.models import User

from controlplane.access.actions import grant_role, issue_key
from controlplane.access.models import Role
from controlplane.audit import exports
from controlplane.audit.models import Entry
from controlplane.core import clock, signing
from controlplane.core.actors import SYSTEM
from pointsman import Pace, Router
from pointsman.decision import Decision
from policies_app.models import Assignment, PolicyVersion
from rollout_app.models import Rollout
from rollout_app.rehearsal.replay import Stamps
from tests.support import builders
from tests.support.places import ANNA, people
from tests.support.plane import PATIENCE_S, Server, router_key, signing_key, until

SMALL, LARGE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"
NAME = "support-summaries"


class Town:
    """`with Town(tmp_path) as town`: four eyes in `production`, where Anna proposes and Ben approves."""

    def __init__(self, home: Path) -> None:
        self.home = home
        people()
        self.environment = builders.environment("production", four_eyes=True)
        self.workload = builders.workload(NAME)
        self.first = builders.served(self.environment, self.workload).baseline
        self.key = router_key("production")
        self.stamps = Stamps((clock.now().timestamp() - 3 * 3600) // 60 * 60)
        self.server = Server(
            EMBEDDED_RUNNER="true",
            POINTSMAN_VAR=str(home / "var"),
            POINTSMAN_SIGNING_KEY=signing_key(),
        )
        self._numbers, self._chance = count(), random.Random(7)

    def __enter__(self) -> "Town":
        self.server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.__exit__()

    # --- routers ------------------------------------------------------------------------------------------

    def router(self, **options: Any) -> Router:
        """A router that accepts only what is signed with the instance's key."""
        return Router(
            self.server.url,
            self.key,
            environment="production",
            public_keys=signing.public_key_text(),
            instance="gateway-1",
            clock=self.stamps,
            pace=Pace(first_poll_within=0, flush_every=0.1),
            **options,
        )

    def minute(self, router: Router, tasks: int, succeeds: Callable[[Decision], float]) -> None:
        """Decide and record the tasks of a minute, until every outcome has been acknowledged with 202."""
        for number in range(tasks):
            decision = router.decide(NAME, {"prompt_tokens": 900}, {"request": f"q-{next(self._numbers)}"})
            router.record(
                decision,
                self._chance.random() < succeeds(decision),
                cost_nusd=400_000 + 1_000 * (number % 100),
                latency_ms=300 + number % 100,
                shadow_cost_nusd=400_000 if decision.shadow is not None else None,
            )
        until(lambda: router.status()["outcomes_waiting"] == 0)
        self.stamps.tick()

    # --- people -------------------------------------------------------------------------------------------

    def person(self, name: str, *roles: Role) -> httpx.Client:
        """A person at the admin API, with their own key."""
        user = User.objects.create_user(name)
        for role in roles:
            grant_role(user, role, "production", actor=SYSTEM, reason="a new colleague")
        self.workload.owner.members.add(user)
        key = issue_key("admin", "production", name, actor=SYSTEM, user=user, scopes=roles)[1]
        return httpx.Client(
            base_url=f"{self.server.url}/api/v1/",
            headers={"Authorization": f"Bearer {key}"},
            timeout=PATIENCE_S,
        )

    def candidate(self) -> PolicyVersion:
        """The strong model from 500 tokens on; the first version uses it from 8,000."""
        return builders.version(
            self.workload,
            actor=ANNA,
            rules=[{"id": "heavy", "when": "request.prompt_tokens > 500", "use": "large"}],
        )

    # --- queries --------------------------------------------------------------------------------------------

    def assignment(self) -> Assignment:
        return Assignment.objects.get(environment=self.environment, workload=self.workload)

    def entries(self, rollout: Rollout) -> list[Entry]:
        """The rollout's audit entries, oldest first."""
        return list(Entry.objects.filter(target_kind="rollout", target_id=str(rollout.pk)).order_by("seq"))

    def audit_says(self) -> str:
        """The output of an auditor's copy of the script on the exported log, without Pointsman."""
        export = self.home / "audit.jsonl"
        export.write_text("".join(exports.lines(Entry.objects.all(), "jsonl")))
        script = settings.BASE_DIR / "docs" / "verify_audit.py"
        done = subprocess.run(
            [sys.executable, "-I", str(script), str(export)], capture_output=True, text=True
        )
        return done.stdout.strip() + done.stderr.strip()
