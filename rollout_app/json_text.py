"""A model field for JSON that is never queried."""

import json
from typing import Any

from django.db import models


class TextJSON(models.TextField):  # type: ignore[type-arg]  # Django's cannot be subscripted
    """JSON stored as text, for data that is never queried: PostgreSQL's jsonb would parse and print every number."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(value)

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, allow_nan=False)

    def to_python(self, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    def value_to_string(self, obj: models.Model) -> str:
        """Serialise for `dumpdata`, which would otherwise write Python notation; `to_python` reads it for
        `loaddata`.
        """
        return json.dumps(self.value_from_object(obj), allow_nan=False)
