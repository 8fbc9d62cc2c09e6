"""A separate instance in a temporary directory, filled with any number of workloads.

`prepare` and `fill` create it in this process. `filled` uses a separate process, because settings are read only once.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
ENVIRONMENT = "production"
SERVE = [sys.executable, str(ROOT / "manage.py"), "serve"]


class Filled:
    """An instance created by another process. `environment` is for its servers."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        answer = self._heard()
        self.key: str = answer["key"]
        self.environment: dict[str, str] = answer["environment"]

    def change(self) -> tuple[float, float]:
        """Pin or unpin a workload. Return `time.perf_counter()` before the change and after its commit."""
        assert self._process.stdin is not None
        print("change", file=self._process.stdin, flush=True)
        began, committed = self._heard()
        return began, committed

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def filled(workloads: int, database_url: str = "", redis_url: str = "") -> Iterator[Filled]:
    """Create an instance, and remove it at the end of the block. There can be several at the same time."""
    command = [sys.executable, "-m", "benchmarks.dataplane.instance", str(workloads), database_url, redis_url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        try:
            yield Filled(child)
        finally:
            child.communicate()


def prepare(database_url: str = "", redis_url: str = "") -> Path:
    """Create and migrate a new database, and set the settings to it. Call this once, before importing anything of
    Django."""
    import django

    home = Path(tempfile.mkdtemp(prefix="pointsman-bench-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(
        POINTSMAN_VAR=str(home), DATABASE_URL=database_url or f"sqlite:///{home / 'bench.sqlite3'}",
        REDIS_URL=redis_url, EMBEDDED_RUNNER="false", DJANGO_SETTINGS_MODULE="controlplane.settings",
    )  # fmt: skip
    subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "migrate", "-v0"], check=True, stderr=subprocess.DEVNULL
    )
    django.setup()
    return home


def durable_postgres() -> str:
    """Return the URL of a PostgreSQL that waits for the disk, unlike that of the tests."""
    import psycopg

    from tests.support import services

    url = services.postgres_url()
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {name} = on")
        connection.execute("SELECT pg_reload_conf()")
    return url


_postgres = cache(durable_postgres)


def new_database() -> str:
    """Create another database in the PostgreSQL of this run."""
    import uuid

    import psycopg

    url, name = _postgres(), f"bench_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{url.rpartition('/')[0]}/{name}"


def fill(workloads: int) -> str:
    """Serve this many workloads of about 2 kB each. Return a router's key. Rows are written in bulk, without
    actions."""
    from controlplane.access.actions import issue_key
    from controlplane.access.models import Team
    from controlplane.core import clock
    from controlplane.core.actors import SYSTEM
    from pointsman.policy import canonical, digest
    from policies_app.models import Assignment, Environment, PolicyVersion, Workload
    from policies_app.snapshots.build import fragment

    environment = Environment.objects.create(name=ENVIRONMENT, revision=workloads)
    owner = Team.objects.create(name="bench")
    rows = Workload.objects.bulk_create(
        Workload(name=f"w{n}", task_type="summary", quality_bar="0.9", owner=owner) for n in range(workloads)
    )
    documents = [document(row.name) for row in rows]
    versions = PolicyVersion.objects.bulk_create(
        PolicyVersion(
            workload=row,
            number=1,
            digest=digest(data),
            canonical=canonical(data).decode(),
            author_label="bench",
        )
        for row, data in zip(rows, documents, strict=True)
    )
    assignments = [
        Assignment(
            environment=environment, workload=row, baseline=version, revision=number, changed_at=clock.now()
        )
        for number, (row, version) in enumerate(zip(rows, versions, strict=True), start=1)
    ]
    for assignment in assignments:
        assignment.fragment = fragment(assignment)
    Assignment.objects.bulk_create(assignments, batch_size=500)
    return issue_key("router", ENVIRONMENT, "bench", actor=SYSTEM)[1]


def document(workload: str) -> dict[str, object]:
    """Return a policy of about 2 kB."""
    rules = [
        {
            "id": f"rule-{n}",
            "when": f"request.prompt_tokens > {8_000 + n} && request.tool_calls > {n}",
            "use": "large",
        }
        for n in range(17)
    ]
    return {
        "format": 1, "workload": workload, "rules": rules, "default": "small", "fallback": ["large", "small"],
        "models": {
            "small": {"model": "openai/gpt-4o-mini"}, "large": {"model": "anthropic/claude-sonnet-4-5"},
        },
    }  # fmt: skip


def report(buckets: int, router: int, minute: str) -> bytes:
    """Return a router's batch: this many buckets of 100 tasks, each of a different workload (0 … buckets − 1)."""
    import uuid

    one = {
        "minute": minute, "arm": "baseline", "version": 1, "rule": "default", "model": "small",
        "tasks": 100, "successes": 92, "failures": 8, "ungraded": 0, "errors": 1, "escalations": 9,
        "fallbacks": 1, "retries": 2, "attempts": 112,
        "quality": {"n": 100, "sum": 90.0, "sum_sq": 82.0}, "confidence": {"n": 100, "sum": 75.0, "sum_sq": 60.0},
        "cost_nusd": {
            "n": 100, "sum": 43_000_000, "sum_sq": 2.4e13, "sum_on_success": 40_000_000,
            "histogram": {"scale": 4, "zero": 0, "counts": {str(290 + n): 10 for n in range(10)}},
        },
        "latency_ms": {"scale": 4, "zero": 0, "counts": {str(95 + n): 10 for n in range(10)}},
        "groups": {str((router + n) % 32): {"tasks": 10, "failures": 1} for n in range(8)},
        "models": {"small": 100, "large": 9}, "errors_by_kind": {"timeout": 1},
    }  # fmt: skip
    parts = [{**one, "workload": f"w{n}", "endpoint": f"/service/{n}"} for n in range(buckets)]
    return json.dumps({"batch_id": str(uuid.uuid4()), "router": f"r-{router}", "buckets": parts}).encode()


def _obey(workloads: int, database_url: str, redis_url: str) -> None:
    """Run the process behind `Filled`: make the change in each input line, until the input ends."""
    prepare(database_url, redis_url)
    key = fill(workloads)
    names = ("POINTSMAN_VAR", "DATABASE_URL", "REDIS_URL", "EMBEDDED_RUNNER")
    print(json.dumps({"key": key, "environment": {name: os.environ[name] for name in names}}), flush=True)

    from controlplane.core.actors import SYSTEM
    from policies_app import actions
    from policies_app.models import Assignment

    for number, _ in enumerate(sys.stdin):
        assignment = Assignment.objects.select_related("workload", "environment", "baseline").latest("pk")
        began = time.perf_counter()
        if number % 2:
            actions.unpin(assignment, actor=SYSTEM, reason="bench")
        else:
            actions.pin(assignment, "large", actor=SYSTEM, reason="bench")
        print(json.dumps([began, time.perf_counter()]), flush=True)


if __name__ == "__main__":
    _obey(int(sys.argv[1]), sys.argv[2], sys.argv[3])
