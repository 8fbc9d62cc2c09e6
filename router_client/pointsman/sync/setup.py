"""Recognise a wrong address or a wrong key from a response; waiting fixes neither."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.sync.connection import Connection
from pointsman.sync.transport import Answer

__all__ = ["snapshot_address", "wrong_setup"]

_KEYS: Mapping[str, str] = {
    "key_revoked": "the key was revoked. Issue another router key in the console, and give it as `key`",
    "key_expired": "the key has expired. Rotate it in the console, and give the new one as `key`",
}
_NO_KEY = (
    "the key is unknown there. Is it complete, and from this control plane? A router key begins with pmr_"
)


def snapshot_address(connection: Connection) -> str:
    """Return the address that is polled for snapshots."""
    return f"{connection.snapshots_url or connection.url}/router/v1/snapshot"


def wrong_setup(answer: Answer, connection: Connection) -> str | None:
    """Return what is wrong with the router's configuration and what to do; None if nothing is."""
    name = "url" if connection.snapshots_url is None else "snapshots_url"
    status, code = answer.status, answer.problem.get("code")
    if connection.snapshots_url is not None and status in (403, 404):
        return None  # a bucket in which nothing is published yet; it answers 403 if listing is not allowed
    if status == 401:
        what = _KEYS.get(str(code), _NO_KEY)
    elif status == 403:
        what = (
            "the key is not a router key. `key` takes one that begins with pmr_, of the environment to follow"
        )
    elif 300 <= status < 400 and status != 304:
        what = f"that redirects to {answer.location or 'elsewhere'}. Set `{name}` to the address that does not redirect"
    elif status in (404, 405, 410):
        what = (
            f"nothing there speaks the router protocol. `{name}` is the control plane's address, "
            "like https://pointsman.example, with the path of a proxy in front of it and nothing else"
        )
    elif status == 200 and answer.body.lstrip()[:1] == b"<":
        what = f"that is a web page, not a snapshot. Is `{name}` the address of a control plane?"
    else:
        return None
    return f"{answer.describe()} from {snapshot_address(connection)}: {what}"
