"""Which router applied what, and when."""

from dataclasses import dataclass
from datetime import timedelta

from controlplane import clock
from policies_app.models import Environment, Router

SEEN_WITHIN = timedelta(minutes=2)  # a router that polled longer ago is gone: nobody waits for it


@dataclass(frozen=True, slots=True)
class FleetView:
    """How far one revision has come among the routers that polled in the last two minutes."""

    confirmed: int
    of: int
    stragglers: list[str]  # instances that have not applied it yet
    rejected: list[str]  # instances that refused a document, and what they refused


def view(environment: Environment, revision: int) -> FleetView:
    """The routers of `environment` that must apply `revision`, and those that have."""
    routers = Router.objects.filter(environment=environment, polled_at__gte=clock.now() - SEEN_WITHIN)
    stragglers, rejected, of = [], [], 0
    for router in routers.order_by("instance"):
        of += 1
        if router.epoch != environment.epoch or router.revision < revision:
            stragglers.append(router.instance)
        rejected += [f"{router.instance}: {workload}" for workload in router.rejected]
    return FleetView(of - len(stragglers), of, stragglers, rejected)
