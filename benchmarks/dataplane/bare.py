"""The limit: an ASGI application that answers 304 or a body from memory and does nothing else."""

import os
from typing import Any

BODY = b"x" * int(os.environ.get("BARE_BODY", "2000"))
TAG = b'"limit"'
HEADERS = [
    (b"etag", TAG),
    (b"cache-control", b"private, max-age=1"),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
]
UNCHANGED = {"type": "http.response.start", "status": 304, "headers": HEADERS[:2]}
FULL = {"type": "http.response.start", "status": 200, "headers": HEADERS}
NOTHING = {"type": "http.response.body", "body": b""}
WHOLE = {"type": "http.response.body", "body": BODY}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
    elif dict(scope["headers"]).get(b"if-none-match") == TAG:
        await send(UNCHANGED)
        await send(NOTHING)
    else:
        await send(FULL)
        await send(WHOLE)
