"""Serializer fields used throughout /api/v1."""

from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from controlplane.core.names import validate_text


class ZonedDateTimeField(serializers.DateTimeField):
    """A time with a time zone. A naive time is refused: the sender's noon is not the server's."""

    default_error_messages = {
        "naive": "A time needs its zone: end it with Z, or with an offset such as +02:00."
    }

    def enforce_timezone(self, value: datetime) -> Any:
        if timezone.is_naive(value):
            self.fail("naive")
        return super().enforce_timezone(value)


class ReasonField(serializers.CharField):
    """The reason for a change: accepted by every write, kept in the audit log, never returned."""

    def __init__(self, **kwargs: Any) -> None:
        options: dict[str, Any] = {"required": False, "default": "", "allow_blank": True} | kwargs
        options["validators"] = [validate_text]
        if options["required"]:
            del options["default"]
        super().__init__(write_only=True, max_length=2_000, help_text="why; kept in the audit log", **options)
