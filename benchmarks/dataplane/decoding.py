"""The limit of ingest: an application that reads and decodes a batch, answers 202, and keeps nothing."""

from controlplane.server.bodies import Bodies
from controlplane.web.replies import Reply, Request, json_reply
from rollout_app.outcomes.schemas import read_batch

ACCEPTED = json_reply(202, {"accepted": 10})
LIMIT = 1024 * 1024  # bytes
bodies = Bodies()


async def application(request: Request) -> Reply:
    body = await bodies.read(request, LIMIT)
    if request.method == "POST":
        read_batch(body)
    return ACCEPTED
