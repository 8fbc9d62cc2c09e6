"""Reports served policies that a router refuses. It keeps the previous policy, so the fleet is inconsistent."""

from collections import defaultdict

from controlplane.core import clock
from controlplane.notifications import events, outbox
from policies_app.fleet.readback import Refusal, read_fleet
from policies_app.models import Environment, Router

_NAMED = 5  # routers listed by name


def tell() -> int:
    """Report each refused document once, and again each day while it lasts. Return how many reports are new."""
    if not Router.objects.exclude(rejected={}).exists():
        return 0
    day = f"{clock.now():%Y-%m-%d}"
    new = 0
    for environment in Environment.objects.order_by("pk"):
        refused: dict[tuple[str, str], list[Refusal]] = defaultdict(list)
        for refusal in read_fleet(environment).rejected:
            refused[refusal.workload, refusal.digest].append(refusal)
        for (workload, digest), refusals in refused.items():
            key = f"{events.REJECTED} {environment.pk} {digest} {day}"
            new += _tell(environment.name, workload, refusals, key)
    return new


def _tell(environment: str, workload: str, refusals: list[Refusal], key: str) -> bool:
    names = ", ".join(refusal.router for refusal in refusals[:_NAMED])
    others = f" and {len(refusals) - _NAMED} more" if len(refusals) > _NAMED else ""
    first = refusals[0]
    return outbox.emit(
        events.REJECTED,
        f"{names}{others} refused the policy of {workload} in {environment}, and kept the previous one.",
        environment=environment,
        key=key,
        workload=workload,
        digest=first.digest,
        reason=first.error[:500],
        routers=len(refusals),
        target={"kind": "environment", "id": environment},
    )
