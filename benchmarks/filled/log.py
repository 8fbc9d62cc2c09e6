"""A long audit log: a chain that passes `audit verify`, without the effects of its entries."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.audit import chain
from controlplane.audit.entries import HEAD, columns
from controlplane.audit.models import Entry, Head
from rollout_app.models import Rollout

_ACTIONS = ("rollout.advance", "rollout.hold", "rollout.approve", "rollout.roll_back", "session.begin")
_AT_ONCE = 2_000


def insert_entries(many: int, environment: str, rollouts: Sequence[Rollout], now: datetime) -> None:
    """Insert entries of forty people about these rollouts, one second apart."""
    head = Head.objects.get(pk=HEAD)
    for first in range(0, many, _AT_ONCE):
        rows = []
        for n in range(first, min(first + _AT_ONCE, many)):
            at = now + timedelta(seconds=n)
            body = _body(n, environment, rollouts[n % len(rollouts)])
            body |= {"v": chain.VERSION, "chain": head.chain, "seq": head.seq + 1, "ts": chain.timestamp(at)}
            kept = chain.canonical(body)
            linked = chain.link(head.hash, kept)
            rows.append(
                Entry(seq=head.seq + 1, body=kept, prev_hash=head.hash, hash=linked, at=at, **columns(body))
            )
            head.seq, head.hash = head.seq + 1, linked
        Entry.objects.bulk_create(rows, batch_size=500)
    head.save(update_fields=["seq", "hash"])


def _body(n: int, environment: str, rollout: Rollout) -> dict[str, Any]:
    person, action = f"person-{n % 40}", _ACTIONS[n % len(_ACTIONS)]
    of_rollout = action.startswith("rollout")
    return {
        "actor": {"kind": "user", "id": str(n % 40), "label": person, "user_id": str(n % 40)},
        "action": action,
        "target": {"kind": "rollout", "id": str(rollout.pk)} if of_rollout else {"kind": "user", "id": person},
        "environment": environment if of_rollout else "",
        "workload": rollout.workload.name if of_rollout else "",
        "reason": "A cheaper model does as well here.",
        "outcome": "refused" if n % 50 == 0 else "done",
        "diff": [{"path": "/stage", "before": 1, "after": 2}, {"path": "/version", "before": 4, "after": 5}],
        "before_sha256": None,
        "after_sha256": None,
        "evidence": {"verdicts": [{"name": "failure", "result": "pass", "estimate": "0.01"}]},
        "approvals": None,
        "request_id": f"{n:032x}",
        "source": "",
    }  # fmt: skip
