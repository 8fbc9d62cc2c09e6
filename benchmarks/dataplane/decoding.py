"""The limit of ingest: an ASGI application that reads and decodes a batch, answers 202, and keeps nothing."""

from typing import Any

from rollout_app.batches import read_batch

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"15")]
ACCEPTED = {"type": "http.response.start", "status": 202, "headers": HEADERS}
BODY = {"type": "http.response.body", "body": b'{"accepted":10}'}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
        return
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    if scope["method"] == "POST":
        read_batch(b"".join(pieces))
    await send(ACCEPTED)
    await send(BODY)
