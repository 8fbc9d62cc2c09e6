"""Scripts that call the admin API with a key."""

import json
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions
from controlplane.core.actors import SYSTEM


class Caller:
    """A script with an admin key: `caller("POST", "teams", {…})` sends it to /api/v1/teams."""

    def __init__(self, *scopes: str, environment: str = "", user: User | None = None, **fields: Any) -> None:
        self.key, self.text = actions.issue_key(
            "admin", environment, "script", actor=SYSTEM, scopes=scopes or ["admin"], user=user, **fields
        )
        self.client = Client(raise_request_exception=False)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.generic(
            method,
            f"/api/v1/{path}",
            data if body is not None else b"",
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.text}", **headers},
        )
