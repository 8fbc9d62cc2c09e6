"""Draw an environment's next revision and write assignments at it, inside the caller's transaction."""

import json
from collections import defaultdict

from controlplane.core import clock
from controlplane.core.errors import NotServed
from policies_app.models import PRICES, Assignment, Environment, Model, Revision
from policies_app.snapshots import build


def served_assignment(environment_id: int, workload_id: int) -> Assignment:
    """Return the assignment with everything its fragment needs. Raises `NotServed`."""
    try:
        return Assignment.objects.select_related("environment", "workload", "baseline", "candidate").get(
            environment_id=environment_id, workload_id=workload_id
        )
    except Assignment.DoesNotExist:
        raise NotServed(
            "This environment serves nothing for this workload yet; serve a first version before a rollout."
        ) from None


def draw_revision(environment_id: int, workload_id: int, cause: str, *, removed: bool = False) -> int:
    """Return the environment's next revision, and record it in the history.

    The row stays locked until the commit, so a reader who sees revision n sees everything in it. A sequence could hand
    out n + 1 to a transaction that commits before n.
    """
    environment = Environment.objects.select_for_update(no_key=True).get(pk=environment_id)
    environment.revision += 1
    environment.save(update_fields=["revision"])
    Revision.objects.create(
        environment_id=environment_id,
        number=environment.revision,
        workload_id=workload_id,
        cause=cause,
        removed=removed,
    )
    build.publish_with_commit(environment.name, environment.revision)
    return environment.revision


def save_assignment(assignment: Assignment, revision: int) -> None:
    assignment.revision, assignment.changed_at = revision, clock.now()
    assignment.fragment, assignment.prices = build.fragment(assignment), prices_of(assignment)
    assignment.save()


def lock_environments() -> None:
    """Lock every environment. An edit of a model does this first: without it, an assignment that is being written
    misses the new price, and the edit does not see the assignment."""
    list(Environment.objects.select_for_update(no_key=True).order_by("pk").values_list("pk"))


def republish_prices(model: Model) -> None:
    """Publish a model's changed prices: one revision in each environment that serves a policy using it."""
    served: dict[int, list[int]] = defaultdict(list)
    using = Assignment.objects.filter(prices__contains=f"{_text(model.name)}:")
    for environment_id, workload_id in using.order_by("environment_id", "workload_id").values_list(
        "environment_id", "workload_id"
    ):
        served[environment_id].append(workload_id)
    for environment_id, workloads in served.items():
        revision = draw_revision(environment_id, workloads[0], "model.edit")
        for workload_id in workloads:
            save_assignment(served_assignment(environment_id, workload_id), revision)


def prices_of(assignment: Assignment) -> str:
    """Return the prices of the models in its documents as JSON. Routers compute costs from tokens with them."""
    versions = [assignment.baseline, *([assignment.candidate] if assignment.candidate else [])]
    names = {entry["model"] for version in versions for entry in version.document["models"].values()}
    found = Model.objects.filter(name__in=names).order_by("name")
    return _text(
        {model.name: {price: getattr(model, f"{price}_nusd_per_mtok") for price in PRICES} for model in found}
    )


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
