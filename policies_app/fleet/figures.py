"""Fleet metrics: routers that poll, and how many of them have applied what is served now."""

from datetime import timedelta

from django.db.models import Case, Count, F, Value, When
from django.db.models.functions import Greatest
from prometheus_client.core import GaugeMetricFamily

from controlplane.core import clock
from controlplane.core.figures import DatabaseFigures
from policies_app.models import Router

POLLING = timedelta(minutes=2)  # the longest silence of a working router


class FleetFigures(DatabaseFigures):
    def read(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "pointsman_routers",
            "Routers that polled within two minutes; state: current (has applied what is served now) or behind",
            labels=["environment", "state"],
        )
        applied = Greatest("revision", "acked_revision")
        state = Case(
            When(
                environment__epoch=F("epoch"), applied__gte=F("environment__revision"), then=Value("current")
            ),
            default=Value("behind"),
        )
        polling = Router.objects.filter(polled_at__gt=clock.now() - POLLING).order_by()
        counted = polling.annotate(applied=applied, state=state).values_list("environment__name", "state")
        for environment, label, count in counted.annotate(Count("pk")):
            family.add_metric([environment, label], count)
        return [family]
