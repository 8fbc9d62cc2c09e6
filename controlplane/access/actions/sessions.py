"""End the sessions of a person, also those of a sign-in that waits for its second factor."""

from django.contrib.auth.models import User

from controlplane.access.models import Session


def end_sessions_of(user: User) -> None:
    """Delete the person's sessions and waiting sign-ins."""
    Session.objects.filter(user_id=user.pk).delete()


def end_waiting_sign_ins_of(user: User) -> None:
    """Delete the sign-ins that wait for a second factor: the password that began them may be known to somebody else.

    A new password ends sessions by itself, because each contains a hash of the password.
    """
    Session.objects.filter(user_id=user.pk, signed_in=False).delete()
