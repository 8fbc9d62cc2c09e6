"""Any request to a router endpoint is answered; if it is refused, with a 4xx that gives the reason. Everything
acknowledged is stored.

One round sends 4,000 requests to the ASGI application; `make fuzz` sends more, with other seeds.
"""

import asyncio
import json
import os
import random
from collections import Counter
from contextlib import nullcontext
from functools import partial
from typing import Any

from django.db.models import Sum

from controlplane.server.gateway import Gateway
from controlplane.server.messages import Application
from controlplane.web.replies import Reply, Request, json_reply
from rollout_app.models import AcceptedBatch, Feedback, OutcomeBucket
from tests.dataplane.test_every_endpoint import ENDPOINTS
from tests.support.plane import Served
from tests.support.raw_requests import Mutator, Raw, Told, ask

REQUESTS = 4_000  # per round
AT_ONCE = 40
SEED = int(os.environ.get("FUZZ_SEED", 12))
LATER = {"clock_ahead"}  # a minute in the future is refused only for now


class Counted:
    """What the acknowledgements promise: tasks by batch, feedback items."""

    def __init__(self) -> None:
        self.tasks: dict[str, int] = {}
        self.words: set[tuple[str, str]] = set()
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    def note(self, raw: Raw, told: Told) -> None:
        self.answers[f"{told.status}"] += 1
        if told.status == 202:
            self._promised(raw)
        elif told.status >= 400 and raw.method != "HEAD" and not self._says_why(told):
            self.wrong.append(f"{told.status} {told.headers} {told.body[:200]!r}: {raw}")

    def _says_why(self, told: Told) -> bool:
        if b"json" not in told.headers.get(b"content-type", b"") or told.code in ("", "internal"):
            return False
        return told.status < 500 or told.code in LATER

    def _promised(self, raw: Raw) -> None:
        document = json.loads(raw.body)
        for bucket in document.get("buckets", []):
            self.tasks.setdefault(f"b:{document['batch_id'].lower()}", 0)
            self.tasks[f"b:{document['batch_id'].lower()}"] += bucket["tasks"]
        for event in document.get("events", []):
            self.tasks[f"e:{event['event_id']}"] = 1
        self.words |= {(word["decision_id"], word["kind"]) for word in document.get("feedback", [])}


async def _behind(request: Request) -> Reply:
    return Reply(404, [(b"content-type", b"application/problem+json")], b'{"code": "behind"}')


async def _round(served: Served, counted: Counted) -> None:
    gateway = Gateway(_behind)
    application = Application(gateway.answer, nullcontext)
    name = served.assignment.workload.name
    endpoints = {p + d.query.format(name): (d.method, partial(d.body, served)) for p, d in ENDPOINTS.items()}
    mutator = Mutator(random.Random(SEED), served.key, endpoints)

    async def one(raw: Raw) -> None:
        try:
            counted.note(raw, await ask(application, raw))
        except Exception as error:
            counted.wrong.append(f"{error!r}: {raw}")

    await gateway.start()
    try:
        for _ in range(REQUESTS // AT_ONCE):
            await asyncio.gather(*(one(mutator.draw()) for _ in range(AT_ONCE)))
    finally:
        await gateway.stop()


def test_everything_is_answered_and_everything_acknowledged_is_stored(served: Served) -> None:
    counted = Counted()
    asyncio.run(_round(served, counted))
    print(f"seed {SEED}: {sum(counted.answers.values())} requests, {dict(sorted(counted.answers.items()))}")
    assert not counted.wrong, "\n\n".join(one[:1_500] for one in counted.wrong[:20])
    assert sum(counted.answers.values()) == REQUESTS // AT_ONCE * AT_ONCE
    kept: set[Any] = set(AcceptedBatch.objects.values_list("batch", flat=True))
    assert kept >= counted.tasks.keys()
    assert OutcomeBucket.objects.aggregate(Sum("tasks"))["tasks__sum"] == sum(counted.tasks.values())
    assert Feedback.objects.count() == len(counted.words)
    assert counted.answers["202"] > REQUESTS / 20, "too few are accepted"


def test_a_path_with_a_lone_surrogate_can_be_echoed() -> None:
    """Some servers let a lone surrogate into the path."""
    assert json.loads(json_reply(404, {"key": "\ud800"}).body) == {"key": "\ud800"}
