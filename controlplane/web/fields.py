"""Fields of /api/v1 that every serializer takes from here."""

from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers


class ZonedDateTimeField(serializers.DateTimeField):
    """A time with its zone. One without is refused: the sender's noon is not the server's."""

    default_error_messages = {
        "naive": "A time needs its zone: end it with Z, or with an offset such as +02:00."
    }

    def enforce_timezone(self, value: datetime) -> Any:
        if timezone.is_naive(value):
            self.fail("naive")
        return super().enforce_timezone(value)
