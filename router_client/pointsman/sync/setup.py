"""What an answer says of the router's own set-up: a wrong address, a wrong key. Waiting mends neither."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.sync.connection import Connection
from pointsman.sync.transport import Answer

__all__ = ["snapshot_address", "wrong_setup"]

_KEYS: Mapping[str, str] = {
    "key_revoked": "the key was revoked. Issue another router key in the console, and give it as `key`",
    "key_expired": "the key has expired. Rotate it in the console, and give the new one as `key`",
}
_NO_KEY = "the key is not known there. Is it of this control plane, and whole? A router key begins with pmr_"


def snapshot_address(connection: Connection) -> str:
    """Where snapshots are asked for."""
    return f"{connection.snapshots_url or connection.url}/router/v1/snapshot"


def wrong_setup(answer: Answer, connection: Connection) -> str | None:
    """What is wrong, where, and what to do about it; None where the answer blames nothing of the router's set-up."""
    name = "url" if connection.snapshots_url is None else "snapshots_url"
    status, code = answer.status, answer.problem.get("code")
    if connection.snapshots_url is not None and status in (403, 404):
        return None  # a bucket in which nothing is published yet; one that may not be listed says 403
    if status == 401:
        what = _KEYS.get(str(code), _NO_KEY)
    elif status == 403:
        what = (
            "the key is not a router key. `key` takes one that begins with pmr_, of the environment to follow"
        )
    elif 300 <= status < 400 and status != 304:
        what = f"that redirects to {answer.location or 'elsewhere'}. Give `{name}` as the address that answers itself"
    elif status in (404, 405, 410):
        what = (
            f"nothing there speaks the router protocol. `{name}` is the control plane's address, "
            "like https://pointsman.example, with the path of a proxy in front of it and nothing else"
        )
    elif status == 200 and answer.body.lstrip()[:1] == b"<":
        what = f"that is a web page and no snapshot. Is `{name}` the address of a control plane?"
    else:
        return None
    return f"{answer.describe()} from {snapshot_address(connection)}: {what}"
