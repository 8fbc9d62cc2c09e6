"""The limit of ingest: an application that reads and decodes a batch, answers 202, and stores nothing."""

import os
from contextlib import nullcontext

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup(set_prefix=False)

from controlplane.server.bodies import Bodies  # noqa: E402 — needs the settings
from controlplane.server.messages import Application  # noqa: E402
from controlplane.web.replies import Reply, Request, json_reply  # noqa: E402
from rollout_app.outcomes.schemas import read_batch  # noqa: E402

ACCEPTED = json_reply(202, {"accepted": 10})
LIMIT = 1024 * 1024  # bytes
bodies = Bodies()


async def answer(request: Request) -> Reply:
    body = await bodies.read(request, LIMIT)
    if request.method == "POST":
        read_batch(body)
    return ACCEPTED


application = Application(answer, nullcontext)
