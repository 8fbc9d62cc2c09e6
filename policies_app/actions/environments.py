"""Writes to environments."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controlplane.audit import log
from controlplane.core import clock, reasons
from controlplane.core.actors import Actor
from controlplane.core.errors import ApprovalMissing, Conflict, InvalidInput
from policies_app.audited_rows import create_row, edit_row
from policies_app.models import Assignment, Environment, new_epoch
from policies_app.snapshots import build
from policies_app.snapshots.revisions import draw_revision

_SLOW_POLLS_MS = 60_000  # above it, raising the poll interval needs a reason


def register_environment(name: str, *, actor: Actor, reason: str = "", **fields: Any) -> Environment:
    _refuse_empty_freeze(fields.get("frozen_from"), fields.get("frozen_until"))
    return create_row(Environment(name=name, **fields), "environment.register", actor=actor, reason=reason)


def _refuse_empty_freeze(begins: datetime | None, ends: datetime | None) -> None:
    """Raise `InvalidInput` for a freeze that would never be in force."""
    if begins is not None and (ends is None or ends <= begins):
        message = "It ends before it begins." if ends else "A freeze needs an end."
        raise InvalidInput(
            f"The freeze is not valid. {message}", [{"path": "frozen_until", "message": message}]
        )


def edit_environment(
    environment: Environment,
    *,
    expected: int | None = None,
    actor: Actor,
    reason: str = "",
    approvals: Any = None,
    break_glass: bool = False,
    evidence: Any = None,
    **changes: Any,
) -> Environment:
    """Change four eyes, the poll interval or the freeze (`frozen_from`, `frozen_until`, `freeze_reason`).

    Turning four eyes off requires another person's approval (`change_requests`) or break-glass.
    """

    def check(environment: Environment, changes: Mapping[str, Any]) -> None:
        now, until = clock.now(), environment.frozen_until
        ends, begins = (
            changes.get(name, getattr(environment, name)) for name in ("frozen_until", "frozen_from")
        )
        if changes.get("frozen_from") or (begins and changes.get("frozen_until")):
            _refuse_empty_freeze(begins, ends)
        shorter = until is not None and (ends is None or ends < until)
        if environment.is_frozen(now) and (shorter or (begins is not None and begins > now)):
            reasons.demand(actor, reason, f"This ends the change freeze of {environment.name} early")
        interval = changes.get("poll_interval_ms", 0)
        if interval > max(_SLOW_POLLS_MS, environment.poll_interval_ms):
            delay = f"Routers without long polls would receive a pin or a rollback up to {interval / 1000:g} s late"
            reasons.demand(actor, reason, delay)
        if environment.four_eyes and changes.get("four_eyes") is False and not (approvals or break_glass):
            raise ApprovalMissing(
                f"{environment.name} requires four eyes: turning it off needs a second person. Request it at "
                f"/environments/{environment.name}/four-eyes-off, or use break-glass there."
            )
        if approvals and not environment.four_eyes:
            # Without a change there would be no entry of the approval.
            raise Conflict(
                f"{environment.name} no longer requires a second person: reject or withdraw this request."
            )

    def publish(environment: Environment, changed: Mapping[str, Any]) -> None:
        if "poll_interval_ms" in changed:
            _publish_interval(environment)

    return edit_row(
        environment,
        "environment.break_glass" if break_glass else "environment.edit",
        changes,
        expected=expected,
        actor=actor,
        reason=reason,
        guard=check,
        then=publish,
        kept={"evidence": evidence, "approvals": approvals},
    )


def _publish_interval(environment: Environment) -> None:
    """Draw a revision for a changed poll interval. Routers that follow deltas would otherwise keep the old one.

    The history names a workload for each revision: any that is served. Without one there is nothing to follow.
    """
    served = Assignment.objects.filter(environment=environment).order_by("workload_id")
    workload_id = served.values_list("workload_id", flat=True).first()
    if workload_id is not None:
        environment.revision = draw_revision(environment.pk, workload_id, "environment.edit")


def start_new_epoch(environment: Environment, *, actor: Actor, reason: str) -> Environment:
    """Start a new epoch after a restore from a backup. Routers would refuse older revisions of the same epoch.

    The revision continues from where the backup left it.
    """
    place: dict[str, Any] = {"environment": environment.name, "target": ("environment", environment.name)}
    with log.attempt(actor=actor, action="environment.new_epoch", reason=reason, **place):
        fresh = Environment.objects.select_for_update(no_key=True).get(pk=environment.pk)
        before, fresh.epoch = fresh.epoch, new_epoch(fresh.epoch)
        fresh.save(update_fields=["epoch"])
        build.publish_with_commit(fresh.name, fresh.revision)
        log.record(
            actor=actor,
            action="environment.new_epoch",
            reason=reason,
            before={"epoch": before},
            after={"epoch": fresh.epoch},
            **place,
        )
    return fresh
