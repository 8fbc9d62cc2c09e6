"""The rows that `audit verify` checks (receivers, break-glass, reviews), and the metrics of deliveries."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily

from controlplane.audit import log, sentences, subjects
from controlplane.core.figures import DatabaseFigures
from controlplane.notifications.actions import receiver_fields
from controlplane.notifications.models import BreakGlass, Delivery, Receiver

Rows = Iterable[tuple[str, Mapping[str, Any]]]
_OF_ENTRY = ("action", "environment", "workload", "reason", "target_kind", "target_id")


def _receiver_names(ids: Iterable[str]) -> dict[str, str]:
    return {str(pk): name for pk, name in Receiver.objects.filter(pk__in=ids).values_list("pk", "name")}


def _uses_of_break_glass(ids: Iterable[str]) -> dict[str, str]:
    """Describe each use: "tickets, a rollout started without approval by tom"."""
    return {
        str(row.pk): f"{f'{row.workload}, ' if row.workload else ''}{row.what} by {row.by_label}"
        for row in BreakGlass.objects.filter(pk__in=ids)
    }


def register() -> None:
    sentences.register("receiver", _receiver_names)
    sentences.register("break_glass", _uses_of_break_glass)
    subjects.register(subjects.by_target("receiver", _receivers))
    subjects.register(subjects.Subject("break-glass", _described_break_glass, _break_glass))
    subjects.register(subjects.Subject("review", _described_reviews, _reviews))


def _receivers() -> Rows:
    return ((str(row.pk), receiver_fields(row)) for row in Receiver.objects.order_by("pk").iterator())


def _described_break_glass(body: Mapping[str, Any]) -> Iterable[subjects.Said]:
    """Describe the break-glass rows that must exist: deleting one would also remove its banner."""
    if body["action"].endswith(".break_glass"):
        columns = log.columns(body)
        values = {name: columns[name] for name in _OF_ENTRY}
        values |= {"by_label": columns["actor_label"], "by_user_id": body["actor"]["user_id"]}
        yield f"of entry {body['seq']}", values


def _break_glass() -> Rows:
    columns = (*_OF_ENTRY, "by_label", "by_user_id")
    for row in BreakGlass.objects.order_by("pk").values("entry", *columns).iterator():
        yield f"of entry {row.pop('entry')}", row


def _described_reviews(body: Mapping[str, Any]) -> Iterable[subjects.Said]:
    """Describe the reviews that must exist. A banner removed by hand in the database has no review entry."""
    if body["action"] == "break_glass.review":
        yield body["target"]["id"], {"reviewed_by": body["actor"]["label"]}


def _reviews() -> Rows:
    for row in BreakGlass.objects.exclude(reviewed_at=None).order_by("pk").iterator():
        yield str(row.pk), {"reviewed_by": row.reviewed_by}


class DeliveryFigures(DatabaseFigures):
    def read(self) -> list[GaugeMetricFamily]:
        deliveries = GaugeMetricFamily(
            "pointsman_notification_deliveries",
            "Deliveries of the last 30 days by state; dead: given up, and can be resent by hand",
            labels=["state"],
        )
        counted = dict(Delivery.objects.order_by().values_list("state").annotate(Count("pk")))
        for state in Delivery.State.values:
            deliveries.add_metric([state], counted.get(state, 0))
        opened = GaugeMetricFamily("pointsman_break_glass_open", "Break-glass that nobody has reviewed yet")
        opened.add_metric([], BreakGlass.objects.filter(reviewed_at=None).count())
        return [deliveries, opened]
