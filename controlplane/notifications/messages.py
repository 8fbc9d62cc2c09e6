"""Render notifications for receivers: JSON according to Standard Webhooks 1.0, a Slack message, an e-mail."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from standardwebhooks import Webhook

from controlplane.audit import chain
from controlplane.notifications.models import Notification

_ADDRESSES = {
    "rollout": "/console/rollouts/{}/",
    "workload": "/console/workloads/{}/",
    "environment": "/console/fleet/{}/",
    "change_request": "/console/changes/{}/",
    "user": "/console/people/{}/",
}


def body(notification: Notification) -> bytes:
    """Return `{"type", "timestamp", "data"}` (standardwebhooks.com, payload structure)."""
    data = {**notification.data, "url": address(notification)}
    document = {"type": notification.type, "timestamp": chain.timestamp(notification.at), "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def headers(
    notification: Notification, content: bytes, secrets: Sequence[str], at: datetime
) -> dict[str, str]:
    """Return the headers, with one signature per active secret, newest first: during a rotation a receiver may hold
    either secret."""
    identity = str(notification.pk)
    text = content.decode()
    signatures = [Webhook(secret).sign(msg_id=identity, timestamp=at, data=text) for secret in secrets]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def slack(notification: Notification) -> bytes:
    """Return plain text in which Slack sees no mentions or links (docs.slack.dev, formatting text)."""
    escaped = text(notification).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": escaped[:3_000], "mrkdwn": False}).encode()


def subject(notification: Notification) -> str:
    """Return one line, so that the text cannot start another mail header."""
    return f"[Pointsman] {' '.join(notification.data['sentence'].split())}"[:200]


def text(notification: Notification) -> str:
    data: Mapping[str, Any] = notification.data
    lines = [data["sentence"]]
    if reason := data.get("reason"):
        lines.append(f"Reason: {reason}")
    if note := data.get("note"):
        lines.append(str(note))
    if url := address(notification):
        lines.append(url)
    return "\n".join(lines)


def address(notification: Notification) -> str:
    """Return the URL of the page about it; without PUBLIC_URL only the path, since the host is unknown."""
    data = notification.data
    target = data.get("target") or {}
    path = _ADDRESSES.get(target.get("kind", ""), "").format(target.get("id", ""))
    if not path and "entry" in data:
        path = f"/console/audit/{data['entry']}/"
    return f"{settings.PUBLIC_URL.rstrip('/')}{path}" if path else ""
