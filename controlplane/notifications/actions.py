"""Writes to the receivers of notifications, each in one transaction with its audit entry.

receivers: add_receiver, edit_receiver, rotate_secret. Deliveries: send_test, send_again. Break-glass: review.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import F

from controlplane.access.actions.names import is_slug
from controlplane.access.models import Role
from controlplane.access.permissions import require_role
from controlplane.audit import log
from controlplane.core import clock, reasons
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, Conflict, InvalidInput, SelfApproval, StaleVersion
from controlplane.core.names import hidden_character
from controlplane.core.rotation import refuse_overlap
from controlplane.notifications import destinations, events, outbox, secrets
from controlplane.notifications.models import BreakGlass, Delivery, Receiver
from controlplane.notifications.sealing import seal

MOST_RECEIVERS = 100


def add_receiver(
    name: str,
    kind: str,
    address: str,
    *,
    actor: Actor,
    events: Sequence[str] = (),
    environments: Sequence[str] = (),
    reason: str = "",
) -> tuple[Receiver, str]:
    """Add a receiver. Return it with the signing secret of a webhook (shown only once), or "" for other kinds."""
    _refuse_bad_fields(name=name, events=events, environments=environments)
    receiver = Receiver(
        name=name.strip(),
        kind=kind,
        events=sorted(set(events)),
        environments=sorted(set(environments)),
        created_at=clock.now(),
    )
    text = ""
    _set_address(receiver, address)
    if kind == Receiver.Kind.WEBHOOK:
        text, kept = secrets.new_secret()
        receiver.secrets = [kept]
    with transaction.atomic():
        if Receiver.objects.count() >= MOST_RECEIVERS:
            raise Conflict(
                f"There are already {MOST_RECEIVERS} receivers, which is the limit. Change one that you no longer need."
            )
        _save_new(receiver)
        _record("receiver.add", receiver, actor=actor, reason=reason, after=receiver_fields(receiver))
    return receiver, text


def _save_new(receiver: Receiver) -> None:
    try:
        with transaction.atomic():
            receiver.save(force_insert=True)
    except IntegrityError:
        raise AlreadyExists(f"There is already a receiver called {receiver.name!r}.") from None


def edit_receiver(
    receiver: Receiver, *, expected: int | None, actor: Actor, reason: str = "", **changes: Any
) -> Receiver:
    """Change `name`, `address`, `events`, `environments` or `enabled`. Disabling a receiver requires a reason."""
    _refuse_bad_fields(
        **{name: changes[name] for name in ("name", "events", "environments") if name in changes}
    )
    with transaction.atomic():
        receiver = _locked(receiver, expected)
        before = receiver_fields(receiver)
        if changes.get("enabled") is False and receiver.enabled:
            reasons.demand(actor, reason, f"This stops all messages to {receiver.name}")
        # The same address, or the part of it that is shown, keeps it, even if it is no longer allowed.
        if (address := changes.pop("address", None)) is not None and address.strip() != receiver.address:
            _set_address(receiver, address)
        for name, value in changes.items():
            setattr(receiver, name, sorted(set(value)) if isinstance(value, list | tuple) else value)
        after = receiver_fields(receiver)
        if before == after:
            return receiver
        receiver.rests_until, receiver.failures = None, 0
        _save(receiver)
        _record("receiver.edit", receiver, actor=actor, reason=reason, before=before, after=after)
    return receiver


def rotate_secret(
    receiver: Receiver,
    *,
    expected: int | None,
    actor: Actor,
    overlap: timedelta = timedelta(days=1),
    reason: str = "",
) -> tuple[Receiver, str]:
    """Create a new signing secret, shown only once. The previous one also signs for `overlap`, at most 7 days."""
    refuse_overlap(overlap)
    with transaction.atomic():
        receiver = _locked(receiver, expected)
        if receiver.kind != Receiver.Kind.WEBHOOK:
            raise Conflict(f"{receiver.name} has no signing secret: only webhooks have one.")
        before = receiver_fields(receiver)
        now = clock.now()
        text, kept = secrets.new_secret()
        # At most two secrets sign: one left from an earlier rotation ends now.
        last = [{**old, "until": (now + overlap).isoformat()} for old in receiver.secrets[:1] if overlap]
        receiver.secrets = [kept, *last]
        _save(receiver)
        after = receiver_fields(receiver)
        _record("receiver.rotate_secret", receiver, actor=actor, reason=reason, before=before, after=after)
    return receiver, text


def send_test(receiver: Receiver, *, actor: Actor, reason: str = "") -> Delivery:
    """Send a test message to this receiver only, within seconds. The delivery records the receiver's answer."""
    with transaction.atomic():
        receiver = _enabled(receiver)
        Receiver.objects.filter(pk=receiver.pk).update(rests_until=None)
        delivery = outbox.test_message(receiver, by=actor.label)
        evidence = {"delivery": str(delivery.pk)}
        _record("receiver.test", receiver, actor=actor, reason=reason, evidence=evidence)
    return delivery


def send_again(delivery: Delivery, *, actor: Actor, reason: str = "") -> Delivery:
    """Restart a delivery that was given up, with a new series of attempts and the same `webhook-id`."""
    with transaction.atomic():
        receiver = _enabled(delivery.receiver)
        dead = Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.DEAD)
        if not dead.update(state=Delivery.State.WAITING, attempts=0, due_at=clock.now()):
            raise Conflict("Only a delivery that was given up can be sent again.")
        Receiver.objects.filter(pk=receiver.pk).update(rests_until=None)
        evidence = {"delivery": str(delivery.pk)}
        _record("receiver.send_again", receiver, actor=actor, reason=reason, evidence=evidence)
        delivery.refresh_from_db()
    return delivery


def review(opened: BreakGlass, *, actor: Actor, reason: str) -> BreakGlass:
    """Record that a second person reviewed a break-glass, which removes its banner. Raises `SelfApproval` for the
    person who used it, and for one whose own role came by break-glass and awaits a review (`role_awaits_review`)."""
    target = ("break_glass", str(opened.pk))
    place = {"environment": opened.environment, "workload": opened.workload}
    with log.attempt(actor=actor, action="break_glass.review", target=target, reason=reason, **place):
        reasons.demand(actor, reason, "A review must say what was found")
        require_role(actor, Role.APPROVER, opened.environment, workload=opened.workload or None)
        if actor.user_id is None:
            raise SelfApproval("Only a person can review: use a session, or a key that belongs to a person.")
        if actor.user_id == opened.by_user_id:
            raise SelfApproval(f"{actor.label} bypassed the approval: somebody else must review it.")
        if role_awaits_review(actor.user_id):
            raise SelfApproval(
                f"{actor.label} got a role by break-glass that nobody has reviewed: somebody else must review this."
            )
        unreviewed = BreakGlass.objects.filter(pk=opened.pk, reviewed_at=None)
        if not unreviewed.update(reviewed_at=clock.now(), reviewed_by=actor.label):
            raise Conflict("It has already been reviewed.")
        opened.refresh_from_db()
        log.record(
            actor=actor,
            action="break_glass.review",
            target=target,
            reason=reason,
            evidence={"entry": str(opened.entry)},
            environment=opened.environment,
            workload=opened.workload,
        )
        sentence = f"{actor.label} has reviewed the break-glass of {opened.by_label}."
        outbox.emit(
            events.REVIEWED, sentence, environment=opened.environment, reason=reason, actor=actor.label
        )
    return opened


def role_awaits_review(user_id: str) -> bool:
    """Return whether this person got a role by break-glass that nobody has reviewed. Otherwise one person could make a
    second account an approver, and remove the banners of both with it."""
    granted = BreakGlass.objects.filter(action="membership.break_glass", target_kind="user", reviewed_at=None)
    return granted.filter(target_id=user_id).exists()


# --- shared helpers ------------------------------------------------------------------------------------


def receiver_fields(receiver: Receiver) -> dict[str, Any]:
    """Return a receiver's fields for the audit log, with fingerprints instead of secrets."""
    names = ("name", "kind", "address", "events", "environments", "enabled")
    try:
        kept = [{name: secret[name] for name in ("fingerprint", "until")} for secret in receiver.secrets]
    except (TypeError, KeyError):  # somebody wrote them by hand
        kept = [{"fingerprint": secrets.fingerprint(str(receiver.secrets)), "until": None}]
    sealed = secrets.fingerprint(receiver.sealed_address) if receiver.sealed_address else ""
    return {name: getattr(receiver, name) for name in names} | {"secrets": kept, "sealed_address": sealed}


def _record(action: str, receiver: Receiver, *, actor: Actor, reason: str, **sides: Any) -> None:
    log.record(actor=actor, action=action, target=("receiver", str(receiver.pk)), reason=reason, **sides)


def _locked(receiver: Receiver, expected: int | None) -> Receiver:
    found = Receiver.objects.select_for_update().get(pk=receiver.pk)
    if expected is not None and found.version != expected:
        raise StaleVersion(
            f"{found.name} has changed since you read it (version {expected}, now {found.version})."
        )
    return found


def _enabled(receiver: Receiver) -> Receiver:
    """Lock the receiver. Raise `Conflict` if it is disabled: nothing would be sent."""
    receiver = _locked(receiver, None)
    if not receiver.enabled:
        raise Conflict(f"{receiver.name} is disabled; enable it first.")
    return receiver


def _save(receiver: Receiver) -> None:
    receiver.version = F("version") + 1
    try:
        with transaction.atomic():
            receiver.save()
    except IntegrityError:
        raise AlreadyExists(f"There is already a receiver called {receiver.name!r}.") from None
    receiver.refresh_from_db()


def _set_address(receiver: Receiver, address: str) -> None:
    address = address.strip()
    match receiver.kind:
        case Receiver.Kind.EMAIL:
            receiver.address = _mail_address(address)
        case Receiver.Kind.SLACK:
            found = destinations.read(address)
            receiver.address = f"{found.scheme}://{found.authority}/…{found.path[-4:]}"
            receiver.sealed_address = seal(address)
        case Receiver.Kind.WEBHOOK:
            destinations.read(address)
            receiver.address = address
        case _:
            raise _invalid("kind", f"must be one of {', '.join(Receiver.Kind.values)}")


def _mail_address(address: str) -> str:
    if not settings.EMAIL_HOST_SET:
        raise _invalid("kind", "cannot be email, because EMAIL_URL is not set")
    try:
        validate_email(address)
    except ValidationError:
        raise _invalid("address", "must be an e-mail address") from None
    return address


def _refuse_bad_fields(
    name: str = "any", events: Sequence[str] = (), environments: Sequence[str] = ()
) -> None:
    if not name.strip() or len(name) > 80:
        raise _invalid("name", "must have 1 to 80 characters")
    if hidden := hidden_character(name):
        raise _invalid("name", f"contains an invisible character ({hidden})")
    if unknown := sorted(set(events) - set(_TYPES)):
        raise _invalid("events", f"must be among {', '.join(_TYPES)}, not {', '.join(unknown)}")
    if bad := [name for name in environments if not is_slug(name)]:
        raise _invalid("environments", f"must be names of environments, not {', '.join(bad)}")


_TYPES = events.TYPES


def _invalid(path: str, message: str) -> InvalidInput:
    return InvalidInput(f"The receiver is not valid: {path} {message}.", [{"path": path, "message": message}])
