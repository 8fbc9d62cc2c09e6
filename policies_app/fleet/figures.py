"""Fleet metrics: routers that poll, and how many of them have applied what is served now."""

from collections import defaultdict
from datetime import timedelta

from prometheus_client.core import GaugeMetricFamily

from controlplane.core import clock
from controlplane.core.figures import DatabaseFigures
from policies_app.fleet.listening import read_hearing
from policies_app.fleet.readback import read_fleet
from policies_app.models import Environment, Router

POLLING = timedelta(minutes=2)  # the longest silence of a working router


class FleetFigures(DatabaseFigures):
    def read(self) -> list[GaugeMetricFamily]:
        """Count routers as the fleet page does: not those that have left, and an ack only while it stands."""
        family = GaugeMetricFamily(
            "pointsman_routers",
            "Routers that polled within two minutes; state: current (has applied what is served now) or behind",
            labels=["environment", "state"],
        )
        now, hearing, polling = clock.now(), read_hearing(), defaultdict[int, list[Router]](list)
        for router in Router.objects.filter(polled_at__gt=now - POLLING).order_by():
            polling[router.environment_id].append(router)
        for environment in Environment.objects.filter(pk__in=polling).order_by("name"):
            fleet = read_fleet(environment, now=now, hearing=hearing, known=polling[environment.pk])
            current = sum(router.revision >= environment.revision for router in fleet.routers)
            for state, count in (("current", current), ("behind", len(fleet.routers) - current)):
                if count:
                    family.add_metric([environment.name, state], count)
        return [family]
